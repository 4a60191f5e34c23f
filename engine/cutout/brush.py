"""Cut-outs by hand: a mask file, and the strokes of the page's brush. White means painted."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from engine.cutout.masks import understood
from engine.cutout.matte import as_floats, bleed, compose, estimate_foreground
from engine.cutout.result import WORKING_SIDE, Cutout, doubts_about_painted
from engine.errors import CutoutError
from engine.media.images import flatten, has_real_alpha, lowest, within

_SAME_SHAPE = 0.03  # by how much a mask's aspect ratio may differ from the photo's
_NOTHING_LEFT = "The mask leaves nothing of the photo. White is what stays; perhaps it is inverted."


def apply_mask(photo: Image.Image, mask: Image.Image) -> Cutout:
    """Cut out a photo with a mask: white (opaque, for one that is an alpha channel) stays, grey is partial alpha.

    The mask has any size and is stretched over the photo; the photo's own alpha is multiplied in. Masks of labelling
    tools and of ComfyUI are understood; the notice says so where a mask can be read in more than one way.
    """
    photo = within(photo, WORKING_SIDE)
    white, notice = understood(mask)
    alpha = _painted(white, photo.size)
    if has_real_alpha(photo):
        alpha = alpha * _unit(photo.getchannel("A"))
    doubts = doubts_about_painted(_bytes(alpha), _NOTHING_LEFT)
    if abs(mask.width * photo.height / (mask.height * photo.width) - 1) > _SAME_SHAPE:
        doubts += ("The mask has another shape than its photo and was stretched. Paint it on the photo itself.",)
    return Cutout(_recut(photo, alpha), "mask", doubts, notice)


def retouch(photo: Image.Image, cutout: Cutout, add: Image.Image | None, remove: Image.Image | None) -> Cutout:
    """Apply brush strokes to a cut-out: `add` restores the photo, `remove` erases it and wins where both are.

    Masks have any size and mode ("1", "L", or RGBA whose alpha holds the stroke); None is no stroke. The result has the
    cut-out's size. Raises CutoutError where the photo is not the one the cut-out was made from.
    """
    size = cutout.picture.size
    if abs(photo.width * size[1] / (photo.height * size[0]) - 1) > _SAME_SHAPE:
        raise CutoutError("The brush strokes belong to another photo", "Cut this photo out first.")
    photo = photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0) if photo.size != size else photo
    alpha = _unit(cutout.picture.getchannel("A"))
    added, removed = _painted(add, size), _painted(remove, size)
    alpha = np.minimum(np.maximum(alpha, added), 1 - removed)
    return Cutout(_recut(photo, alpha), "mask", doubts_about_painted(_bytes(alpha)))


def _recut(photo: Image.Image, alpha: np.ndarray) -> Image.Image:
    if has_real_alpha(photo):  # its colours are free of the background already
        own = bleed(photo)
        own.putalpha(Image.fromarray(_bytes(alpha)))
        return own
    colours = as_floats(flatten(photo))
    return compose(estimate_foreground(colours, alpha), alpha)


def _painted(mask: Image.Image | None, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask to a photo of `size`, (H, W) in 0..1; None gives zeros. Enlarging interpolates, for a soft edge."""
    if mask is None:
        return np.zeros((size[1], size[0]), np.float32)
    drawn = mask.mode in ("RGBA", "LA") and lowest(mask.getchannel("A")) < 255
    mask = mask.getchannel("A") if drawn else mask.convert("L")
    way = cv2.INTER_AREA if mask.width > size[0] else cv2.INTER_LINEAR
    return cv2.resize(_unit(mask), size, interpolation=way)


def _unit(channel: Image.Image) -> np.ndarray:
    return np.asarray(channel, dtype=np.float32) / 255


def _bytes(alpha: np.ndarray) -> np.ndarray:
    levels: np.ndarray = np.rint(alpha * 255).clip(0, 255).astype(np.uint8)
    return levels
