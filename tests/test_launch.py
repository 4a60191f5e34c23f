"""The first start, the second, and those that were interrupted: on a copy with tiny requirements, offline."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import launch
from app import port as ports
from app.guard.access import Terms
from app.start import serve_on_free_port
from engine.disk.lock import FileLock
from engine.errors import TroupeError
from engine.installing import pip_environment, satisfied

TELLS = """
import json, os, sys
def main(argv):
    import tiny
    print(json.dumps({"argv": argv, "prefix": sys.prefix, "version": tiny.VERSION, "cwd": os.getcwd(),
                      "utf8": sys.flags.utf8_mode}))
    return 7
"""
SERVES = """
def serve(host, port, share, browser, outputs, terms):
    print("serving", host, port, share, browser, outputs)
"""
OWN_FOLDER = "[install]\nuser = true\nno-deps = true\n"  # a person's settings of pip
RUNS = "import sys; print('RUN {name}', sys.argv[1:]); sys.exit({status})"


def make_wheel(folder: Path, name: str, version: str, code: str) -> None:
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    files = {
        f"{stem.removeprefix('troupe_')}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{stem}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        make_wheel(folder, "troupe-tiny", version, f"VERSION = {version!r}\n")
    make_wheel(folder, "ruff", "1.0", RUNS.format(name="ruff", status=0))
    make_wheel(folder, "pytest", "1.0", RUNS.format(name="pytest", status=5))
    return folder


class Copy:
    """Troupe's launch.py in a folder of its own, where the rest of the house is a cardboard front."""

    def __init__(self, folder: Path, wheels: Path, repo: Path) -> None:
        self.folder, self.wheels = folder, wheels
        self.venv = folder / ".venv"
        if not folder.exists():
            for file in (
                "launch.py", "app/address.py", "app/port.py", "app/start.py", "app/guard/access.py", "app/jobs/lock.py",
                "engine/children.py", "engine/disk/lock.py", "engine/disk/room.py", "engine/errors.py",
                "engine/installing.py", "engine/surroundings.py", "engine/words.py",
            ):  # fmt: skip
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repo / file, folder / file)
            (folder / "engine" / "door").mkdir()
            (folder / "engine" / "door" / "command.py").write_text(TELLS)
            (folder / "app" / "server.py").write_text(SERVES)
            (folder / "requirements.txt").write_text("troupe-tiny>=1,<2  # small\n")
            (folder / "requirements-dev.txt").write_text("ruff\npytest\n")

    def command(self, *arguments: str, python: str = sys.executable) -> list[str]:
        return [python, str(self.folder / "launch.py"), *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "SPACE", "GRADIO_"))}
        wheels = self.wheels.as_uri()  # pip splits its variable at spaces
        return {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels, **more}

    def run(self, *arguments: str, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments, python=python), env=self.environment(**environment),
            capture_output=True, text=True, timeout=600, cwd=self.folder.parent,
        )  # fmt: skip

    def renders(self, **environment: str) -> tuple[dict, str]:
        done = self.run("render", "a b", "-o", "c", **environment)
        assert done.returncode == 7, done.stderr
        told = json.loads(done.stdout)
        assert Path(told["prefix"]).resolve() == self.venv.resolve()
        return told, done.stderr


@pytest.fixture
def fresh(tmp_path: Path, wheels: Path, repo: Path) -> Copy:
    return Copy(tmp_path / "Troupe's home", wheels, repo)


@pytest.fixture(scope="module")
def first_start(tmp_path_factory, wheels: Path, repo: Path) -> tuple[Copy, dict, str]:
    copy = Copy(tmp_path_factory.mktemp("first") / "troupe", wheels, repo)
    return (copy, *copy.renders())


@pytest.fixture
def ready(first_start, tmp_path: Path, wheels: Path, repo: Path) -> Copy:
    folder = tmp_path / "troupe"
    shutil.copytree(first_start[0].folder, folder, symlinks=True, copy_function=link_or_copy)
    return Copy(folder, wheels, repo)


@pytest.fixture
def lacking(ready: Copy) -> Copy:
    """As after the first half of a first start: .venv is there and works, and has nothing of the requirements."""
    (ready.venv / launch.STAMP.name).unlink()
    next(ready.venv.rglob("tiny.py")).unlink()
    shutil.rmtree(next(ready.venv.rglob("troupe_tiny-*")))
    return ready


def link_or_copy(source: str, target: str) -> None:
    """pip's thousand files are only read: links save the disk some seconds."""
    if "pip" in Path(source).parts:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


# ---------------------------------------------------------------------------
# First and second start


def test_the_first_start_installs_and_goes_on_inside(first_start):
    copy, told, said = first_start
    assert told["argv"] == ["a b", "-o", "c"]
    assert told["cwd"] == str(copy.folder.parent)  # paths on the command line are the person's
    assert told["version"] == "1.0"
    assert told["utf8"]  # the libraries of the model read files' names in no other way
    assert "making .venv" in said
    assert "Installing" in said


def test_the_second_start_says_nothing_and_needs_no_network(ready):
    _, said = ready.renders(PIP_FIND_LINKS="")
    assert said == ""


def test_the_python_inside_can_be_used_directly(ready):
    inside = ready.venv / launch.PYTHON.relative_to(launch.VENV)
    done = ready.run("render", python=str(inside))
    assert (done.returncode, done.stderr) == (7, "")


def test_pip_s_variables_cannot_send_the_requirements_elsewhere(fresh, tmp_path):
    places = {f"PIP_{name}": str(tmp_path / "elsewhere") for name in ("TARGET", "PREFIX", "ROOT")}
    (tmp_path / "pip.conf").write_text(OWN_FOLDER)
    fresh.renders(**places, PIP_DRY_RUN="1", PIP_NO_DEPS="1", PIP_USER="1", PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))
    assert not (tmp_path / "elsewhere").exists()
    assert fresh.renders(PIP_FIND_LINKS="")[1] == ""


@pytest.mark.parametrize("option", ["TARGET", "PREFIX", "ROOT", "DRY_RUN", "NO_DEPS", "USER"])
def test_each_of_pip_s_variables_is_taken_out_or_overruled(monkeypatch, option):
    monkeypatch.setenv(f"PIP_{option}", "1")
    assert pip_environment().get(f"PIP_{option}") == ("0" if option in ("DRY_RUN", "NO_DEPS", "USER") else None)


def test_what_lies_on_python_s_path_does_not_count_as_installed(lacking, tmp_path, wheels):
    with zipfile.ZipFile(next(wheels.glob("troupe_tiny-1.0*"))) as wheel:
        wheel.extractall(tmp_path / "path")
    make_wheel(wheels, "troupe-more", "1.0", "")
    (lacking.folder / "requirements.txt").write_text("troupe-tiny>=1,<2\ntroupe-more\n")
    lacking.renders(PYTHONPATH=str(tmp_path / "path"))
    assert lacking.renders(PIP_FIND_LINKS="")[1] == ""


@pytest.mark.skipif(os.name == "nt", reason="its user folder is elsewhere")
def test_pip_s_own_settings_that_send_them_elsewhere_are_named_and_nothing_stays_broken(lacking, tmp_path):
    (tmp_path / "pip.conf").write_text(f"[install]\ntarget = {tmp_path / 'elsewhere'}\nuser = false\n")
    done = lacking.run("render", PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))
    assert done.returncode == 1
    assert "a setting of pip's sends it elsewhere" in done.stderr
    assert not (lacking.venv / launch.STAMP.name).exists()
    lacking.renders()


def test_pip_s_settings_for_the_user_s_own_folder_do_no_harm(lacking, tmp_path):
    (tmp_path / "pip.conf").write_text(OWN_FOLDER)
    lacking.renders(PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))


@pytest.mark.parametrize("options", [["-P"], ["-I"], []])
def test_python_s_safe_path_keeps_nothing_from_being_found(ready, options):
    safe = {} if options else {"PYTHONSAFEPATH": "1"}
    command = [sys.executable, *options, str(ready.folder / "launch.py"), "render"]
    done = subprocess.run(command, env=ready.environment(**safe), capture_output=True, text=True, timeout=600)
    assert done.returncode == 7, done.stderr


def test_serve_is_what_happens_without_a_word(ready):
    done = ready.run("--no-browser", "--outputs", "mine", "--share", "--host", "127.0.0.1")
    assert done.returncode == 0
    words = done.stdout.splitlines()[-1].split(" ", 5)
    assert words[:2] + words[3:5] == ["serving", "127.0.0.1", "True", "False"]
    assert words[5] == str(ready.folder.parent / "mine")
    assert ready.run("serve", "--no-browser").stdout.strip().endswith(f" {ready.folder / 'outputs'}")


def test_an_environment_that_has_the_requirements_is_used_as_it_is(fresh):
    (fresh.folder / "requirements.txt").write_text(
        "pytest>=8  # this one has it\npydantic\nnever; python_version < '3'\n"
    )
    (fresh.folder / "engine" / "door" / "command.py").write_text(
        "def main(argv):\n    import sys; print(sys.prefix); return 0\n"
    )
    done = fresh.run("render", PIP_FIND_LINKS="")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, sys.prefix, "")
    assert not fresh.venv.exists()


@pytest.mark.parametrize("line", ["pytest>=1000", "troupe-tiny", "pytest>=8\ntroupe-tiny"])
def test_an_environment_that_lacks_something_is_not(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(line)
    assert not satisfied([tmp_path / "requirements.txt"])


def test_a_persons_own_venv_is_trusted_when_it_has_everything(ready):
    (ready.venv / "troupe.json").unlink()
    _, said = ready.renders(PIP_FIND_LINKS="")
    assert said == ""
    assert (ready.venv / "troupe.json").exists()


def test_test_installs_its_tools_and_runs_both(ready):
    done = ready.run("test", "-k", "some thing")
    runs = [line for line in done.stdout.splitlines() if line.startswith("RUN")]
    assert runs == ["RUN ruff ['format', '--check', '.']", "RUN ruff ['check', '.']", "RUN pytest ['-k', 'some thing']"]
    assert done.returncode == 5
    again = ready.run("test", PIP_FIND_LINKS="")
    assert "Installing" not in again.stderr
    assert ready.renders(PIP_FIND_LINKS="")[1] == ""


def test_the_cut_out_weights_are_fetched_once_and_never_fatal(ready):
    (ready.folder / "engine" / "cutout").mkdir()
    (ready.folder / "engine" / "cutout" / "__main__.py").write_text("import sys; sys.exit('weights: no network')")
    (ready.folder / "requirements.txt").write_text("troupe-tiny>=2\n")
    assert "weights: no network" in ready.renders()[1]
    assert ready.renders()[1] == ""


# ---------------------------------------------------------------------------
# Unfinished, changed, broken


@pytest.mark.skipif(os.name == "nt", reason="kills a process group")
def test_a_killed_first_start_is_finished_by_one_of_two_later_ones_at_once(fresh):
    process = subprocess.Popen(
        fresh.command("render"), env=fresh.environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        for line in process.stderr:
            if "Installing requirements" in line:
                os.killpg(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    with held(fresh.venv / "troupe.lock"):
        starts = [
            subprocess.Popen(
                fresh.command("render"), env=fresh.environment(),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        assert all("waiting for it" in start.stderr.readline() for start in starts)
    said = "".join(start.communicate(timeout=600)[1] for start in starts)
    assert [start.returncode for start in starts] == [7, 7]
    for words in ("anew: it was not finished", "Installing requirements"):
        assert said.count(words) == 1


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """As by a third start that is at work, so that neither of two can be through before the other begins."""
    with FileLock(lock, patience=60):  # what was killed may still be dying
        yield


def test_an_unfinished_install_is_not_trusted_even_if_it_looks_whole(ready):
    (ready.venv / "troupe.json").replace(ready.venv / "troupe-unfinished")
    site = next(ready.venv.rglob("tiny.py"))
    site.write_text("VERSION = 'half a fi")
    told, _ = ready.renders()
    assert told["version"] == "1.0"


def test_changed_requirements_are_installed_into_the_same_place(ready):
    (ready.venv / "mine").write_text("kept")
    (ready.folder / "requirements.txt").write_text("troupe-tiny>=2\n")
    told, said = ready.renders()
    assert told["version"] == "2.0"
    assert "Installing" in said
    assert (ready.venv / "mine").exists()


def test_requirements_that_still_fit_install_nothing(ready):
    (ready.folder / "requirements.txt").write_text("troupe-tiny>=0.5,<3\n")
    assert ready.renders(PIP_FIND_LINKS="")[1] == ""


def test_an_environment_without_its_python_is_not_trusted(ready, monkeypatch):
    python = ready.venv / launch.PYTHON.relative_to(launch.VENV)
    for name, path in (("HERE", ready.folder), ("PYTHON", python), ("STAMP", ready.venv / "troupe.json")):
        monkeypatch.setattr(launch, name, path)
    assert launch.stamped(dev=False)
    assert launch.ask(dev=False) == "ready"
    python.unlink()
    assert not launch.stamped(dev=False)
    assert launch.ask(dev=False) == "broken"


@pytest.mark.parametrize("content", [b"\x7fELF of another machine", b"#!/bin/sh\nexit 1\n"])
def test_a_python_that_does_not_run_makes_an_environment_broken(tmp_path, monkeypatch, content):
    python = tmp_path / "python.exe"
    python.write_bytes(content)
    python.chmod(0o755)
    monkeypatch.setattr(launch, "PYTHON", python)
    assert launch.ask(dev=False) == "broken"


def test_a_python_that_was_exchanged_below_the_environment_is_noticed(ready):
    stamp = json.loads((ready.venv / "troupe.json").read_text())
    (ready.venv / "troupe.json").write_text(json.dumps({**stamp, "python": "3.10"}))
    ready.renders(PIP_FIND_LINKS="")
    assert json.loads((ready.venv / "troupe.json").read_text()) == stamp


# ---------------------------------------------------------------------------
# One plain line


def one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    *progress, last = done.stderr.splitlines()
    assert last.startswith("troupe: ")
    assert not any(line.startswith("troupe: ") for line in progress)
    return last


def test_no_network_says_so(ready):
    (ready.folder / "requirements.txt").write_text("troupe-tiny>=2\n")
    done = ready.run(
        "render", PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_RETRIES="1", PIP_INDEX_URL="https://127.0.0.1:9/"
    )
    assert "no network" in one_line(done)


def test_a_requirement_that_is_nowhere_is_named(ready):
    (ready.folder / "requirements.txt").write_text("troupe-tiny>=3\n")
    line = one_line(ready.run("render"))
    assert "troupe-tiny>=3" in line
    assert "Check the network and pip's settings" in line


def test_being_asked_about_a_list_that_is_not_there_is_no_fault(ready):
    done = ready.run("--satisfied", "nowhere.txt")
    assert (done.returncode, done.stderr) == (3, "")


def test_a_copy_without_its_list_says_so(fresh):
    (fresh.folder / "requirements.txt").unlink()
    assert "requirements.txt is not in" in one_line(fresh.run("render"))
    assert not fresh.venv.exists()


# ---------------------------------------------------------------------------
# Ended from outside

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
HEAR = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"  # pytest & may not


def ends(copy: Copy, number: int, when: str, said: str = "") -> str:
    """Start `render` inside, send it the signal when the file `when` is there; what it said."""
    inside = copy.venv / launch.PYTHON.relative_to(launch.VENV)
    command = [sys.executable, "-c", f"{HEAR} os.execv(sys.argv[1], sys.argv[1:])"]
    command += copy.command("render", python=str(inside))
    with subprocess.Popen(
        command, env=copy.environment(PYTHONPATH=str(copy.folder / "slow")), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not (copy.folder / when).exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(number)
            said = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    assert process.returncode == 128 + number, said
    return said


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("module", ["argparse", "engine/door/command", "pip"])
def test_a_signal_in_the_first_blink_is_one_line(ready, number, module):
    """While launch.py still imports, while `render` is imported, and while pip is at work."""
    wait = f"open({str(ready.folder / 'there')!r}, 'w').close(); import time; time.sleep(120)\n"
    if module == "engine/door/command":
        (ready.folder / "engine" / "door" / "command.py").write_text(wait)
    else:
        (ready.folder / "slow").mkdir()
        (ready.folder / "slow" / f"{module}.py").write_text(wait)
    if module == "pip":
        (ready.folder / "requirements.txt").write_text("troupe-tiny>=2\n")
    lines = ends(ready, number, "there").splitlines()
    assert lines[-1].startswith("troupe: stopped.")
    assert [line for line in lines[:-1] if not line.startswith("Installing")] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_what_nohup_lets_it_ignore_stays_ignored(ready):
    held = "signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, [])"  # what we start could never hear it again
    code = f"import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, {held})\n"
    (ready.folder / "engine" / "door" / "command.py").write_text(code + "def main(argv): return 0\n")
    start = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", start, *ready.command("render")], env=ready.environment(), capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("True False\n", "")


@pytest.mark.skipif(os.name == "nt", reason="closes a file by its number")
def test_a_closed_stderr_is_no_fault(ready):
    (ready.folder / "engine" / "door" / "command.py").write_text("def main(argv): return 7\n")
    start = "import os, sys; os.close(2); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", start, *ready.command("render")]
    done = subprocess.run(command, env=ready.environment(), stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (7, "")


def test_no_venv_module_names_the_package_to_install(fresh, tmp_path):
    without = tmp_path / "without"
    without.mkdir()
    (without / "venv.py").write_text("import sys; sys.exit('... because ensurepip is not available ...')")
    line = one_line(fresh.run("render", PYTHONPATH=str(without)))
    assert f"apt install python{launch.version()}-venv" in line


def test_a_file_in_the_way_is_named(fresh):
    fresh.venv.write_text("what is this")
    assert ".venv" in one_line(fresh.run("render"))


def test_a_locked_folder_says_where_to_go(fresh, modes_count):
    fresh.folder.chmod(0o500)
    assert "no permission" in one_line(fresh.run("render"))
    fresh.folder.chmod(0o700)


def test_a_full_disk_is_said_before_the_download(tmp_path, wheels, repo):
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]
    if not sys.platform.startswith("linux") or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        assert "the disk is too full" in one_line(Copy(tmp_path / "troupe", wheels, repo).run("render"))
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_space_never_makes_an_environment(fresh):
    assert "Space" in one_line(fresh.run(SPACE_ID="me/troupe"))
    assert not fresh.venv.exists()


@pytest.mark.parametrize("arguments", [["--port", "http"], ["--port", "70000"], ["serve", "--wat"]])
def test_a_typing_error_does_not_cost_an_installation(fresh, arguments):
    done = fresh.run(*arguments)
    assert done.returncode == 2
    assert not fresh.venv.exists()


def test_a_python_that_is_too_old_is_told_so(repo, monkeypatch, capsys):
    source = (repo / "launch.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))  # it has to get as far as saying it
    monkeypatch.setattr(launch.sys, "version_info", (3, 6, 15))
    assert launch.main([]) == 1
    said = capsys.readouterr().err
    assert "Python 3.6" in said
    assert "3.11" in said
    assert said.count("\n") == 1


# ---------------------------------------------------------------------------
# Ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.fixture
def served(monkeypatch) -> list[tuple]:
    import app.server

    calls: list[tuple] = []
    monkeypatch.setattr(app.server, "serve", lambda *arguments: calls.append(arguments))
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.delenv("GRADIO_SERVER_PORT", raising=False)
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    return calls


def serve_at(port: int | None, tmp_path: Path, host: str | None = None) -> None:
    serve_on_free_port(host, port, share=False, browser=False, outputs=tmp_path, terms=Terms())


def test_a_taken_port_gives_way_to_the_next_and_says_so(taken, served, tmp_path, capsys):
    serve_at(taken, tmp_path)
    chosen = served[0][1]
    assert chosen > taken
    assert f"Port {taken} is taken; using {chosen}." in capsys.readouterr().out


def test_a_port_that_is_lost_at_the_last_moment_gives_way_too(monkeypatch, tmp_path, served):
    import app.server

    tried: list[int | None] = []

    def contested(host: str | None, port: int | None, *_: object) -> None:
        tried.append(port)
        if len(tried) == 1:
            raise OSError(f"Cannot find empty port in range: {port}-{port}.")

    monkeypatch.setattr(app.server, "serve", contested)
    first = ports.free_port(None, 20000)
    serve_at(first, tmp_path)
    assert tried[0] == first
    assert len(tried) == 2
    assert tried[1] > first


def test_another_fault_while_serving_is_not_taken_for_a_port(monkeypatch, tmp_path, served):
    import app.server

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(app.server, "serve", broken)
    with pytest.raises(TroupeError, match="No space left"):
        serve_at(None, tmp_path)


def test_a_space_decides_for_itself_where_it_listens(monkeypatch, served, tmp_path):
    monkeypatch.setenv("SPACE_ID", "me/troupe")
    serve_at(None, tmp_path)
    assert served == [(None, None, False, False, tmp_path, Terms())]


@pytest.mark.parametrize("host", ["no such host!", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_one_line(served, tmp_path, host):
    with pytest.raises(TroupeError, match="--host"):
        serve_at(None, tmp_path, host)
    assert served == []


def test_the_page_is_up_without_torch(repo, tmp_path):
    """With a torch within reach that leaves a trace when it is imported, and would take its seconds in real life."""
    (tmp_path / "torch.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()")
    code = (
        "import sys, urllib.request; from pathlib import Path; from app.server import launch, open_house;"
        "outputs = Path(sys.argv[1]); house = open_house(outputs);"
        "blocks = launch(outputs, house, server_name='127.0.0.1');"
        "print(urllib.request.urlopen(blocks.local_url).status); blocks.close(); house.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "outputs")], cwd=repo, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repo), str(tmp_path)])},
    )  # fmt: skip
    assert "200" in done.stdout, done.stderr
    assert not (tmp_path / "trace").exists()
