"""The store's schema, as migrations: a new file gets all of them, an older one those that it lacks.

A file's version (`PRAGMA user_version`) is the number of migrations that were applied to it. To add a column: a field
with a default in `JobRow` (`app/jobs/store.py`), and at the end of `MIGRATIONS` a function such as

    def sharpness(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE jobs ADD COLUMN sharpness REAL NOT NULL DEFAULT 0.0")

with the field's default. A migration that has been released is never changed: there are files that have had it.
Standard library only, and not alembic: that needs SQLAlchemy, and there is one file with two tables.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from app.jobs.store_errors import StoreError, in_words
from engine.disk.atomic import whole

log = logging.getLogger("troupe.jobs")

Migration = Callable[[sqlite3.Connection], None]


def first_schema(db: sqlite3.Connection) -> None:
    """Create the tables of version 1. All values are literals: names that the code uses today may change."""
    db.execute("""
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, folder TEXT NOT NULL,
        engine TEXT NOT NULL, scene TEXT NOT NULL CHECK (json_valid(scene)),
        options TEXT NOT NULL CHECK (json_valid(options)), prompt TEXT NOT NULL, words TEXT NOT NULL,
        seed INTEGER NOT NULL, units REAL NOT NULL, state TEXT NOT NULL CHECK (state IN
            ('running', 'waiting', 'paused', 'done', 'stopped', 'failed', 'interrupted')),
        position INTEGER NOT NULL, stage TEXT NOT NULL, step INTEGER NOT NULL, of INTEGER NOT NULL,
        detail TEXT NOT NULL, elapsed REAL NOT NULL, remaining REAL, plan TEXT NOT NULL CHECK (json_valid(plan)),
        error TEXT NOT NULL, notices TEXT NOT NULL CHECK (json_valid(notices)), created TEXT NOT NULL,
        started TEXT NOT NULL, ended TEXT NOT NULL, seconds REAL NOT NULL, clip TEXT NOT NULL, poster TEXT NOT NULL,
        favourite INTEGER NOT NULL, trashed TEXT NOT NULL, gone INTEGER NOT NULL
    )""")
    db.execute("CREATE INDEX jobs_by_state ON jobs (state, position, number)")
    db.execute("CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)")


def metrics(db: sqlite3.Connection) -> None:
    """Add what was measured on a finished clip: a JSON object of numbers by metric."""
    db.execute("ALTER TABLE jobs ADD COLUMN metrics TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metrics))")


MIGRATIONS: list[Migration] = [
    first_schema,
    metrics,
]


def version_of(db: sqlite3.Connection, path: Path) -> int:
    """Return how many migrations the file has had; 0 for a new one. Raises StoreError where there are more than this
    version knows, sqlite3.DatabaseError where the number is damaged."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        problem = f"The list of jobs ({path}) was written by a newer Troupe"
        raise StoreError(problem, "Update this one, or name another folder: --outputs FOLDER.")
    if version < 0:
        raise sqlite3.DatabaseError(f"the version {version} cannot be")
    return version


def lacking(db: sqlite3.Connection, path: Path) -> list[Migration]:
    """Return the migrations that the file has not had, in order. Raises what `version_of` raises."""
    return MIGRATIONS[version_of(db, path) :]


def refuse_newer(path: Path) -> None:
    """Check the file's version, raising StoreError where a newer Troupe has written it. The file and its log stay as
    they are, byte for byte: closing an ordinary connection would move the log into the file. Other errors are ignored
    here."""
    place, has_log = os.path.realpath(path), False
    with contextlib.suppress(OSError):
        has_log = os.path.getsize(f"{place}-wal") > 0
    uri = "file:///" + quote(os.fsencode(Path(place).as_posix().removeprefix("/")))
    looks = ("immutable=1&mode=ro", "mode=ro") if has_log else ("immutable=1&mode=ro",)  # without the log, and with it
    for look in looks:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(f"{uri}?{look}", uri=True)) as db:
            version_of(db, path)


def copy_aside(db: sqlite3.Connection, path: Path) -> None:
    """Back up the open file with its log, such as to `jobs.before-v2.sqlite` beside it, where there are jobs in it. The
    copy is written atomically and replaces one of that name. Raises StoreError."""
    if not version_of(db, path) or not db.execute("SELECT EXISTS (SELECT 1 FROM jobs)").fetchone()[0]:
        return
    try:
        with whole(path.with_name(f"{path.stem}.before-v{len(MIGRATIONS)}{path.suffix}")) as growing:
            with contextlib.closing(sqlite3.connect(growing)) as copy:
                copy.execute("PRAGMA journal_mode = OFF")  # half a copy is removed, so no file is needed to undo it
                db.backup(copy)
            with growing.open("rb+") as file:
                os.fsync(file.fileno())
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        problem = f"The list of jobs cannot be copied aside before it is updated ({why})"
        remedy = f"Free some space in {path.parent} and check its permissions, then start Troupe again."
        raise StoreError(problem, f"{remedy} The list is as it was.") from None


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Run the migrations that the file lacks, inside the caller's transaction. Raises StoreError where one fails, and
    SQLite's own error where the disk fails or a new file has other tables in it."""
    before = version_of(db, path)
    for number, migration in enumerate(lacking(db, path), before + 1):
        try:
            _run_inside(db, migration)
        except Exception as error:
            if not before or (isinstance(error, sqlite3.Error) and in_words(error, path.parent) is not None):
                raise
            log.error("the store's migration %d (%s) failed", number, migration.__name__, exc_info=error)
            problem = f"The list of jobs cannot be updated to this version of Troupe ({type(error).__name__}: {error})"
            remedy = f"It is as it was: start the Troupe that you had before, or move {path.name} out of {path.parent}"
            raise StoreError(problem, f"{remedy}, and a new list is made from your clips.") from error
        db.execute(f"PRAGMA user_version = {number}")


def _run_inside(db: sqlite3.Connection, migration: Migration) -> None:
    """Run one migration and keep it from ending the transaction: `executescript` and `commit` would do so silently, and
    the steps so far could not be rolled back."""
    ends = sqlite3.SQLITE_TRANSACTION
    db.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action == ends else sqlite3.SQLITE_OK)
    try:
        migration(db)
    finally:
        db.set_authorizer(None)
