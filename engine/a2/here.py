"""A plan for the machine that this process runs on: for the command line, where nobody has looked at one before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.a2.options import PRECISIONS, A2Options
from engine.a2.plan.planner import A2Planner
from engine.a2.state import kept_precision
from engine.errors import EngineUnavailable
from engine.memory.hardware import read_hardware
from engine.scene.scene import Scene
from engine.words import USE_THE_DRAFT

_INSIST = f"Name --precision or --offload to try it all the same, {USE_THE_DRAFT}."


def planned_here(scene: Scene, options: A2Options, folder: Path) -> A2Options:
    """Return the options with what they leave open as planned for this machine. Who names how it is to run on a
    processor is taken at their word. Raises EngineUnavailable where it does not fit, with what would."""
    if (
        options.precision is None
        and options.state is not None
        and (kept := kept_precision(options.state)) in PRECISIONS
    ):
        options = replace(options, precision=kept)  # else the run that it keeps would be begun anew
    said = (options.precision, options.offload, options.resident_blocks) != (None, None, None)
    name, _, index = options.device.partition(":")
    if name == "cpu" and said:
        return options
    hardware = read_hardware(folder, int(index) if index.isdecimal() else 0)
    on_card = name != "cpu" and hardware.device.value == "cuda"
    if not on_card and (said or name == "cuda"):
        return options
    free = (hardware.ram_free.value, hardware.vram_free.value if on_card else 0)
    if None in free:  # nothing can be promised, and nothing refused
        return options
    plan = A2Planner().plan(hardware, scene, options)
    if not (plan.fits or plan.possible or said):
        raise EngineUnavailable(f"on this machine the clip {plan.sentence()}", _INSIST)
    return plan.applied(options)
