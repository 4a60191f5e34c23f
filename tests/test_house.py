"""The house's own rules: how its files are written, what may import what, and what the page gets by without."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from tests.live import lacking

BIOME = "@biomejs/biome@2.6.8"  # formats and checks the page's scripts, as assets/web/biome.json says
# What the built page loads of the model's rooms: what it is told of an engine, a checkpoint and a card. None of it
# needs the model's libraries. Importing the server loads none at all.
KNOWN_TO_THE_PAGE = {
    "engine.a2", "engine.a2.engine", "engine.a2.files", "engine.a2.geometry", "engine.a2.options", "engine.a2.phases",
    "engine.memory", "engine.memory.hardware", "engine.memory.host", "engine.memory.weights",
}  # fmt: skip


def check(repo: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, encoding="utf-8", timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types(repo):
    check(repo, sys.executable, "-m", "mypy")


def test_nothing_points_back_and_there_is_no_circle_of_imports(repo):
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    check(repo, sys.executable, "-c", code)


def loaded_by(repo: Path, code: str) -> set[str]:
    """The names of all modules that are there after some code."""
    code = f"import json, sys; {code}\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, stdout=subprocess.PIPE, timeout=600, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def of_the_model(loaded: set[str]) -> set[str]:
    return {name for name in loaded if name.split(".")[:2] in (["engine", "a2"], ["engine", "memory"])}


def test_the_server_loads_nothing_of_the_model_s_rooms(repo):
    assert of_the_model(loaded_by(repo, "import app.start, app.server")) == set()


def test_page_and_server_load_nothing_of_the_model_s_libraries_and_no_more_of_its_rooms(repo, tmp_path):
    outputs = str(tmp_path / "outputs")
    loaded = loaded_by(
        repo, f"from pathlib import Path; from tests.live import serving\nwith serving(Path({outputs!r})): pass\n"
    )
    rules = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    forbidden = [contract.get("forbidden_modules", []) for contract in rules["contracts"]]
    (libraries,) = [modules for modules in forbidden if "torch" in modules]
    assert not loaded & set(libraries)
    assert of_the_model(loaded) == KNOWN_TO_THE_PAGE


def test_the_tested_set_has_a_version_of_each_requirement_within_its_range(repo):
    lines = (repo / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    for file in sorted(repo.glob("requirements*.txt")):
        for line in file.read_text(encoding="utf-8").splitlines():
            wanted = Requirement(line.split("#")[0])
            found = tested.get(wanted.name.lower().replace("_", "-"), "none")
            assert wanted.specifier.contains(found), f"{file.name}: {line}, tested with {found}"


def test_the_page_s_scripts(repo):
    npx = shutil.which("npx")
    if not npx:
        lacking("no npx here: install Node.js to check the page's scripts")
    biome = [npx, "--yes", BIOME]
    found = subprocess.run([*biome, "--version"], cwd=repo, capture_output=True, text=True, timeout=600)
    if found.returncode:
        lacking(f"{BIOME} cannot be had here: {found.stderr[-300:]}")
    check(repo / "assets" / "web", *biome, "ci", "--error-on-warnings", "--colors=off", ".")
