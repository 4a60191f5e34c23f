"""The public endpoints, three and no more: start a clip, ask for it, stop it. The page's own events are private."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.shoot import shoot
from app.studio import Studio
from app.views import FORMATS
from engine.errors import SceneError, TroupeError


def add_endpoints(studio: Studio) -> None:
    """Register the endpoints; to be called inside the page's Blocks."""

    def generate(
        prompt: str,
        characters: list[dict],
        objects: list[dict],
        background: dict | None = None,
        names: list[str] | None = None,
        format: str = "16:9",
        seconds: float = 5.4,
        seed: int = 42,
    ) -> dict[str, Any]:
        """Start a draft clip. Pictures are uploaded files; `names` names characters, objects and background in that
        order; `format` is 16:9, 9:16 or 1:1. Returns {"job": id}: ask /job with it."""
        try:
            desk = studio.desks.new()
            with desk.lock:
                if format not in FORMATS:
                    raise SceneError("format", f"{format!r} is not a format", f"Use one of {', '.join(FORMATS)}.")
                pictures = [("character", each) for each in characters] + [("object", each) for each in objects]
                pictures += [("background", background)] if background else []
                for number, (role, file) in enumerate(pictures):
                    name = (names or [])[number] if number < len(names or []) else ""
                    desk.add(role, _path(file), str(name)[:60])
                desk.sheet.prompt = str(prompt)[:4000]
                for field, value in (("format", format), ("seconds", seconds), ("seed", seed)):
                    desk.set(field, value)
                return {"job": shoot(desk, studio.jobs).id}
        except TroupeError as error:
            raise gr.Error(str(error)) from None

    def job(job: str) -> dict[str, Any]:
        """How a job stands: state, stage, share (0 to 1), seconds; when done, `clip` is the MP4 and `seed` its seed."""
        snap = studio.jobs.snapshot(job)
        if snap is None:
            raise gr.Error("There is no such job. Use the id that /generate gave you.")
        clip = gr.FileData(path=str(snap.clip)).model_dump() if snap.clip else None
        return {"state": snap.state, "stage": snap.stage, "share": round(snap.share, 4), "elapsed": snap.elapsed,
                "remaining": snap.remaining, "error": snap.error, "seed": snap.seed, "clip": clip}  # fmt: skip

    def stop(job: str) -> dict[str, Any]:
        """Stop a job; nothing partial is kept."""
        studio.jobs.stop(job)
        snap = studio.jobs.snapshot(job)
        return {"state": snap.state if snap else "unknown"}

    for endpoint in (generate, job, stop):
        gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=4)


def _path(file: Any) -> Path:
    """The uploaded file behind what a client sent. Gradio has already refused paths outside its upload folder."""
    if not isinstance(file, dict) or not isinstance(file.get("path"), str):
        raise SceneError("characters", "this is not an uploaded file", "Send pictures with handle_file(...).")
    return Path(file["path"])
