"""`python launch.py models …`, as a person types it, and the libraries' install in an environment of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from engine import installing
from engine.installing import Install, InstallFailed
from engine.models import libraries
from engine.models.store import ModelStore
from engine.models.words import progress_words
from engine.models.work import Status
from engine.words import duration, gigabytes, listed
from tests.hub import MODEL, FakeHub, serving_hub
from tests.test_launch import make_wheel

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    with serving_hub() as found:
        cache = str(tmp_path / "cache")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)  # of this process, which only looks
        for name, value in {"HF_ENDPOINT": found.url, "HF_HUB_CACHE": cache, "HF_HUB_OFFLINE": "0"}.items():
            monkeypatch.setenv(name, value)
        yield found


def start(*arguments: str, **more: object) -> subprocess.Popen:
    code = "import sys; from engine.models.command import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=REPO, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


def ran(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def one_line(err: str) -> str:
    """Return the fault, which is one line, and the last; how far it was may have been told before it."""
    lines = err.strip().splitlines()
    assert [line.startswith("troupe: ") for line in lines].count(True) == 1, err
    assert "Traceback" not in err
    assert lines[-1].startswith("troupe: ")
    return lines[-1]


def until(condition, seconds: float = 180.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


# ---------------------------------------------------------------------------
# The command


def test_the_whole_way_from_nothing_to_nothing(hub, tmp_path):
    status, out, err = ran("list", MODEL)
    assert (status, err) == (0, "")
    assert "someone/tiny-a2: not on this machine" in out
    assert "Free on this disk:" in out
    assert hub.asked == []
    status, out, err = ran("download", MODEL)
    assert (status, out) == (0, "")
    assert "someone/tiny-a2 is installed" in err
    assert "installed, 931 kB" in ran("list", MODEL)[1]
    assert "is sound" in ran("verify", MODEL)[2]
    status, _, err = ran("delete", MODEL)
    assert status == 1
    assert "would delete 931 kB" in one_line(err)
    assert "--yes" in err
    status, _, err = ran("delete", MODEL, "--yes")
    assert (status, err.strip()) == (0, "someone/tiny-a2 is deleted: 931 kB freed.")
    assert not any(tmp_path.glob("cache/models--*"))
    assert ran("delete", MODEL, "--yes")[0] == 1


def test_a_fault_is_one_line_and_status_1(hub):
    hub.refuse = (403, "GatedRepo")
    status, _, err = ran("download", MODEL)
    assert status == 1
    assert "Accept them at" in one_line(err)


def test_offline_mode_is_one_line(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, _, err = ran("download", MODEL)
    assert (status, hub.asked) == (1, [])
    assert "HF_HUB_OFFLINE" in one_line(err)


@pytest.mark.parametrize("arguments", [("dance",), ("list", "a", "b")])
def test_a_typing_error_is_one_line_and_status_2(arguments):
    status, _, err = ran(*arguments)
    assert status == 2
    assert "models --help" in one_line(err)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_ctrl_c_is_status_130_and_the_next_start_goes_on(hub):
    hub.gate = threading.Event()
    process = start("download", MODEL)
    held_back = sum(min(len(data), hub.before_gate) for data in hub.needed.values())
    assert until(lambda: ModelStore(MODEL).bytes_on_disk() == held_back)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("troupe: stopped. What has come is kept")
    assert "Traceback" not in err
    before = len(hub.asked)
    hub.gate.set()
    assert ran("download", MODEL)[0] == 0
    starts = {headers.get("Range") for path, headers in hub.asked[before:] if path.startswith("/cdn/")}
    assert starts == {f"bytes={hub.before_gate}-"}


def test_a_second_download_joins_the_first(hub):
    hub.gate = threading.Event()
    first = start("download", MODEL)
    assert until(lambda: sum(hub.sent.values()) > 3 * hub.before_gate)
    second = start("download", MODEL)
    joined = second.stderr.readline()
    hub.gate.set()
    (_, said), (_, said_too) = first.communicate(timeout=180), second.communicate(timeout=180)
    assert "under way already" in joined
    assert (first.returncode, second.returncode) == (0, 0)
    assert "is installed" in said
    assert "is installed" in said_too
    assert hub.sent == {path: len(data) for path, data in hub.needed.items()}


# ---------------------------------------------------------------------------
# The libraries


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the engine with a `.venv` and a small requirements-a2.txt, whose wheel lies beside it."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(REPO / "engine", folder / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    make_wheel(folder, "troupe-tiny", "1.0", "VERSION = '1.0'\n")
    (folder / "requirements-a2.txt").write_text("troupe-tiny>=1,<2\n")
    subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True)
    return folder


def in_the_house(house: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """`models …` with the house's own Python, which borrows our libraries from behind its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "SPACE"))}
    behind = sysconfig.get_path("purelib")
    code = "import sys; from engine.models.command import main; sys.exit(main(sys.argv[1:]))"
    python = house / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return subprocess.run(
        [str(python), "-c", code, *arguments], cwd=house, capture_output=True, text=True, timeout=600,
        stdin=subprocess.DEVNULL,
        env={**kept, "PYTHONPATH": behind, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1",
             "PIP_FIND_LINKS": house.as_uri(), **environment},
    )  # fmt: skip


def test_the_libraries_are_installed_on_request_into_troupes_own_environment(house):
    assert "missing: troupe-tiny" in in_the_house(house, "list").stdout
    done = in_the_house(house, "install", PIP_FIND_LINKS="")
    assert done.returncode == 1
    assert "finds no troupe-tiny" in one_line(done.stderr.strip().splitlines()[-1])
    done = in_the_house(house, "install")
    assert done.returncode == 0, done.stderr
    assert "The libraries are installed." in done.stderr
    assert "Libraries: installed" in in_the_house(house, "list").stdout
    record = next(house.glob(".venv/**/troupe_tiny-1.0.dist-info/RECORD"))
    record.unlink()  # as where the power went in the middle
    assert "interrupted install" in in_the_house(house, "list").stdout
    assert in_the_house(house, "install").returncode == 0
    assert record.exists()


def test_another_environment_is_left_alone_and_its_owner_told_how(monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "VENV", tmp_path / ".venv")
    (tmp_path / "list.txt").write_text("troupe-nowhere\n")
    monkeypatch.setattr(libraries, "LIST", tmp_path / "list.txt")
    found = libraries.look_at_libraries()
    assert (found.installed, found.can_install, found.missing) == (False, False, ("troupe-nowhere",))
    command = found.advice.partition("with: ")[2]
    assert shlex.split(command) == [sys.executable, "-m", "pip", "install", "-r", str(tmp_path / "list.txt")]
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    assert "its owner" in libraries.look_at_libraries().advice


def test_a_disk_too_small_for_the_libraries_is_said_before_pip_runs(monkeypatch, tmp_path):
    state = libraries.Libraries(("torch",), True, "", 10, 20, 15)
    monkeypatch.setattr(libraries, "look_at_libraries", lambda: state)
    with pytest.raises(libraries.TroupeError, match="too full"):
        libraries.install_libraries(None)


def test_torch_for_windows_with_a_card_comes_from_its_makers(monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "_windows_with_a_card", lambda: True)
    torch, everything = libraries._installs(tmp_path / "pip.log", 1)
    assert torch.command()[-3:-2] == [libraries._WINDOWS_CUDA]
    (wanted,) = torch.files[0].read_text().splitlines()
    assert Requirement(wanted).marker is None  # else pip would leave it out on Windows
    assert wanted == "torch>=2.11,<2.14"
    assert everything.files == (libraries.LIST,)


def test_pips_lines_become_bytes_and_words():
    heard: list = []

    class Told:
        def add(self, count):
            heard.append(count)

        def say(self, *words):
            heard.append(words)

    teller = libraries._PipReader(Told())
    for line in (
        "Collecting torch<2.14,>=2.8 (from -r requirements-a2.txt (line 1))",
        "  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (30 kB)",
        "Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (526.6 MB)",
        "Progress 100 of 300",
        "Progress 300 of 300",
        "Downloading ftfy-6.3.1-py3-none-any.whl (44 kB)",
        "Progress 44 of 44",
        "Installing collected packages: ftfy, torch",
    ):
        teller.hear(line)
    assert heard == [
        ("asking", "torch<2.14,>=2.8"), ("fetching", "torch 2.13.0, 526.6 MB"), 100, 200,
        ("fetching", "ftfy 6.3.1, 44 kB"), 44, ("installing", "2 packages"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "needs 11.0 GB"),
        ("WARNING: Retrying ... NewConnectionError", "no network"),
        ("ERROR: No matching distribution found for torch", "finds no torch"),
        ("ERROR: something odd.", "installing failed: something odd. All of it is in"),
    ],
)
def test_why_pip_failed_is_one_line(tmp_path, said, says):
    wanted = Install(Path(sys.executable), (), tmp_path, 11_000_000_000, tmp_path / "log")
    assert says in installing.why_it_failed(said, wanted)


def test_a_failed_install_raises_its_line(tmp_path):
    (tmp_path / "list.txt").write_text("troupe-nowhere-at-all\n")
    wanted = Install(Path(sys.executable), (tmp_path / "list.txt",), tmp_path, 1, tmp_path / "log", ("--no-index",))
    lines: list[str] = []
    with pytest.raises(InstallFailed, match="finds no troupe-nowhere-at-all"):
        installing.install(wanted, lines.append)
    assert any("troupe-nowhere-at-all" in line for line in lines)
    assert "troupe-nowhere-at-all" in wanted.log.read_text()


# ---------------------------------------------------------------------------
# Words


def test_sizes_and_times_are_for_people():
    assert [gigabytes(each) for each in (5_400, 310_000_000, 46_240_000_000)] == ["5 kB", "310 MB", "46.2 GB"]
    assert [duration(each) for each in (0.2, 40, 700, 12_000)] == ["1 s", "40 s", "12 min", "3 h 20 min"]
    words = [listed([]), listed(["Mia"]), listed(["Mia", "cup"]), listed(["a", "b", "c"], "or")]
    assert words == ["", "Mia", "Mia and cup", "a, b or c"]
    status = Status("download", stage="fetching", done=10**9, total=4 * 10**9, speed=5e7, remaining=60.0, detail="a/b")
    assert progress_words(status) == "fetching 1.0 GB of 4.0 GB, 50.0 MB/s, about 60 s left (a/b)"
