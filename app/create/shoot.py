"""From a desk to a job: the scene is checked, written down with its pictures, and put in the queue."""

from __future__ import annotations

import re
import secrets
import shutil

from app.create.desk import Desk, checked_scene
from app.create.desks import lay_out_scene
from app.create.views import video_of
from app.jobs.board import PAUSED, WAITING, Job, JobBoard
from engine.door import RenderRequest
from engine.errors import SceneError, TroupeError
from engine.presets import FORMATS
from engine.scene import load_scene


def new_seed() -> int:
    """A fresh seed of at most six digits, from the operating system's randomness: people read seeds aloud."""
    return secrets.randbelow(1_000_000)


def shoot(desk: Desk, jobs: JobBoard, instead_of: str | None = None) -> Job:
    """Start the desk's scene, in the place of a waiting job where one is named. Raises SceneError or QueueFull, and
    then nothing is left behind."""
    if instead_of is None:
        jobs.check_room(desk.id)
    if not desk.cards:
        raise SceneError("", "The cast is empty", "Add a character, an object or a background, or pick a preset.")
    files = _file_names(desk)
    scene = checked_scene(desk, video_of(desk), desk.sheet.seed, files)
    slug = _slug(desk.sheet.prompt, 6) or "clip"
    job_id, folder = jobs.new_folder(slug)
    try:
        for card in desk.cards:
            shutil.copyfile(desk.file(card), folder / files[card.id])
        out = folder / f"{slug}_{scene.sampling.seed}.mp4"
        sheet = desk.sheet
        request = RenderRequest(scene, folder, out, quality=sheet.quality, embed_scene=sheet.embed_scene, confined=True)
        job = jobs.submit(job_id, folder, desk.id, request, instead_of)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    desk.sheet.job = job_id
    desk.save()
    return job


def take_back(desk: Desk, jobs: JobBoard, job_id: str) -> None:
    """Lay a waiting job's scene out on its desk again, to be edited: `shoot` with `instead_of` gives the job's place to
    the new scene. The job is held meanwhile, and what was on the desk can be brought back. Raises TroupeError."""
    path, snap = jobs.scene_file(job_id, desk.id), jobs.snapshot(job_id)
    if snap is None or snap.state not in (WAITING, PAUSED):
        raise TroupeError("Only a clip that is still waiting can be edited", "Duplicate it instead.")
    jobs.hold(job_id, owner=desk.id)
    desk.remember_own("editing a clip")
    lay_out_scene(desk, path)
    scene = load_scene(path)
    shape = (scene.video.width, scene.video.height)
    for card in desk.cards:
        card.sample = False
    desk.put("format", next((name for name, size in FORMATS.items() if size == shape), desk.sheet.format))
    desk.put("seed", scene.sampling.seed)


def _file_names(desk: Desk) -> dict[str, str]:
    names: dict[str, str] = {}
    for card in desk.cards:
        stem = _slug(card.name, 5) or card.role
        taken, number = set(names.values()), 2
        name = f"{stem}.png"
        while name in taken:
            name, number = f"{stem}-{number}.png", number + 1
        names[card.id] = name
    return names


def _slug(text: str, words: int) -> str:
    """The first words of a text, as a file name that every system takes."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower())[:words])[:48].strip("-")
