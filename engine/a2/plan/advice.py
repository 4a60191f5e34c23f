"""What to say where a clip does not fit: what is short, in numbers, and the smallest changes after which it fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from engine.a2.geometry import ClipSize
from engine.a2.phases import PHASES
from engine.a2.plan.choose import Budget, Overrides, choose, first_that_fits
from engine.a2.plan.settings import RunSettings
from engine.a2.plan.stages import PhaseNeed, PlannedClip
from engine.words import GIB, gib_up

_MIN_SIDE = 256  # pixels; below it no one would want the clip


def problems_of(
    planned: PlannedClip, settings: RunSettings, stages: Sequence[PhaseNeed], budget: Budget, download: int
) -> list[str]:
    """List what is short, in words and numbers: of card, memory and disk the largest lack each."""
    found = []
    card = max(stages, key=lambda stage: stage.vram)
    if card.vram > budget.vram:
        found.append(
            f"{PHASES[card.name].doing} needs {gib_up(card.vram)} GB of the card, {budget.vram / GIB:.1f} GB are free"
        )
    host = max(stages, key=lambda stage: stage.ram)
    if host.ram > budget.ram:
        found.append(
            f"{PHASES[host.name].doing} needs {gib_up(host.ram)} GB of memory, {budget.ram / GIB:.1f} GB are free"
        )
    disk = download + (sum(stage.disk for stage in stages) if settings.from_disk else 0)
    if budget.disk is not None and disk > budget.disk:
        found.append(f"the model needs {gib_up(disk)} GB of disk, {budget.disk / GIB:.1f} GB are free")
    return found


def changes_that_fit(
    planned: PlannedClip, budget: Budget, overrides: Overrides, stages: Sequence[PhaseNeed]
) -> Iterator[str]:
    """Yield changes, in words, each of which alone is enough for card and memory, and each the smallest of its kind."""
    if overrides != Overrides() and _runs(planned, budget, Overrides(device=overrides.device)):
        yield "with the settings left to the plan"
    if overrides.resident_blocks is not None:
        free = replace(overrides, resident_blocks=None)
        if _runs(planned, budget, free):
            yield f"with {choose(planned, budget, free).resident} resident blocks"
    clip = planned.clip
    shorter = (replace(clip, frames=frames) for frames in range(clip.frames - 4, 4, -4))
    if found := next((one for one in shorter if _runs(replace(planned, clip=one), budget, overrides)), None):
        yield f"with {found.frames} frames"
    if found := next((one for one in _smaller(clip) if _runs(replace(planned, clip=one), budget, overrides)), None):
        yield f"at {found.width}×{found.height}"
    for wider, name in _wider(budget, stages):
        if _runs(planned, wider, overrides):
            yield name


def _wider(budget: Budget, stages: Sequence[PhaseNeed]) -> Iterator[tuple[Budget, str]]:
    """Yield the budget with as much card and memory as these stages need, and in words how much that is; nothing where
    neither is short. They are the stages of the settings that need least."""
    card, memory = max(stage.vram for stage in stages), max(stage.ram for stage in stages)
    words, wider = [], budget
    if budget.device != "cpu" and card > budget.vram:
        words.append(f"{gib_up(card)} GB free on the card")
        wider = replace(wider, vram=card)
    if memory > budget.ram:
        words.append(f"{gib_up(memory)} GB of free memory")
        wider = replace(wider, ram=memory)
    if words:
        yield wider, f"with {' and '.join(words)}"


def _smaller(clip: ClipSize) -> Iterator[ClipSize]:
    """Yield sizes of the same shape, from the largest down, in multiples of 16 pixels."""
    long = max(clip.width, clip.height)
    for side in range(long - 16, _MIN_SIDE - 1, -16):
        width, height = (max(16, round(length * side / long / 16) * 16) for length in (clip.width, clip.height))
        yield replace(clip, width=width, height=height)


def _runs(planned: PlannedClip, budget: Budget, overrides: Overrides) -> bool:
    return first_that_fits(replace(planned, speed=None), budget, overrides) is not None
