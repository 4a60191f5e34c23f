"""What uses the disk, and what may be deleted: clips and desks go to the trash, then from the trash; temporary files go
at once.

Nothing of a person's is moved unless they have set a limit of age or size for clips; favourites always stay.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.clips.exports import DAY, Exports
from app.create.desks import Desks
from app.jobs.queue import JobQueue
from app.jobs.status import Snapshot
from app.machine.settings import OwnerSettings
from engine.disk.walk import files_below
from engine.errors import TroupeError
from engine.words import gigabytes

IN_TRASH = 7 * DAY  # the trash is kept so long
DESK_ASLEEP, API_DESK_ASLEEP = 90 * DAY, DAY
_ALL = 10**6
_EDITS = "vibe_edit_history"  # Gradio's own folder, empty here


@dataclass(frozen=True)
class CleanUp:
    """A plan, or what was done: clips (id, bytes) and desks (folders) to move to the trash, `old_` ones to delete from
    it for good."""

    clips: tuple[tuple[str, int], ...] = ()
    desks: tuple[Path, ...] = ()
    old_clips: tuple[tuple[str, int], ...] = ()
    old_desks: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.clips or self.desks or self.old_clips or self.old_desks)


class Housekeeping:
    """Cleans up one outputs folder. `settings` hold the limits."""

    def __init__(self, jobs: JobQueue, desks: Desks, settings: OwnerSettings, exports: Exports, outputs: Path) -> None:
        self._jobs, self._desks, self.settings, self._exports = jobs, desks, settings, exports
        self._outputs = outputs

    def usage(self) -> list[tuple[str, int]]:
        """Return the bytes that each folder uses, by the folder's name on the page."""
        folders = {"Clips": "clips", "Trash": "trash", "Desks": "desks", "Cut-outs kept": "cutouts",
                   "Uploads and cache": "uploads", "Exports": "exports"}  # fmt: skip
        return [(name, size_of(self._outputs / folder)) for name, folder in folders.items()]

    def plan(self) -> CleanUp:
        """Plan what `run` would do now."""
        return CleanUp(
            tuple(self._clips_to_go()), tuple(self._desks_to_go()),
            tuple((snap.id, self._size(snap)) for snap in self._jobs.in_trash(older_than=IN_TRASH)),
            tuple(_older(self._desks.trash, IN_TRASH)),
        )  # fmt: skip

    def run(self) -> CleanUp:
        """Clean up and return what was done. What is in use, or was removed meanwhile, is left for the next time."""
        plan, done, gone = self.plan(), [], []
        for job_id, size in plan.clips:
            try:
                self._jobs.trash(job_id)
                done.append((job_id, size))
            except TroupeError:  # resumed, or moved to the trash by hand, meanwhile
                continue
        put_away = [folder for folder in plan.desks if self._desks.put_away(folder)]
        self._jobs.purge_trash(IN_TRASH)
        left = {snap.id for snap in self._jobs.in_trash()}
        emptied = tuple(each for each in plan.old_clips if each[0] not in left)
        for folder in plan.old_desks:
            shutil.rmtree(folder, ignore_errors=True)
            gone += [folder] if not folder.exists() else []
        self.sweep()
        return CleanUp(tuple(done), tuple(put_away), emptied, tuple(gone))

    def sweep(self) -> None:
        """Delete temporary files older than a day: exports, and Gradio's copies of what was uploaded or shown. Gradio
        deletes its copies too, but not those of an earlier run."""
        self._exports.sweep()
        for folder in _older(self._outputs / "uploads", DAY):
            if folder.name != _EDITS:
                shutil.rmtree(folder, ignore_errors=True)

    def at_start(self) -> CleanUp:
        """Clean up before the page opens and return what was done: temporary files always; the rest only where the
        owner has switched it on, and not where the list of jobs is new: it may not know the favourites."""
        self.sweep()
        return self.run() if self.settings.get().tidy_at_start and not self._jobs.is_new else CleanUp()

    # -- within ---------------------------------------------------------------------

    def _clips_to_go(self) -> Iterator[tuple[str, int]]:
        chosen = self.settings.get()
        if chosen.clips_days <= 0 and chosen.clips_gb <= 0:
            return
        snaps = self._jobs.history(limit=_ALL)
        total = sum(sizes := [self._size(snap) for snap in snaps])
        before = (datetime.now(UTC) - timedelta(days=max(0, chosen.clips_days))).isoformat(timespec="milliseconds")
        for snap, size in zip(reversed(snaps), reversed(sizes), strict=True):  # the oldest first
            too_old = chosen.clips_days > 0 and snap.created < before
            too_much = chosen.clips_gb > 0 and total > chosen.clips_gb * 10**9
            if not snap.favourite and (too_old or too_much):
                total -= size
                yield snap.id, size

    def _desks_to_go(self) -> Iterator[Path]:
        busy = {snap.owner for snap in self._jobs.queue()}
        for folder in self._desks.asleep(DESK_ASLEEP, API_DESK_ASLEEP):
            if folder.name not in busy:
                yield folder

    def _size(self, snap: Snapshot) -> int:
        return size_of(self._jobs.scene_file(snap.id).parent)


def told(plan: CleanUp, done: bool = False) -> str:
    """Describe what would be done, or was done, in sentences."""
    if not plan:
        return "Nothing went." if done else "Nothing would go now."
    would = "went" if done else "would go"
    parts = []
    if plan.clips:
        parts.append(f"{_counted(plan.clips)} {would} to the trash.")
    if plan.desks:
        parts.append(f"{_number(len(plan.desks), 'desk')} that nobody has opened for long {would} to the trash.")
    if plan.old_clips:
        parts.append(f"{_counted(plan.old_clips)} {would} from the trash for good, a week after they were put there.")
    if plan.old_desks:
        parts.append(f"{_number(len(plan.old_desks), 'desk')} {would} from the trash for good.")
    return " ".join(parts)


def _counted(clips: tuple[tuple[str, int], ...]) -> str:
    return f"{_number(len(clips), 'clip')}, {gigabytes(sum(size for _, size in clips))},"


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def size_of(folder: Path) -> int:
    """Return the size in bytes of all files in a folder; files that vanish meanwhile are not counted."""
    return sum(status.st_size for _, status in files_below(folder))


def _older(folder: Path, seconds: float) -> Iterator[Path]:
    """Yield the folders in which nothing has changed for so many seconds. This goes by the files' ctime, since Gradio's
    copies keep the original's mtime."""
    before = time.time() - seconds
    try:
        found = [each for each in folder.iterdir() if each.is_dir() and not each.is_symlink()]
    except OSError:
        return
    for each in found:
        try:
            newest = max((path.lstat().st_ctime for path in each.rglob("*")), default=0.0)
            if max(newest, each.lstat().st_mtime) < before:
                yield each
        except OSError:
            continue
