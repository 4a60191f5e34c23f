"""A job as the page shows it: the progress bar and the stages while it runs, the line under the clip when it is
done."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from markupsafe import Markup

from app.jobs.status import DONE, FAILED, INTERRUPTED, PAUSED, RUNNING, STOPPED, WAITING, Snapshot
from app.ui.markup import NOTHING, each, fill
from engine.scene.engine import Stage
from engine.scene.engines import known_engine
from engine.words import duration, sentence

_MESSAGE = '<div class="tr-message {}" role="{}" {}>{}</div>'
_KNOWN = 'data-job="{}" data-state="{}" data-percent="{}"'  # for ending.js
_BAR = (
    '{steps}<div class="tr-progress" role="progressbar" aria-label="Making the clip" aria-valuemin="0" '
    'aria-valuemax="100" aria-valuenow="{percent}" {known}><div class="tr-fill" style="width:{percent}%"></div></div>'
    '<div class="tr-words" role="status"><span>{words}</span><span>{times}</span></div>'
)
_PREVIEW = (
    '<figure class="tr-live-preview" style="--tr-shape:{}/{}"><img alt="The clip so far, blurred" '
    'src="data:image/webp;base64,{}"><figcaption>Preview: what the model has in mind so far</figcaption></figure>'
)
_RESULT = '<div class="tr-result"><p class="{}"><b>{}</b> {}</p><p class="tr-facts">{}</p>{}</div>'


def progress_html(snap: Snapshot | None) -> Markup:
    """Draw a job's progress bar (`role=progressbar`) with its stage and times, or why it is not advancing; nothing
    where it is done."""
    if snap is None or snap.state == DONE:
        return NOTHING
    percent = round(100 * snap.share)
    known = fill(_KNOWN, snap.id, snap.state, percent)
    if snap.state not in (WAITING, RUNNING) or snap.error:
        kind, said = _standing(snap)
        return fill(_MESSAGE, kind, "alert" if kind == "bad" else "status", known, said)
    words = {WAITING: f"Waiting: {snap.ahead} ahead of you" if snap.ahead > 1 else "Next in line",
             RUNNING: share_words(snap)}[snap.state]  # fmt: skip
    seconds = snap.left if snap.left is not None else snap.remaining
    left = "" if seconds is None else f"about {duration(seconds)} left"
    since = f"{duration(snap.elapsed)} so far" if snap.elapsed >= 10 else ""
    times = " · ".join(part for part in (since, left) if part)
    return fill(_BAR, steps=_steps(snap), percent=percent, known=known, words=words, times=times)


def _standing(snap: Snapshot) -> tuple[str, str]:
    """Return a stylesheet class and a message for a job that is not advancing."""
    return {
        FAILED: ("bad", sentence(snap.error)),
        STOPPED: ("", "Stopped. Your cast and prompt are as they were."),
        INTERRUPTED: ("bad", f"{snap.error} The Clips tab can go on with it."),
        PAUSED: ("", "Held back: the Clips tab can go on with it."),
        WAITING: ("warn", f"Waiting. {snap.error}"),  # the reason why the queue is paused or blocked
        RUNNING: ("warn", f"Waiting. {snap.error}"),  # its result cannot be saved
    }[snap.state]


def share_words(snap: Snapshot) -> str:
    """Describe what a running job is doing, and how far it is."""
    stage = _stages(snap).get(snap.stage)
    words = (stage.title if stage else snap.stage) or "Starting"
    if stage and stage.in_steps:
        return f"{words} · step {snap.step} of {snap.of}"
    if snap.detail:
        return f"{words} · {snap.detail.replace('_', ' ')}"
    return f"{words} · {round(100 * snap.share)} %"


def _stages(snap: Snapshot) -> dict[str, Stage]:
    engine = known_engine(snap.engine)
    return engine.all_stages if engine else {}


def _steps(snap: Snapshot) -> Markup:
    """Draw the engine's stages with the current one marked: a stage can take minutes."""
    stages = _stages(snap)
    listed = [name for name, stage in stages.items() if stage.short]
    if not listed or snap.state != RUNNING:
        return NOTHING
    order = ["", *stages]
    here = order.index(snap.stage) if snap.stage in order else 0
    looks = {
        name: "done" if order.index(name) < here else "now" if order.index(name) == here else "" for name in listed
    }
    items = NOTHING.join(fill('<li class="{}">{}</li>', looks[name], stages[name].short) for name in listed)
    return fill('<ol class="tr-steps" aria-hidden="true">{}</ol>', items)


def preview_html(snap: Snapshot | None, shape: tuple[int, int]) -> Markup:
    """Draw the model's latest preview at the clip's shape (width, height)."""
    picture = _read(snap.preview) if snap and snap.active and snap.preview else b""
    return fill(_PREVIEW, *shape, base64.b64encode(picture).decode()) if picture else NOTHING


def preview_stamp(snap: Snapshot | None) -> float:
    """Return a number that changes with every new preview; 0 where there is none."""
    try:
        return snap.preview.stat().st_mtime if snap and snap.active and snap.preview else 0.0
    except OSError:
        return 0.0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # not made yet
        return b""


def result_html(snap: Snapshot | None) -> Markup:
    """Draw the line under a clip: its engine, seed, how long it took, and the notices."""
    if snap is None or snap.state != DONE:
        return Markup('<div class="tr-result"><p>No clip yet. Press Generate.</p></div>')
    facts = [fill("Seed <b>{}</b>", snap.seed)] if snap.seed is not None else []
    if snap.elapsed:
        facts.append(fill("made in {}", f"{snap.elapsed:.1f} s" if snap.elapsed < 90 else duration(snap.elapsed)))
    engine = known_engine(snap.engine)
    title, note = (engine.title, engine.note) if engine else (snap.engine, "")
    look = "tr-draft" if engine and engine.is_draft else "tr-made"
    return fill(_RESULT, look, title, note, Markup(" · ").join(facts), each("<p>{}</p>", snap.notices))


def film_value(snap: Snapshot) -> dict[str, Any]:
    """Return the data of a finished clip for film.js."""
    return {"id": snap.id, "version": snap.version, "poster": snap.poster is not None}


def download_html(snap: Snapshot) -> Markup:
    """Draw the link that downloads a finished clip through the clips' own route."""
    return fill('<a class="tr-do" href="clips/{}/download?v={}" download>Download</a>', snap.id, snap.version)
