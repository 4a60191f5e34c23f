"""What SQLite's errors mean to a person: what is wrong with the list of jobs, and what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from engine.errors import TroupeError


class StoreError(TroupeError):
    """The list of jobs cannot be read or written now."""


class Damaged(Exception):
    """The file is not, or no longer, a job store that can be read."""


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether SQLite says that the file itself is spoilt."""
    return _code(error) in _DAMAGE


def is_unmapped(error: sqlite3.Error) -> bool:
    """Return whether the disk lets no file be mapped into memory, as many network disks do."""
    return getattr(error, "sqlite_errorcode", None) in _NOT_MAPPED


def in_words(error: sqlite3.Error, folder: Path) -> StoreError | None:
    """Return the error as a person can act on it, `folder` being where the store lies; None for one that is a fault of
    Troupe's own."""
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
