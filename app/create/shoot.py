"""From a desk to a job: the scene is checked, written down with its pictures, and put in the queue."""

from __future__ import annotations

import re
import secrets
import shutil
from dataclasses import replace

from app.create.desk import Desk, checked_scene
from app.create.views import video_of
from app.jobs.board import Job, JobBoard
from engine.a2.options import A2Options
from engine.door import RenderRequest
from engine.engines import ENGINES
from engine.errors import SceneError
from engine.scene import scene_to_json


def new_seed() -> int:
    """A fresh seed of at most six digits, from the operating system's randomness: people read seeds aloud."""
    return secrets.randbelow(1_000_000)


def shoot(desk: Desk, jobs: JobBoard, a2: A2Options | None = None) -> Job:
    """Start the desk's scene; `a2` says how to run the model, where that is its engine. Raises SceneError, QueueFull,
    and EngineUnavailable where the model cannot run here; then nothing is left behind."""
    jobs.check_room(desk.id)
    if not desk.cards:
        raise SceneError("", "The cast is empty", "Add a character, an object or a background, or pick a preset.")
    a2 = a2 or A2Options()
    if desk.sheet.engine == "a2":
        ENGINES["a2"].available(a2)
    files = _file_names(desk)
    scene = checked_scene(desk, video_of(desk), desk.sheet.seed, files)
    slug = _slug(desk.sheet.prompt, 6) or "clip"
    job_id, folder = jobs.new_folder(slug)
    try:
        for card in desk.cards:
            shutil.copyfile(desk.file(card), folder / files[card.id])
        (folder / "scene.json").write_text(scene_to_json(scene), encoding="utf-8")
        out = folder / f"{slug}_{scene.sampling.seed}.mp4"
        sheet = desk.sheet
        a2 = replace(a2, state=folder / "run.safetensors", preview=folder / "preview.webp")
        request = RenderRequest(
            scene, folder, out, quality=sheet.quality, embed_scene=sheet.embed_scene, confined=True, a2=a2
        )
        job = jobs.submit(job_id, folder, desk.id, request)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    desk.sheet.job = job_id
    desk.save()
    return job


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
