"""See-through parts that only frame a picture: a round avatar, a card with rounded corners, a faded or empty margin.

They say nothing about the subject, which still has its background inside the frame.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

_SIDE = 256  # pixels at which the shape is judged
_CONVEX, _SYMMETRIC = (
    0.975,
    0.955,
)  # shares of the area: of the hull that is filled, of the shape that is its own mirror
_FILLS = 0.7  # of the smallest rectangle around it; an ellipse fills 0.785
_OPEN = 0.005  # share of the picture outside of it
_PLAIN = 6.0  # levels: a shape of one colour is a drawing, not a photo in a frame


def is_only_a_frame(picture: Image.Image) -> bool:
    """Whether the alpha of an RGBA picture is a frame: one shape without holes, round or with straight sides, the same
    when turned by half; and more than one colour inside."""
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small)
    solid = (pixels[..., 3] >= 128).astype(np.uint8)
    if not solid.any() or (solid == 0).mean() < _OPEN:
        return False
    outlines, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)
    hull = cv2.drawContours(np.zeros_like(solid), [cv2.convexHull(outline)], -1, 1, cv2.FILLED)
    if solid.sum() < _CONVEX * hull.sum():
        return False
    _, (width, height), _ = cv2.minAreaRect(outline)
    if solid.sum() < _FILLS * (width + 1) * (height + 1):
        return False
    left, top, across, down = cv2.boundingRect(outline)
    shape = solid[top : top + down, left : left + across]
    if (shape & shape[::-1, ::-1]).sum() < _SYMMETRIC * shape.sum():
        return False
    inside = cv2.erode(solid, np.ones((5, 5), np.uint8)) > 0
    return bool(inside.any() and pixels[inside][:, :3].std(axis=0).max() > _PLAIN)
