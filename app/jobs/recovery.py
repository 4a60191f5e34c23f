"""At the start: make the store and the folders agree, however the last run ended."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.jobs.folders import Folders, drop_steps, is_complete, poster_of, tidy, whole_clip
from app.jobs.records import may_go_on, read_back
from app.jobs.status import DONE, INTERRUPTED, WAITING
from app.jobs.store import JobRow, JobStore, now

log = logging.getLogger("troupe.jobs")

CLOSED = "Troupe was closed before this clip was finished."


def reconcile(store: JobStore, folders: Folders) -> None:
    """Repair the store after the last run: jobs that were running become waiting, interrupted or, where the clip is
    whole, done; unfinished moves to and from the trash are completed; folders that the store does not know are added.
    Nobody else may be using the folder."""
    known = set()
    with store.changing():
        for row in store.running():
            found = _found(row, folders.find(row.folder, bool(row.trashed)))
            if found["state"] == WAITING:
                found["position"] = store.front(row)
            store.change(row.id, **found)
        for job_id, name, trashed, gone in store.everything():
            known.add(job_id)
            folders.move(name, to_trash=bool(trashed))
            missing = not folders.find(name, bool(trashed)).is_dir()
            if missing != bool(gone):
                store.change(job_id, gone=int(missing))
        for job_id, folder, in_trash in folders.all():
            if job_id in known:
                folders.accept(folder)
            elif folders.is_pending(folder):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                try:
                    _take_in(store, folder, job_id, in_trash)
                except (
                    ValueError,
                    TypeError,
                    sqlite3.IntegrityError,
                ) as error:  # one odd folder must not cost the rest
                    log.warning("the job in %s is left out: %s: %s", folder.name, type(error).__name__, error)


def _found(row: JobRow, folder: Path) -> dict[str, Any]:
    """Return the new columns of a job that was running when its process ended."""
    tidy(folder)
    clip = whole_clip(folder)
    if clip is None and not row.trashed and is_complete(folder) and may_go_on(folder):
        return {"state": WAITING, "error": "", "ended": ""}  # a job interrupted at night continues by itself
    if clip is None:
        return {"state": INTERRUPTED, "error": CLOSED, "ended": now()}
    drop_steps(folder)
    return done_values(clip, poster_of(clip), row.elapsed) | {"error": ""}


def _take_in(store: JobStore, folder: Path, job_id: str, in_trash: bool) -> None:
    """Add a job that the store does not know; one whose folder is in the trash was moved there now at the latest."""
    lost = read_back(folder, job_id)
    if lost is None:
        return
    row = replace(lost, trashed=lost.trashed or (now() if in_trash else ""))
    clip = whole_clip(folder)
    if clip is None and not is_complete(folder):  # neither clip nor scene: left as it is
        return
    tidy(folder)
    if clip is not None:
        drop_steps(folder)
        changes = done_values(clip, poster_of(clip), 0.0)
    else:
        changes = {"state": INTERRUPTED, "error": CLOSED, "position": 0}
    store.add(row)
    store.change(row.id, **changes)


def done_values(
    clip: Path, poster: Path | None, seconds: float, notices: tuple[str, ...] = (),
    metrics: Mapping[str, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the columns of a job that has its clip; without `metrics` what was measured on it stays as it is."""
    return {
        "state": DONE, "clip": clip.name, "poster": poster.name if poster else "", "seconds": seconds,
        "notices": json.dumps(list(notices)), "ended": now(), "remaining": None,
        **({} if metrics is None else {"metrics": json.dumps(metrics, allow_nan=False)}),
    }  # fmt: skip
