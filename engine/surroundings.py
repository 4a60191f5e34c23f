"""What Troupe takes from the machine around it: a home folder where there is one, a cache folder in any case, and
libraries that keep quiet.

Standard library only: `launch.py` needs it before anything is installed. (The cache folder's usual place is asked of
`platformdirs`, which comes with the requirements.)
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

# Libraries that would report to their makers, some of them as soon as they are imported. What a person has set stays.
_SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: device, program and processor, when it is imported
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def settle() -> None:
    """Set what libraries read from the environment when they are imported; every command does so first. Where no home
    folder is known (a number for a user, as in a container), they get one of the user's own among the temporary
    folders, if it can be had."""
    silence()
    _let_segments_grow()
    if home() is None and (spare := spare_folder()) is not None:
        os.environ["USERPROFILE" if os.name == "nt" else "HOME"] = str(spare)


def silence() -> None:
    """Switch off the libraries' telemetry, where the person has not set it."""
    for name, value in _SILENT.items():
        os.environ.setdefault(name, value)


def _let_segments_grow() -> None:
    """Let PyTorch enlarge what it has of a card instead of taking another piece: blocks, activations and the VAE's
    tensors come and go in sizes that fit badly into each other's gaps. Linux only; what the person has set stays. The
    variable was renamed in torch 2.9, and under its old name it is complained of."""
    from importlib.metadata import PackageNotFoundError, version

    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    if not sys.platform.startswith("linux") or any(name in os.environ for name in names):
        return
    with contextlib.suppress(PackageNotFoundError, ValueError):
        major, minor = (int(part) for part in version("torch").split(".")[:2])
        os.environ[names[(major, minor) < (2, 9)]] = "expandable_segments:True"


def home() -> Path | None:
    """Return the person's home folder; None where none is known."""
    try:
        found = Path.home()
    except RuntimeError:
        return None
    return found if found.is_absolute() else None


def expanded(name: str | Path) -> Path:
    """Expand `~` in a path to the home folder; return it as it is where none is known."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def cache_folder() -> Path:
    """Return the folder for things that can be had again: `$TROUPE_CACHE`, or the user's cache folder; where that is
    not known, the folder of the user's own among the temporary ones."""
    if chosen := os.environ.get("TROUPE_CACHE"):
        return expanded(chosen)
    import platformdirs

    with contextlib.suppress(RuntimeError):  # no home folder is known
        usual = Path(platformdirs.user_cache_dir("troupe", appauthor=False))
        if usual.is_absolute():
            return usual
    return spare_folder() or _spare()


def spare_folder() -> Path | None:
    """Return a folder of the user's own among the temporary ones, made where it is missing; None where it cannot be
    made, or others can write to it."""
    spare = _spare()
    with contextlib.suppress(OSError):
        spare.mkdir(mode=0o700, exist_ok=True)
    return spare if _is_private(spare) else None


def _spare() -> Path:
    owner = os.geteuid() if hasattr(os, "geteuid") else "cache"  # Windows: the temporary files are the user's anyway
    return Path(tempfile.gettempdir()) / f"troupe-{owner}"


def _is_private(folder: Path) -> bool:
    """Return whether nobody else can write there: /tmp is everybody's, and weights are programs of a kind."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    own = os.name == "nt" or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)
    return own and stat.S_ISDIR(status.st_mode)
