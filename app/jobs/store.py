"""The job store: one SQLite file beside the outputs, with all data about every job.

A change is on the disk (WAL, synchronous=FULL) before the call that makes it returns, so what the page shows has
happened. Order comes from increasing numbers and from positions, never from a clock. All SQL is here, except for the
schema (`app/jobs/migrations.py`).

sqlite3, and not huey, APScheduler or persist-queue: of these only APScheduler holds single jobs, all order by arrival,
priority or time and not by position, and of what is over none keeps a record: APScheduler removes it, huey has its
result until somebody reads it, persist-queue what it was given, with a mark.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import statistics
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from app.jobs.migrations import copy_aside, lacking, migrate, refuse_newer
from app.jobs.status import DONE, IN_LINE, OVER, QUEUED, RUNNING, WAITING
from app.jobs.store_errors import Damaged, StoreError, in_words, is_damage, is_unmapped
from engine.scene.prompt import folded

__all__ = ["Damaged", "JobRow", "JobStore", "StoreError", "now", "open_store"]

_PAST = 25  # finished jobs from which the machine's speed is taken


@dataclass(frozen=True)
class JobRow:
    """One job. `scene`, `options`, `plan`, `notices` and `metrics` are JSON; `folder`, `clip` and `poster` are names
    without a path.

    `words` is the text that a search looks in; `units` is the amount of work (pixels x frames x steps); `position` its
    place in the queue. Times are UTC in ISO 8601, empty where there is none; durations in seconds. `trashed` is when it
    was moved to the trash; `gone`: its folder was not there when Troupe was started. A new field needs a default and a
    migration that adds it to older files.
    """

    id: str
    owner: str
    folder: str
    engine: str
    scene: str
    options: str
    prompt: str
    words: str
    seed: int
    units: float
    state: str = WAITING
    position: int = 0
    stage: str = ""
    step: int = 0
    of: int = 0
    detail: str = ""
    elapsed: float = 0.0
    remaining: float | None = None
    plan: str = "null"
    error: str = ""
    notices: str = "[]"
    created: str = ""
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    clip: str = ""
    poster: str = ""
    favourite: int = 0
    trashed: str = ""
    gone: int = 0
    metrics: str = "{}"


_NAMES = tuple(each.name for each in fields(JobRow))
_COLUMNS = ", ".join(_NAMES)  # without quotation marks: SQLite reads an unknown quoted name as text


def now() -> str:
    """Return the current time in the store's format: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class JobStore:
    """The open file; any thread may use it. Every method raises StoreError where the disk fails."""

    def __init__(self, path: Path) -> None:
        """Open or make the file, or migrate an older one. Raises Damaged; raises StoreError, with the file unchanged,
        where a newer Troupe has written it or a migration failed."""
        self.path = path
        self._lock = threading.RLock()
        self._opened = False
        with self._told():
            self._db = self._connect()
        try:
            with self._told():
                self._open_anywhere()
        except sqlite3.DatabaseError as error:
            self.close()
            raise Damaged(str(error)) from None
        except BaseException:
            self.close()
            raise
        self._opened = True

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)

    def _open_anywhere(self) -> None:
        """Open the file, with an exclusive lock where the disk allows no memory mapping, as many network disks do:
        SQLite needs that for its log's index, or keeps the index in this process
        (https://sqlite.org/wal.html#noshm)."""
        try:
            self._open()
        except sqlite3.OperationalError as error:
            if not is_unmapped(error):
                raise
            self._db.close()
            self._db = self._connect()
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._open()

    def _open(self) -> None:
        refuse_newer(self.path)
        db = self._db
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("SELECT count(*) FROM sqlite_schema")  # first use of the log: fails where it is not supported
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA fullfsync = ON")  # macOS: a plain fsync does not reach the disk
        if db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("the check found damage")
        if not lacking(db, self.path):
            self._check()
            return
        copy_aside(db, self.path)
        with self.changing():
            migrate(db, self.path)
            self._check()
        with contextlib.suppress(sqlite3.OperationalError):  # the version must be in the file, not in the log only
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _check(self) -> None:
        """Check that the tables have all columns and every job can be read, raising sqlite3.DatabaseError where not."""
        for table, wanted in (("jobs", _NAMES), ("settings", ("name", "value"))):
            if missing := set(wanted) - {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}:
                raise sqlite3.DatabaseError(f"{table} has no {', '.join(sorted(missing))}")
        for _ in self._db.execute(f"SELECT {_COLUMNS} FROM jobs"):  # finds text that is not valid UTF-8
            pass

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Run the block as one transaction."""
        with self._lock, self._told():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Run the block with SQLite's errors converted to StoreError; damage passes while the file is being opened, and
        bugs always."""
        try:
            yield
        except sqlite3.Error as error:
            said = in_words(error, self.path.parent)
            if said is None or (is_damage(error) and not self._opened):
                raise
            raise said from None

    def _rows(self, rest: str, *values: object) -> list[JobRow]:
        with self._lock, self._told():
            return [JobRow(*row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM jobs {rest}", values)]

    # -- one job ---------------------------------------------------------------

    def get(self, job_id: str) -> JobRow | None:
        return next(iter(self._rows("WHERE id = ?", job_id)), None)

    def add(self, row: JobRow) -> None:
        """Insert a job; one without a position goes to the end of the queue."""
        values = {name: getattr(row, name) for name in _NAMES}
        with self.changing():
            if row.state in QUEUED and not row.position:
                values["position"] = 1 + self._db.execute("SELECT coalesce(max(position), 0) FROM jobs").fetchone()[0]
            marks = ", ".join("?" * len(_NAMES))
            self._db.execute(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({marks})", tuple(values.values()))

    def change(self, job_id: str, **values: object) -> None:
        """Set columns of one job. Raises TypeError for an unknown column."""
        if unknown := values.keys() - set(_NAMES):
            raise TypeError(f"JobRow has no {', '.join(sorted(unknown))}")
        settings = ", ".join(f"{name} = ?" for name in values)
        with self.changing():
            self._db.execute(f"UPDATE jobs SET {settings} WHERE id = ?", (*values.values(), job_id))

    def delete(self, job_id: str) -> None:
        with self.changing():
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    # -- the queue ---------------------------------------------------------------

    def line(self) -> list[JobRow]:
        """Return the jobs that wait or are held, in the queue's order."""
        return self._rows(f"WHERE {_among('state', IN_LINE)} AND NOT gone ORDER BY position, number", *IN_LINE)

    def queued(self) -> list[JobRow]:
        """Return the running job, then those that wait or are held, in one query."""
        first = "state != ?, position, number"
        return self._rows(f"WHERE {_among('state', QUEUED)} AND NOT gone ORDER BY {first}", *QUEUED, RUNNING)

    def running(self) -> list[JobRow]:
        return self._rows("WHERE state = ? ORDER BY number", RUNNING)

    def front(self, row: JobRow) -> int:
        """Return a position before all jobs that wait or are held; the row's own where it is first already."""
        return min([row.position, *(each.position - 1 for each in self.line())])

    def line_up(self, ids: Sequence[str]) -> None:
        """Set the queue's order."""
        with self.changing():
            for position, job_id in enumerate(ids, 1):
                self._db.execute("UPDATE jobs SET position = ? WHERE id = ?", (position, job_id))

    def count_queued(self, owner: str | None = None) -> int:
        rest, values = ("AND owner = ?", [owner]) if owner is not None else ("", [])
        query = f"SELECT count(*) FROM jobs WHERE {_among('state', QUEUED)} AND NOT gone {rest}"
        with self._lock, self._told():
            return int(self._db.execute(query, (*QUEUED, *values)).fetchone()[0])

    # -- the history -------------------------------------------------------------

    def history(
        self, owner: str | None, search: str, engine: str | None, favourites: bool, limit: int, offset: int
    ) -> list[JobRow]:
        """Return jobs that are over, the newest first; `search` is words that must all occur in the prompt or the
        cast's names."""
        terms, values = [f"{_among('state', OVER)} AND NOT gone AND trashed = ''"], list[object](OVER)
        for column, wanted in (("owner", owner), ("engine", engine)):
            if wanted is not None:
                terms.append(f"{column} = ?")
                values.append(wanted)
        for word in folded(search).split():
            terms.append("instr(words, ?)")
            values.append(word)
        if favourites:
            terms.append("favourite")
        return self._rows(f"WHERE {' AND '.join(terms)} ORDER BY number DESC LIMIT ? OFFSET ?", *values, limit, offset)

    def in_trash(self, owner: str | None = None) -> list[JobRow]:
        rows = self._rows("WHERE trashed != '' AND NOT gone ORDER BY trashed DESC, number DESC")
        return [row for row in rows if owner is None or row.owner == owner]

    def everything(self) -> Iterator[tuple[str, str, str, int]]:
        """Return (id, folder, trashed, gone) of all jobs."""
        with self._lock, self._told():
            return iter(self._db.execute("SELECT id, folder, trashed, gone FROM jobs").fetchall())

    def pace(self, engine: str) -> float | None:
        """Return the seconds that this machine takes for one unit of work, the median of its last jobs; None without
        any."""
        query = "SELECT seconds / units FROM jobs WHERE state = ? AND engine = ? AND seconds > 0 AND units > 0"
        with self._lock, self._told():
            found = self._db.execute(f"{query} ORDER BY number DESC LIMIT ?", (DONE, engine, _PAST)).fetchall()
        return statistics.median(each[0] for each in found) if found else None

    # -- settings ------------------------------------------------------------------

    def setting(self, name: str, default: object) -> object:
        with self._lock, self._told():
            found = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return json.loads(found[0]) if found else default

    def set_setting(self, name: str, value: object) -> None:
        with self.changing():
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))


def open_store(path: Path, has_outputs: bool) -> tuple[JobStore, str]:
    """Open the store and return it with what a person should know: a damaged file is renamed, never deleted, and a new
    one made. `has_outputs`: there are clips, so an empty file is a damaged one."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size == 0 and has_outputs:
            return _anew(path)
    try:
        return JobStore(path), ""
    except Damaged:
        return _anew(path)


def _anew(path: Path) -> tuple[JobStore, str]:
    stem, number = f"{path.stem}.damaged-{datetime.now(UTC):%Y-%m-%d}", 2
    aside = path.with_name(f"{stem}{path.suffix}")
    while aside.exists():
        aside, number = path.with_name(f"{stem}-{number}{path.suffix}"), number + 1
    try:
        os.replace(path, aside)
        for tail in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{tail}", f"{aside}{tail}")
    except OSError as error:
        raise StoreError(f"The damaged {path} cannot be set aside ({error.strerror})", "Move it away.") from None
    notice = f"The list of jobs was damaged: it is kept as {aside.name}, and a new one was made from your clips."
    return JobStore(path), notice


def _among(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join('?' * len(values))})"
