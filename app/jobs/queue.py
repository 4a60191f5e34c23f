"""The job queue: everything that a page can do with jobs.

A job's folder holds the whole scene (pictures included), so that the command line can render it again, and the clip
when it is finished. A job's id cannot be guessed. Where an owner is given, only their jobs can be named.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.jobs.folders import Folders, copy_pictures, settle
from app.jobs.history import History
from app.jobs.lock import FolderLock
from app.jobs.records import JobRecord, options_of, request_of, row_of, write_down
from app.jobs.recovery import reconcile
from app.jobs.runner import Job, RenderCall, Runner
from app.jobs.status import (
    DONE,
    FAILED,
    IN_LINE,
    INTERRUPTED,
    OVER,
    PAUSED,
    QUEUED,
    RUNNING,
    STOPPED,
    WAITING,
    Snapshot,
)
from app.jobs.store import JobRow, StoreError, now, open_store
from app.jobs.turns import Asker, place_in_line
from engine.errors import TroupeError

__all__ = ["DONE", "FAILED", "INTERRUPTED", "PAUSED", "RUNNING", "STOPPED", "WAITING", "Job", "JobQueue", "QueueFull",
           "Snapshot", "StoreError"]  # fmt: skip

STORE = "jobs.sqlite"


class QueueFull(TroupeError):
    """More jobs are waiting than this copy of Troupe accepts."""


class JobQueue(History):
    """The queue, its worker and the history. `render(request, on_progress, stop) -> Result` makes a clip.

    Construction locks the folder for this process and reconciles the store with the folders after the last run;
    `notice` says what a person should know of that. `start` lets waiting jobs run. Raises TroupeError where another
    copy works on the folder, it cannot be written, or a newer Troupe has written the store.
    """

    def __init__(self, outputs: Path, render: RenderCall, *, per_desk: int = 3, in_all: int = 30) -> None:
        self._per_desk, self._in_all = per_desk, in_all
        self.asker: Callable[[], Asker] | None = None  # returns who asks, on a server; without it there are no turns
        self._askers: dict[str, str] = {}  # job in the queue -> who; lost at a restart, then the desk counts
        self._folders = folders = Folders(outputs)
        self.lock = FolderLock(outputs)
        try:
            was_there = (outputs / STORE).is_file()
            self._store, self.notice = open_store(outputs / STORE, any(folders.all()))
            self.is_new = bool(self.notice) or not was_there  # rebuilt from the folders, which may lack something
            try:
                reconcile(self._store, folders)
                self._worker = Runner(self._store, folders, render)
            except BaseException:
                self._store.close()
                raise
        except BaseException:
            self.lock.release()
            raise

    def start(self) -> None:
        """Start the worker; submitting a job does so, too."""
        self._worker.start()

    def close(self, wait: float = 10.0) -> None:
        """Interrupt the running job, save everything and release the folder."""
        if self._worker.close(wait):
            self._store.close()
            self.lock.release()

    def take_notice(self) -> str:
        """Return the notice once; later calls return an empty string."""
        notice, self.notice = self.notice, ""
        return notice

    # -- the queue ----------------------------------------------------------------

    def new_folder(self, slug: str) -> tuple[str, Path]:
        """Make an id and a folder for a job; the folder's name tells when and what."""
        return self._folders.new(slug)

    def check_room(self, owner: str) -> None:
        """Check that one more job of this owner fits, raising QueueFull where not. The machine's owner always has
        room."""
        if self.asker is not None and self.asker().is_owner:
            return
        if self._store.count_queued(owner) >= self._per_desk:
            raise QueueFull(f"{self._per_desk} of your clips are being made already", "Wait for one to finish.")
        if (count := self._store.count_queued()) >= self._in_all:
            raise QueueFull(f"{count} clips are waiting already", "Try again in a minute.")

    def submit(
        self, job_id: str, folder: Path, owner: str, request: Any, instead_of: str | None = None, plan: Any = None
    ) -> Job:
        """Put a job in the queue, in its owner's turn; its pictures are in `folder` already. `instead_of` is a waiting
        job that it replaces in its place, and which goes to the trash: that is how a job is edited. `plan` is JSON data
        about how the engine will run. Raises QueueFull, or TroupeError where it cannot be saved."""
        begun = now()
        papers = JobRecord(job_id, owner, options_of(request), begun)
        row = replace(row_of(papers, folder, request.scene), plan=json.dumps(plan))
        try:
            write_down(folder, papers, request.scene)
            settle(folder)
        except OSError as error:
            problem = f"The job cannot be written down ({error.strerror or error})"
            raise TroupeError(problem, "Free some space on the disk of the outputs folder.") from None
        with self._worker.changed:
            with self._store.changing():
                old = self._mine(instead_of, owner, IN_LINE) if instead_of is not None else None
                if old is None:
                    self.check_room(owner)
                    self._remember(row)
                else:
                    self._askers[row.id] = self._askers.pop(old.id, old.owner)
                    row = replace(row, position=old.position)
                    self._store.change(old.id, state=STOPPED, trashed=begun, ended=begun)
                self._store.add(row)
                if old is None:
                    self._take_turn(row)
            job = self._worker.handle(row)
            job.request = request_of(row, folder)
        self._folders.accept(folder)
        if old is not None:
            self._worker.dismiss(old.id)
            self._folders.move(old.folder, to_trash=True)
            self._write_down(replace(old, trashed=begun), trashed=begun)
        self._worker.start()
        return job

    def duplicate(self, job_id: str, owner: str | None = None, seed: int | None = None) -> Job:
        """Put the same scene in the queue once more, with another seed where one is given. Raises TroupeError."""
        row = self._mine(job_id, owner)
        self.check_room(row.owner)
        source = self._folder(row)
        request, slug = request_of(row, source), "_".join(row.folder.split("_")[2:-1]) or "clip"
        if seed is not None:
            sampling = request.scene.sampling.model_copy(update={"seed": seed})
            request = replace(request, scene=request.scene.model_copy(update={"sampling": sampling}))
        new_id, folder = self.new_folder(slug)
        try:
            copy_pictures(source, folder, request.scene)
            out = folder / f"{slug}_{request.scene.sampling.seed}.mp4"
            request = replace(request, root=folder, out=out)
            return self.submit(new_id, folder, row.owner, request, plan=json.loads(row.plan))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def stop(self, job_id: object, wait: float = 0.5, owner: str | None = None) -> None:
        """Ask a job to stop and wait up to `wait` seconds for it; a waiting one ends at once. Its scene and the steps
        that it has saved are kept, so that it can be resumed."""
        self._leave(job_id, STOPPED, wait, owner)

    def hold(self, job_id: object, wait: float = 0.5, owner: str | None = None) -> None:
        """Hold a job: like `stop`, but it keeps its place in the queue; the others go on."""
        self._leave(job_id, PAUSED, wait, owner)

    def resume(self, job_id: str, owner: str | None = None) -> Job:
        """Let a held job run in its turn, or put a stopped, interrupted or failed one in the queue again; it continues
        from the steps that it has saved. Raises TroupeError."""
        with self._worker.changed:
            with self._store.changing():
                row = self._mine(job_id, owner, (PAUSED, WAITING, STOPPED, INTERRUPTED, FAILED))
                is_back = row.state in OVER
                if is_back:
                    self.check_room(row.owner)
                    self._remember(row)
                    line = self._store.line()
                    self._store.change(row.id, position=1 + max((each.position for each in line), default=0))
                self._store.change(row.id, state=WAITING, error="", ended="")
                if is_back:
                    self._take_turn(row)
            self._write_down(row, went_on=0)  # a resume by hand resets the count of automatic ones
            job = self._worker.handle(row)
        self._worker.start()
        return job

    def move(self, job_id: str, to: int, owner: str | None = None) -> None:
        """Move a waiting job to another place, 0 being the next to run. An owner's jobs change places among themselves
        only, so that other owners' jobs are not pushed back. Raises TroupeError."""
        self._reorder(job_id, owner, lambda at: to)

    def move_up(self, job_id: str, owner: str | None = None) -> None:
        self._reorder(job_id, owner, lambda at: at - 1)

    def move_down(self, job_id: str, owner: str | None = None) -> None:
        self._reorder(job_id, owner, lambda at: at + 1)

    def run_next(self, job_id: str, owner: str | None = None) -> None:
        """Move a job to the front of the queue, and let it run if it was held."""
        with self._worker.changed:  # atomic: a running job cannot be resumed
            self._reorder(job_id, owner, lambda at: 0)
            self.resume(job_id, owner)

    @property
    def paused(self) -> bool:
        """Whether the whole queue is paused. The job that was running then still runs to its end."""
        return self._worker.paused

    def pause_queue(self) -> None:
        self._set_paused(True)

    def resume_queue(self) -> None:
        """Resume the queue, also where a full disk has stopped it."""
        self._set_paused(False)
        self._worker.try_again()

    @property
    def trouble(self) -> str:
        """Why the queue does not move although it should, in a sentence; empty while it does."""
        return self._worker.trouble

    # -- the trash ---------------------------------------------------------------------

    def trash(self, job_id: str, owner: str | None = None) -> None:
        """Move a job to the trash, stopping it first where it runs; `restore` brings it back. Raises TroupeError."""
        self.stop(self._mine(job_id, owner).id, wait=10.0)
        row = replace(self._mine(job_id, owner, OVER), trashed=now())
        self._store.change(row.id, trashed=row.trashed)
        self._folders.move(row.folder, to_trash=True)
        self._write_down(row, trashed=row.trashed)

    # -- within ---------------------------------------------------------------------

    def _leave(self, job_id: object, state: str, wait: float, owner: str | None) -> None:
        with self._worker.changed:
            row = self._row(job_id, owner)
            if row is None or row.state not in QUEUED:
                return
            job = self._worker.handle(row)
            if row.state == RUNNING:
                job.then = state
                job.stop.set()
            else:
                self._store.change(row.id, state=state, **({"ended": now()} if state in OVER else {}))
                self._worker.dismiss(row.id)
        job.ended.wait(wait)

    def _reorder(self, job_id: str, owner: str | None, target: Callable[[int], int]) -> None:
        with self._worker.changed, self._store.changing():
            self._mine(job_id, owner, IN_LINE)
            line = self._store.line()
            mine = [row.id for row in line if owner is None or row.owner == owner]
            at = mine.index(job_id)
            mine.insert(max(0, min(target(at), len(mine) - 1)), mine.pop(at))
            places = iter(mine)
            self._store.line_up([next(places) if owner is None or row.owner == owner else row.id for row in line])

    def _remember(self, row: JobRow) -> None:
        """Record who asked for a job that is being put in the queue, for the turns."""
        queued = {each.id for each in self._store.queued()}
        self._askers = {job: who for job, who in self._askers.items() if job in queued}
        self._askers[row.id] = self.asker().who if self.asker is not None else ""

    def _take_turn(self, row: JobRow) -> None:
        """Move a job from the end of the queue to its turn; the others keep their order."""
        if not self._askers[row.id]:  # not shared: there is one person only
            return
        line = {each.id: each for each in self._store.line() if each.id != row.id}
        running = {each.id: each for each in self._store.running()}

        def whose(job: str) -> str:
            return self._askers.get(job) or (line.get(job) or running.get(job) or row).owner

        waiting = [job for job, each in line.items() if each.state == WAITING]
        place = place_in_line(waiting, list(running), whose(row.id), whose)
        if place < len(waiting):
            ids = list(line)
            ids.insert(ids.index(waiting[place]), row.id)
            self._store.line_up(ids)

    def _set_paused(self, paused: bool) -> None:
        with self._worker.changed:
            self._store.set_setting("paused", paused)
            self._worker.paused = paused
            self._worker.changed.notify_all()
