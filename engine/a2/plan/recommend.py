"""Which of the models that can be downloaded fits a machine best, and what each of them asks of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.a2.geometry import ClipSize
from engine.a2.models import RELEASES, ReleasedModel
from engine.a2.plan.plan import Plan, make_plan
from engine.a2.plan.shapes import shapes_of
from engine.a2.plan.stages import released_bytes
from engine.memory.hardware import Fact, Hardware
from engine.scene.scene import Sampling

_FIRST = ("Skywork/SkyReels-V3-R2V-14B", "gudaochangsheng/RefAlign-1.3B")  # by what they give for their time


@dataclass(frozen=True)
class Advice:
    """What a release asks of a machine: at least so many bytes to download, with what it shares with others, and a
    sentence about how it would run there (empty: there is no card, or it is not known)."""

    release: ReleasedModel
    download: int
    runs: str


def advise(release: ReleasedModel, hardware: Hardware | None) -> Advice:
    """Say what a release asks, and how it would run on this machine."""
    download = sum(released_bytes(shapes_of(release)).values())
    if hardware is None or not _computes(hardware):
        return Advice(release, download, "")
    return Advice(release, download, _in_words(usual_plan(release, hardware)))


def best_for(hardware: Hardware) -> ReleasedModel | None:
    """Return the release that fits a machine best: the fastest whose blocks all stay on the card, else the smallest;
    None where there is no card that any of them could run on."""
    if not _computes(hardware):
        return None
    found = {each.model: each for each in RELEASES}
    plans = {model: usual_plan(found[model], hardware) for model in _FIRST}
    for model, plan in plans.items():
        if plan.possible and not plan.settings.streamed:
            return found[model]
    return next((found[model] for model in reversed(_FIRST) if plans[model].possible), None)


def _computes(hardware: Hardware) -> bool:
    """Return whether the model computes on this machine's card: on no other kind than CUDA."""
    return hardware.device.value == "cuda"


def usual_plan(release: ReleasedModel, hardware: Hardware) -> Plan:
    """Plan the clip that a release was made for, at 832 x 480, on a machine with nothing else running. Room on the disk
    does not count: the model may be on it already, and a download says what it lacks."""
    spec, numbers = release.spec, Sampling(guidance=release.spec.guidance, image_guidance=release.spec.image_guidance)
    clip = ClipSize(
        frames=release.frames or spec.frames, steps=spec.steps, passes=spec.passes(numbers), references=3,
        tail=spec.tail(3), skips_text=spec.skips_text,
    )  # fmt: skip
    hardware = replace(hardware, disk_free=Fact(None, "not asked"))
    return make_plan(hardware, clip, shapes_of(release))


def _in_words(plan: Plan) -> str:
    if not plan.possible:
        return "It does not fit this machine."
    if not plan.settings.streamed:
        return "It fits this card whole."
    resident = plan.settings.resident
    return f"On this card {resident} of its {plan.blocks} blocks stay; the others stream, which is slower."
