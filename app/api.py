"""The three public endpoints: start a clip, get its status, stop it. The page's own events are private."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.events import api

from app.create.desk import Desk
from app.create.desks import ID
from app.create.sheet import SECONDS, settings_of
from app.create.shoot import new_seed
from app.create.studio import Studio
from app.guard.uploads import handed_out, uploaded
from app.jobs.status import Snapshot
from app.ui.safely import safely
from engine.errors import SceneError
from engine.scene.engines import ENGINES
from engine.scene.presets import FORMATS
from engine.scene.scene import DRAFT, MAX_CAST, MAX_PROMPT, MAX_SEED
from engine.words import shown


def add_endpoints(studio: Studio) -> None:
    """Register the endpoints. Call it inside the page's Blocks."""

    def generate(
        prompt: str,
        characters: list[dict[str, Any]],
        objects: list[dict[str, Any]],
        background: dict[str, Any] | None = None,
        names: list[str] | None = None,
        format: str = "16:9",
        seconds: float = 5.4,
        seed: int = 42,
        engine: str = DRAFT,
        settings: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Start a clip. Pictures are uploaded files; `names` names characters, objects and background in that order;
        `format` is 16:9, 9:16 or 1:1; `seed` is -1 for any; `engine` is draft or, where the model is installed, a2;
        `settings` are the engine's own, by name, such as {"steps": 30, "step_cache": true}. Returns {"job": id}: ask
        /job with it."""
        values = {"format": format, "seconds": seconds, "seed": seed, "engine": engine}
        _check(prompt=(prompt, str), characters=(characters, list), objects=(objects, list), names=(names or [], list),
               background=(background or {}, dict), format=(format, str), seconds=(seconds, float),
               seed=(seed, int), engine=(engine, str), settings=(settings or {}, dict))  # fmt: skip
        if engine not in ENGINES:
            raise SceneError("engine", f"{engine!r} is not an engine", f"Use {' or '.join(ENGINES)}.")
        chosen = _settings(engine, settings or {}, studio.guard.is_owner())
        if format not in FORMATS:
            raise SceneError("format", f"{format!r} is not a format", f"Use one of {', '.join(FORMATS)}.")
        if len(prompt) > MAX_PROMPT:
            raise SceneError("prompt", f"{len(prompt)} characters are too many", f"Use at most {MAX_PROMPT}.")
        if not SECONDS[0] <= seconds <= SECONDS[1]:
            raise SceneError("seconds", f"{str(seconds)[:30]} is no length", f"Use {SECONDS[0]:g} to {SECONDS[1]:g}.")
        if not -1 <= seed <= MAX_SEED:
            raise SceneError("seed", f"{str(seed)[:30]} is no seed", f"Use 0 to {MAX_SEED}, or -1 for any.")
        values["seed"] = new_seed() if seed == -1 else seed
        pictures = [("character", each) for each in characters] + [("object", each) for each in objects]
        pictures += [("background", background)] if background else []
        if len(pictures) > MAX_CAST:  # before anything is written
            problem = f"There is room for a cast of {MAX_CAST}: these are {len(pictures)}"
            raise SceneError("", problem, "Leave some out.")
        studio.check_room()
        with studio.desks.passing() as desk, desk.lock:
            for number, (role, file) in enumerate(pictures):
                _add(studio, desk, role, file, (names or [])[number : number + 1])
            for field, value in {"prompt": prompt, **values, **chosen}.items():
                desk.put(field, value)
            return {"job": studio.shoot(desk).id}

    def job(job: str) -> dict[str, Any]:
        """Return a job's status: state, stage, share (0 to 1), seconds; when done, `clip` is the MP4, `seed` its seed
        and `metrics` what was measured on it."""
        snap = _snapshot(studio, job)
        if snap is None:
            raise SceneError("job", "there is no such job", "Use the id that /generate gave you.")
        clip, problem = None, snap.error
        try:
            if snap.clip:
                clip = gr.FileData(path=str(handed_out(snap.clip, studio.uploads))).model_dump()
        except OSError as error:
            problem = f"It is made, but cannot be handed out ({error.strerror}). Check the disk, then ask again."
        return {"state": snap.state, "stage": snap.stage, "share": round(snap.share, 4), "elapsed": snap.elapsed,
                "remaining": snap.remaining, "error": problem, "seed": snap.seed, "clip": clip,
                "metrics": snap.metrics}  # fmt: skip

    def stop(job: str) -> dict[str, Any]:
        """Stop a job; no partial clip is kept."""
        if _snapshot(studio, job) is None:
            return {"state": "unknown"}
        studio.jobs.stop(job)
        snap = studio.jobs.snapshot(job)
        return {"state": snap.state if snap else "unknown"}

    for endpoint in (generate, job, stop):
        api(safely(endpoint, markup=False), api_name=endpoint.__name__, concurrency_limit=4)


def _snapshot(studio: Studio, job: object) -> Snapshot | None:
    """Return a snapshot of a job of the visitor's own; None where there is none. An unknown id is not recorded."""
    snap = studio.jobs.snapshot(job) if isinstance(job, str) and ID.fullmatch(job) else None
    return snap if snap is not None and studio.guard.mine(f"job:{job}") else None


_KINDS = {str: "text", list: "a list", dict: "an object", float: "a number", int: "a whole number"}


def _check(**inputs: tuple[object, type]) -> None:
    """Check the types of the inputs, raising SceneError with the name of the first that is wrong."""
    for name, (value, kind) in inputs.items():
        kinds = (int, float) if kind is float else kind
        if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
            raise SceneError(name, f"this is not {_KINDS[kind]}", "'Use via API' on the page shows the types.")


def _settings(engine: str, said: dict[str, Any], is_owner: bool) -> dict[str, Any]:
    """Return an engine's settings by their keys on a desk. Raises SceneError for a setting that the engine does not
    have, or a value that does not fit it."""
    known = {key.rpartition(".")[2]: (key, each) for key, each in settings_of(engine).items()}
    found = {}
    for name, value in said.items():
        if name not in known:
            choices = f"Use {', '.join(known)}." if known else f"The engine {engine} has none."
            raise SceneError("settings", f"{str(name)[:60]!r} is no setting of {engine}", choices)
        key, each = known[name]
        value = float(value) if each.kind is float and type(value) is int and abs(value) < 2**53 else value
        if each.setting.planned and not is_owner:
            raise SceneError(f"settings.{name}", "only the owner of this machine sets it", "Leave it out.")
        if not each.holds(value):
            raise SceneError(f"settings.{name}", f"{shown(value)} does not fit", each.range_said(in_json=True))
        found[key] = value
    return found


def _add(studio: Studio, desk: Desk, role: str, file: object, name: list[str]) -> None:
    path, called = (file.get("path"), file.get("orig_name")) if isinstance(file, dict) else (None, None)
    desk.add(
        role, uploaded(path, studio.uploads), name[0] if name and isinstance(name[0], str) else "",
        called=called if isinstance(called, str) else "",
    )  # fmt: skip
