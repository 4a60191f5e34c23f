"""Jobs: a thread owned by the server runs them one after another, so closing the tab does not end one.

A job's folder holds the whole scene (pictures included), so that the command line can render it again, and the clip
when it is whole. A job's id is unguessable and the only way to ask for it.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import SceneError, Stopped, TroupeError
from engine.scene import load_scene

log = logging.getLogger("troupe.jobs")

WAITING, RUNNING, DONE, STOPPED, FAILED = "waiting", "running", "done", "stopped", "failed"
ID = re.compile(r"[0-9a-f]{32}")


class QueueFull(TroupeError):
    """More jobs are waiting than this copy of Troupe takes."""


@dataclass
class Job:
    """One render. Written by the worker thread only; the page reads `Board.snapshot`."""

    id: str
    desk: str
    folder: Path
    request: Any
    state: str = WAITING
    progress: Any = None
    result: Any = None
    error: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Snapshot:
    """What the page may know of a job at one moment. `share` is the part done, 0 to 1; times in seconds."""

    id: str
    state: str
    stage: str = ""
    share: float = 0.0
    elapsed: float = 0.0
    remaining: float | None = None
    ahead: int = 0
    error: str = ""
    clip: Path | None = None
    seed: int | None = None
    notices: tuple[str, ...] = ()
    engine: str = "draft"
    step: int = 0
    of: int = 0
    detail: str = ""
    preview: Path | None = None

    @property
    def active(self) -> bool:
        return self.state in (WAITING, RUNNING)


class JobBoard:
    """The queue and its worker. `render(request, on_progress, stop) -> Result` is the engine's door."""

    def __init__(self, folder: Path, render: Callable, *, per_desk: int = 3, in_all: int = 30) -> None:
        self.folder, self._render = folder, render
        self._per_desk, self._in_all = per_desk, in_all
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def new_folder(self, slug: str) -> tuple[str, Path]:
        """An id and a fresh folder for a job; the folder's name says when and what."""
        job_id = uuid.uuid4().hex
        folder = self.folder / f"{time.strftime('%Y-%m-%d_%H%M%S')}_{slug}_{job_id}"
        folder.mkdir(parents=True)
        return job_id, folder

    def check_room(self, desk: str) -> None:
        """Raises QueueFull when no further job of this desk is taken now."""
        with self._changed:
            active = [job for job in self._jobs.values() if not job.ended.is_set()]
            if sum(job.desk == desk for job in active) >= self._per_desk:
                raise QueueFull(f"{self._per_desk} of your clips are being made already", "Wait for one to finish.")
            if len(active) >= self._in_all:
                raise QueueFull(f"{len(active)} clips are waiting already", "Try again in a minute.")

    def submit(self, job_id: str, folder: Path, desk: str, request: Any) -> Job:
        """Put a job at the end of the queue. Raises QueueFull."""
        job = Job(job_id, desk, folder, request)
        with self._changed:
            self.check_room(desk)
            self._jobs[job_id] = job
            self._queue.append(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="troupe-jobs", daemon=True)
                self._worker.start()
            self._changed.notify_all()
        return job

    def stop(self, job_id: object, wait: float = 0.5) -> None:
        """Ask a job to stop and wait up to `wait` seconds for it; a waiting one ends at once."""
        job = self._jobs.get(job_id) if isinstance(job_id, str) else None
        if job is None:
            return
        job.stop.set()
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)
                self._end(job, STOPPED)
        job.ended.wait(wait)

    def snapshot(self, job_id: object) -> Snapshot | None:
        """A job as it stands; finished ones are found on disk after a restart. None where there is no such job."""
        if not isinstance(job_id, str) or not ID.fullmatch(job_id):
            return None
        job = self._jobs.get(job_id)
        if job is None:
            return self._from_disk(job_id)
        with self._changed:
            ahead = list(self._queue).index(job) + 1 if job in self._queue else 0
        progress, result = job.progress, job.result
        seed = job.request.scene.sampling.seed
        if result is not None:
            return Snapshot(
                job.id, job.state, "", 1.0, result.seconds, 0.0, 0, "", result.path, seed,
                tuple(result.notices), result.engine,
            )  # fmt: skip
        if progress is None:
            return Snapshot(
                job.id, job.state, ahead=ahead, error=job.error, seed=seed, engine=job.request.scene.engine
            )
        share = {"cast": 0.0, "poster": 1.0}.get(progress.stage, progress.step / (progress.of or 1))
        return Snapshot(
            job.id, job.state, progress.stage, share, progress.elapsed, progress.remaining, ahead, job.error, seed=seed,
            engine=job.request.scene.engine, step=progress.step, of=progress.of, detail=progress.detail,
            preview=job.request.a2.preview,
        )  # fmt: skip

    def _from_disk(self, job_id: str) -> Snapshot | None:
        for folder in self.folder.glob(f"*_{job_id}"):
            for clip in folder.glob("*.mp4"):
                return Snapshot(job_id, DONE, share=1.0, clip=clip, seed=_seed_of(folder / "scene.json"))
            return Snapshot(
                job_id, FAILED, error="Troupe was closed before this clip was finished. Press Generate again."
            )
        return None

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                job = self._queue.popleft()
                job.state = RUNNING
            self._run(job)

    def _run(self, job: Job) -> None:
        def tell(progress: Any) -> None:
            job.progress = progress

        try:
            job.result = self._render(job.request, on_progress=tell, stop=job.stop.is_set)
            self._end(job, DONE)
        except Stopped:
            self._end(job, STOPPED)
        except TroupeError as error:
            self._end(job, FAILED, str(error))
        except Exception:  # a bug must end the job, never the worker
            log.exception("job %s failed", job.id)
            self._end(job, FAILED, "Something went wrong inside Troupe. The console shows the details.")

    def _end(self, job: Job, state: str, error: str = "") -> None:
        job.state, job.error = state, error
        if state == STOPPED:  # nothing partial is kept, and the scene is still on the desk
            shutil.rmtree(job.folder, ignore_errors=True)
        job.ended.set()


def _seed_of(scene: Path) -> int | None:
    try:
        return load_scene(scene).sampling.seed
    except SceneError:
        return None
