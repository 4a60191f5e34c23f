"""Clips saved as other kinds of files: made in the background, reported on the page, and deleted after a day."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.jobs.status import Snapshot
from engine.errors import Stopped, TroupeError
from engine.media.export import KINDS, export
from engine.words import gigabytes

DAY = 86_400.0
_AT_ONCE = 2  # encoders beside the one that makes clips
_TOLD = 1.0  # seconds between two progress updates


def export_file(exports: Path, snap: Snapshot, kind: str) -> Path:
    """Return the path of a clip's export of a kind; it holds the job's id."""
    stem = snap.clip.stem if snap.clip else snap.id
    return exports / snap.id / f"{stem}{KINDS[kind]}"


@dataclass
class _Run:
    done: int = 0
    of: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


class Exports:
    """The exports of one server, in a folder of their own. None needs to be kept: each can be made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._room = threading.Semaphore(_AT_ONCE)
        self._runs: dict[tuple[str, str], _Run] = {}

    def make(self, snap: Snapshot, kind: str) -> Generator[dict[str, Any]]:
        """Yield the state of an export for clips.js until it is ready, stopped or failed. Closing the generator stops
        the export."""
        self.sweep()
        out = export_file(self.folder, snap, kind)
        key, run = (snap.id, kind), _Run()
        if not out.is_file():
            self._runs[key] = run
            threading.Thread(target=self._make, args=(snap, out, kind, run), name="troupe-export", daemon=True).start()
            try:
                while not run.ended.wait(_TOLD):
                    share = round(100 * run.done / run.of) if run.of else 0
                    yield {"id": snap.id, "kind": kind, "state": "busy", "words": f"{share} %"}
            finally:
                run.stop.set()
                if self._runs.get(key) is run:
                    del self._runs[key]
        if isinstance(run.error, Stopped):
            yield {"id": snap.id, "kind": kind, "state": "stopped", "words": "Stopped."}
        elif run.error is not None:
            yield {"id": snap.id, "kind": kind, "state": "failed", "words": _said(run.error)}
        else:
            words = f"{out.name}, {gigabytes(out.stat().st_size)}"
            yield {"id": snap.id, "kind": kind, "state": "ready", "words": words}

    def stop(self, job_id: str, kind: str) -> None:
        if run := self._runs.get((job_id, kind)):
            run.stop.set()

    def sweep(self, older_than: float = DAY) -> None:
        """Delete exports that are older than so many seconds."""
        for folder in self.folder.glob("*"):
            try:
                old = time.time() - folder.stat().st_mtime > older_than
            except OSError:  # it has been deleted meanwhile
                continue
            if old:
                shutil.rmtree(folder, ignore_errors=True)

    def _make(self, snap: Snapshot, out: Path, kind: str, run: _Run) -> None:
        def tell(done: int, of: int) -> None:
            run.done, run.of = done, of

        try:
            if snap.clip is None:
                raise TroupeError("There is no such clip", "Reload the page.")
            with self._room:
                if run.stop.is_set():
                    raise Stopped
                out.parent.mkdir(parents=True, exist_ok=True)
                export(snap.clip, out, kind, tell, run.stop.is_set)
        except Exception as error:  # shown on the page
            run.error = error
        finally:
            run.ended.set()


def _said(error: Exception) -> str:
    if isinstance(error, TroupeError):
        return str(error)
    if isinstance(error, OSError):
        return f"It cannot be written ({error.strerror}). Check the disk of the outputs folder."
    return "Something went wrong inside Troupe. Try another kind of file."
