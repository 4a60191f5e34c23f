"""Fast: one choice for all that is worth it, spelled out for a clip and a machine.

A pure function from options to options: what a person has chosen stays, what they left open (None) is decided. Applied
twice it changes nothing more, so the plan and the engine may both do it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.a2.compiling import might_compile
from engine.a2.options import A2Options
from engine.a2.plan.shapes import Shapes, default_shapes

if TYPE_CHECKING:
    from engine.a2.compute import Compute
    from engine.a2.geometry import ClipSize
    from engine.a2.plan.speed import Speed
    from engine.memory.hardware import Hardware

# Operations of all passes from which on compiling is worth its minute or more: a tenth of them is saved (estimated, not
# measured on a card), and a card of today does 5e13 to 5e14 a second.
_LONG = 1e17


@dataclass(frozen=True)
class Abilities:
    """What the machine multiplies in, and whether it could compile for that. A processor does nothing of it faster."""

    bf16: bool = False
    int8: bool = False
    fp8: bool = False
    compiles: bool = False


def abilities_of(hardware: Hardware, on_card: bool, speed: Speed | None = None) -> Abilities:
    """Return what a machine can do, from what is known of it, and where its speed was measured, what is faster there.
    `on_card`: the clip is made on its card."""
    if not on_card or hardware.device.value != "cuda":
        return Abilities()
    bf16 = hardware.bf16.value is True  # cards that have it multiply int8 as fast as they should
    slower = speed is not None and speed.w8a8 is not None and speed.w8a8 <= speed.matmul
    return Abilities(bf16, bf16 and not slower, hardware.fp8.value is True, bf16 and might_compile())


def abilities_here(compute: Compute) -> Abilities:
    """Return what the device of this process can do."""
    import torch

    from engine.memory.multiply import can_w8a8

    if compute.device.type != "cuda":
        return Abilities()
    generation, hip = torch.cuda.get_device_capability(compute.device), torch.version.hip is not None
    halves = hip or can_w8a8(generation, "int8")
    return Abilities(halves, halves, can_w8a8(generation, "fp8") and not hip, halves and might_compile())


def as_fast(options: A2Options, clip: ClipSize, able: Abilities, shapes: Shapes | None = None) -> A2Options:
    """Return the options with what Fast turns on for a clip on a machine, made by a model of these shapes (None:
    SkyReels-A2); as they are without Fast."""
    if not options.fast:
        return options
    w8a8, compiled, vae = options.w8a8, options.compiled, options.vae_precision
    if w8a8 is None:
        w8a8 = {None: able.int8, "int8": able.int8, "fp8": able.fp8}.get(options.precision, False)
    if compiled is None:
        compiled = able.compiles and operations(clip, shapes) >= _LONG
    if vae is None:
        vae = "bf16" if able.bf16 else "fp32"
    return replace(
        options, step_cache=options.step_cache or not options.turbo, w8a8=w8a8, compiled=compiled, vae_precision=vae
    )


def operations(clip: ClipSize, shapes: Shapes | None = None) -> float:
    """Count the floating point operations of all passes of a clip: 2 a weight and token, 4 a number of the width and
    pair of tokens, in each layer."""
    shape, tokens = (shapes or default_shapes()).transformer, clip.tokens
    forward = 2 * shape.weights.linear * tokens + 4 * shape.dim * shape.layers * tokens**2
    return float(clip.steps * clip.passes * forward)


def said_of(options: A2Options) -> str:
    """Say in a sentence what a clip was made faster with; empty where Fast was not asked for."""
    if not options.fast:
        return ""
    used = {
        "the step cache": options.step_cache, "8-bit multiplication": options.w8a8,
        "a compiled model": options.compiled, "the VAE in bf16": options.vae_precision == "bf16",
    }  # fmt: skip
    named = [name for name, on in used.items() if on]
    return f"Fast: with {', '.join(named)}." if named else "Fast: nothing of it is worth it here."
