"""How this machine would make a clip, as a picture."""

from __future__ import annotations

import html

from engine.a2.plan.plan import Plan
from engine.words import GIB, duration

_LARGE = 4 * GIB  # of memory: models of that size are not for processors
STAGES = {"text": "Prompt", "references": "Cast", "denoise": "Making", "decode": "Frames"}


def plan_html(plan: Plan | None) -> str:
    """A bar for every stage against the memory there is, and one sentence."""
    if plan is None:
        return '<p class="tr-note" role="status">Looking at this machine…</p>'
    card = plan.settings.device != "cpu"
    size = plan.budget.vram_total if card else plan.budget.ram_total
    free = plan.budget.vram if card else plan.budget.ram
    whole = max(size, *(stage.vram if card else stage.ram for stage in plan.stages), 1)
    rows = "".join(
        _bar(STAGES[stage.name], stage.vram if card else stage.ram, free, whole, stage.seconds) for stage in plan.stages
    )
    sentence = plan.sentence()
    head = "It " + sentence if sentence.startswith(("fits", "does not fit")) else sentence
    where = "graphics memory" if card else "memory"
    legend = f"{free / GIB:.1f} of {size / GIB:.1f} GB {where} are free"
    return (
        f'<div class="tr-plan{"" if plan.fits else " bad"}"><p class="tr-plansays">{html.escape(head)}.</p>'
        f'<div class="tr-bars" role="img" aria-label="{html.escape(legend)}">{rows}</div>'
        f'<p class="tr-note">{legend}{_slow(plan, card)}</p></div>'
    )


def _bar(name: str, used: int, free: int, whole: int, seconds: float | None) -> str:
    tight = "over" if used > free else ""
    time_said = "" if seconds is None else f" · {duration(seconds)}"
    return (
        f'<span>{name}</span><i><b class="{tight}" style="width:{100 * used / whole:.1f}%"></b>'
        f'<u style="left:{min(100.0, 100 * free / whole):.1f}%"></u></i><em>{used / GIB:.1f} GB{time_said}</em>'
    )


def _slow(plan: Plan, card: bool) -> str:
    if card or plan.ram < _LARGE:
        return ""
    return ". Without a graphics card such a clip takes days: use the draft, or a machine with a card"
