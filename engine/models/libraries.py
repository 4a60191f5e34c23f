"""The libraries of the a2 engine (requirements-a2.txt), into Troupe's own .venv and nowhere else.

The sizes were measured on Linux with torch 2.13 and its CUDA libraries: 2.8 GB of wheels, 5.4 GB installed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from engine.disk.room import free_bytes
from engine.errors import TroupeError
from engine.installing import Install, install, missing
from engine.models.work import Work, WorkProgress
from engine.words import command_line, gigabytes

ROOT = Path(__file__).resolve().parent.parent.parent
LIST = ROOT / "requirements-a2.txt"
VENV = ROOT / ".venv"
_CUDA = (2_800_000_000, 5_400_000_000)  # bytes to fetch, bytes installed
_PLAIN = (400_000_000, 1_500_000_000)  # without CUDA: macOS, and Windows without an NVIDIA card
_WINDOWS_CUDA = "https://download.pytorch.org/whl/cu128"  # the package index has torch for Windows without CUDA only


@dataclass(frozen=True)
class Libraries:
    """What this Python has of the a2 engine's libraries. `can_install`: they go into Troupe's own .venv; else `advice`
    says who does it, and how. `fetched`, `needed` and `free` are bytes: to come over the network, of disk on the way,
    and on the disk now (None: it does not tell)."""

    missing: tuple[str, ...]
    can_install: bool
    advice: str
    fetched: int
    needed: int
    free: int | None

    @property
    def installed(self) -> bool:
        """Whether the engine can start."""
        return not self.missing


def look_at_libraries() -> Libraries:
    """Read which of the libraries are here. Imports none."""
    fetched, installed = _CUDA if _has_cuda_wheels() else _PLAIN
    lacking = tuple(missing([LIST]))
    if _interrupted() and not lacking:
        lacking = ("what an interrupted install left unfinished",)
    advice = _advice()
    # wheels lie beside the installed files until pip is through, and once more in its cache
    return Libraries(lacking, not advice, advice, fetched, installed + 2 * fetched, free_bytes(VENV)[0])


def library_work() -> Work:
    """Return the work of installing, with its status. Its lock is the one that launch.py holds while it works on
    .venv."""
    return Work(VENV / "troupe-libraries", VENV / "troupe.lock")


def install_libraries(progress: WorkProgress) -> str:
    """Run pip; return a sentence about the result. Raises TroupeError."""
    state = look_at_libraries()
    if state.installed:
        return "The libraries are installed already."
    if not state.can_install:
        raise TroupeError("the libraries are not installed from here", state.advice)
    if state.free is not None and state.needed > state.free:
        raise TroupeError(
            f"the disk is too full: installing takes up to {gigabytes(state.needed)} on the way, but {VENV} has "
            f"{gigabytes(state.free)} left",
            "Free some space and start again.",
        )
    _drop_halves()
    scratch = VENV / "troupe-libraries" / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    # on the disk that was checked: /tmp is often a small one in memory
    os.environ["TMPDIR"] = os.environ["TEMP"] = os.environ["TMP"] = str(scratch)
    progress.expect(state.fetched)
    try:
        for wanted in _installs(scratch.parent / "pip.log", state.needed):
            install(wanted, _PipReader(progress).hear, progress.owns)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    importlib.invalidate_caches()
    if lacking := tuple(missing([LIST])):
        raise TroupeError(f"{', '.join(lacking)} is still missing after the install", "Start it again.")
    return "The libraries are installed."


def _advice() -> str:
    if "SPACE_ID" in os.environ:
        return "This is a Space: its owner adds the lines of requirements-a2.txt to requirements.txt and rebuilds it."
    if Path(sys.prefix).resolve() != VENV.resolve():
        return (
            f"Troupe runs in an environment of your own, and leaves it alone. Install them there with: "
            f"{command_line(sys.executable, '-m', 'pip', 'install', '-r', LIST)}"
        )
    return ""


def _has_cuda_wheels() -> bool:
    return sys.platform == "linux" or _windows_with_a_card()


def _windows_with_a_card() -> bool:
    return os.name == "nt" and shutil.which("nvidia-smi") is not None


def _installs(log: Path, needed: int) -> list[Install]:
    bar = "raw" if _pip_version() >= (24, 1) else "off"
    everything = Install(Path(sys.executable), (LIST,), ROOT, needed, log, ("--progress-bar", bar))
    if not _windows_with_a_card():
        return [everything]
    torch = log.with_name("torch.txt")
    lines = LIST.read_text(encoding="utf-8").splitlines()  # on Linux the index has it with CUDA: the same range
    torch.write_text(next(line for line in lines if line.startswith("torch") and "linux" in line).partition(";")[0])
    options = (*everything.options, "--index-url", _WINDOWS_CUDA)
    return [Install(everything.python, (torch,), ROOT, needed, log, options), everything]


def _pip_version() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version("pip"))[:2])
    except importlib.metadata.PackageNotFoundError:
        return (0,)


def _interrupted() -> bool:
    """Return whether an install was cut off: pip writes a package's RECORD last, and some package has none."""
    return bool(_halves())


def _halves() -> list[Path]:
    site = Path(sysconfig.get_path("purelib"))
    return [info.parent for info in site.glob("*.dist-info/METADATA") if not info.with_name("RECORD").exists()]


def _drop_halves() -> None:
    """Remove what a cut-off install has left, so that pip does not take it for installed."""
    for info in _halves():
        shutil.rmtree(info, ignore_errors=True)


class _PipReader:
    """Reads progress from pip's lines."""

    _SIZES = {"kB": 10**3, "MB": 10**6, "GB": 10**9}  # noqa: RUF012

    def __init__(self, progress: WorkProgress) -> None:
        self._progress = progress
        self._counted = 0  # of the file that comes now

    def hear(self, line: str) -> None:
        """Read one line of pip's output."""
        fetching = re.match(r"\s*Downloading (?:\S+/)?([^-\s]+)-([^-\s]+)-\S+ \(([\d.]+) (kB|MB|GB)\)", line)
        raw = re.match(r"Progress (\d+) of", line)
        if raw:
            self._progress.add(int(raw[1]) - self._counted)
            self._counted = int(raw[1])
        elif fetching and ".metadata" not in line:
            self._counted = 0
            self._progress.say("fetching", f"{fetching[1]} {fetching[2]}, {fetching[3]} {fetching[4]}")
        elif line.startswith("Collecting "):
            self._progress.say("asking", line.split()[1])
        elif line.startswith("Installing collected packages:"):
            self._progress.say("installing", f"{line.count(',') + 1} packages")
        elif "WARNING: Retrying" in line:
            self._progress.say("waiting", "the network does not answer; trying again")
