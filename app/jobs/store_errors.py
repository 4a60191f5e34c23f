"""SQLite's errors as messages that a person can act on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from engine.errors import TroupeError


class StoreError(TroupeError):
    """The list of jobs cannot be read or written now."""


class Damaged(Exception):
    """The file is not, or no longer, a job store that can be read."""


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether SQLite reports that the file itself is damaged."""
    return _code(error) in _DAMAGE


def is_unmapped(error: sqlite3.Error) -> bool:
    """Return whether the disk allows no memory mapping, as with many network disks."""
    return getattr(error, "sqlite_errorcode", None) in _NOT_MAPPED


def in_words(error: sqlite3.Error, folder: Path) -> StoreError | None:
    """Convert the error to a message that a person can act on, `folder` being where the store is; None for an error
    that is a bug of Troupe's."""
    said = _SAID.get(_code(error))
    return StoreError(f"{said[0]}: {folder}", said[1]) if said else None


def _code(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF  # the upper bits tell the details


_SPACE = "Free some space: it goes on by itself."
_CHECK = "Check the folder's permissions and its disk."
_ANEW = "Start Troupe again: it makes a new one from your clips."
_NOT_MAPPED = (
    sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMLOCK,
)  # fmt: skip
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SAID = {
    sqlite3.SQLITE_FULL: ("The disk is full", _SPACE),
    sqlite3.SQLITE_READONLY: ("Nothing can be written into the outputs folder", _CHECK),
    sqlite3.SQLITE_CANTOPEN: ("The list of jobs cannot be opened", _CHECK),
    sqlite3.SQLITE_PERM: ("The list of jobs may not be opened", _CHECK),
    sqlite3.SQLITE_IOERR: ("The disk of the outputs folder does not answer as it should", _CHECK),
    sqlite3.SQLITE_BUSY: ("Another program holds the list of jobs", "Close it, then try again."),
    sqlite3.SQLITE_LOCKED: ("Another program holds the list of jobs", "Close it, then try again."),
    **dict.fromkeys(_DAMAGE, ("The list of jobs is damaged", _ANEW)),
}
