"""What every stage of a clip needs under given settings: card, memory, disk, seconds. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.a2.geometry import ClipSize
from engine.a2.plan import footprint
from engine.a2.plan.settings import Precision, Settings, block_bytes, number_bytes, weight_bytes
from engine.a2.plan.shapes import ParameterCount, Shapes
from engine.a2.plan.speed import Speed, stage_seconds
from engine.words import GIB

CONTEXT = round(0.6 * GIB)  # on a card: the driver's own and the kernels'. An allowance, not a measurement
SLACK = 1.08  # of activations: what the allocator cannot use between them. An allowance, too
PROCESS = 450_000_000  # bytes: Python with torch, diffusers and transformers, measured
CARD_PROCESS = GIB  # what a card's libraries add to it; an allowance
LOADING = 600_000_000  # bytes: a tensor on its way, in float32 and quantised
SLOTS = 2  # blocks on the card that others are copied into


_Name = Literal["text", "references", "denoise", "decode"]


@dataclass(frozen=True)
class Stage:
    """Peaks in bytes, while it runs; `disk` is what it keeps there; `seconds` None where nothing was measured yet."""

    name: _Name
    vram: int
    ram: int
    disk: int
    seconds: float | None


@dataclass(frozen=True)
class Work:
    """What is to be made with which model, and how fast this machine is, where that is known."""

    shapes: Shapes
    clip: ClipSize
    speed: Speed | None = None


def component_bytes(shapes: Shapes, precision: Precision) -> dict[str, int]:
    """The image encoder and the VAE are float32 throughout."""
    return {
        "text": weight_bytes(shapes.text.weights, precision),
        "image": weight_bytes(shapes.image.weights, "fp32"),
        "vae": weight_bytes(shapes.vae.weights, "fp32"),
        "transformer": weight_bytes(shapes.transformer.weights, precision),
    }


def all_stages(work: Work, settings: Settings) -> tuple[Stage, ...]:
    """In the order of work."""
    needs: dict[_Name, tuple[int, int, int]] = {
        "text": _text(work, settings), "references": _references(work, settings),
        "denoise": _denoise(work, settings), "decode": _decode(work, settings),
    }  # fmt: skip
    return tuple(_stage(work, settings, name, *need) for name, need in needs.items())


def _stage(work: Work, settings: Settings, name: _Name, weights: int, streamed: int, active: int) -> Stage:
    """`weights` and `active` bytes where it computes, `streamed` bytes of blocks waiting on the host."""
    if settings.together:
        weights = sum(component_bytes(work.shapes, settings.precision).values())
    computing, waiting = round(weights + active * SLACK), streamed if settings.host != "mapped" else 0
    parked = footprint.parked_bytes(work.shapes.vae, work.clip, settings.tiling) if name == "decode" else 0
    pictures = 8 * 3 * work.clip.width * work.clip.height * 4  # a few latents' frames on their way
    if name == "references":
        pictures = 3 * work.clip.frames * work.clip.width * work.clip.height * 4
    ram = PROCESS + waiting + parked + pictures
    if settings.device == "cpu":
        vram, ram = 0, ram + computing
    else:
        vram, ram = CONTEXT + computing, ram + CARD_PROCESS + (LOADING if name in ("text", "denoise") else 0)
    seconds = None if work.speed is None else stage_seconds(name, work.shapes, work.clip, settings, work.speed)
    return Stage(name, vram, ram, _disk(work, settings, name), seconds)


def _text(work: Work, settings: Settings) -> tuple[int, int, int]:
    weights, precision = work.shapes.text.weights, settings.precision
    active = footprint.text_bytes(work.shapes.text, number_bytes(precision))
    active += _widened(work.shapes.text.dim * work.shapes.text.ff, precision)
    return (*_streamed(weights, settings, 0), active)


def _references(work: Work, settings: Settings) -> tuple[int, int, int]:
    """Two models one after the other: the hungrier one."""
    shapes, clip, own = work.shapes, work.clip, component_bytes(work.shapes, settings.precision)
    semantic = own["image"], 0, footprint.image_bytes(shapes.image, clip.references)
    spatial = own["vae"], 0, footprint.encode_bytes(shapes.vae, clip, settings.encode_tiled)
    return max(semantic, spatial, key=lambda need: need[2] if settings.together else need[0] + need[2])


def _denoise(work: Work, settings: Settings) -> tuple[int, int, int]:
    shape, clip, precision = work.shapes.transformer, work.clip, settings.precision
    batch = 2 if settings.batched and clip.guided else 1
    each, context = number_bytes(precision), work.shapes.image.tokens
    active = footprint.denoise_bytes(shape, clip, each, batch, settings.chunk, context)
    active += footprint.sampling_bytes(clip) + _widened(shape.dim * shape.ffn, precision)
    return (*_streamed(shape.weights, settings, settings.resident), active)


def _decode(work: Work, settings: Settings) -> tuple[int, int, int]:
    own = component_bytes(work.shapes, settings.precision)["vae"]
    return own, 0, footprint.decode_bytes(work.shapes.vae, work.clip, settings.tiling)


def _streamed(weights: ParameterCount, settings: Settings, resident: int) -> tuple[int, int]:
    """Weights where it computes, and those that wait."""
    if settings.offload == "none":
        return weight_bytes(weights, settings.precision), 0
    block, outside = block_bytes(weights, settings.precision), weights.outside * number_bytes(settings.precision)
    return outside + (resident + SLOTS) * block, (weights.blocks - resident) * block


def _widened(largest: int, precision: Precision) -> int:
    """A quantised weight is put back into its range when it is used, which takes two copies of the largest."""
    return 2 * largest * number_bytes(precision) if precision in ("int8", "fp8") else 0


def _disk(work: Work, settings: Settings, name: str) -> int:
    quantised = settings.precision in ("int8", "fp8")
    if name == "text":
        return weight_bytes(work.shapes.text.weights, settings.precision) if quantised else 0
    if name == "denoise":
        kept = weight_bytes(work.shapes.transformer.weights, settings.precision) if quantised else 0
        return kept + footprint.sampling_bytes(work.clip)
    return 0
