"""Snapshots of the jobs, active or over; favourites and the trash."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app.jobs.folders import Folders
from app.jobs.records import PREVIEW, SCENE, STATE, amend
from app.jobs.runner import Runner
from app.jobs.status import DONE, FAILED, INTERRUPTED, RUNNING, STOPPED, WAITING, Snapshot, share_of
from app.jobs.store import JobRow, JobStore
from engine.errors import TroupeError

log = logging.getLogger("troupe.jobs")

_PAUSED = "The queue is paused. Whoever owns this Troupe lets it go on in the Clips tab."
ID = re.compile(r"[0-9a-f]{32}")


class History:
    """Reads jobs from the store, and the running job's progress from memory. Where an owner is given, only their jobs
    are found."""

    _store: JobStore
    _folders: Folders
    _worker: Runner

    def snapshot(self, job_id: object) -> Snapshot | None:
        """Return a snapshot of a job; None where there is no such job. Whoever has the id may ask."""
        row = self._row(job_id)
        if row is None:
            return None
        ahead = 0
        if row.state == WAITING:
            waiting = [each.id for each in self._store.line() if each.state == WAITING]
            ahead = 1 + waiting.index(row.id) if row.id in waiting else 1
        return self._snap(row, ahead)

    def queue(self, owner: str | None = None) -> list[Snapshot]:
        """Return snapshots of the running job, then of the waiting and held ones, in their order."""
        found, ahead = [], 0
        for row in self._store.queued():  # one query: between two, a job that starts could be missed
            ahead += row.state == WAITING
            found.append(self._snap(row, ahead if row.state == WAITING else 0))
        return [snap for snap in found if owner is None or snap.owner == owner]

    def history(
        self, owner: str | None = None, search: str = "", engine: str | None = None, favourites: bool = False,
        limit: int = 50, offset: int = 0,
    ) -> list[Snapshot]:  # fmt: skip
        """Return snapshots of jobs that are over, the newest first; `search`: words of the prompt or the cast's names,
        in any order."""
        return [self._snap(row) for row in self._store.history(owner, search, engine, favourites, limit, offset)]

    def in_trash(self, owner: str | None = None, older_than: float = 0.0) -> list[Snapshot]:
        """Return snapshots of the jobs that were moved to the trash at least so many seconds ago, the latest first."""
        before = _ago(older_than)
        return [self._snap(row) for row in self._store.in_trash(owner) if not older_than or row.trashed <= before]

    def scene_file(self, job_id: str, owner: str | None = None) -> Path:
        """Return the path of a job's scene; its pictures are beside it. Raises TroupeError."""
        return self._folder(self._mine(job_id, owner)) / SCENE

    # -- favourites and the trash ---------------------------------------------------

    def set_favourite(self, job_id: str, favourite: bool, owner: str | None = None) -> None:
        row = self._mine(job_id, owner)
        self._store.change(row.id, favourite=int(favourite))
        self._write_down(row, favourite=favourite)

    def restore(self, job_id: str, owner: str | None = None) -> None:
        """Restore a job from the trash."""
        row = self._mine(job_id, owner)
        self._store.change(row.id, trashed="")
        self._folders.move(row.folder, to_trash=False)
        self._write_down(replace(row, trashed=""), trashed="")

    def purge_trash(self, older_than: float, owner: str | None = None) -> int:
        """Delete for good the jobs that have been in the trash for so many seconds; return how many."""
        before, count = _ago(older_than), 0
        for row in self._store.in_trash(owner):
            folder = self._folder(row)
            if row.trashed <= before:
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():  # else it is in use: retried the next time
                    self._store.delete(row.id)
                    count += 1
        return count

    # -- within ---------------------------------------------------------------------

    def _row(self, job_id: object, owner: str | None = None) -> JobRow | None:
        row = self._store.get(job_id) if isinstance(job_id, str) and ID.fullmatch(job_id) else None
        return row if row is not None and owner in (None, row.owner) else None

    def _mine(self, job_id: object, owner: str | None, states: tuple[str, ...] = ()) -> JobRow:
        """Return the job's row. Raises TroupeError where there is none, it is another owner's, or it is in another
        state."""
        row = self._row(job_id, owner)
        if row is None:
            raise TroupeError("There is no such clip", "It may have been removed in another tab.")
        if states and (row.state not in states or row.trashed):
            where = "in the trash" if row.trashed else "being made now" if row.state == RUNNING else row.state
            raise TroupeError(f"That clip is {where}", "Reload the page to see how it stands.")
        return row

    def _write_down(self, row: JobRow, **values: object) -> None:
        """Save values of a job in its folder's job.json too, so that they survive the loss of the store."""
        try:
            amend(self._folder(row), **values)
        except OSError as error:
            log.warning("job %s: its papers cannot be written (%s)", row.id, error.strerror or error)

    def _folder(self, row: JobRow) -> Path:
        return self._folders.find(row.folder, bool(row.trashed))

    def _snap(self, row: JobRow, ahead: int = 0) -> Snapshot:
        folder = self._folder(row)
        seen = {
            "id": row.id, "state": row.state, "ahead": ahead, "error": row.error, "seed": row.seed,
            "notices": tuple(json.loads(row.notices)), "engine": row.engine, "prompt": row.prompt,
            "created": row.created, "owner": row.owner, "favourite": bool(row.favourite),
            "plan": json.loads(row.plan), "metrics": json.loads(row.metrics), "preview": _there(folder, PREVIEW),
        }  # fmt: skip
        if row.state == DONE:
            return _finished(row, folder, seen)
        kept = (folder / STATE).is_file()
        seen |= {
            "resumable": row.state in (STOPPED, INTERRUPTED, FAILED) and (folder / SCENE).is_file(),
            "steps_kept": kept, "left": self._left(row, kept),
        }  # fmt: skip
        # a finished job still shows as running while a full disk keeps its result from being saved
        if row.state in (WAITING, RUNNING):
            waits = row.state == WAITING and self._worker.paused
            seen["error"] = self._worker.trouble or (_PAUSED if waits else "")
        progress = self._worker.progress if row.state == RUNNING else None
        at: Any = progress or row
        elapsed, remaining = self._times(progress) if row.state == RUNNING else (row.elapsed, None)
        return Snapshot(
            **seen, stage=at.stage, step=at.step, of=at.of, detail=at.detail, elapsed=elapsed, remaining=remaining,
            share=share_of(row.engine, at.stage, at.step, at.of),
        )  # fmt: skip

    def _times(self, progress: Any) -> tuple[float, float | None]:
        """Return the seconds that the running job has taken, and those that its stage still takes by its own estimate
        (None: it gave none). Both go on between two messages of the engine, which can be minutes apart."""
        since = max(0.0, time.monotonic() - self._worker.heard)
        if progress is None:
            return self._worker.earlier + since, None
        left = progress.remaining
        return self._worker.earlier + progress.elapsed + since, None if left is None else max(0.0, left - since)

    def _left(self, row: JobRow, kept: bool) -> float | None:
        """Estimate the seconds that the whole job still takes, from the median speed of this engine's last jobs; None
        where that is not known."""
        pace = self._store.pace(row.engine)
        if pace is None:
            return None
        whole = pace * row.units
        if row.state == RUNNING:
            spent, remaining = self._times(self._worker.progress)
            return max(whole - spent, remaining or 0.0) or None  # it takes longer than estimated: no estimate
        return whole * (1 - share_of(row.engine, row.stage, row.step, row.of)) if kept else whole


def _ago(seconds: float) -> str:
    """Return the time so many seconds ago, in the store's format."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def _finished(row: JobRow, folder: Path, seen: dict[str, Any]) -> Snapshot:
    clip = _there(folder, row.clip)
    if clip is None:
        return Snapshot(**seen | {"state": FAILED, "error": "This clip's file is no longer in its folder."})
    return Snapshot(
        **seen, share=1.0, elapsed=row.seconds, remaining=0.0, left=0.0, clip=clip, poster=_there(folder, row.poster)
    )


def _there(folder: Path, name: str) -> Path | None:
    return path if name and (path := folder / Path(name).name).is_file() else None
