"""What to try next where memory ran out all the same: a few fallbacks, each safer and a little slower than the last.

Pure functions. No fallback changes a run that has begun by more than rounding, so that it goes on from its last step. A
lower precision would: that is left to the person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.a2.geometry import PIXELS_A_LATENT, ClipSize, Tiling, tiling_for
from engine.a2.options import A2Options
from engine.a2.phases import PhaseName
from engine.words import listed

RUNGS = 3  # fallbacks per clip

_CHUNKS = (4096, 1024)  # tokens
_TILES = (72, 44)  # latent pixels
_OVERLAP = 24  # of tiles
SMALLEST_TILE = _OVERLAP + 8


@dataclass(frozen=True)
class Way:
    """How a clip is made now. `on_card`: it is computed on a card, so weights may wait on the host. `alone`: whoever
    computes has the memory to itself."""

    options: A2Options
    clip: ClipSize
    on_card: bool
    alone: bool = False


def next_way(way: Way, phase: PhaseName, rungs_left: int) -> tuple[Way, str] | None:
    """Choose the next fallback after memory ran out in a phase; return it and what changes, in words; None where there
    is none. The last one (`rungs_left` 1) makes all changes that are left at once."""
    if rungs_left <= 0:
        return None
    changes: list[str] = []
    while (step := next(_steps(way, phase), None)) is not None:
        way, words = step
        changes.append(words)
        if rungs_left > 1:
            break
    return (way, listed(changes)) if changes else None


def tiling_of(options: A2Options, clip: ClipSize, on_card: bool) -> Tiling | None:
    """Return the tiles in which frames are decoded; None: whole frames. On a card, the caches of tiles that are not
    being worked on are parked on the host where `options.tile` is set."""
    if not options.tile:
        _, height, width = clip.latent
        return None if options.whole_frames else tiling_for(height, width)
    return Tiling(max(options.tile, SMALLEST_TILE), _OVERLAP, on_card)


def _steps(way: Way, phase: PhaseName) -> Iterator[tuple[Way, str]]:
    """Yield the changes that may be made for a phase, the cheapest first."""
    streams = way.on_card and way.options.offload == "blocks"
    if phase in ("prompt", "references", "decoding") and streams and not way.alone:
        yield _alone(way)
    if phase == "sampling":
        yield from _denoising(way)
    elif phase == "references" and not way.options.encode_tiled:
        yield _with(way, replace(way.options, encode_tiled=True)), "the pictures encoded in tiles"
    elif phase == "decoding":
        yield from _decoding(way)
    if phase != "decoding":
        yield from _streaming(way)
    if phase == "sampling":
        yield from _chunks(way, _CHUNKS[1:])


def _denoising(way: Way) -> Iterator[tuple[Way, str]]:
    if way.options.keep_context:
        anew = replace(way.options, keep_context=False)
        yield _with(way, anew), "the text's and pictures' keys and values computed anew each time"
    if way.options.batched_guidance and way.clip.guided:
        apart = replace(way.options, batched_guidance=False)
        yield _with(way, apart), "the two halves of the guidance one after the other"
    yield from _chunks(way, _CHUNKS[:1])


def _chunks(way: Way, sizes: tuple[int, ...]) -> Iterator[tuple[Way, str]]:
    now = way.options.chunk or way.clip.tokens
    for size in sizes:
        if size < now:
            yield _with(way, replace(way.options, chunk=size)), f"{size} tokens at a time"


def _streaming(way: Way) -> Iterator[tuple[Way, str]]:
    """Yield the change to fewer blocks on the card: copies overlap with the computing, and no resident block is worth a
    clip that fails."""
    if way.on_card and way.options.offload != "blocks":
        streaming = replace(way.options, offload="blocks", resident_blocks=0, together=False)
        yield _with(way, streaming), "the model's blocks brought one by one"
    elif way.on_card and way.options.resident_blocks:
        yield _with(way, replace(way.options, resident_blocks=0)), "no block of the model staying on the card"


def _decoding(way: Way) -> Iterator[tuple[Way, str]]:
    _, height, width = way.clip.latent
    tiling = tiling_of(way.options, way.clip, way.on_card)
    now = max(height, width) if tiling is None else min(tiling.tile, max(height, width))
    for tile in _TILES:
        if tile < now:
            yield _with(way, replace(way.options, tile=tile)), f"tiles of {PIXELS_A_LATENT * tile} pixels"
    if not way.alone:
        yield _alone(way)


def _alone(way: Way) -> tuple[Way, str]:
    return replace(way, alone=True), "the rest of the model out of the way"


def _with(way: Way, options: A2Options) -> Way:
    return replace(way, options=options)
