"""Draw how this machine would make a clip."""

from __future__ import annotations

from markupsafe import Markup

from app.ui.markup import NOTHING, fill, note
from engine.scene.engine import RunPlan
from engine.words import GIB, duration, gib_up

_PLAN = (
    '<div class="tr-plan{kind}"><p class="tr-plansays">{said}.</p>'
    '<div class="tr-bars" role="img" aria-label="{legend}">{rows}</div><p class="tr-note">{note}</p></div>'
)
_BAR = (
    '<span>{title}</span><i><b class="{tight}" style="width:{used:.1f}%"></b><u style="left:{free:.1f}%"></u></i>'
    "<em>{gigabytes} GB{time}</em>"
)


def plan_html(plan: RunPlan | None) -> Markup:
    """Draw a bar for every stage against the memory there is, and one sentence."""
    if plan is None:
        return note("Looking at this machine…")
    bars = plan.bars()
    whole = max(bars.size, *(used for _, used, _ in bars.stages), 1)
    rows = [_bar(title, used, seconds, bars.free, whole) for title, used, seconds in bars.stages]
    sentence = plan.sentence()
    head = "It " + sentence if sentence.startswith(("fits", "does not fit")) else sentence
    legend = f"{bars.free / GIB:.1f} of {bars.size / GIB:.1f} GB {bars.where} are free"
    under = f"{legend}. {bars.warning}" if bars.warning else legend
    kind = "" if plan.fits else " bad"
    return fill(_PLAN, kind=kind, said=head, legend=legend, rows=NOTHING.join(rows), note=under)


def _bar(title: str, used: int, seconds: float | None, free: int, whole: int) -> Markup:
    return fill(
        _BAR, title=title, tight="over" if used > free else "", used=100 * used / whole,
        free=min(100.0, 100 * free / whole), gigabytes=gib_up(used),
        time="" if seconds is None else f" · {duration(seconds)}",
    )  # fmt: skip
