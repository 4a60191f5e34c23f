"""From what is on this machine to what the Models page shows. Everything that is not ours is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from engine.models import Libraries, ModelState, Status
from engine.models.words import STAGES, words_for
from engine.models.work import DONE, FAILED, STOPPED
from engine.words import duration, gigabytes, sentence

INTRO = (
    '<p class="tr-intro">The draft needs nothing of this. To make clips with the video model itself (the a2 engine), '
    "this machine needs three things. Nothing is fetched before you press a button.</p>"
)
NOT_YOURS = (
    '<div class="tr-message">Only the owner of this machine sees and changes what is installed on it. Tell whoever '
    "gave you the link.</div>"
)


def part(number: int, title: str, lacks: str, lines: Sequence[str], status: Status | None) -> str:
    """One of the three things: what it `lacks` in a word (nothing: it is ready), its lines of plain text, and how far
    the work on it is."""
    mark = f'<span class="tr-lacking">{lacks}</span>' if lacks else '<span class="tr-ok">ready</span>'
    body = "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
    return (
        f'<section class="tr-part"><h3><i aria-hidden="true">{number}</i>{html.escape(title)} {mark}</h3>{body}'
        f"{progress_html(status, title)}</section>"
    )


def libraries_html(found: Libraries, status: Status | None) -> str:
    """The libraries: what is missing, what it takes, who does it."""
    if found.installed:
        return part(1, "Libraries", "", ["PyTorch and what the engine needs beside it are installed."], status)
    takes = (
        f"{gigabytes(found.fetched)} to fetch; it needs up to {gigabytes(found.needed)} on the way "
        f"({_room(found.free)} there)."
    )
    lines = [f"Missing: {', '.join(found.missing)}.", takes if found.can_install else found.advice]
    return part(1, "Libraries", "missing", lines, status)


def model_html(found: ModelState, status: Status | None, free: int | None) -> str:
    """The checkpoint: how much of it is here, where, and what is free on that disk, in bytes."""
    words = words_for(found)
    size = "" if found.missing is not None or found.state == "installed" else (
        "How large it is, the hub says when you press Download, before the first byte of it; expect some tens of GB."
    )  # fmt: skip
    lines = [f"{sentence(words)}.", size, f"{found.folder} · {_room(free)} on this disk"]
    lacks = {"installed": "", "partly": "not whole", "absent": "missing"}[found.state]
    return part(2, f"Checkpoint: {found.title}", lacks, lines, status)


def _room(free: int | None) -> str:
    return f"{gigabytes(free)} free" if free is not None else "free space not known"


def progress_html(status: Status | None, title: str) -> str:
    """A bar with words while work is under way; else how the last one ended."""
    if status is None:
        return ""
    if status.state == FAILED:
        return f'<div class="tr-message bad" role="alert">{html.escape(status.message)}</div>'
    if status.state == STOPPED:
        return '<div class="tr-message" role="status">Stopped. What has come is kept; start again to go on.</div>'
    if status.state == DONE:
        if status.kind == "download":
            return ""  # the lines above say that it is installed
        return f'<div class="tr-message" role="status">{html.escape(status.message)}</div>'
    percent = int(100 * status.share)
    words = sentence(STAGES.get(status.stage, status.stage))
    if status.total:
        words += f" · {gigabytes(status.done)} of {gigabytes(status.total)}"
    right = [f"{gigabytes(round(status.speed))}/s"] if status.speed else []
    right += [f"about {duration(status.remaining)} left"] if status.remaining is not None else []
    return (
        f'<div class="tr-progress" role="progressbar" aria-label="{html.escape(title)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{percent}"><div class="tr-fill" style="width:{percent}%"></div></div>'
        f'<div class="tr-words" role="status"><span>{html.escape(words)}</span><span>{" · ".join(right)}</span></div>'
        f'<p class="tr-detail">{html.escape(status.detail)}</p>'
    )
