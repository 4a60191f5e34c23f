"""From a desk to a job: the scene is checked, saved with its pictures, and put in the queue."""

from __future__ import annotations

import re
import secrets
import shutil

from app.create.desk import Desk, checked_scene
from app.create.desks import open_scene
from app.create.views import video_of
from app.jobs.queue import PAUSED, WAITING, Job, JobQueue
from engine.disk.walk import RESERVED
from engine.door.render import RenderRequest
from engine.errors import SceneError, TroupeError
from engine.scene.engine import EngineOptions, RunPlan
from engine.scene.engines import find_engine


def new_seed() -> int:
    """Return a random seed of at most six digits: people read seeds aloud."""
    return secrets.randbelow(1_000_000)


def shoot(desk: Desk, jobs: JobQueue, options: EngineOptions | None = None, plan: RunPlan | None = None) -> Job:
    """Put the desk's scene in the queue; `options` are its engine's, `plan` explains them. Raises SceneError,
    QueueFull, and EngineUnavailable where the engine cannot run here; then nothing is left behind."""
    instead_of = _edited(desk, jobs)
    if instead_of is None:
        jobs.check_room(desk.id)
    if not desk.cards:
        raise SceneError("", "The cast is empty", "Add a character, an object or a background, or pick a preset.")
    engine = find_engine(desk.sheet.engine)
    options = options or desk.sheet.options(own_machine=False)
    engine.available(options)
    engine.check_options(options)
    files = _file_names(desk)
    scene = checked_scene(desk, video_of(desk), desk.sheet.seed, files)
    slug = _slug(desk.sheet.prompt, 6) or "clip"
    job_id, folder = jobs.new_folder(slug)
    try:
        for card in desk.cards:
            for picture, file in desk.files(card).items():
                shutil.copyfile(file, folder / files[picture])
        out = folder / f"{slug}_{scene.sampling.seed}.mp4"
        sheet = desk.sheet
        request = RenderRequest(
            scene, folder, out, quality=sheet.quality, embed_scene=sheet.embed_scene, confined=True, options=options
        )
        job = jobs.submit(job_id, folder, desk.id, request, instead_of, plan.to_dict() if plan else None)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    desk.sheet.job, desk.sheet.edits = job_id, ""
    desk.save()
    return job


def take_back(desk: Desk, jobs: JobQueue, job_id: str, owner: str | None) -> None:
    """Open a waiting job's scene on a desk for editing; the next `shoot` replaces the job in its place. The job is held
    meanwhile, and undo brings back what was on the desk. `owner`: whose jobs may be named; None: everybody's. Raises
    TroupeError."""
    path, snap = jobs.scene_file(job_id, owner), jobs.snapshot(job_id)
    if snap is None or snap.state not in (WAITING, PAUSED):
        raise TroupeError("Only a clip that is still waiting can be edited", "Duplicate it instead.")
    jobs.hold(job_id)
    desk.remember("editing a clip")
    open_scene(desk, path)
    if snap.owner == desk.id:
        desk.sheet.edits = job_id
        desk.save()
    else:  # another desk's: it moves over to this one
        jobs.trash(job_id)


def _edited(desk: Desk, jobs: JobQueue) -> str | None:
    """Return the job that the next clip replaces: one that is being edited, and still waiting."""
    snap = jobs.snapshot(desk.sheet.edits)
    return snap.id if snap and snap.owner == desk.id and snap.state in (WAITING, PAUSED) else None


def _file_names(desk: Desk) -> dict[str, str]:
    """Return a file name for every picture of the cast, by its id."""
    names: dict[str, str] = {}
    for card in desk.cards:
        stem = _slug(card.name, 5) or card.role
        stem = f"{card.role}-{stem}" if RESERVED.fullmatch(stem) else stem
        for picture in card.pictures:
            taken, number = set(names.values()), 2
            name = f"{stem}.png"
            while name in taken:
                name, number = f"{stem}-{number}.png", number + 1
            names[picture] = name
    return names


def _slug(text: str, words: int) -> str:
    """Convert the first words of a text to a file name that every system accepts."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower())[:words])[:48].strip("-")
