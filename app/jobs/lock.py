"""One Troupe to an outputs folder: the first holds a lock on a file in it, and says in the file where it can be found.

The system lets go of the lock when its holder ends, however it ends.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

from engine.errors import TroupeError

NAME = "troupe.lock"
_AT = 1 << 30  # the byte that is locked: Windows lets nobody read what is locked, and the words stand at the start


class FolderLock:
    """Held from its making on. Raises TroupeError where another copy holds it, or the folder cannot be written."""

    def __init__(self, outputs: Path) -> None:
        self._path = outputs / NAME
        try:
            outputs.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            problem = f"The folder {outputs} cannot be written ({error.strerror})"
            raise TroupeError(problem, "Name another one: --outputs FOLDER.") from None
        if not _take(self._file):
            os.close(self._file)
            raise TroupeError(_where(self._path, outputs), "Use that one, or name another folder: --outputs FOLDER.")
        self.tell("")

    def tell(self, url: str) -> None:
        """Write down where this copy's page is. The lock itself counts, so a full disk is no reason to stop."""
        text = json.dumps({"process": os.getpid(), "url": url}).encode()
        try:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, text)
        except OSError:
            pass

    def release(self) -> None:
        """Let others in. The file stays: removing it could take away a lock that another copy has just taken."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def check_free(outputs: Path) -> None:
    """Raise TroupeError where another copy of Troupe works on this folder; take nothing."""
    if os.path.exists(outputs / NAME):  # a folder that may not be entered is told by who opens it
        FolderLock(outputs).release()


def _where(path: Path, outputs: Path) -> str:
    try:
        url = json.loads(path.read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, KeyError, TypeError):
        url = ""
    return f"Troupe is already open on {outputs}" + (f" at {url}" if url else "")


def _take(file: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, _AT, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)  # else a disk without locks: go on
