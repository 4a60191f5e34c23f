"""The jobs' folders: made, synced to the disk, cleaned up, and moved to the trash and back."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from app.jobs.records import SCENE, STATE
from engine.errors import SceneError, TroupeError, VideoError
from engine.scene.scene import Scene
from engine.scene.scene_file import load_scene

NAME = re.compile(r".+_([0-9a-f]{32})")
_PENDING = ".not-yet-accepted"
_GROWING = re.compile(r"\..+\.(?:part|txt)")  # temporary names of write_video, the run's state and the preview


class Folders:
    """`clips` holds a folder for every job, `trash` those that were moved to the trash."""

    def __init__(self, outputs: Path) -> None:
        self.outputs, self.clips, self.trash = outputs, outputs / "clips", outputs / "trash"

    def new(self, slug: str) -> tuple[str, Path]:
        """Make a job's id, which cannot be guessed, and its folder, named by time, slug and id. Until `accept` the
        folder is not a job's, and the next start deletes it. Raises TroupeError."""
        job_id = uuid.uuid4().hex
        folder = self.clips / f"{time.strftime('%Y-%m-%d_%H%M%S')}_{slug}_{job_id}"
        try:
            folder.mkdir(parents=True)
            (folder / _PENDING).touch()
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            problem = f"The job's folder cannot be made ({error.strerror or error})"
            raise TroupeError(problem, "Check the disk of the outputs folder and its permissions.") from None
        return job_id, folder

    def accept(self, folder: Path) -> None:
        """Mark a folder as a job's, once the store has the job."""
        with contextlib.suppress(OSError):
            (folder / _PENDING).unlink(missing_ok=True)

    def is_pending(self, folder: Path) -> bool:
        return (folder / _PENDING).exists()

    def find(self, name: str, trashed: bool) -> Path:
        """Return a job's folder. A move that was interrupted leaves it in the other place until the next start."""
        name = Path(name).name  # it comes from a file that a person can write
        here, there = (self.trash, self.clips) if trashed else (self.clips, self.trash)
        return there / name if not (here / name).exists() and (there / name).exists() else here / name

    def move(self, name: str, to_trash: bool) -> None:
        """Move a folder to the trash or back. One that cannot be moved now (Windows, while a player has the clip open)
        is moved at the next start."""
        name = Path(name).name
        source, target = (self.clips, self.trash) if to_trash else (self.trash, self.clips)
        with contextlib.suppress(OSError):
            target.mkdir(parents=True, exist_ok=True)
            if (source / name).exists():
                os.rename(source / name, target / name)

    def all(self) -> Iterator[tuple[str, Path, bool]]:
        """Yield (job id, folder, whether it is in the trash) for every job's folder, the oldest first."""
        found = []
        for place in (self.clips, self.trash):
            with contextlib.suppress(FileNotFoundError):
                found += [(folder.name, folder, place == self.trash) for folder in place.iterdir()]
        for name, folder, trashed in sorted(found):
            match = NAME.fullmatch(name)
            if match and folder.is_dir():
                yield match[1], folder, trashed


def settle(folder: Path) -> None:
    """Sync a folder's files and their names to the disk (fsync), so that they survive a power cut."""
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    if os.name != "nt":  # Windows keeps names in a journal and opens no folders
        for place in (folder, folder.parent):
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def tidy(folder: Path) -> None:
    """Delete half-written files. The caller makes sure that nobody is writing here."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if _GROWING.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    path.unlink()


def drop_steps(folder: Path) -> None:
    """Delete the steps that a run has saved, once its clip is finished."""
    with contextlib.suppress(OSError):
        (folder / STATE).unlink(missing_ok=True)


def whole_clip(folder: Path) -> Path | None:
    """Find a folder's finished clip; None where there is none that can be read."""
    from engine.media.video import probe

    for clip in sorted(folder.glob("*.mp4")):
        with contextlib.suppress(VideoError):
            probe(clip)
            return clip
    return None


def poster_of(clip: Path) -> Path | None:
    """Return the picture beside a clip, making it where it is missing; None where that fails."""
    from engine.media.video import poster

    out = clip.with_suffix(".jpg")
    if out.is_file():
        return out
    with contextlib.suppress(VideoError):
        return poster(clip, out)
    return None


def is_complete(folder: Path) -> bool:
    """Return whether a folder's scene can be rendered: the scene and all its pictures are there."""
    try:
        return all((folder / name).is_file() for name in pictures_of(load_scene(folder / SCENE)))
    except SceneError:
        return False


def pictures_of(scene: Scene) -> set[str]:
    """Return the names of the files that a scene uses."""
    masks = {element.cutout for element in scene.cast if element.role != "background"} - {"auto", "none"}
    return {name for element in scene.cast for name in (element.image, *element.views)} | masks


def copy_pictures(source: Path, target: Path, scene: Scene) -> None:
    """Copy the scene's pictures into another job's folder. Raises TroupeError where one is gone or outside of its
    folder."""
    try:
        for name in pictures_of(scene):
            if not (source / name).resolve().is_relative_to(source.resolve()):
                raise TroupeError("That clip's scene uses a picture outside of its folder", "Copy it in there first.")
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
    except FileNotFoundError as error:
        problem = f"The picture {Path(error.filename or '').name} of that clip is gone"
        raise TroupeError(problem, "Make the clip from the Create page.") from None
