"""What a cut-out looks like: its box, where the photo crops it, what kind of figure it is, where its hands may be.

Everything is read from the alpha channel alone. There is no person detector here: these are rules of thumb which have
to be right often and never ugly when they are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from engine.media.images import ALPHA_FLOOR, bounding_box, lowest

Kind = Literal["card", "bust", "figure", "mascot"]

SMALL = 256  # pixels: the alpha is looked at in this size


@dataclass(frozen=True)
class Shape:
    """A cut-out, measured.

    `box` is (left, top, right, bottom) in the picture's pixels; `cropped` the sides at which the photo cuts the subject
    off, `grazed` those it merely touches; `facing` -1 left, 1 right, 0 unknown or frontal; `reaching` the side (-1, 1,
    or 0 for none) to which a bust stretches out an arm, whose hand then is an open palm; `hands` the left and right
    hand as (x from the box's middle, height over its foot), both over the box's height; `head` where the head begins
    and ends across, over the box's width.
    """

    box: tuple[int, int, int, int]
    kind: Kind
    cropped: frozenset[str]
    grazed: frozenset[str]
    facing: int
    reaching: int
    hands: tuple[tuple[float, float], tuple[float, float]]
    head: tuple[float, float] = (0.3, 0.7)

    @property
    def aspect(self) -> float:
        """Width over height of the box."""
        left, top, right, bottom = self.box
        return (right - left) / (bottom - top)


def measure(picture: Image.Image, role: str) -> Shape:
    """Measure a cut-out (RGBA; RGB is an opaque card)."""
    box = bounding_box(picture)
    alpha = _small_alpha(picture, box)
    touches = _touches(picture, box, alpha)
    trimmed = all(value > 0 for value in touches.values())  # cropped to its box: borders tell little
    fill = float(alpha.mean())
    if _is_opaque(picture):  # not cut out; a cut-out that fills its box is a book or a phone
        return Shape(box, "card", frozenset(), frozenset(), 0, 0, _hands(alpha, 0))
    limit = {"bottom": 0.6 if trimmed else 0.22, "top": 0.3, "left": 0.4, "right": 0.4}
    if role == "object":
        limit["bottom"] = 2.0 if trimmed else 0.5
    cropped = {side for side, value in touches.items() if value >= limit[side] and not (trimmed and side != "bottom")}
    if role == "character" and "bottom" not in cropped and _flat_cut(alpha):
        cropped.add("bottom")
    grazed = {side for side, value in touches.items() if value > 0.02 and side not in cropped and not trimmed}
    kind: Kind = "mascot"
    if "bottom" in cropped:
        kind = "bust"
    elif fill < 0.66 or alpha.shape[1] < 0.6 * alpha.shape[0]:
        kind = "figure"
    reaching = _reaching(alpha) if kind == "bust" else 0
    hands = _hands(alpha, reaching)
    return Shape(box, kind, frozenset(cropped), frozenset(grazed), _facing(alpha), reaching, hands, _head(alpha))


def _is_opaque(picture: Image.Image) -> bool:
    return "A" not in picture.getbands() or lowest(picture.getchannel("A")) > 255 - ALPHA_FLOOR


def _small_alpha(picture: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return the alpha inside the box, (h, w) float32 in 0..1, at most SMALL pixels a side."""
    width, height = box[2] - box[0], box[3] - box[1]
    shrink = min(1.0, SMALL / max(width, height))
    size = (max(2, round(width * shrink)), max(2, round(height * shrink)))
    if "A" not in picture.getbands():
        return np.ones(size[::-1], np.float32)
    small = picture.getchannel("A").resize(size, Image.Resampling.BOX, box=box)
    return np.asarray(small, np.float32) / 255


def _touches(picture: Image.Image, box: tuple[int, int, int, int], alpha: np.ndarray) -> dict[str, float]:
    """Measure for each side the part of the box's side along which the subject reaches the picture's border, 0 to 1."""
    left, top, right, bottom = box
    at_border = {
        "left": left <= 1,
        "top": top <= 1,
        "right": right >= picture.width - 1,
        "bottom": bottom >= picture.height - 1,
    }
    lines = {"left": alpha[:, 0], "right": alpha[:, -1], "top": alpha[0], "bottom": alpha[-1]}
    return {side: float((lines[side] > 0.5).mean()) if at_border[side] else 0.0 for side in lines}


def _flat_cut(alpha: np.ndarray) -> bool:
    """Check whether the figure ends in a wide straight line, as drawn busts do."""
    rows = alpha.shape[0]
    low, above = (float((alpha[-1 - round(rows * f)] > 0.5).mean()) for f in (0.012, 0.08))
    return low > 0.68 and low > 0.88 * above


def _facing(alpha: np.ndarray) -> int:
    """Estimate the side on which the head is ahead of the body: -1 left, 1 right, 0 unknown."""
    rows, columns = alpha.shape
    xs = np.arange(columns, dtype=np.float32)
    head = alpha[: max(1, round(rows * 0.22))]
    lead = (head.sum(0) @ xs) / max(head.sum(), 1e-3) - (alpha.sum(0) @ xs) / max(alpha.sum(), 1e-3)
    return int(np.sign(lead)) if abs(lead) > 0.03 * rows else 0


def _head(alpha: np.ndarray) -> tuple[float, float]:
    """Estimate where the head begins and ends across, over the box's width, by the bulk of the silhouette's top.

    Raised arms do not count much.
    """
    rows, columns = alpha.shape
    weight = alpha[: max(1, round(rows * 0.15))].sum(0)
    xs = (np.arange(columns, dtype=np.float32) + 0.5) / columns
    middle = float((weight @ xs) / max(float(weight.sum()), 1e-3))
    spread = float(np.sqrt((weight @ (xs - middle) ** 2) / max(float(weight.sum()), 1e-3)))
    half = min(1.9 * spread, 0.17 * rows / columns)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _reaching(alpha: np.ndarray) -> int:
    """Estimate the side on which an arm is stretched out: the box's middle lies far on that side of the head."""
    rows, columns = alpha.shape
    head = alpha[: max(1, round(rows * 0.22))].sum(0)
    middle = (head @ np.arange(columns, dtype=np.float32)) / max(float(head.sum()), 1e-3)
    return int(np.sign(columns / 2 - middle)) if abs(columns / 2 - middle) > 0.1 * rows else 0


def _hands(alpha: np.ndarray, reaching: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Estimate the hands, as in `Shape`: where the silhouette reaches out farthest between hip and chest.

    They are placed a little inwards, and on the `reaching` side at the upper edge of what is there.
    """
    rows, columns = alpha.shape
    first, last = round(rows * 0.38), max(round(rows * 0.38) + 1, round(rows * 0.68))
    solid = alpha[first:last] > 0.5
    hands = []
    for side in (-1, 1):
        view = solid[:, ::side]
        reach = np.where(view.any(1), view[:, ::-1].argmax(1), columns)  # empty columns outside, per row
        row = int(reach.argmin())
        inward = max(float(columns / 2 - reach[row] - 0.06 * rows), 0.0)
        height = 1 - (first + row) / rows
        if side == reaching:
            column = int(np.clip(columns / 2 + side * inward, 0, columns - 1))
            height = 1 - int((alpha[:, column] > 0.5).argmax()) / rows
        hands.append((side * inward / rows, height))
    return hands[0], hands[1]
