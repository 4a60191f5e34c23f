"""Convert jobs to the plain data that the Clips tab's gallery and queue draw."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from app.create.progress import share_words
from app.jobs.queue import JobQueue
from app.jobs.status import DONE, FAILED, INTERRUPTED, PAUSED, RUNNING, STOPPED, WAITING, Snapshot
from engine.errors import TroupeError
from engine.scene.engine import Engine
from engine.scene.engines import known_engine, promotion_of
from engine.scene.metrics import known_metric
from engine.scene.scene import Sampling
from engine.scene.settings import declared
from engine.words import duration

KINDS = [("webm", "WebM"), ("gif", "GIF"), ("frames", "PNG frames"), ("first", "First frame"), ("last", "Last frame")]
_NUMBERS = declared(Sampling)
_NOT_MADE = {STOPPED: "Stopped", FAILED: "Not made", INTERRUPTED: "Cut off"}

# what can be done with a job in the queue: the action, its button, what the button does
_ACTIONS = {
    RUNNING: [("hold", "Hold", "Stop it for now; it goes on later"), ("stop", "Stop", "Stop it")],
    WAITING: [("next", "Run next", "Make it next"), ("up", "↑", "Earlier"), ("down", "↓", "Later"),
              ("edit", "Edit", "Take it back on the desk"), ("twice", "Duplicate", "Queue it once more"),
              ("hold", "Hold", "Keep it back"), ("remove", "Remove", "Take it out of the queue")],
    PAUSED: [("resume", "Go on", "Put it back in the queue"), ("edit", "Edit", "Take it back on the desk"),
             ("remove", "Remove", "Take it out of the queue")],
    INTERRUPTED: [("resume", "Go on", "Go on with it"), ("remove", "Remove", "Move it to the trash")],
}  # fmt: skip


def queue_value(jobs: JobQueue, owner: str | None, cut_off: Sequence[Snapshot], newest: str = "") -> dict[str, Any]:
    """Return the data that queue.js draws: the running job, the waiting ones, and those that a crash or a power cut
    interrupted. `newest` is the id of the last clip, by which the page notices a new one."""
    return {
        "owner": owner is None, "paused": jobs.paused, "trouble": jobs.trouble, "newest": newest,
        "jobs": [_queued(snap) for snap in [*cut_off, *jobs.queue(owner)]],
    }  # fmt: skip


def title_of(engine: str) -> str:
    """Return an engine's title; its name where this version does not have the engine."""
    known = known_engine(engine)
    return known.title if known else engine


def _queued(snap: Snapshot) -> dict[str, Any]:
    return {
        "id": snap.id, "state": snap.state, "title": snap.title, "percent": round(100 * snap.share),
        "words": _words(snap), "actions": _ACTIONS[snap.state],
    }  # fmt: skip


def _words(snap: Snapshot) -> str:
    engine = f"{title_of(snap.engine)} · seed {snap.seed}"
    if snap.state == RUNNING:
        return f"{engine} · {share_words(snap)}"
    guess = f" · takes about {duration(snap.left)}" if snap.left else ""
    if snap.state == WAITING:
        return f"{engine} · {'next' if snap.ahead <= 1 else f'{snap.ahead - 1} before it'}{guess}"
    if snap.state == PAUSED:
        return f"{engine} · held back{' with its steps so far' if snap.steps_kept else ''}"
    return f"{engine} · cut off when Troupe ended{'; its steps so far are kept' if snap.steps_kept else ''}"


def gallery_value(
    jobs: JobQueue, found: Sequence[Snapshot], hint: str, undo: Snapshot | None, ready: Callable[[Engine], bool]
) -> dict[str, Any]:
    """Return the data that clips.js draws; `undo` is the clip that was just moved to the trash. `ready`: whether an
    engine can make a draft's scene for good here."""
    return {
        "clips": [_clip(snap, _facts_of(jobs, snap), ready) for snap in found], "kinds": KINDS, "hint": hint,
        "undo": {"id": undo.id, "title": undo.title} if undo else None,
    }  # fmt: skip


def _clip(snap: Snapshot, scene: dict[str, Any], ready: Callable[[Engine], bool]) -> dict[str, Any]:
    video, sampling = scene.get("video", {}), scene.get("sampling", {})
    playable, better = snap.state == DONE and snap.clip is not None, promotion_of(snap.engine)
    return {
        "id": snap.id, "version": snap.version, "title": snap.title, "prompt": snap.prompt, "engine": snap.engine,
        "seed": snap.seed, "kind": title_of(snap.engine),
        "poster": playable and snap.poster is not None, "playable": playable, "favourite": snap.favourite,
        "words": "" if playable else _NOT_MADE.get(snap.state, snap.state) + (f": {snap.error}" if snap.error else ""),
        "promote": better.title if better and ready(better) else "",
        "resumable": snap.resumable, "kept": snap.steps_kept,
        "notices": list(snap.notices), "facts": _facts(snap, video, sampling),
    }  # fmt: skip


def _facts(snap: Snapshot, video: dict[str, Any], sampling: dict[str, Any]) -> list[tuple[str, str]]:
    engine = known_engine(snap.engine)
    read = engine.sampling if engine else ()
    facts = [("Engine", title_of(snap.engine)), ("Seed", str(snap.seed))]
    if video:
        frames = video["frames"] - (video.get("trim_head", 0) if engine and engine.trims_head else 0)
        facts.append(("Clip", f"{video['width']} × {video['height']}, {frames / video['fps']:.1f} s"))
    if told := [f"{_NUMBERS[name].setting.label.lower()} {sampling[name]:g}" for name in read if name in sampling]:
        facts.append(("Sampling", ", ".join(told)))
    for name, value in snap.metrics.items():
        metric = known_metric(name)
        facts.append((metric.title, metric.said(value)) if metric else (name, f"{value:g}"))
    if snap.elapsed:
        facts.append(("Took", duration(snap.elapsed)))
    if snap.created:
        facts.append(("When", snap.created[:16].replace("T", " ") + " UTC"))
    return facts


def _facts_of(jobs: JobQueue, snap: Snapshot) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(jobs.scene_file(snap.id).read_text(encoding="utf-8"))
    except (OSError, ValueError, TroupeError):
        return {}
    return facts
