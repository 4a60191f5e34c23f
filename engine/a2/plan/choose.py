"""The order of preference: the first settings that fit. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from engine.a2.geometry import ENCODED_IN_TILES_ABOVE, Tiling, tiling_for
from engine.a2.options import Precision
from engine.a2.plan.settings import RunSettings, block_bytes, number_bytes
from engine.a2.plan.sizes import RING
from engine.a2.plan.stages import PhaseNeed, PlannedClip, phase_needs
from engine.memory.card import SLOTS
from engine.memory.hardware import Fact, Hardware
from engine.memory.ledger import Held

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
    """Bytes available now. Unknown values count as 0; an unknown `disk` is None, and is not checked. `bf16`: whether
    the card computes in it."""

    device: Literal["cuda", "cpu"]
    vram: int
    vram_total: int
    ram: int
    ram_total: int
    pinned: int
    disk: int | None
    bf16: bool = True

    @property
    def limits(self) -> Held:
        return Held(self.vram, self.ram)


def budget_of(hardware: Hardware, overrides: Overrides) -> Budget:
    """Read from the hardware what a plan may use, on CUDA or on the processor: the model computes on nothing else."""
    device = overrides.device or ("cuda" if hardware.device.value == "cuda" else "cpu")
    vram_total, ram_total = _known(hardware.vram_total) or 0, _known(hardware.ram_total) or 0
    vram = _known(hardware.vram_free, hardware.vram_total) or 0
    ram = _known(hardware.ram_free, hardware.ram_total) or 0
    pinned = min(_known(hardware.pinned_limit, hardware.ram_free, hardware.ram_total) or 0, ram)
    disk = _known(hardware.disk_free)
    bf16 = hardware.bf16.value is not False  # where nobody knows, most cards have it
    return Budget(device, vram if device == "cuda" else 0, vram_total, ram, ram_total, pinned, disk, bf16)


def _known(*facts: Fact) -> int | None:
    """Return the first of these facts that is a known number; None where none is."""
    return next((fact.value for fact in facts if isinstance(fact.value, int)), None)


def choose(planned: PlannedClip, budget: Budget, overrides: Overrides) -> RunSettings:
    """Choose the settings to run with; where nothing fits, those that need least."""
    planned = replace(planned, speed=None)
    settings = first_that_fits(planned, budget, overrides)
    if settings is None:
        *_, least = _candidates(planned, budget, overrides)
        settings = _completed(planned, least, budget, overrides)
    together = replace(settings, together=True, offload="none")
    if not settings.streamed and overrides.together is not False and _fits(planned, together, budget):
        return _with_context(planned, together, budget)
    return _with_context(planned, replace(settings, together=bool(overrides.together)), budget)


def _with_context(planned: PlannedClip, settings: RunSettings, budget: Budget) -> RunSettings:
    """Keep the context's keys and values over the run where there is room that nothing else wants: a resident block is
    worth more."""
    kept = replace(settings, keep_context=True)
    return kept if not settings.streamed and _fits(planned, kept, budget) else settings


def first_that_fits(planned: PlannedClip, budget: Budget, overrides: Overrides) -> RunSettings | None:
    """Return the best settings that fit at every stage; None where none do."""
    for settings in _candidates(planned, budget, overrides):
        if _fits(planned, settings, budget, "prompt", "sampling"):
            settings = _completed(planned, settings, budget, overrides)
            if _fits(planned, settings, budget):
                return settings
    return None


def _completed(planned: PlannedClip, settings: RunSettings, budget: Budget, overrides: Overrides) -> RunSettings:
    settings = _with_encoder(planned, settings, budget, overrides)
    settings = _with_decoder(planned, settings, budget, overrides)
    return _with_memory(planned, settings, budget, overrides)


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
        small = replace(
            streaming, resident=0, streamed=planned.shapes.transformer.layers, host="mapped",
            batched=bool(overrides.batched_guidance),
            chunk=_SMALL_CHUNK if overrides.chunk is None else overrides.chunk,
        )  # fmt: skip
        yield streaming
        if overrides.resident_blocks is None:
            yield small


def _precisions(budget: Budget) -> tuple[Precision, ...]:
    """Return the precisions to try, the best first. fp8 is not among them: with a scale a row, int8 keeps more of a
    weight, and both are widened to compute. Neither is bf16 on a card that does not have it: attention would fall back
    to matrices of all tokens by all tokens."""
    if budget.device == "cpu":
        return "fp32", "bf16", "int8"
    return ("bf16", "int8") if budget.bf16 else ("int8",)


def _resident(
    planned: PlannedClip, budget: Budget, overrides: Overrides, precision: Precision, chunk: int
) -> RunSettings:
    """Return settings with which no block of the transformer streams; on a card, components take turns."""
    few = budget.device != "cpu" and planned.clip.guided and planned.clip.tokens <= _BATCH_BELOW
    batched = few if overrides.batched_guidance is None else overrides.batched_guidance
    return RunSettings(
        device=budget.device, precision=precision, number=number_bytes(precision, budget.device),
        text_number=4 if budget.device != "cpu" and not budget.bf16 else 0,
        offload="none" if budget.device == "cpu" else "blocks", resident=planned.shapes.transformer.layers, host="none",
        batched=batched, chunk=chunk, tiling=None, encode_tiled=False, together=False,
    )  # fmt: skip


def _streaming(planned: PlannedClip, base: RunSettings, budget: Budget, overrides: Overrides) -> RunSettings:
    """Return settings with as many resident blocks as the card holds."""
    settings = replace(base, resident=0, host="mapped")
    weights, layers = planned.shapes.transformer.weights, planned.shapes.transformer.layers
    if overrides.resident_blocks is not None:
        resident = min(max(overrides.resident_blocks, 0), layers)
    else:
        spare = budget.vram - _stage(planned, settings, budget, "sampling").vram
        # Rounding and the allocator's slack are not in this sum: compare with the stage itself, as it is checked later.
        resident = max(0, min(layers - SLOTS, spare // block_bytes(weights, base)))
        while resident and _stage(planned, replace(settings, resident=resident), budget, "sampling").vram > budget.vram:
            resident -= 1
    host: Literal["none", "mapped"] = "mapped" if resident < layers else "none"
    return replace(settings, resident=resident, streamed=layers - resident, host=host)


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


def _with_memory(planned: PlannedClip, settings: RunSettings, budget: Budget, overrides: Overrides) -> RunSettings:
    """Let as many of the streamed blocks wait in memory as there is room for, at every stage; where all of these can be
    pinned they are, since copies from there are fastest."""
    if not settings.streamed or overrides.host == "mapped":
        return settings
    weights = planned.shapes.transformer.weights
    block, waiting = block_bytes(weights, settings), weights.blocks - settings.resident
    settings = replace(settings, host=overrides.host or "pinned", in_memory=waiting)
    if overrides.host:
        return settings
    lack = max(need.ram for need in phase_needs(planned, settings, budget.limits)) - budget.ram
    if lack > 0:
        lack += RING
        settings = replace(settings, in_memory=max(0, waiting + -lack // block))
    if not settings.in_memory:
        return replace(settings, host="mapped")
    return settings if settings.in_memory * block <= budget.pinned else _pageable(planned, settings, budget)


def _pageable(planned: PlannedClip, settings: RunSettings, budget: Budget) -> RunSettings:
    """Return the settings with blocks in ordinary memory: more than can be pinned. The ring takes memory, too."""
    settings = replace(settings, host="pageable")
    if not _fits(planned, settings, budget):
        settings = replace(settings, in_memory=settings.in_memory - 1)
    return settings if settings.in_memory else replace(settings, host="mapped")


def _stage(planned: PlannedClip, settings: RunSettings, budget: Budget, name: str) -> PhaseNeed:
    return next(stage for stage in phase_needs(planned, settings, budget.limits) if stage.name == name)


def _fits(planned: PlannedClip, settings: RunSettings, budget: Budget, *names: str) -> bool:
    """Return whether these stages fit, or, without names, all of them do."""
    needs = phase_needs(planned, settings, budget.limits)
    return all(need.vram <= budget.vram and need.ram <= budget.ram for need in needs if not names or need.name in names)
