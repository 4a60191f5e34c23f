"""Draw the Models tab from what is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from app.ui.markup import NOTHING, each, fill, message
from engine.models import Libraries, ModelState, Status
from engine.models.words import STAGES, words_for
from engine.models.work import DONE, FAILED, STOPPED
from engine.words import duration, gigabytes, sentence

if TYPE_CHECKING:
    from engine.a2.plan.recommend import Advice

INTRO = (
    '<p class="tr-intro">The draft needs nothing of this. To make clips with the video model itself (the a2 engine), '
    "this machine needs three things. Nothing is fetched before you press a button.</p>"
)
NO_CARD = "No graphics card was found that these could run on."
NOT_YOURS = (
    '<div class="tr-message">Only the owner of this machine sees and changes what is installed on it. Tell whoever '
    "gave you the link.</div>"
)


_PART = '<section class="tr-part">{}{}{}</section>'
_HEAD = '<h3><i aria-hidden="true">{}</i>{} {}</h3>'
_ABOUT = '<div class="tr-part tr-about">{}</div>'
_BAR = (
    '<div class="tr-progress" role="progressbar" aria-label="{title}" aria-valuemin="0" aria-valuemax="100" '
    'aria-valuenow="{percent}"><div class="tr-fill" style="width:{percent}%"></div></div>'
    '<div class="tr-words" role="status"><span>{words}</span><span>{right}</span></div>'
    '<p class="tr-detail">{detail}</p>'
)


def _head(number: int, title: str, lacks: str) -> Markup:
    """Draw the heading of one of the three sections, with a word for what it `lacks` (empty: it is ready)."""
    look, word = ("tr-lacking", lacks) if lacks else ("tr-ok", "ready")
    return fill(_HEAD, number, title, fill('<span class="{}">{}</span>', look, word))


def _body(head: Markup, title: str, lines: Sequence[str], status: Status | None) -> Markup:
    """Draw a section's lines of plain text below its heading, and the progress of the work on it."""
    return fill(_PART, head, each("<p>{}</p>", filter(None, lines)), progress_html(status, title))


def libraries_html(found: Libraries, status: Status | None) -> Markup:
    """Draw the libraries: which are missing, how large they are, and who can install them."""
    title = "Libraries"
    if found.installed:
        lines = ["PyTorch and what the engine needs beside it are installed."]
        return _body(_head(1, title, ""), title, lines, status)
    takes = (
        f"{gigabytes(found.fetched)} to fetch; it needs up to {gigabytes(found.needed)} on the way "
        f"({_room(found.free)} there)."
    )
    lines = [f"Missing: {', '.join(found.missing)}.", takes if found.can_install else found.advice]
    return _body(_head(1, title, "missing"), title, lines, status)


def model_head(found: ModelState) -> Markup:
    """Draw the heading of the section in which the checkpoint is chosen."""
    lacks = {"installed": "", "partly": "not whole", "absent": "missing"}[found.state]
    return fill(_PART, _head(2, f"Checkpoint: {found.title}", lacks), "", "")


def model_html(found: ModelState, status: Status | None, free: int | None) -> Markup:
    """Draw the checkpoint: how much of it is here, where, and the free space on that disk in bytes."""
    words = words_for(found)
    size = "" if found.missing is not None or found.state == "installed" else (
        "How large it is exactly, the hub says when you press Download, before the first byte of it."
    )  # fmt: skip
    lines = [f"{sentence(words)}.", size, f"{found.folder} · {_room(free)} on this disk"]
    return _body(NOTHING, found.title, lines, status)


def about_html(advice: Advice | None) -> Markup:
    """Draw why one would choose a release, what it asks of this machine, and its licence; nothing for a checkpoint of
    the person's own."""
    if advice is None:
        return NOTHING
    release = advice.release
    asks = f"At least {gigabytes(advice.download)} to download. {advice.runs}".strip()
    return fill(_ABOUT, each("<p>{}</p>", [release.about, asks, release.licence]))


def _room(free: int | None) -> str:
    return f"{gigabytes(free)} free" if free is not None else "free space not known"


def progress_html(status: Status | None, title: str) -> Markup:
    """Draw a progress bar while work is running; else how the last run ended."""
    if status is None:
        return NOTHING
    if status.state == FAILED:
        return message(status.message, "bad", "alert")
    if status.state == STOPPED:
        return message("Stopped. What has come is kept; start again to go on.")
    if status.state == DONE:
        return NOTHING if status.kind == "download" else message(status.message)  # the lines above tell of a download
    words = sentence(STAGES.get(status.stage, status.stage))
    if status.total:
        words += f" · {gigabytes(status.done)} of {gigabytes(status.total)}"
    right = [f"{gigabytes(round(status.speed))}/s"] if status.speed else []
    right += [f"about {duration(status.remaining)} left"] if status.remaining is not None else []
    return fill(
        _BAR, title=title, percent=int(100 * status.share), words=words, right=" · ".join(right), detail=status.detail
    )
