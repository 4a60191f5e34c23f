"""The order of preference: the first settings that fit. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from engine.a2.geometry import ENCODED_IN_TILES_ABOVE, Tiling, tiling_for
from engine.a2.options import Precision
from engine.a2.plan.settings import RunSettings, block_bytes
from engine.a2.plan.stages import SLOTS, PhaseNeed, PlannedClip, phase_needs
from engine.memory.hardware import Fact, Hardware

CHUNK = 4096  # tokens; large enough to keep a card busy
_SMALL_CHUNK = 1024  # tokens; where nothing else helps
_BATCH_BELOW = 4096  # tokens: so few compute faster than a block is copied and widened
_TILES = (96, 72, 56, 44)  # latent pixels; smaller ones overlap more than they save
_TILE_OVERLAP = 24


@dataclass(frozen=True)
class Overrides:
    """What a person sets; None leaves a line to the plan. `chunk` 0: all tokens at once. `tile` 0: whole frames."""

    device: Literal["cuda", "cpu"] | None = None
    precision: Precision | None = None
    offload: Literal["none", "blocks"] | None = None
    resident_blocks: int | None = None
    host: Literal["pinned", "pageable", "mapped"] | None = None
    batched_guidance: bool | None = None
    chunk: int | None = None
    tile: int | None = None
    encode_tiled: bool | None = None
    together: bool | None = None


@dataclass(frozen=True)
class Budget:
    """Bytes available now. Unknown values count as 0; an unknown `disk` is None, and is not checked."""

    device: Literal["cuda", "cpu"]
    vram: int
    vram_total: int
    ram: int
    ram_total: int
    pinned: int
    disk: int | None


def budget_of(hardware: Hardware, overrides: Overrides) -> Budget:
    """Read from the hardware what a plan may use, on CUDA or on the processor: the model computes on nothing else."""
    device = overrides.device or ("cuda" if hardware.device.value == "cuda" else "cpu")
    vram_total, ram_total = _known(hardware.vram_total) or 0, _known(hardware.ram_total) or 0
    vram = _known(hardware.vram_free, hardware.vram_total) or 0
    ram = _known(hardware.ram_free, hardware.ram_total) or 0
    pinned = min(_known(hardware.pinned_limit, hardware.ram_free, hardware.ram_total) or 0, ram)
    disk = _known(hardware.disk_free)
    return Budget(device, vram if device == "cuda" else 0, vram_total, ram, ram_total, pinned, disk)


def _known(*facts: Fact) -> int | None:
    """Return the first of these facts that is a known number; None where none is."""
    return next((fact.value for fact in facts if isinstance(fact.value, int)), None)


def choose(planned: PlannedClip, budget: Budget, overrides: Overrides) -> RunSettings:
    """Choose the settings to run with; where nothing fits, those that need least."""
    for settings in _candidates(planned, budget, overrides):
        if _fits(planned, settings, budget, "sampling") and _fits(planned, settings, budget, "prompt"):
            break
    settings = _with_encoder(planned, settings, budget, overrides)
    settings = _with_decoder(planned, settings, budget, overrides)
    together = replace(settings, together=True, offload="none")
    if settings.offload == "none" and overrides.together is not False and all(
        _fits(planned, together, budget, stage.name) for stage in phase_needs(planned, together)
    ):  # fmt: skip
        return together
    return replace(settings, together=bool(overrides.together))


def _candidates(planned: PlannedClip, budget: Budget, overrides: Overrides) -> Iterator[RunSettings]:
    """Yield settings, the best first. With more memory a later one never becomes better than an earlier one: so more
    memory is never slower. Where blocks stream, tokens are worked on in chunks, since the memory that this frees holds
    resident blocks."""
    precisions = (overrides.precision,) if overrides.precision else _precisions(budget)
    whole = overrides.offload != "blocks" and overrides.resident_blocks in (None, planned.shapes.transformer.layers)
    chunks = (overrides.chunk,) if overrides.chunk is not None else (0, min(CHUNK, planned.clip.tokens))
    still = whole or budget.device == "cpu" or overrides.offload == "none"
    if still:
        for precision in precisions:
            yield _resident(planned, budget, overrides, precision, chunks[0])
        yield _resident(planned, budget, overrides, precisions[-1], chunks[-1])
    if budget.device != "cpu" and overrides.offload != "none":
        base = _resident(planned, budget, overrides, precisions[-1], chunks[-1])
        streaming = _streaming(planned, base, budget, overrides)
        yield streaming
        if overrides.resident_blocks is None:
            yield replace(
                streaming, resident=0, batched=bool(overrides.batched_guidance),
                chunk=_SMALL_CHUNK if overrides.chunk is None else overrides.chunk,
            )  # fmt: skip


def _precisions(budget: Budget) -> tuple[Precision, ...]:
    """Return the precisions to try, the best first. fp8 is not among them: with a scale a row, int8 keeps more of a
    weight, and both are widened to compute."""
    return ("fp32", "bf16", "int8") if budget.device == "cpu" else ("bf16", "int8")


def _resident(
    planned: PlannedClip, budget: Budget, overrides: Overrides, precision: Precision, chunk: int
) -> RunSettings:
    """Return settings with which no block streams."""
    few = budget.device != "cpu" and planned.clip.guided and planned.clip.tokens <= _BATCH_BELOW
    batched = few if overrides.batched_guidance is None else overrides.batched_guidance
    return RunSettings(
        device=budget.device, precision=precision, offload="none", resident=planned.shapes.transformer.layers,
        host="none", batched=batched, chunk=chunk, tiling=None, encode_tiled=False,
        together=False,
    )  # fmt: skip


def _streaming(planned: PlannedClip, base: RunSettings, budget: Budget, overrides: Overrides) -> RunSettings:
    """Return settings with as many resident blocks as the card holds, and the best place for the others that the memory
    allows."""
    settings = replace(base, offload="blocks", resident=0, host="pinned")
    weights, layers = planned.shapes.transformer.weights, planned.shapes.transformer.layers
    if overrides.resident_blocks is not None:
        resident = min(max(overrides.resident_blocks, 0), layers)
    else:
        spare = budget.vram - _stage(planned, settings, "sampling").vram
        # Rounding and the allocator's slack are not in this sum: compare with the stage itself, as it is checked later.
        resident = max(0, min(layers - SLOTS, spare // block_bytes(weights, base.precision)))
        while resident and _stage(planned, replace(settings, resident=resident), "sampling").vram > budget.vram:
            resident -= 1
    settings = replace(settings, resident=resident)
    if overrides.host:
        return replace(settings, host=overrides.host)
    for host in ("pinned", "pageable"):
        settings = replace(settings, host=host)
        waiting = (layers - resident) * block_bytes(weights, settings.precision)
        if host == "pinned" and waiting > budget.pinned:
            continue
        if all(_stage(planned, settings, name).ram <= budget.ram for name in ("prompt", "sampling")):
            return settings
    return replace(settings, host="mapped")


def _with_encoder(planned: PlannedClip, settings: RunSettings, budget: Budget, overrides: Overrides) -> RunSettings:
    if overrides.encode_tiled is not None:
        return replace(settings, encode_tiled=overrides.encode_tiled)
    whole = replace(settings, encode_tiled=planned.clip.width * planned.clip.height > ENCODED_IN_TILES_ABOVE)
    return whole if _fits(planned, whole, budget, "references") else replace(settings, encode_tiled=True)


def _with_decoder(planned: PlannedClip, settings: RunSettings, budget: Budget, overrides: Overrides) -> RunSettings:
    """Choose how to decode: whole frames, or the largest tiles that fit. The caches of tiles are parked on the host: on
    the card, tiles would save nothing."""
    _, height, width = planned.clip.latent
    if overrides.tile is not None:
        tile = max(overrides.tile, _TILE_OVERLAP + 8)
        return replace(settings, tiling=Tiling(tile, _TILE_OVERLAP, budget.device != "cpu") if overrides.tile else None)
    usual = tiling_for(height, width) if budget.device == "cpu" else None
    smaller = (tile for tile in _TILES if tile < max(height, width))
    tried = [usual, *(Tiling(tile, _TILE_OVERLAP, budget.device != "cpu") for tile in smaller)]
    for tiling in tried:
        found = replace(settings, tiling=tiling)
        if _fits(planned, found, budget, "decoding"):
            return found
    return found


def _stage(planned: PlannedClip, settings: RunSettings, name: str) -> PhaseNeed:
    return next(stage for stage in phase_needs(replace(planned, speed=None), settings) if stage.name == name)


def _fits(planned: PlannedClip, settings: RunSettings, budget: Budget, name: str) -> bool:
    stage = _stage(planned, settings, name)
    return stage.vram <= budget.vram and stage.ram <= budget.ram
