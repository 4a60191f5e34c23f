"""The model's planner: from a machine and a scene to a plan, and from finished runs to better guesses of their time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from engine.a2.attention import is_installed
from engine.a2.files import locate
from engine.a2.geometry import ClipSize, size_of
from engine.a2.models import Family
from engine.a2.options import A2Options, as_run, sized
from engine.a2.plan.calibration import Machine, learn, recall, speeds_file
from engine.a2.plan.choose import Overrides
from engine.a2.plan.degrees import degrees_of
from engine.a2.plan.fast import abilities_of, as_fast
from engine.a2.plan.plan import Choice, Plan, make_plan
from engine.a2.plan.shapes import Shapes, default_shapes, read_shapes
from engine.a2.plan.speed import Speed
from engine.errors import EngineUnavailable
from engine.memory.hardware import Hardware, share_of_each
from engine.scene.scene import Scene

_DEVICES: dict[str, Literal["cpu", "cuda"]] = {"cpu": "cpu", "cuda": "cuda"}
_FASTER = ("step_cache", "w8a8", "compiled", "vae_precision", "attention")  # what Fast and the calibration decide
_FRESH = 30.0  # seconds for which a checkpoint's shapes are cached


class A2Planner:
    """Plans clips for a machine. The shapes of a checkpoint are cached for half a minute, since every change on the
    page asks for a plan."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, Family | None], tuple[float, Shapes]] = {}

    def plan(self, hardware: Hardware, scene: Scene, options: A2Options) -> Plan:
        """Plan how this machine would make a scene. What a person has set is kept, the rest planned around it."""
        device, speed = _DEVICES.get(options.device.partition(":")[0]), _speed(hardware)
        asked, shapes, on_card = options, self._shapes_of(options), device != "cpu"
        clip = size_of(as_run(scene, options), shapes.spec)
        options = as_fast(options, clip, abilities_of(hardware, on_card, speed), shapes)
        fastest = speed.fastest if speed is not None and on_card else None
        if options.attention is None and fastest is not None and is_installed(fastest):
            options = replace(options, attention=fastest)
        overrides = Overrides(
            device=device, precision=options.weights, offload=options.offload,
            resident_blocks=options.resident_blocks, batched_guidance=options.batched_guidance,
        )  # fmt: skip
        speed = speed.attending(options.attention) if speed is not None else None
        plan = _planned(hardware, shapes, clip, options, overrides, speed)
        return replace(plan, faster={name: getattr(options, name) for name in _FASTER
                                     if getattr(options, name) != getattr(asked, name)})  # fmt: skip

    def learn(
        self, hardware: Hardware, scene: Scene, options: A2Options, began: Mapping[str, tuple[float, int]]
    ) -> None:
        """Correct the predicted time of sampling by a finished run's. Ignores runs with a step cache, or with steps of
        an earlier run, those that were compiled, part of whose time it was, and those of several cards."""
        several = (options.cards or 1) > 1
        if (
            options.step_cache
            or options.compiled
            or several
            or began.get("sampling", (0.0, 1))[1]
            or "decoding" not in began
        ):
            return
        overrides = Overrides(
            precision=options.precision, offload=options.offload or "none", resident_blocks=options.resident_blocks,
            batched_guidance=bool(options.batched_guidance), chunk=options.chunk, tile=options.tile, host=options.host,
        )  # fmt: skip
        speed = known.attending(options.attention) if (known := _speed(hardware)) is not None else None
        shapes = self._shapes_of(options)
        clip = size_of(as_run(scene, options), shapes.spec)
        plan = _planned(hardware, shapes, clip, options, overrides, speed)
        foreseen = {stage.name: stage.seconds for stage in plan.stages}["sampling"]
        took = began["decoding"][0] - began["sampling"][0]
        if foreseen is not None:
            learn(_machine(hardware), "sampling", foreseen, took, speeds_file())

    def _shapes_of(self, options: A2Options) -> Shapes:
        """Return the checkpoint's shapes; those of the release where it is not installed."""
        key = options.model, options.family
        at, shapes = self._shapes.get(key, (float("-inf"), None))
        if shapes is None or time.monotonic() - at > _FRESH:
            try:
                shapes = read_shapes(locate(options.model, options.family))
            except EngineUnavailable:
                return default_shapes(options.model)
            self._shapes[key] = time.monotonic(), shapes
        return shapes


def _planned(
    hardware: Hardware, shapes: Shapes, clip: ClipSize, options: A2Options, overrides: Overrides, speed: Speed | None
) -> Plan:
    """Plan a clip on as many cards as the options say."""
    clip = sized(clip, options)
    degrees = degrees_of(clip, options, shapes)
    if degrees.cards < 2:
        return make_plan(hardware, clip, shapes, overrides, speed)
    if degrees.groups > 1:  # the passes are on cards of their own
        overrides = replace(overrides, batched_guidance=False)
    # Each card holds the whole model. Where tokens are divided they take less: that is left as a reserve.
    plan = make_plan(share_of_each(hardware, degrees.cards), clip, shapes, overrides)
    return replace(plan, choices=(*plan.choices, Choice("cards", degrees.cards, degrees.why, True)))


def _speed(hardware: Hardware) -> Speed | None:
    """Return what was measured on this card in bf16, which 8-bit weights are computed with, too; None where nothing
    was, or without a card: a processor takes longer for the model than anybody would wait."""
    if not hardware.has_card or not hardware.torch.value:
        return None
    return recall(_machine(hardware), speeds_file())


def _machine(hardware: Hardware) -> Machine:
    return Machine(str(hardware.name.value), str(hardware.torch.value), "bf16")
