"""From latents to frames, a few at a time: tiled in space where frames are large, streamed in time.

Wan's VAE is causal: a latent frame becomes its frames with nothing but a cache of what each convolution saw last. So
one latent frame is decoded at a time, its frames go to the encoder at once, and memory does not grow with the length.

Its first half works at the size of the latents and looks at the whole frame (attention); it costs little memory and is
never tiled. The second half enlarges and only looks around itself, 12 latent pixels at the farthest: tiles of it that
overlap enough give the same picture, where tiles of the whole decoder would not.

Several processes compute the first half each for itself, and the tiles in turn. A frame that needs no tiles is cut into
bands for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.a2.conditioning import latent_statistics
from engine.a2.ensemble import ALONE, Ensemble
from engine.a2.geometry import FRAMES_A_LATENT, PIXELS_A_LATENT, Tiling, spans
from engine.errors import Stopped

if TYPE_CHECKING:
    import torch

_DISTRUST = 0.375  # of an overlap: so near to its edge a tile lacks context, and has no weight
_HALO = 8  # latent pixels that a band sees of its neighbours: with 8 frames differ by at most 1 of 255, with 4 by 54


@dataclass
class _Tile:
    rows: slice  # of the latents
    columns: slice
    weight: torch.Tensor  # (1, H, W) of the tile's pixels; all tiles' weights add up to one everywhere
    cache: list[Any]  # what every causal convolution saw last


def decode(
    vae: Any, latents: torch.Tensor, tiling: Tiling | None = None, stop: Callable[[], bool] | None = None,
    ensemble: Ensemble = ALONE,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Decode `latents` (1, 16, T, h, w), normalised, and yield their 4 T - 3 frames one by one, each (8 h, 8 w, 3)
    uint8 RGB; of an ensemble, those that do not lead yield frames of size 0.

    `stop` is asked before every tile of every latent frame; where it says so, Stopped is raised.
    """
    import torch

    device, dtype = vae.device, vae.dtype
    mean, std = latent_statistics(vae)
    front: list[Any] = [None] * (1 + _convolutions(vae.decoder.mid_block))
    convolutions = 1 + _convolutions(vae.decoder.up_blocks)
    tiles = _tiles(latents.shape[3], latents.shape[4], tiling, convolutions)
    if len(tiles) < ensemble.size:
        bands = _bands(latents.shape[3], latents.shape[4], ensemble.size, convolutions)
        if max(band.weight.numel() for band in bands) <= tiles[0].weight.numel():  # else they would take more memory
            tiles = bands
    way = _Way(stop, tiling is not None and tiling.parked, ensemble)
    for index in range(latents.shape[2]):
        latent = latents[:, :, index : index + 1].float().cpu() * std + mean
        with torch.no_grad():  # inside the loop: it must not hold for the caller's code between two frames
            features = _look_around(vae, latent.to(device, dtype), front)
            frames = _enlarge(vae.decoder, features, tiles, index == 0, way)
        yield from frames
        del frames


def _look_around(vae: Any, latent: torch.Tensor, cache: list[Any]) -> torch.Tensor:
    """Compute the decoder's first half: one latent frame (1, 16, 1, h, w) to its features (1, c, 1, h, w)."""
    x = _causal(vae.decoder.conv_in, vae.post_quant_conv(latent), cache, 0)
    features: torch.Tensor = vae.decoder.mid_block(x, feat_cache=cache, feat_idx=[1])
    return features


@dataclass(frozen=True)
class _Way:
    """How tiles are worked on. `park`: what a tile saw last waits on the host."""

    stop: Callable[[], bool] | None
    park: bool
    ensemble: Ensemble


def _enlarge(decoder: Any, features: torch.Tensor, tiles: list[_Tile], first: bool, way: _Way) -> np.ndarray:
    """Compute the second half: features to the one (the first) or four frames of a latent frame, (n, H, W, 3) uint8."""
    import torch

    count = 1 if first else FRAMES_A_LATENT
    height, width = features.shape[3] * PIXELS_A_LATENT, features.shape[4] * PIXELS_A_LATENT
    works = [partial(_enlarge_tile, decoder, features, tile, first, way) for tile in tiles]
    shapes = [(3, count, *tile.weight.shape[1:]) for tile in tiles]
    whole = features.new_zeros(3, count, 0, 0)
    for tile, pixels in zip(tiles, way.ensemble.pieces(works, shapes), strict=False):
        if len(tiles) == 1:
            whole = pixels
            break
        if tile is tiles[0]:
            whole = torch.zeros(3, count, height, width, device=pixels.device)
        whole[:, :, _pixels(tile.rows), _pixels(tile.columns)] += pixels.to(whole) * tile.weight.to(whole)
    scaled = (whole.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    return scaled.permute(1, 2, 3, 0).contiguous().cpu().numpy()


def _enlarge_tile(decoder: Any, features: torch.Tensor, tile: _Tile, first: bool, way: _Way) -> torch.Tensor:
    """Compute a tile's pixels, (3, n, H, W)."""
    if way.stop is not None and way.stop():
        raise Stopped
    if way.park:
        tile.cache = _moved(tile.cache, features.device)
    x, place = features[:, :, :, tile.rows, tile.columns], [0]
    for block in decoder.up_blocks:
        x = block(x, feat_cache=tile.cache, feat_idx=place, first_chunk=first)
    x = decoder.nonlinearity(decoder.norm_out(x))
    pixels = _causal(decoder.conv_out, x, tile.cache, place[0])[0]
    if way.park:
        tile.cache = _moved(tile.cache, "cpu")
    return pixels


def _moved(cache: list[Any], device: Any) -> list[Any]:
    """Copy a cache's tensors to a device. Besides them a cache holds None, and a string where a convolution has only
    seen the first frame."""
    return [part.to(device) if hasattr(part, "to") else part for part in cache]


def _causal(convolution: Any, x: torch.Tensor, cache: list[Any], place: int) -> torch.Tensor:
    """Compute a causal convolution of `x` and the two frames before it, which are in the cache; keep the last two
    there."""
    import torch

    past = cache[place]
    cache[place] = (x if past is None else torch.cat([past, x], dim=2))[:, :, -2:].clone()
    convolved: torch.Tensor = convolution(x, past)
    return convolved


# ---------------------------------------------------------------------------
# Tiles


def _tiles(height: int, width: int, tiling: Tiling | None, convolutions: int) -> list[_Tile]:
    import torch

    rows, columns = (spans(length, tiling) for length in (height, width))
    return [
        _Tile(row, column, torch.from_numpy(np.outer(across, along)[None]), [None] * convolutions)
        for row, across in zip(rows, _ramps(rows, height), strict=True)
        for column, along in zip(columns, _ramps(columns, width), strict=True)
    ]


def _bands(height: int, width: int, count: int, convolutions: int) -> list[_Tile]:
    """Cut the longer side into so many bands, fewer where it is short. Each sees a halo of its neighbours, in which it
    has no weight."""
    import torch

    length, wide = max(height, width), width >= height
    edges = [round(i * length / min(count, length)) for i in range(min(count, length) + 1)]
    tiles = []
    for start, end in itertools.pairwise(edges):
        seen = slice(max(0, start - _HALO), min(length, end + _HALO))
        along = np.zeros((seen.stop - seen.start) * PIXELS_A_LATENT, np.float32)
        along[_pixels(slice(start - seen.start, end - seen.start))] = 1
        across = np.ones((height if wide else width) * PIXELS_A_LATENT, np.float32)
        weight = torch.from_numpy(np.outer(across, along) if wide else np.outer(along, across))[None]
        whole = slice(0, height if wide else width)
        tiles.append(_Tile(whole if wide else seen, seen if wide else whole, weight, [None] * convolutions))
    return tiles


def _ramps(spans: list[slice], length: int) -> list[np.ndarray]:
    """Compute every span's weight per pixel, float32: 0 at its inner edges, rising over the middle of an overlap, and
    together 1 everywhere."""

    def rise(overlap: int, steps: np.ndarray) -> np.ndarray:
        pixels = overlap * PIXELS_A_LATENT
        return np.clip((steps - _DISTRUST * pixels) / ((1 - 2 * _DISTRUST) * pixels), 0, 1)

    raw = []
    for i, span in enumerate(spans):
        size = (span.stop - span.start) * PIXELS_A_LATENT
        weight, steps = np.ones(size, np.float32), np.arange(size) + 0.5
        if i > 0:
            weight = weight * rise(spans[i - 1].stop - span.start, steps)
        if i + 1 < len(spans):
            weight = weight * rise(span.stop - spans[i + 1].start, size - steps)
        raw.append(weight)
    total = np.zeros(length * PIXELS_A_LATENT)
    for span, weight in zip(spans, raw, strict=True):
        total[_pixels(span)] += weight
    return [(weight / total[_pixels(span)]).astype(np.float32) for span, weight in zip(spans, raw, strict=True)]


def _pixels(span: slice) -> slice:
    return slice(span.start * PIXELS_A_LATENT, span.stop * PIXELS_A_LATENT)


def _convolutions(module: Any) -> int:
    """Count the convolutions that look back in time: each has its place in the cache."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    return sum(isinstance(part, WanCausalConv3d) for part in module.modules())
