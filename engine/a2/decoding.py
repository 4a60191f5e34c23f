"""From latents to frames, a few at a time: tiled in space where frames are large, streamed in time.

Wan's VAE is causal: a latent frame becomes its frames with nothing but a cache of what each convolution saw last. So
one latent frame is decoded at a time, its frames go to the encoder at once, and memory does not grow with the length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.a2.checkpoint import PIXELS_A_LATENT
from engine.a2.conditioning import latent_statistics
from engine.errors import Stopped

if TYPE_CHECKING:
    import torch

_TILED_FROM = 128 * 80  # latent pixels of a frame: 1024 x 640 and below are decoded in one piece


@dataclass(frozen=True)
class Tiling:
    """Tiles of at most `tile` by `tile` latent pixels, which overlap by `overlap` and are blended there."""

    tile: int = 64
    overlap: int = 16


@dataclass
class _Tile:
    rows: slice  # of the latents
    columns: slice
    weight: torch.Tensor  # (1, H, W) of the tile's pixels; all tiles' weights add up to one everywhere
    cache: list[Any] = field(default_factory=list)  # what every causal convolution saw last


def tiling_for(height: int, width: int) -> Tiling | None:
    """Tiles for large frames only: they cost time, and seen closely they are not quite the same picture."""
    return Tiling() if height * width > _TILED_FROM else None


def decode(
    vae: Any, latents: torch.Tensor, tiling: Tiling | None = None, stop: Callable[[], bool] | None = None
) -> Iterator[np.ndarray]:
    """The frames of `latents` (1, 16, T, h, w), normalised: 4 T - 3 of them, each (8 h, 8 w, 3) uint8 RGB, one by one.

    `stop` is asked before every tile of every latent frame and raises Stopped.
    """
    import torch

    device = next(vae.parameters()).device
    mean, std = latent_statistics(vae)
    tiles = _tiles(latents.shape[3], latents.shape[4], tiling, _causal_convolutions(vae.decoder))
    for index in range(latents.shape[2]):
        latent = latents[:, :, index : index + 1].float().cpu() * std + mean
        with torch.no_grad():  # inside the loop: a generator must not hold it while others run
            frames = _decode_one(vae, latent.to(device), tiles, index == 0, stop)
        yield from frames
        del frames


def _decode_one(vae: Any, latent: torch.Tensor, tiles: list[_Tile], first: bool, stop: Callable | None) -> np.ndarray:
    """One latent frame (1, 16, 1, h, w) to its one (the first) or four frames, (n, H, W, 3) uint8."""
    import torch

    height, width = latent.shape[3] * PIXELS_A_LATENT, latent.shape[4] * PIXELS_A_LATENT
    whole: torch.Tensor | None = None
    for tile in tiles:
        if stop is not None and stop():
            raise Stopped
        piece = vae.post_quant_conv(latent[:, :, :, tile.rows, tile.columns])
        pixels = vae.decoder(piece, feat_cache=tile.cache, feat_idx=[0], first_chunk=first)[0]  # (3, n, H, W)
        if len(tiles) == 1:
            whole = pixels
            break
        if whole is None:
            whole = pixels.new_zeros(3, pixels.shape[1], height, width)
        whole[:, :, _pixels(tile.rows), _pixels(tile.columns)] += pixels * tile.weight.to(pixels)
    scaled = (whole.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    return scaled.permute(1, 2, 3, 0).contiguous().cpu().numpy()


# ---------------------------------------------------------------------------
# Tiles


def _tiles(height: int, width: int, tiling: Tiling | None, convolutions: int) -> list[_Tile]:
    import torch

    rows, columns = (_spans(length, tiling) for length in (height, width))
    return [
        _Tile(row, column, torch.from_numpy(np.outer(across, along)[None]), [None] * convolutions)
        for row, across in zip(rows, _ramps(rows, height), strict=True)
        for column, along in zip(columns, _ramps(columns, width), strict=True)
    ]


def _spans(length: int, tiling: Tiling | None) -> list[slice]:
    """Spans of one size that cover `length` and overlap by at least `overlap`."""
    if tiling is None or length <= tiling.tile:
        return [slice(0, length)]
    count = math.ceil((length - tiling.overlap) / (tiling.tile - tiling.overlap))
    size = math.ceil((length + (count - 1) * tiling.overlap) / count)
    starts = [round(i * (length - size) / (count - 1)) for i in range(count)]
    return [slice(start, start + size) for start in starts]


def _ramps(spans: list[slice], length: int) -> list[np.ndarray]:
    """For every span its weight per pixel, float32: rising and falling over the overlaps, adding up to one."""
    raw = []
    for i, span in enumerate(spans):
        size = (span.stop - span.start) * PIXELS_A_LATENT
        weight, steps = np.ones(size, np.float32), np.arange(size) + 0.5
        if i > 0:
            weight = np.minimum(weight, steps / ((spans[i - 1].stop - span.start) * PIXELS_A_LATENT))
        if i + 1 < len(spans):
            weight = np.minimum(weight, (size - steps) / ((span.stop - spans[i + 1].start) * PIXELS_A_LATENT))
        raw.append(weight)
    total = np.zeros(length * PIXELS_A_LATENT)
    for span, weight in zip(spans, raw, strict=True):
        total[_pixels(span)] += weight
    return [(weight / total[_pixels(span)]).astype(np.float32) for span, weight in zip(spans, raw, strict=True)]


def _pixels(span: slice) -> slice:
    return slice(span.start * PIXELS_A_LATENT, span.stop * PIXELS_A_LATENT)


def _causal_convolutions(module: Any) -> int:
    """How many of the decoder's convolutions look back in time: each has its place in the cache."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    return sum(isinstance(part, WanCausalConv3d) for part in module.modules())
