"""How much, how far and how long, for a person: the same words on the page and in a terminal."""

from __future__ import annotations

from engine.models.catalogue import ModelState
from engine.models.work import Status
from engine.words import duration, gigabytes

STAGES = {
    "": "starting", "asking": "asking what is needed", "fetching": "fetching", "waiting": "waiting",
    "checking": "checking", "installing": "installing",
}  # fmt: skip


def words_for(state: ModelState) -> str:
    """Say how much of a checkpoint is here."""
    if state.state == "installed":
        return f"installed, {gigabytes(state.bytes)}"
    if state.state == "absent":
        return "not on this machine" + (f", {gigabytes(state.missing)} to download" if state.missing else "")
    lacking = f", {gigabytes(state.missing)} missing" if state.missing is not None else ""
    return f"partly here, {gigabytes(state.bytes)}{lacking}" + (f" ({state.note})" if state.note else "")


def progress_words(status: Status) -> str:
    """Say how far it is: stage, bytes, speed, remaining time."""
    text = STAGES.get(status.stage, status.stage)
    if status.total and status.stage != "asking":
        text += f" {gigabytes(status.done)} of {gigabytes(status.total)}"
    if status.speed:
        text += f", {gigabytes(round(status.speed))}/s"
    if status.remaining is not None:
        text += f", about {duration(status.remaining)} left"
    return text + (f" ({status.detail})" if status.detail else "")
