"""From a machine, a model and a clip to how it is run, and what that needs: precision, what waits where, tiles.

Nothing is loaded and nothing is guessed: bytes come from shapes (engine.a2.plan.footprint), seconds from a calibration
on this machine or not at all. A person may set any line; the rest is planned around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from engine.a2.geometry import ClipSize
from engine.a2.options import A2Options
from engine.a2.phases import PHASES
from engine.a2.plan.advice import changes_that_fit, problems_of
from engine.a2.plan.choose import Budget, Overrides, budget_of, choose, first_that_fits
from engine.a2.plan.settings import RunSettings, blocks_bytes
from engine.a2.plan.shapes import Shapes, default_shapes
from engine.a2.plan.speed import Speed
from engine.a2.plan.stages import PhaseNeed, PlannedClip, phase_needs, released_bytes
from engine.memory.hardware import Hardware
from engine.scene.engine import MemoryBars
from engine.words import GIB

_OURS = 0.92  # of card and memory: what the system and its desktop leave
_LARGE = 4 * GIB  # of memory: models of that size are not for processors
_DAYS = "Without a graphics card such a clip takes days: use the draft, or a machine with a card"


@dataclass(frozen=True)
class Choice:
    """One line of a plan: what was chosen, why, and whether a person did."""

    name: str
    value: str | int | bool | None
    why: str
    forced: bool = False


@dataclass(frozen=True)
class Plan:
    """`problems` say in numbers what does not fit, `remedies` what would; both are empty where all does. `possible`: it
    fits, or would if nothing else held memory here. `faster`: the options that Fast and the calibration have decided.
    `download` is the bytes that the model takes on the disk where it is not there yet."""

    settings: RunSettings
    choices: tuple[Choice, ...]
    stages: tuple[PhaseNeed, ...]
    budget: Budget
    blocks: int
    download: int
    problems: tuple[str, ...]
    remedies: tuple[str, ...]
    possible: bool
    faster: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        return not self.problems

    @property
    def seconds(self) -> float | None:
        """Of all stages, without loading; None until this machine was calibrated."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if len(known) == len(self.stages) else None

    @property
    def vram(self) -> int:
        return max(stage.vram for stage in self.stages)

    @property
    def ram(self) -> int:
        return max(stage.ram for stage in self.stages)

    def sentence(self) -> str:
        """Say in one line, for a person, whether it fits, how it is run and why."""
        if not self.fits:
            remedy = f". It would fit {' or '.join(self.remedies)}" if self.remedies else ""
            if self.possible:
                remedy += ". It can be tried all the same: it fits if other programs give memory back"
            return f"does not fit: {'; '.join(self.problems)}{remedy}"
        card = self.settings.device != "cpu"
        used, size = (self.vram, self.budget.vram_total) if card else (self.ram, self.budget.ram_total)
        words = [f"{used / GIB:.1f} of {round(size / GIB, 1):g} GB{'' if card else ' of memory'}", _time(self.seconds)]
        words.append(self.settings.precision + " (W8A8)" * bool(self.faster.get("w8a8")))
        if self.settings.streamed:
            words.append(f"{self.settings.resident} of {self.blocks} blocks resident")
        why = next(choice.why for choice in self.choices if choice.name == "offload")
        return f"fits: {', '.join(words)}, because {why}"

    def bars(self) -> MemoryBars:
        """Return what each phase needs of the card, or of the memory where there is none."""
        card = self.settings.device != "cpu"
        size, free = (self.budget.vram_total, self.budget.vram) if card else (self.budget.ram_total, self.budget.ram)
        phases = tuple((PHASES[need.name].title, need.vram if card else need.ram, need.seconds) for need in self.stages)
        slow = "" if card or self.ram < _LARGE else _DAYS
        return MemoryBars("graphics memory" if card else "memory", free, size, phases, slow)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan, its sums and its sentence as JSON data for the page."""
        sums = {"fits": self.fits, "seconds": self.seconds, "vram": self.vram, "ram": self.ram}
        return {**asdict(self), **sums, "sentence": self.sentence()}

    def applied(self, options: A2Options) -> A2Options:
        """Return the options with what the plan has chosen: where it does not fit, what needs least."""
        chosen = self.settings
        blocks = chosen.offload == "blocks"
        return replace(
            options, precision=chosen.precision, offload=chosen.offload, batched_guidance=chosen.batched,
            resident_blocks=chosen.resident if blocks else None, chunk=chosen.chunk, together=chosen.together,
            encode_tiled=chosen.encode_tiled, tile=chosen.tiling.tile if chosen.tiling else 0,
            whole_frames=chosen.tiling is None,
            host=None if chosen.host == "none" else chosen.host,
            in_memory=chosen.in_memory if chosen.streamed else None, keep_context=chosen.keep_context, **self.faster,
        )  # fmt: skip


def make_plan(
    hardware: Hardware,
    clip: ClipSize,
    shapes: Shapes | None = None,
    overrides: Overrides | None = None,
    speed: Speed | None = None,
) -> Plan:
    """Plan a clip. `shapes` is the installed checkpoint's; without it SkyReels-A2's own, which then has to be
    downloaded. Never raises for what does not fit: the plan's `problems` say that."""
    planned, overrides = PlannedClip(shapes or default_shapes(), clip, speed), overrides or Overrides()
    budget = budget_of(hardware, overrides)
    settings = choose(planned, budget, overrides)
    stages = phase_needs(planned, settings, budget.limits)
    download = 0 if planned.shapes.file_bytes is not None else _released_bytes(planned.shapes)
    problems = problems_of(planned, settings, stages, budget, download) + impossible(planned, budget, overrides)
    remedies = changes_that_fit(planned, budget, overrides, stages) if problems else ()
    choices = tuple(_choices(planned, settings, budget, overrides, hardware))
    blocks = planned.shapes.transformer.layers
    possible = not problems or _fits_alone(planned, budget, overrides, download)
    return Plan(settings, choices, stages, budget, blocks, download, tuple(problems), tuple(remedies), possible)


def _fits_alone(planned: PlannedClip, budget: Budget, overrides: Overrides, download: int) -> bool:
    """Return whether it would fit if nothing but the system itself held memory."""
    if impossible(planned, budget, overrides) or (budget.disk is not None and download > budget.disk):
        return False
    alone = replace(
        budget,
        vram=round(_OURS * budget.vram_total) if budget.device != "cpu" else 0,
        ram=round(_OURS * budget.ram_total),
    )
    return first_that_fits(replace(planned, speed=None), alone, overrides) is not None


def impossible(planned: PlannedClip, budget: Budget, overrides: Overrides) -> list[str]:
    """List what a person asked for that no machine could do."""
    blocks, asked = planned.shapes.transformer.layers, overrides.resident_blocks
    found = []
    if asked is not None and not 0 <= asked <= blocks:
        found.append(f"{asked} resident blocks were asked for; the model has {blocks}")
    if overrides.offload == "none" and asked not in (None, blocks):
        found.append(f"{asked} of {blocks} blocks resident leaves others to be offloaded, and offload is none")
    if budget.device == "cpu" and overrides.offload == "blocks":
        found.append("there is no card to bring blocks to (0 GB)")
    return found


def _released_bytes(shapes: Shapes) -> int:
    """Compute what is downloaded: bf16, the image encoder and the VAE in float32. Other files of the same model may be
    larger."""
    return sum(released_bytes(shapes).values())


def _choices(
    planned: PlannedClip, settings: RunSettings, budget: Budget, overrides: Overrides, hardware: Hardware
) -> Iterator[Choice]:
    """Yield every line of the plan with its reason."""
    transformer = planned.shapes.transformer
    forced = {name for name, value in asdict(overrides).items() if value is not None}
    own = "you chose it"
    size = blocks_bytes(transformer.weights, settings.precision, settings.number)
    full = released_bytes(planned.shapes)["transformer"]

    def line(name: str, value: Any, why: str) -> Choice:
        mine = name in forced
        return Choice(name, value, own if mine else why, mine)

    yield line("device", settings.device, hardware.device.why)
    yield line("precision", settings.precision, {
        "fp32": "the processor computes it best", "bf16": "all of it fits, at the precision it was made in",
        "int8": f"in bf16 the model takes {full / GIB:.1f} GB", "fp8": own,
    }[settings.precision])  # fmt: skip
    streams = settings.streamed > 0
    where = f"the blocks take {size / GIB:.1f} GB, and {budget.vram / GIB:.1f} GB are free"
    yield line("offload", settings.offload, where if streams else "the whole model fits")
    yield line("resident_blocks", settings.resident, "as many as fit" if streams else "all")
    some = f"{settings.in_memory} of {settings.streamed} blocks wait in memory, the others are read from disk: "
    yield line("host", settings.host, some * (0 < settings.in_memory < settings.streamed) + {
        "none": "nothing waits", "pinned": "there is memory for it, and copies from it are fastest",
        "pageable": "more than can be pinned",
        "mapped": f"{budget.ram / GIB:.1f} GB of memory are free: read from disk",
    }[settings.host])  # fmt: skip
    twice = "both halves at once would take twice the memory for the same work"
    once = "a clip this small waits for its weights, which then serve both halves"
    yield line("batched_guidance", settings.batched, once if settings.batched else twice)
    yield line("chunk", settings.chunk, "in pieces it takes about half the memory" if settings.chunk else "not needed")
    tile = settings.tiling.tile if settings.tiling else 0
    yield line("tile", tile, "a frame in one piece would not fit" if tile else "a frame fits in one piece")
    pieces = "the pictures would not fit in one piece" if settings.encode_tiled else "they fit in one piece"
    yield line("encode_tiled", settings.encode_tiled, pieces)
    room = "there is room for it" if settings.keep_context else "the room is better used, or not there"
    yield line("keep_context", settings.keep_context, room)
    yield line("together", settings.together,
               "all components fit, so the next clip starts at once" if settings.together else
               "each is loaded when its turn comes")  # fmt: skip


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "time not measured yet"
    if seconds < 90:
        return f"about {max(1, round(seconds))} seconds"
    minutes = round(seconds / 60)
    return f"about {minutes} minutes" if minutes < 120 else f"about {seconds / 3600:.1f} hours"
