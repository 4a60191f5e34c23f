"""How much, how far and how long, for a person: the same words on the page and in a terminal."""

from __future__ import annotations

from engine.models.catalogue import ModelState
from engine.models.work import Status

STAGES = {
    "": "starting", "asking": "asking what is needed", "fetching": "fetching", "waiting": "waiting",
    "checking": "checking", "installing": "installing",
}  # fmt: skip


def gigabytes(count: int) -> str:
    """Bytes for a person: 46.2 GB, 310 MB, 5 kB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 100 * size else f"{count / size:.0f} {unit}"
    return f"{count / 1000:.0f} kB"


def words_for(state: ModelState) -> str:
    """How much of a checkpoint is here, in words."""
    if state.state == "installed":
        return f"installed, {gigabytes(state.bytes)}"
    if state.state == "absent":
        return "not on this machine" + (f", {gigabytes(state.missing)} to download" if state.missing else "")
    lacking = f", {gigabytes(state.missing)} missing" if state.missing is not None else ""
    return f"partly here, {gigabytes(state.bytes)}{lacking}" + (f" ({state.note})" if state.note else "")


def progress_words(status: Status) -> str:
    """How far it is: stage, bytes, speed, remaining time."""
    text = STAGES.get(status.stage, status.stage)
    if status.total and status.stage != "asking":
        text += f" {gigabytes(status.done)} of {gigabytes(status.total)}"
    if status.speed:
        text += f", {gigabytes(round(status.speed))}/s"
    if status.remaining is not None:
        text += f", about {duration(status.remaining)} left"
    return text + (f" ({status.detail})" if status.detail else "")


def duration(seconds: float) -> str:
    """Seconds for a person: 40 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
