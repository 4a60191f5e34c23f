"""Write a file whole or not at all: it grows under a hidden name beside its target and takes the target's place.

The hidden name tells who writes it, the machine and the process, so that what a killed writer has left is known and
removed, and nothing else is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import secrets
import stat
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

_STALE = 24 * 3600  # seconds; for the files of writers that cannot be asked whether they are alive
_SUFFIXES = (".part", ".txt")
_LEFT = r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.(?:part|txt)"  # the end of a hidden name: machine and process

# Windows refuses to replace a file that another process has open: a virus scanner, a backup, whoever reads it just now.
# Most let go within some milliseconds. Elsewhere a refusal stays one.
_MAY_BE_HELD = os.name == "nt"
_PAUSES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # seconds before another try


def beside(target: Path) -> tuple[Path, Path]:
    """Return two hidden names of this process's in the target's folder: for the file that is written, and for notes to
    it."""
    stem = f"{_prefix(target)}{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    part, notes = (target.with_name(stem + suffix) for suffix in _SUFFIXES)
    return part, notes


def destination(target: Path, *, even_protected: bool = False) -> Path:
    """Return the file that a name leads to, a link's own target, for what is to take its place: the name would be
    replaced, and what it led to stay as it was. Raises OSError where what is there is no file (a folder, a pipe, a
    device), leads nowhere, or may not be written, unless `even_protected`."""
    path = Path(os.path.realpath(target)) if target.is_symlink() else target
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path != target and not path.parent.is_dir():
            raise OSError(errno.ENOENT, f"it is a link to {path}, and that folder is not there") from None
        return path
    if not stat.S_ISREG(mode):
        number, why = (errno.EISDIR, "it is a folder") if stat.S_ISDIR(mode) else (errno.EINVAL, "it is no file")
        raise OSError(number, why)
    if not even_protected and not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, "it is write-protected")
    return path


@contextlib.contextmanager
def whole(target: Path, *, even_protected: bool = False) -> Iterator[Path]:
    """Yield the path to write to; on exit it replaces `target`, or, after an exception, is removed. `even_protected` is
    for files that are Troupe's own and no person's: they are replaced whatever their mode, as several people who share
    a cache need. Raises OSError, and what the block raises."""
    target = destination(target, even_protected=even_protected)
    sweep(target)
    growing, _ = beside(target)
    try:
        yield growing
        replace(growing, target)
    finally:
        remove(growing)


def replace(source: Path, target: Path, *, sync: bool = False) -> None:
    """Replace `target` by `source`, on the same disk, in one step. On Windows it retries up to 1.3 s while a process
    holds one of them. `sync`: the data is on the disk before the name is, so that a power cut leaves the old file or
    the new one. Raises OSError; PermissionError where the file is still held."""
    if sync:
        with source.open("rb+") as file:
            os.fsync(file.fileno())
    for pause in _PAUSES if _MAY_BE_HELD else ():
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(pause)
    try:
        os.replace(source, target)
    except PermissionError as error:
        if not _MAY_BE_HELD:
            raise
        held = "it is write-protected, or another program has it open"
        raise PermissionError(error.errno, held, str(target)) from None


def remove(*paths: Path) -> None:
    """Remove these files, those that are there. Errors are ignored."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def sweep(target: Path, ended: int | None = None) -> None:
    """Remove what killed writers of `target` have left; `ended` is a process of this machine that is known to be gone.
    Errors are ignored."""
    _sweep(target.parent, re.compile(re.escape(_prefix(target)[:-1]) + _LEFT), ended)


def sweep_folder(folder: Path) -> None:
    """Sweep, as `sweep` does, for every target in a folder that only Troupe writes into."""
    _sweep(folder, re.compile(r"\..+" + _LEFT))


def _sweep(folder: Path, name: re.Pattern[str], ended: int | None = None) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            match = name.fullmatch(path.name)
            if match and (match.groups() == (_machine(), str(ended)) or _is_left_over(path, *match.groups())):
                remove(path)


def _prefix(target: Path) -> str:
    return f".{target.stem[:40]}."


def _is_left_over(path: Path, machine: str, process: str) -> bool:
    if machine == _machine() and os.name != "nt":
        return not _is_alive(int(process))
    with contextlib.suppress(OSError):  # on a shared disk, or Windows, where asking would end the process
        return time.time() - path.stat().st_mtime > _STALE
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def _machine() -> str:
    """Compute a mark of the machine and, within it, of the container: a process number means nothing outside of it."""
    container = 0
    with contextlib.suppress(OSError):
        container = os.stat("/proc/self/ns/pid").st_ino
    return f"{zlib.crc32(f'{platform.node()} {container}'.encode()):08x}"
