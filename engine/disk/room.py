"""How much room a disk has, and what it means, in words, where it has none.

Standard library only, and of Troupe only the errors and words: `launch.py` asks before anything is installed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from engine.errors import DiskFull
from engine.words import gigabytes

_NUMBERS = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # a quota is a full disk to the person
_WINDOWS = {39, 112}  # ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL
# The same in what another program or library says. The system's own words are English: Python leaves LC_MESSAGES alone.
_WORDS = re.compile(r"No space left|Disk quota exceeded|\[WinError (39|112)\]|\(os error (28|112)\)")


def free_bytes(folder: Path) -> tuple[int | None, str]:
    """Read how many bytes are free where `folder` is, or will be, and at which place that was read; None and the reason
    where the disk does not tell. Raises nothing: then whoever writes there will find out."""
    try:
        place = nearest(folder)
        disk = shutil.disk_usage(place)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        return None, f"not known: {folder} cannot be reached ({getattr(error, 'strerror', None) or error})"
    if not disk.total:  # file systems such as /proc, and some that programs make: all their numbers are 0
        return None, f"not known: the disk with {place} tells no size"
    return disk.free, f"at {place}"


def nearest(folder: Path) -> Path:
    """Find the folder itself, or the nearest above it that is there already; of a link, above what it leads to. Raises
    OSError where the disk does not answer: one further up may be another disk."""
    path = Path(os.path.realpath(folder))
    for place in (path, *path.parents):
        try:
            os.stat(place)
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # not yet, or below what may not be entered
            continue
        return place
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def is_full(error: BaseException | str) -> bool:
    """Return whether something failed because a disk, or a quota on it, is full; a string is what another program
    said."""
    if isinstance(error, OSError) and (error.errno in _NUMBERS or getattr(error, "winerror", 0) in _WINDOWS):
        return True
    return isinstance(error, DiskFull) or bool(_WORDS.search(str(error)))


def full_disk(place: Path, then: str, needed: int = 0) -> tuple[str, str]:
    """Return problem and remedy, for an error, where the disk with `place` is full, which needs so many bytes (0: not
    known). `then` goes on after "Free some space"."""
    takes = f" needs {gigabytes(needed)}" if needed else ""
    return f"the disk is full: {place}{takes}", f"Free some space{then}"
