"""A small picture of what the model predicts so far, at no cost: a linear map from latents to RGB.

The map is fitted to the run's own references, whose latents and colours are both known: so it belongs to whatever VAE
the checkpoint brings, and no table of factors is needed. (Ridge regression; a VAE's latents are close to linear in
colour at the scale of a latent's 8 x 8 pixels.)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from engine.disk import atomic

if TYPE_CHECKING:
    import torch

_RIDGE = 0.01  # of the features' mean square: a reference in one colour must not give wild factors


def fit_colours(latents: torch.Tensor, pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Fit the map that explains the pictures' colours best. `latents` is (16, n, h, w), one frame for each picture.
    Returns (17, 3): the channels, then the constant; to RGB in [-1, 1]."""
    import torch

    channels, _, height, width = latents.shape
    colours = np.stack([np.asarray(picture.resize((width, height), Image.Resampling.BOX)) for picture in pictures])
    target = torch.from_numpy(colours.astype(np.float64)).reshape(-1, 3) / 127.5 - 1
    features = latents.double().permute(1, 2, 3, 0).reshape(-1, channels)
    centre, middle = features.mean(0), target.mean(0)
    features, target = features - centre, target - middle
    gram = features.T @ features
    ridge = _RIDGE * gram.diagonal().mean().clamp_min(1e-6) * torch.eye(channels, dtype=torch.float64)
    slopes = torch.linalg.solve(gram + ridge, features.T @ target)
    return torch.cat([slopes, (middle - centre @ slopes)[None]]).float()


def preview(latents: torch.Tensor, colours: torch.Tensor, count: int = 1) -> list[Image.Image]:
    """Convert the `count` middle frames of `latents` (1, 16, T, h, w) to RGB pictures of w by h pixels."""
    import torch

    count = min(count, latents.shape[2])
    first = (latents.shape[2] - count) // 2
    middle = latents[0, :, first : first + count].float().cpu()  # (16, count, h, w)
    rgb = torch.einsum("cthw,ck->thwk", middle, colours[:-1]) + colours[-1]
    pixels = (rgb * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8).numpy()
    return [Image.fromarray(frame) for frame in pixels]


class LivePreview:
    """A moving picture (WebP) beside the run: the whole clip as the model predicts it so far, written again as it gets
    clearer.

    It is written only while previews have taken less than 1 % of the run's time: nobody waits for it.
    """

    _SHARE = 0.01
    _FRAME = 200  # milliseconds that one latent frame, four of the clip's, is shown

    def __init__(self, path: Path, colours: torch.Tensor) -> None:
        self._path, self._colours = path, colours
        self._begun, self._spent = time.monotonic(), 0.0

    def after_step(self, clean: torch.Tensor) -> None:
        """Write the preview after a step, if there is time for it; `clean` (1, 16, T, h, w) is what the finished clip
        is predicted to be. A file that cannot be written is left out."""
        begun = time.monotonic()
        if self._spent > self._SHARE * (begun - self._begun):
            return
        pictures = preview(clean, self._colours, clean.shape[2])
        with contextlib.suppress(OSError), atomic.whole(self._path) as growing:  # a full disk: the run can do without
            pictures[0].save(
                growing, "WEBP", save_all=True, append_images=pictures[1:], duration=self._FRAME, loop=0, quality=80
            )
        self._spent += time.monotonic() - begun
