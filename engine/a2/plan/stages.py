"""What every stage of a clip needs under given settings: card, memory, disk, seconds. The course of a clip, rehearsed:
the same acts as the engine's (course.py), with sizes in place of tensors."""

from __future__ import annotations

from dataclasses import dataclass

from engine.a2.geometry import ClipSize
from engine.a2.phases import PlannedPhase
from engine.a2.plan import footprint
from engine.a2.plan.course import TURNS, Course
from engine.a2.plan.settings import RunSettings, weight_bytes
from engine.a2.plan.shapes import Shapes
from engine.a2.plan.sizes import ComponentSizes, PaperCarrier
from engine.a2.plan.speed import Speed, stage_seconds
from engine.memory.ledger import Held, Ledger

_PHASES: tuple[PlannedPhase, ...] = ("prompt", "references", "sampling", "decoding")
_CLIPS = 2  # the second one meets what the first has left where it is


@dataclass(frozen=True)
class PhaseNeed:
    """A phase's peaks, in bytes; `disk` is what it keeps there; `seconds` is None where nothing was measured yet."""

    name: PlannedPhase
    vram: int
    ram: int
    disk: int
    seconds: float | None


@dataclass(frozen=True)
class PlannedClip:
    """What is to be made with which model, and how fast this machine is, where that is known."""

    shapes: Shapes
    clip: ClipSize
    speed: Speed | None = None


def released_bytes(shapes: Shapes) -> dict[str, int]:
    """Compute the bytes of each component as it is released: bf16, the image encoder and the VAE in float32."""
    single = ("image_encoder", "vae")
    return {
        name: weight_bytes(shapes.weights_of(name), *(("fp32", 4) if name in single else ("bf16", 2)))
        for name in shapes.spec.components
    }


def rehearse(planned: PlannedClip, settings: RunSettings, limits: Held) -> Ledger:
    """Go through two clips one after the other on paper, where `limits` may be held in all; return the ledger, whose
    peaks are above the limits where it does not fit."""
    sizes = ComponentSizes(planned.shapes, planned.clip, settings)
    ledger = Ledger(limits.card, limits.host)
    ledger.enter("the process", sizes.process())
    course = Course(ledger, PaperCarrier(sizes), sizes, settings.together)
    ledger.peaks.clear()
    for _ in range(_CLIPS):
        course.bring_all()
        for phase, name in (turn for turn in TURNS if turn[1] in sizes.components):
            course.begin(phase, name)
            course.end(name)
    return ledger


def phase_needs(planned: PlannedClip, settings: RunSettings, limits: Held) -> tuple[PhaseNeed, ...]:
    """Compute what each phase takes where `limits` may be held, in the order of work."""
    peaks = rehearse(planned, settings, limits).peaks
    return tuple(_need(planned, settings, name, peaks[name]) for name in _PHASES)


def _need(planned: PlannedClip, settings: RunSettings, name: PlannedPhase, peak: Held) -> PhaseNeed:
    seconds = (
        None if planned.speed is None else stage_seconds(name, planned.shapes, planned.clip, settings, planned.speed)
    )
    return PhaseNeed(name, peak.card, peak.host, _disk(planned, settings, name), seconds)


def _disk(planned: PlannedClip, settings: RunSettings, name: PlannedPhase) -> int:
    shapes, number = planned.shapes, settings.number
    if name == "prompt":
        return weight_bytes(shapes.text.weights, settings.precision, number) if settings.quantised else 0
    if name == "sampling":
        own = weight_bytes(shapes.transformer.weights, settings.precision, number) if settings.quantised else 0
        return own + footprint.sampling_bytes(planned.clip)
    return 0
