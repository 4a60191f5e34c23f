"""Seconds from a machine's measured rates (engine.a2.plan.calibration). Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import get_args

from engine.a2.geometry import FRAMES_A_LATENT, TEXT_TOKENS, ClipSize, spans
from engine.a2.options import Attention
from engine.a2.plan.footprint import parked_bytes
from engine.a2.plan.settings import RunSettings, block_bytes
from engine.a2.plan.shapes import ParameterCount, Shapes, Vae, decoder_levels

_SINGLE = 4  # bytes
_MARGIN = 1.05  # a kernel that is so little faster than native is not worth its rounding


@dataclass(frozen=True)
class Speed:
    """Operations a second: `matmul` and `attention` at the transformer's precision, `single` a matmul and `convolution`
    in float32; `copy` bytes a second to the card from pinned memory, `pageable` from other (None: there is no card);
    `widen` quantised numbers dequantised a second. `corrections`: by stage, the factor by which this machine's own jobs
    differed. `attentions`: by kind, the rates of those that are exact enough; `w8a8` of products in 8 bits,
    `convolution_bf16` (None: not measured)."""

    matmul: float
    attention: float
    single: float
    convolution: float
    widen: float
    copy: float | None
    pageable: float | None
    corrections: dict[str, float] = field(default_factory=dict)
    attentions: dict[str, float] = field(default_factory=dict)
    w8a8: float | None = None
    convolution_bf16: float | None = None

    def convolving(self, clip: ClipSize) -> float:
        """Return the rate of the VAE's convolutions, in the numbers that it computes with."""
        return self.convolution if clip.vae == _SINGLE else self.convolution_bf16 or self.convolution

    @property
    def fastest(self) -> Attention | None:
        """The kind of attention that is fastest here by a margin that matters; None where only native was measured."""
        kinds: dict[Attention, float] = {kind: self.attentions[kind] for kind in get_args(Attention) if kind in
                                         self.attentions}  # fmt: skip
        if not kinds:
            return None
        best = max(kinds, key=kinds.__getitem__)
        return best if kinds[best] > _MARGIN * kinds.get("native", 0.0) else "native"

    def attending(self, kind: Attention | None) -> Speed:
        """Return the speed with that kind of attention, where it was measured."""
        return replace(self, attention=self.attentions.get(kind or "native", self.attention))


def stage_seconds(name: str, shapes: Shapes, clip: ClipSize, settings: RunSettings, speed: Speed) -> float | None:
    """Estimate a stage's seconds without loading, which no calibration foresees. None where the blocks come from a
    disk, whose speed depends on what the system keeps of it in memory."""
    if settings.from_disk and name == "sampling":
        return None
    seconds = {"prompt": _text, "references": _references, "sampling": _denoise, "decoding": _decode}[name]
    return seconds(shapes, clip, settings, speed) * speed.corrections.get(name, 1.0)


def _text(shapes: Shapes, clip: ClipSize, settings: RunSettings, speed: Speed) -> float:
    linear = shapes.text.weights.linear
    compute = 2 * TEXT_TOKENS * linear / speed.matmul + _widening(linear, settings, speed)
    prompts = min(clip.passes, 2)
    if settings.offload == "none" or speed.pageable is None:
        return prompts * compute
    # From the mapped file, and through a small buffer: it is used once, and is not worth memory of its own.
    copying = shapes.text.weights.blocks * block_bytes(shapes.text.weights, settings, settings.of_text) / speed.pageable
    return prompts * max(compute, copying)


def _references(shapes: Shapes, clip: ClipSize, settings: RunSettings, speed: Speed) -> float:
    linear = shapes.weights_of("image_encoder").linear
    semantic = 2 * clip.references * shapes.picture_tokens * linear / speed.single
    overlap = (256 / 192) ** 2 if settings.encode_tiled else 1.0
    packed = clip.references / FRAMES_A_LATENT if clip.tail else clip.latent[0]  # of four frames each
    frames = packed * clip.width * clip.height
    return semantic + overlap * frames * _encoder_operations(shapes.vae) / speed.convolving(clip)


def _denoise(shapes: Shapes, clip: ClipSize, settings: RunSettings, speed: Speed) -> float:
    """Estimate the seconds of sampling: copies overlap with the computing, so the longer of the two counts."""
    shape, tokens = shapes.transformer, clip.tokens
    told = TEXT_TOKENS + clip.references * shapes.picture_tokens
    linear, context = 2 * tokens * (6 * shape.dim**2 + 2 * shape.dim * shape.ffn), 4 * told * shape.dim**2
    context = 0 if settings.keep_context else context  # then once, not once a forward
    seen = 4 * (tokens * tokens + tokens * told) * shape.dim
    product = speed.w8a8 or speed.matmul if clip.w8a8 else speed.matmul
    compute = shape.layers * (linear / product + context / speed.matmul + seen / speed.attention)
    widening = 0.0 if clip.w8a8 else _widening(shape.weights.linear, settings, speed)
    copying = _copying(shape.weights, settings.resident, settings, speed)
    if settings.batched:
        return clip.steps * max(clip.passes * compute + widening, copying)
    return clip.steps * clip.passes * max(compute + widening, copying)


def _decode(shapes: Shapes, clip: ClipSize, settings: RunSettings, speed: Speed) -> float:
    frames, height, width = clip.latent
    rows, columns = spans(height, settings.tiling), spans(width, settings.tiling)
    pixels: int = sum((r.stop - r.start) * (c.stop - c.start) for r in rows for c in columns)
    seconds = frames * pixels * decoder_operations(shapes.vae) / speed.convolving(clip)
    if settings.tiling and settings.tiling.parked and speed.copy:
        seconds += 2 * frames * parked_bytes(shapes.vae, clip, settings.tiling, clip.vae) / speed.copy
    return seconds


def _widening(linear: int, settings: RunSettings, speed: Speed) -> float:
    return linear / speed.widen if settings.precision in ("int8", "fp8") else 0.0


def _copying(weights: ParameterCount, resident: int, settings: RunSettings, speed: Speed) -> float:
    rate = speed.pageable if settings.host == "pageable" else speed.copy
    if settings.offload == "none" or rate is None:
        return 0.0
    return (weights.blocks - resident) * block_bytes(weights, settings) / rate


def decoder_operations(vae: Vae) -> int:
    """Count the operations of the decoder's upsampling half, per latent pixel and latent frame."""
    top, total = len(vae.channels) - 1, 0
    for level, inputs, channels in decoder_levels(vae):
        pixels, frames = 4 ** (top - level), 4 >> sum(vae.halves_time[:level])
        total += 2 * 27 * pixels * frames * channels * (inputs + (2 * vae.residuals + 1) * channels)
        if level > 0:
            total += 2 * 9 * 4 * pixels * frames * channels * channels // 2
    return total


def _encoder_operations(vae: Vae) -> float:
    """Count the encoder's operations, per pixel and four frames."""
    total = 0.0
    for level, channels in enumerate(vae.channels):
        frames, before = 4 >> sum(vae.halves_time[:level]), vae.channels[max(level - 1, 0)]
        total += 2 * 27 * frames / 4**level * channels * (before + (2 * vae.residuals - 1) * channels)
    return total
