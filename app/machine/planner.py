"""What this machine can do with the model: asked in the background, and planned for every clip."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.a2.files import find_checkpoint
from engine.a2.geometry import ClipSize, size_of
from engine.a2.options import A2Options, as_run
from engine.a2.plan.calibration import Machine, learn, recall, speeds_file
from engine.a2.plan.choose import Overrides
from engine.a2.plan.plan import Plan, make_plan
from engine.a2.plan.shapes import Shapes, read_shapes
from engine.a2.plan.speed import Speed
from engine.door.render import Progress, RenderRequest, Result
from engine.errors import EngineUnavailable
from engine.memory.hardware import Hardware, ask_hardware, hardware_to_dict

_FRESH = 30.0  # seconds that what the machine has holds: others use its memory, too
_PATIENCE = 12.0  # seconds that a page waits for the first answer
Render = Callable[..., Result]
PrecisionWish = Literal["", "bf16", "int8", "fp8"]  # empty, here and below: as the plan chooses
OffloadWish = Literal["", "none", "blocks"]


@dataclass(frozen=True)
class Wishes:
    """What a person sets beside the plan; empty leaves it to the plan."""

    precision: PrecisionWish = ""
    offload: OffloadWish = ""
    resident: int | None = None
    guidance: str = ""  # "together" or "in turn"

    @property
    def overrides(self) -> Overrides:
        batched = {"together": True, "in turn": False}.get(self.guidance)
        return Overrides(
            precision=self.precision or None, offload=self.offload or None, resident_blocks=self.resident,
            batched_guidance=batched,
        )  # fmt: skip


class Planner:
    """Plans clips for this machine. `folder` is where clips go, for the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hardware: Hardware | None = None
        self._asked, self._lock = float("-inf"), threading.Lock()
        self._known = threading.Event()
        self._shapes: dict[str, tuple[float, Shapes]] = {}

    def look(self) -> None:
        """Ask the machine anew, in the background, unless that was done a moment ago."""
        with self._lock:
            if time.monotonic() - self._asked < _FRESH:
                return
            self._asked = time.monotonic()
        threading.Thread(target=self._ask, name="troupe-hardware", daemon=True).start()

    def hardware(self, patience: float = _PATIENCE) -> Hardware | None:
        """What this machine has; None where it did not say so in time."""
        self.look()
        self._known.wait(patience)
        return self._hardware

    def facts(self) -> dict[str, Any]:
        """The same as plain data, for a report."""
        hardware = self.hardware()
        return hardware_to_dict(hardware) if hardware is not None else {}

    def plan(self, clip: ClipSize, model: str, wishes: Wishes) -> Plan | None:
        """How this machine would make a clip; None while it is not known."""
        hardware = self.hardware()
        if hardware is None:
            return None
        return make_plan(hardware, clip, self._shapes_of(model), wishes.overrides, _speed(hardware))

    def learning(self, render: Render) -> Render:
        """The engine's door, with an eye on how long its stages take: the next plans foresee them better."""

        def run(request: RenderRequest, on_progress: Callable[[Progress], None], stop: Callable[[], bool]) -> Result:
            begun: dict[str, tuple[float, int]] = {}

            def tell(progress: Progress) -> None:
                begun.setdefault(progress.stage, (progress.elapsed, progress.step))
                on_progress(progress)

            result = render(request, on_progress=tell, stop=stop)
            if result.engine == "a2":
                self._learn(request, begun)
            return result

        return run

    def _learn(self, request: RenderRequest, begun: dict[str, tuple[float, int]]) -> None:
        """From a run whose every step was computed, none of them by an earlier one or a cache."""
        hardware, options = self._hardware, request.a2
        if hardware is None or options.step_cache or begun.get("sampling", (0.0, 1))[1] or "decoding" not in begun:
            return
        scene = as_run(request.scene, options)
        overrides = Overrides(
            precision=options.precision, offload=options.offload, resident_blocks=options.resident_blocks,
            batched_guidance=options.batched_guidance, chunk=options.chunk, tile=options.tile,
        )  # fmt: skip
        plan = make_plan(hardware, size_of(scene), self._shapes_of(options.model), overrides, _speed(hardware))
        foreseen = {stage.name: stage.seconds for stage in plan.stages}["denoise"]
        took = begun["decoding"][0] - begun["sampling"][0]
        if foreseen is not None:
            learn(_machine(hardware), "denoise", foreseen, took, speeds_file())

    def _ask(self) -> None:
        self._hardware = ask_hardware(self._folder)
        self._known.set()

    def _shapes_of(self, model: str) -> Shapes | None:
        """The checkpoint's; None where it is not installed."""
        at, shapes = self._shapes.get(model, (float("-inf"), None))
        if time.monotonic() - at > _FRESH:
            try:
                shapes = read_shapes(find_checkpoint(model))
            except EngineUnavailable:
                return None
            self._shapes[model] = time.monotonic(), shapes
        return shapes


def _speed(hardware: Hardware) -> Speed | None:
    """What was measured on this card; 8-bit weights are computed with in bf16, too. A processor takes longer for the
    model than anybody would wait."""
    if not hardware.has_card or not hardware.torch.value:
        return None
    return recall(_machine(hardware), speeds_file())


def _machine(hardware: Hardware) -> Machine:
    return Machine(str(hardware.name.value), str(hardware.torch.value), "bf16")


def with_plan(options: A2Options, plan: Plan | None) -> A2Options:
    """The options, run as planned."""
    if plan is None or not plan.fits:
        return options
    chosen = plan.settings
    # Components take turns on the card where the blocks stream; that all of them stay makes no difference to it.
    blocks = chosen.device != "cpu" and (chosen.offload == "blocks" or not chosen.together)
    return replace(
        options, precision=chosen.precision, offload="blocks" if blocks else "none", batched_guidance=chosen.batched,
        resident_blocks=chosen.resident if blocks else None, chunk=chosen.chunk, encode_tiled=chosen.encode_tiled,
        tile=chosen.tiling.tile if chosen.tiling else 0,
    )  # fmt: skip
