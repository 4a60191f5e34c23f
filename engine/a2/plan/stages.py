"""What every stage of a clip needs under given settings: card, memory, disk, seconds. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

from engine.a2.geometry import ClipSize
from engine.a2.options import Precision
from engine.a2.phases import PlannedPhase
from engine.a2.plan import footprint
from engine.a2.plan.settings import RunSettings, block_bytes, number_bytes, weight_bytes
from engine.a2.plan.shapes import ParameterCount, Shapes
from engine.a2.plan.speed import Speed, stage_seconds
from engine.words import GIB

CONTEXT = round(0.6 * GIB)  # on a card: the driver's own and the kernels'. An allowance, not a measurement
SLACK = 1.08  # of activations: what the allocator cannot use between them. An allowance, too
PROCESS = 450_000_000  # bytes: Python with torch, diffusers and transformers, measured
CARD_PROCESS = GIB  # what a card's libraries add to it; an allowance
LOADING = 600_000_000  # bytes: a tensor on its way, in float32 and quantised
SLOTS = 2  # places for a block on the card, into which streamed blocks are copied


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


def component_bytes(shapes: Shapes, precision: Precision) -> dict[str, int]:
    """Compute the bytes of each component's weights; the image encoder and the VAE are float32 throughout."""
    return {
        "text": weight_bytes(shapes.text.weights, precision),
        "image": weight_bytes(shapes.image.weights, "fp32"),
        "vae": weight_bytes(shapes.vae.weights, "fp32"),
        "transformer": weight_bytes(shapes.transformer.weights, precision),
    }


def phase_needs(planned: PlannedClip, settings: RunSettings) -> tuple[PhaseNeed, ...]:
    """Compute what each phase needs, in the order of work."""
    needs: dict[PlannedPhase, tuple[int, int, int]] = {
        "prompt": _text(planned, settings), "references": _references(planned, settings),
        "sampling": _denoise(planned, settings), "decoding": _decode(planned, settings),
    }  # fmt: skip
    return tuple(_stage(planned, settings, name, *need) for name, need in needs.items())


def _stage(
    planned: PlannedClip, settings: RunSettings, name: PlannedPhase, weights: int, streamed: int, active: int
) -> PhaseNeed:
    """Compute what a phase needs, from `weights` and `active` bytes where it computes and `streamed` bytes of blocks
    waiting on the host."""
    if settings.together:
        weights = sum(component_bytes(planned.shapes, settings.precision).values())
    computing, waiting = round(weights + active * SLACK), streamed if settings.host != "mapped" else 0
    parked = footprint.parked_bytes(planned.shapes.vae, planned.clip, settings.tiling) if name == "decoding" else 0
    pictures = 8 * 3 * planned.clip.width * planned.clip.height * 4  # a few latents' frames on their way
    if name == "references":
        pictures = 3 * planned.clip.frames * planned.clip.width * planned.clip.height * 4
    ram = PROCESS + waiting + parked + pictures
    if settings.device == "cpu":
        vram, ram = 0, ram + computing
    else:
        vram, ram = CONTEXT + computing, ram + CARD_PROCESS + (LOADING if name in ("prompt", "sampling") else 0)
    seconds = (
        None if planned.speed is None else stage_seconds(name, planned.shapes, planned.clip, settings, planned.speed)
    )
    return PhaseNeed(name, vram, ram, _disk(planned, settings, name), seconds)


def _text(planned: PlannedClip, settings: RunSettings) -> tuple[int, int, int]:
    weights, precision = planned.shapes.text.weights, settings.precision
    active = footprint.text_bytes(planned.shapes.text, number_bytes(precision))
    active += _widened(planned.shapes.text.dim * planned.shapes.text.ff, precision)
    return (*_streamed(weights, settings, 0), active)


def _references(planned: PlannedClip, settings: RunSettings) -> tuple[int, int, int]:
    """Compute the needs of two models that run one after the other, the image encoder and the VAE; return the
    larger."""
    shapes, clip, own = planned.shapes, planned.clip, component_bytes(planned.shapes, settings.precision)
    semantic = own["image"], 0, footprint.image_bytes(shapes.image, clip.references)
    spatial = own["vae"], 0, footprint.encode_bytes(shapes.vae, clip, settings.encode_tiled)
    return max(semantic, spatial, key=lambda need: need[2] if settings.together else need[0] + need[2])


def _denoise(planned: PlannedClip, settings: RunSettings) -> tuple[int, int, int]:
    shape, clip, precision = planned.shapes.transformer, planned.clip, settings.precision
    batch = 2 if settings.batched and clip.guided else 1
    each, context = number_bytes(precision), planned.shapes.image.tokens
    active = footprint.denoise_bytes(shape, clip, each, batch, settings.chunk, context)
    active += footprint.sampling_bytes(clip) + _widened(shape.dim * shape.ffn, precision)
    return (*_streamed(shape.weights, settings, settings.resident), active)


def _decode(planned: PlannedClip, settings: RunSettings) -> tuple[int, int, int]:
    own = component_bytes(planned.shapes, settings.precision)["vae"]
    return own, 0, footprint.decode_bytes(planned.shapes.vae, planned.clip, settings.tiling)


def _streamed(weights: ParameterCount, settings: RunSettings, resident: int) -> tuple[int, int]:
    """Return the bytes of weights where they are computed with, and of those that wait on the host."""
    if settings.offload == "none":
        return weight_bytes(weights, settings.precision), 0
    block, outside = block_bytes(weights, settings.precision), weights.outside * number_bytes(settings.precision)
    return outside + (resident + SLOTS) * block, (weights.blocks - resident) * block


def _widened(largest: int, precision: Precision) -> int:
    """Compute what dequantising takes: a quantised weight is dequantised when it is used, in two copies of the
    largest."""
    return 2 * largest * number_bytes(precision) if precision in ("int8", "fp8") else 0


def _disk(planned: PlannedClip, settings: RunSettings, name: str) -> int:
    quantised = settings.precision in ("int8", "fp8")
    if name == "prompt":
        return weight_bytes(planned.shapes.text.weights, settings.precision) if quantised else 0
    if name == "sampling":
        kept = weight_bytes(planned.shapes.transformer.weights, settings.precision) if quantised else 0
        return kept + footprint.sampling_bytes(planned.clip)
    return 0
