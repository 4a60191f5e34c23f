"""From a model's soft mask to a cut-out that can stand on any background: edge, specks, colours.

Arrays are float32: colours (H, W, 3) and alpha (H, W), both in 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

_GUIDE_SIDE = 512  # pixels; the edge is sought at this size and applied at full size
_SURE = 0.65  # the model's alpha from which it is the subject; from 0.5, scraps of the background beside it stay
_SPECK = 0.04  # of the largest part's area: smaller islands are the model's noise
_CERTAIN, _SURELY = 0.9, 0.5  # the model's alpha, on this share of an island (its soft edge has less)
_STANDS_OUT = 1.2  # times the colours' standard deviations, inside plus around, must lie between their means
_FEW, _MOST_ISLANDS = 12, 20  # pixels of the smallest island that is kept; number of islands that are examined
_PINHOLE = 0.002  # of the subject's area: smaller holes are noise, larger ones are a cup's handle


def matte(photo: Image.Image, mask: Image.Image) -> Image.Image:
    """Refine a model's mask along the photo's edges and return the cut-out (RGBA, straight alpha, the photo's size).

    `photo` is RGB, `mask` L of any size, white = keep.
    """
    colours = as_floats(photo)
    alpha = cv2.resize(np.asarray(mask.convert("L")), photo.size, interpolation=cv2.INTER_LINEAR)
    alpha = refine(colours, alpha.astype(np.float32) / 255)
    return compose(estimate_foreground(colours, alpha), alpha)


def refine(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Refine a soft mask (H, W) along the photo's edges with a guided filter.

    Away from its edge the subject becomes opaque and the rest transparent: partial alpha that a small model leaves
    there (a flag behind a shoulder, a cat's neck) is uncertainty, not glass.
    """
    height, width = alpha.shape
    scale = min(1.0, _GUIDE_SIDE / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    guide = cv2.resize(colours, small, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(alpha, small, interpolation=cv2.INTER_AREA)
    solid = clean(coarse > _SURE, guide=guide, certain=coarse > _CERTAIN)
    if not solid.any():
        return np.zeros_like(alpha)
    reach = max(2, max(small) // 100)
    inner, outer = grown(solid, -reach), grown(solid, reach)
    target = np.clip(_steepened(coarse, 0.2, 0.8), inner, outer)
    slope, offset = _guided_filter(guide, target, radius=max(2, max(small) // 96), eps=2e-4)
    inner, outer, refined = (cv2.resize(part, (width, height)) for part in (inner, outer, offset))
    for channel in range(3):  # one by one, for the memory
        refined += cv2.resize(slope[..., channel], (width, height)) * colours[..., channel]
    refined = np.clip(_steepened(refined, 0.2, 0.8), inner, outer)
    known = cv2.resize(solid.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    kept = clean(refined > 0.5, certain=known).astype(np.float32)
    rim = max(3, max(alpha.shape) // 300)
    alpha = np.maximum(refined * grown(kept, rim), grown(kept, -rim))
    return alpha


def clean(
    solid: np.ndarray,
    pinhole: float = _PINHOLE,
    *,
    guide: np.ndarray | None = None,
    certain: np.ndarray | None = None,
) -> np.ndarray:
    """Remove small islands from a boolean mask (H, W) and fill holes below the share `pinhole` of the subject.

    A small island stays where the model is `certain` (H, W) of it and, with a `guide` of colours (H, W, 3), it stands
    out from what is around it: a star beside a runner, unlike a scrap of the background.
    """
    solid = solid.astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if count < 2:
        return solid.astype(bool)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # label 0 is the rest
    keep = areas >= max(1.0, _SPECK * areas.max())
    if certain is not None:
        for label in np.argsort(areas)[::-1][keep.sum() : keep.sum() + _MOST_ISLANDS]:
            keep[label] = areas[label] >= _FEW and _is_a_thing(labels, stats[label], label, guide, certain)
    solid = keep[labels].astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - solid, connectivity=4)
    holes = stats[:, cv2.CC_STAT_AREA] < pinhole * areas.max()
    holes[0] = False
    cleaned: np.ndarray = (solid > 0) | holes[labels]
    return cleaned


def _is_a_thing(labels: np.ndarray, box: np.ndarray, label: int, guide: np.ndarray | None, certain: np.ndarray) -> bool:
    """Check whether an island is an object of its own: mostly `certain`, and of other colours than its surroundings."""
    left, top, width, height, _ = box
    reach = max(4, max(width, height) // 2)
    window = np.s_[max(0, top - reach) : top + height + reach, max(0, left - reach) : left + width + reach]
    island, around = labels[window] == label, labels[window] == 0
    if certain[window][island].mean() < _SURELY:
        return False
    if guide is None:
        return True
    around &= grown(island, 2) == 0  # the island's soft edge belongs to neither
    if not around.any():
        return False
    inner, outer = guide[window][island], guide[window][around]
    apart = np.linalg.norm(inner.mean(axis=0) - outer.mean(axis=0))
    return bool(apart > _STANDS_OUT * (np.linalg.norm(inner.std(axis=0)) + np.linalg.norm(outer.std(axis=0)) + 0.02))


def grown(solid: np.ndarray, pixels: int) -> np.ndarray:
    """Dilate a mask by so many pixels, or erode it where the number is negative; float32."""
    side = 2 * abs(pixels) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = cv2.dilate if pixels > 0 else cv2.erode
    return change(solid.astype(np.uint8), disc).astype(np.float32)


def _steepened(alpha: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((alpha - low) / (high - low), 0, 1)


def _guided_filter(guide: np.ndarray, target: np.ndarray, radius: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the coefficients of the colour guided filter (He, Sun and Tang 2010; fast form 2015).

    In every window the target is a linear function of the guide's colour, so that its edges fall where the photo's do.
    Returns slope (H, W, 3) and offset (H, W).
    """

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_target = mean(guide), mean(target)
    spread = np.einsum("hwi,hwj->hwij", guide, guide).reshape(*target.shape, 9)
    against = mean(guide * target[..., None]) - mean_guide * mean_target[..., None]
    mixed = (mean_target > 1e-4) & (mean_target < 1 - 1e-4)  # elsewhere the target is even and the slope zero
    inner = mean_guide[mixed]
    covariance = mean(spread)[mixed].reshape(-1, 3, 3) - inner[:, :, None] * inner[:, None, :]
    slope = np.zeros_like(guide)
    slope[mixed] = np.linalg.solve(covariance + eps * np.eye(3, dtype=np.float32), against[mixed][..., None])[..., 0]
    offset = mean_target - np.einsum("hwc,hwc->hw", slope, mean_guide)
    return mean(slope), mean(offset)


# ---------------------------------------------------------------------------
# Colours


def estimate_foreground(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the subject's own colour at every pixel, free of the old background's, which would show as a fringe.

    Blur fusion in two passes (Forte and Pitié, "Approximate Fast Foreground Colour Estimation", ICIP 2021).
    """
    longest = max(alpha.shape)
    own = np.empty_like(colours)
    for channel in range(3):  # one by one: all three at once would take three times the memory, and the same time
        stored = foreground = background = np.ascontiguousarray(colours[..., channel])
        for radius in (max(8, longest // 12), max(2, longest // 170)):
            foreground, background = _blur_fusion(stored, foreground, background, alpha, radius)
        own[..., channel] = np.where(alpha >= 0.999, stored, foreground)
    return own


def _blur_fusion(
    colours: np.ndarray, foreground: np.ndarray, background: np.ndarray, alpha: np.ndarray, radius: int
) -> tuple[np.ndarray, np.ndarray]:
    """Run one pass of blur fusion on one channel; returns the new foreground and background, all (H, W)."""
    kernel = (2 * radius + 1, 2 * radius + 1)
    weight = cv2.blur(alpha, kernel)
    foreground = cv2.blur(foreground * alpha, kernel) / (weight + 1e-5)
    background = cv2.blur(background * (1 - alpha), kernel) / (1 - weight + 1e-5)
    foreground += alpha * (colours - alpha * foreground - (1 - alpha) * background)
    return np.clip(foreground, 0, 1, out=foreground), background


def bleed(picture: Image.Image) -> Image.Image:
    """Fill the transparent pixels of an RGBA picture with the subject's colour next to them.

    It looks the same, but their old colour (mostly black) no longer bleeds into the edge when the picture is resampled.
    """
    pixels = np.asarray(picture)
    alpha = pixels[..., 3]
    if alpha.min() > 0 or alpha.max() == 0:
        return picture
    colours = pixels[..., :3].astype(np.float32) / 255
    weight = (alpha > 0).astype(np.float32)
    filled = spread(colours * weight[..., None], weight)
    filled = np.where(weight[..., None] > 0, colours, filled)
    return Image.fromarray(np.dstack([np.rint(filled * 255).clip(0, 255).astype(np.uint8), alpha]), "RGBA")


def spread(weighted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fill the gaps between weighted colours from coarser and coarser levels (pull-push, Gortler et al. 1996)."""
    known = weight[..., None] > 1e-3
    colours: np.ndarray = weighted / np.maximum(weight, 1e-3)[..., None]
    if min(weight.shape) < 2 or known.all():
        return colours
    coarse = spread(cv2.pyrDown(weighted), np.minimum(cv2.pyrDown(weight), 1))
    height, width = weight.shape
    return np.where(known, colours, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))


# ---------------------------------------------------------------------------


def as_floats(image: Image.Image) -> np.ndarray:
    colours = np.array(image.convert("RGB"), dtype=np.float32)
    colours /= 255
    return colours


def compose(colours: np.ndarray, alpha: np.ndarray) -> Image.Image:
    """Compose an RGBA image from colours and alpha."""
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    for channel in range(4):
        values = alpha if channel == 3 else colours[..., channel]
        pixels[..., channel] = np.rint(values * 255).clip(0, 255)
    return Image.fromarray(pixels, "RGBA")
