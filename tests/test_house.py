"""The house's own rules: how its files are written, what may import what, and what the page gets by without."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grimp
from packaging.requirements import Requirement

from engine.scene.engines import ENGINES
from engine.scene.metrics import METRICS
from tests.live import lacking

BIOME = "@biomejs/biome@2.6.8"  # formats and checks the page's scripts, as assets/web/biome.json says
# What the built page loads of the model's rooms: what it is told of an engine, a checkpoint and a card. None of it
# needs the model's libraries. Importing the server loads none at all.
KNOWN_TO_THE_PAGE = {
    "engine.a2", "engine.a2.engine", "engine.a2.files", "engine.a2.geometry", "engine.a2.models", "engine.a2.needed",
    "engine.a2.options", "engine.a2.phases", "engine.a2.wan_names",
    "engine.memory", "engine.memory.hardware", "engine.memory.host", "engine.memory.weights",
}  # fmt: skip


# Words with which a sentence about a thing begins. A function does something: its docstring says what.
NO_VERBS = """
    a all an and another any anything as at because before besides both by bytes each either every
    everybody everything for from here how if in into it its json later less like many more most much
    neither nobody none not nothing of on once one only others our per room seconds several so some
    somebody something such than that the their them then there these they things this those to too two
    until up what whatever when where whether which while who whoever whole whose why with within
    without
"""


def check(repo: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, encoding="utf-8", timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types(repo):
    check(repo, sys.executable, "-m", "mypy")


def test_nothing_points_back_and_there_is_no_circle_of_imports(repo):
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    check(repo, sys.executable, "-c", code)


def rooms_of(table: Mapping[str, str]) -> set[str]:
    """The packages in `engine` that a table of engines or metrics names."""
    return {module.split(".")[1] for module in table.values()}


def test_every_room_of_the_engine_stands_on_a_floor(repo):
    """Those that the contract lists by name; an engine's own, or a metric's, beside a2: on what is below, imported by
    nobody."""
    rules = tomllib.loads((repo / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    floors = next(each["layers"] for each in rules["contracts"] if each["name"] == "The floors of the engine")
    rooms = [[room.strip() for room in floor.split("|")] for floor in floors]
    below = {room for floor in rooms[rooms.index(["a2", "cutout", "draft"]) + 1 :] for room in floor}
    here = {
        path.stem for path in (repo / "engine").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    unlisted = here - {room for floor in rooms for room in floor} - {"__init__"}
    assert unlisted <= rooms_of(ENGINES) | rooms_of(METRICS), "a new room: give it a floor in pyproject.toml"
    graph = grimp.build_graph("app", "engine", cache_dir=None)
    for room in unlisted:
        modules = {f"engine.{room}", *graph.find_descendants(f"engine.{room}")}
        above = (
            {name for each in modules for name in graph.find_modules_directly_imported_by(each)} - modules - {"engine"}
        )
        assert {name.split(".")[1] for name in above} <= below
        assert {name for each in modules for name in graph.find_modules_that_directly_import(each)} <= modules


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


def definitions(repo: Path, *kinds: type) -> Iterator[tuple[str, Any]]:
    """Every definition of these kinds in what ships, with where it stands."""
    for path in sorted([repo / "launch.py", *(repo / "app").rglob("*.py"), *(repo / "engine").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds):
                yield f"{path.relative_to(repo).as_posix()}:{node.lineno}", node


def test_no_class_name_means_two_things(repo):
    places: dict[str, list[str]] = {}
    for place, node in definitions(repo, ast.ClassDef):
        places.setdefault(node.name, []).append(place)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_docstrings_of_functions_begin_with_a_verb(repo):
    found = []
    for place, node in definitions(repo, ast.FunctionDef, ast.AsyncFunctionDef):
        is_value = {"property", "cached_property"} & {getattr(each, "id", "") for each in node.decorator_list}
        first = (ast.get_docstring(node) or "").split()[:1]
        if not is_value and first and first[0].strip(".,:;`'\"").lower() in NO_VERBS.split():
            found.append(f"{place} {node.name}: {' '.join(first)} …")
    assert found == []


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
