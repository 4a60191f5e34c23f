"""See-through parts that only frame a picture: a round avatar, a card with rounded corners, a faded or empty margin.

They say nothing about the subject, which still has its background inside the frame.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

_SIDE = 256  # pixels at which the shape is judged
# Least intersection over union of the shape and the nearest frame; a cardboard box seen from a corner has 0.9.
_FITS = 0.97
_OPEN = 0.005  # least share of the picture outside of the frame
_LARGE = 0.25  # least share of the picture inside of the frame
_PLAIN = 6.0  # levels, standard deviation: a shape of one colour is a drawing, not a photo in a frame


def is_only_a_frame(picture: Image.Image) -> bool:
    """Check whether the alpha of an RGBA picture only forms a frame around a picture of more than one colour.

    A frame is an ellipse or a rectangle without holes, upright or rotated, its corners rounded or not.
    """
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small)
    solid = pixels[..., 3] >= 128
    if not _LARGE < solid.mean() < 1 - _OPEN:
        return False
    outlines, _ = cv2.findContours(solid.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if _agreement(solid, cv2.minAreaRect(max(outlines, key=len))) < _FITS:
        return False
    inside = cv2.erode(solid.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return bool(inside.any() and pixels[inside][:, :3].std(axis=0).max() > _PLAIN)


def _agreement(solid: np.ndarray, around: cv2.typing.RotatedRect) -> float:
    """Measure how well a shape, boolean (H, W), fills its rotated bounding rectangle, as intersection over union.

    It is compared with the inscribed ellipse, and with the rectangle whose corners are rounded to the shape's area; the
    better counts.
    """
    (x, y), sides, angle = around
    width, height = (side + 1 for side in sides)
    rows, columns = np.mgrid[: solid.shape[0], : solid.shape[1]]
    turn = np.deg2rad(angle)
    across = np.abs((columns - x) * np.cos(turn) + (rows - y) * np.sin(turn))
    down = np.abs((rows - y) * np.cos(turn) - (columns - x) * np.sin(turn))
    missing = max(0.0, width * height - np.count_nonzero(solid))
    radius = min(np.sqrt(missing / (4 - np.pi)), width / 2, height / 2)  # of four rounded corners with the missing area
    beyond = np.hypot(np.maximum(across - width / 2 + radius, 0), np.maximum(down - height / 2 + radius, 0))
    rounded = (beyond <= radius) & (across <= width / 2) & (down <= height / 2)
    ellipse = (2 * across / width) ** 2 + (2 * down / height) ** 2 <= 1
    return max(np.count_nonzero(solid & shape) / np.count_nonzero(solid | shape) for shape in (rounded, ellipse))
