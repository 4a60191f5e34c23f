"""Lock a file: one process at a time, until it lets go or ends, however it ends.

The system's own locks and not filelock's, for the reasons in DECISIONS.md. Standard library only. A disk that knows no
locks keeps nobody out: to work without one there is better than not to work.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)  # what the systems say where somebody else holds it
_POLL = 0.02  # seconds between two tries
_BLINK = 0.05  # seconds; where there are no shared locks, `is_held` itself holds it for less


class Taken(Exception):
    """Somebody else holds the lock."""


class FileLock:
    """A lock that this process holds once it is made, until `release`. `file` is its descriptor, open for reading and
    writing.

    `byte` is the one that is locked on Windows, where nobody else can read it then: one beyond the end where others
    read the file. The other systems lock the whole file, and anybody can read it.
    """

    def __init__(self, path: Path, *, patience: float = 0.0, byte: int = 0) -> None:
        """Take the lock, in a folder that is there; retry for `patience` seconds. Raises Taken, and OSError where the
        file cannot be opened."""
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # not inherited by programs that are started
        deadline = time.monotonic() + patience
        try:
            while not _take(self.file, byte):
                if time.monotonic() >= deadline:
                    raise Taken
                time.sleep(_POLL)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock. The file stays: removing it could take away a lock that somebody has just taken."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock on this file (on Windows: on its first byte). Two who ask at the same
    moment do not take each other for the holder. Raises OSError where the file cannot be opened."""
    if os.name == "nt":  # it has shared locks, but none that Python can ask for
        try:
            FileLock(path, patience=_BLINK).release()
        except Taken:
            return True
        return False
    import fcntl

    file = os.open(path, os.O_RDONLY)  # of another account's file, too
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        return error.errno in _TAKEN
    finally:
        os.close(file)


def _take(file: int, byte: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, byte, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        return error.errno not in _TAKEN  # else a disk without locks: go on
