"""One Troupe per outputs folder: the first locks a file in it, and writes into the file where its page is.

The system releases the lock when its holder ends, however it ends.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from engine.disk.lock import FileLock, Taken
from engine.errors import TroupeError

NAME = "troupe.lock"
_AT = 1 << 30  # the locked byte: on Windows nobody can read locked bytes, and the text is at the start


class FolderLock:
    """A lock that is held from construction on. Raises TroupeError where another copy holds it, or the folder cannot be
    written."""

    def __init__(self, outputs: Path) -> None:
        self._path = outputs / NAME
        try:
            outputs.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._path, byte=_AT)
        except OSError as error:
            problem = f"The folder {outputs} cannot be written ({error.strerror})"
            raise TroupeError(problem, "Name another one: --outputs FOLDER.") from None
        except Taken:
            found = _where(self._path, outputs)
            raise TroupeError(found, "Use that one, or name another folder: --outputs FOLDER.") from None
        self.tell("")

    def tell(self, url: str) -> None:
        """Write this copy's URL into the lock file. Errors are ignored: only the lock itself matters."""
        text = json.dumps({"process": os.getpid(), "url": url}).encode()
        try:
            os.ftruncate(self._lock.file, 0)
            os.lseek(self._lock.file, 0, os.SEEK_SET)
            os.write(self._lock.file, text)
        except OSError:
            pass

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


def check_free(outputs: Path) -> None:
    """Check that no other copy of Troupe works on this folder, raising TroupeError where one does; take no lock."""
    if os.path.exists(outputs / NAME):  # `open_house` reports a folder without permission
        FolderLock(outputs).release()


def _where(path: Path, outputs: Path) -> str:
    try:
        url = json.loads(path.read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, KeyError, TypeError):
        url = ""
    return f"Troupe is already open on {outputs}" + (f" at {url}" if url else "")
