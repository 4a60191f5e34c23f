"""The worker thread that runs the queue's jobs one after another. It is the server's, so closing the tab ends nothing.

A job's result is in the store before anybody is told. A full disk stops the queue, not the jobs in it: it resumes when
there is room again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.jobs.folders import Folders, drop_steps, settle
from app.jobs.log import NAME as JOURNAL
from app.jobs.log import JobLog
from app.jobs.records import STATE, amend, may_go_on, request_of
from app.jobs.recovery import CLOSED, done_values
from app.jobs.status import DONE, FAILED, INTERRUPTED, RUNNING, STOPPED, WAITING
from app.jobs.store import JobRow, JobStore, StoreError, now
from engine.disk.room import free_bytes, is_full
from engine.door.render import Result
from engine.errors import Stopped, TroupeError
from engine.process.client import EngineClosed, EngineDied

log = logging.getLogger("troupe.jobs")
RenderCall = Callable[..., Result]  # (request, on_progress, stop): an engine's render

_RETRY = 1.0  # seconds between two retries while the disk is full
_ROOM = 16 * 2**20  # bytes that must have become free before a full disk is tried again
_FAULT = "Something went wrong inside Troupe. The Help tab gathers what a report needs."
_KEPT = "The steps so far are kept: the Clips tab can go on from there."
_EVERY = 1.0  # seconds between two writes of the progress; memory holds the newest


@dataclass
class Job:
    """The handle of a job in the queue; `ended` is set when it leaves it. `then` is the state after a stop."""

    id: str
    folder: Path
    request: Any = None
    then: str = STOPPED
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class Runner:
    """The worker. Hold `changed` to read or change what the queue holds, and call its `notify_all` after a change."""

    def __init__(self, store: JobStore, folders: Folders, render: RenderCall) -> None:
        self._store, self._folders, self._render = store, folders, render
        self.changed = threading.Condition(threading.RLock())
        self.paused = bool(store.setting("paused", False))
        self.trouble = ""  # why the queue does not move, in a sentence; empty while it does
        self.progress: Any = None
        self.heard = 0.0  # when the running job last said how far it is, on the monotonic clock
        self.earlier = 0.0  # seconds that the running job took in earlier runs
        self._jobs: dict[str, Job] = {}
        self._free_when_full: int | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def start(self) -> None:
        with self.changed:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._work, name="troupe-jobs", daemon=True)
                self._thread.start()
            self.changed.notify_all()

    def close(self, wait: float) -> bool:
        """Stop the running job, to be continued at the next start; return whether the thread ended within `wait`
        seconds."""
        with self.changed:
            self._closing = True
            for job in self._jobs.values():
                job.then = WAITING if not job.stop.is_set() else job.then  # the next start goes on with it
                job.stop.set()
            self.changed.notify_all()
        if self._thread is not None:
            self._thread.join(wait)
            return not self._thread.is_alive()
        return True

    def try_again(self) -> None:
        """Retry at once after a full disk: a person says that there is room."""
        with self.changed:
            self._free_when_full, self.trouble = None, ""
        self.start()

    def handle(self, row: JobRow) -> Job:
        """Return the handle of a job in the queue."""
        with self.changed:
            if row.id not in self._jobs:
                self._jobs[row.id] = Job(row.id, self._folders.find(row.folder, bool(row.trashed)))
            return self._jobs[row.id]

    def dismiss(self, job_id: str) -> None:
        """Drop the handle of a job that has left the queue, and wake those who wait for it."""
        with self.changed:
            job = self._jobs.pop(job_id, None)
            if job is not None:
                job.ended.set()
            self.changed.notify_all()

    # -- the thread ---------------------------------------------------------------

    def _work(self) -> None:
        while (row := self._next()) is not None:
            job = self.handle(row)
            log.info("job %s (%s) begins", row.id, row.engine)
            values = self._run(row, job)
            log.info("job %s: %s", row.id, values["state"])
            with self.changed:  # atomic: a resume in between would get the old handle
                if not self._keep(row, values):
                    return
                if values["state"] != WAITING:
                    self.trouble = ""
                if values["state"] != WAITING or self._closing:
                    self.dismiss(job.id)

    def _next(self) -> JobRow | None:
        """Wait for the next job, mark it as running and return it; None when Troupe is closed."""
        with self.changed:
            while not self._closing:
                try:
                    row = self._first()
                    if row is not None:
                        earlier = row.elapsed if (self.handle(row).folder / STATE).exists() else 0.0
                        self.progress, self.earlier, self.heard = None, earlier, time.monotonic()
                        self._store.change(row.id, state=RUNNING, started=now(), ended="", error="", elapsed=earlier)
                        self.trouble = ""
                        return row
                    patience = _RETRY if self._free_when_full is not None else None
                except StoreError as error:
                    self.trouble, patience = str(error), _RETRY
                self.changed.wait(patience)
        return None

    def _first(self) -> JobRow | None:
        if self.paused or (self._free_when_full is not None and self._free() < self._free_when_full + _ROOM):
            return None
        if self._free_when_full is not None:
            self._free_when_full, self.trouble = None, ""
        return next((row for row in self._store.line() if row.state == WAITING), None)

    def _run(self, row: JobRow, job: Job) -> dict[str, Any]:
        """Render a job and return its result as the store's columns. All of it is logged in the job's own log."""
        journal, told = JobLog(job.folder), time.monotonic()

        def tell(progress: Any) -> None:
            nonlocal told
            self.progress, self.heard = progress, time.monotonic()
            journal.tell(progress)
            if time.monotonic() - told >= _EVERY:
                told = time.monotonic()
                with contextlib.suppress(StoreError):  # a full disk: the next write, or the result's, reports it
                    self._store.change(row.id, **self._reached())

        try:
            request = request_of(row, job.folder)
            journal.begin(request, row.engine, (job.folder / STATE).exists())
            result = self._render(request, on_progress=tell, stop=job.stop.is_set)
            for notice in result.notices:
                journal.note(notice)
            journal.end(DONE)
            with contextlib.suppress(OSError):
                settle(job.folder)
            drop_steps(job.folder)  # before the store knows: after a kill in between, the clip counts
            seconds, metrics = self.earlier + result.seconds, dict(result.metrics)
            if metrics:
                with contextlib.suppress(OSError):  # the store has them; the folder is for a day without it
                    amend(job.folder, metrics=metrics)
            return done_values(result.path, result.poster, seconds, result.notices, metrics)
        except Exception as error:  # even a bug ends the job only, never the worker
            values = self._fallen(row, job, error)
            is_fault = values["state"] == FAILED
            journal.end(values["state"], values["error"] if is_fault else "", error if is_fault else None)
            return values
        finally:
            journal.close()

    def _fallen(self, row: JobRow, job: Job, error: Exception) -> dict[str, Any]:
        """Return the columns of a job that ended with an exception."""
        if isinstance(error, Stopped | EngineClosed):
            then = job.then if isinstance(error, Stopped) or job.stop.is_set() else INTERRUPTED
            if then == WAITING:
                return self._goes_on()
            return self._end(then, CLOSED if then == INTERRUPTED else "")
        if not isinstance(error, TroupeError):
            log.error("job %s failed: %s; its %s has the details", row.id, type(error).__name__, JOURNAL)
            return self._end(FAILED, _FAULT)
        if is_full(error):
            return self._wait_for_room(row, error)
        said = str(error)
        if isinstance(error, EngineDied):
            log.error("job %s: %s", row.id, said)
            if (job.folder / STATE).is_file():
                if may_go_on(job.folder):
                    return self._goes_on()
                said = f"{said} {_KEPT}"
        return self._end(FAILED, said)

    def _end(self, state: str, error: str) -> dict[str, Any]:
        return {"state": state, "error": error, "ended": now(), **self._reached()}

    def _goes_on(self) -> dict[str, Any]:
        return {"state": WAITING, "error": "", **self._reached()}

    def _reached(self) -> dict[str, Any]:
        """Return the running job's progress as columns."""
        at = self.progress
        if at is None:
            return {}
        return {"stage": at.stage, "step": at.step, "of": at.of, "detail": at.detail, "remaining": at.remaining,
                "elapsed": self.earlier + at.elapsed}  # fmt: skip

    def _wait_for_room(self, row: JobRow, error: TroupeError) -> dict[str, Any]:
        with self.changed:
            self.trouble = str(error)
            self._free_when_full = self._free()
        return self._goes_on()

    def _keep(self, row: JobRow, values: dict[str, Any]) -> bool:
        """Save a job's result, retrying until the disk takes it: until then it is shown as running. Returns False where
        Troupe was closed meanwhile; the next start finds the result in the folder."""
        while True:
            try:
                if values["state"] == WAITING:  # first in line again
                    values = {**values, "position": self._store.front(row)}
                self._store.change(row.id, **values)
                return True
            except StoreError as error:
                with self.changed:
                    self.trouble = str(error)
                    if self._closing:
                        return False
                    self.changed.wait(_RETRY)

    def _free(self) -> int:
        """Return the free bytes on the disk of the clips; 0 where that is not known."""
        return free_bytes(self._folders.outputs)[0] or 0
