"""Several of the cast on one canvas: who shares one, and how they are placed on it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from PIL import Image

from engine.media.images import bounding_box, flatten

Thing = TypeVar("Thing")

_MARGIN = 0.03  # of the canvas's shorter side, around everybody
_LONGEST = 3.0  # times as long as wide, beyond which a subject gets less area than the others


def share_slots(counts: Sequence[int], slots: int) -> list[int]:
    """Choose how many canvases each group gets. No group goes without; further canvases go, one by one, to the group
    that is most crowded (the first of them where it is a tie). `slots` must be at least the number of groups that have
    any."""
    shares = [min(count, 1) for count in counts]
    while sum(shares) < slots:
        crowd = [count / share if share < count else 0.0 for count, share in zip(counts, shares, strict=True)]
        if not any(crowd):
            break
        shares[crowd.index(max(crowd))] += 1
    return shares


def split_evenly(things: Sequence[Thing], parts: int) -> list[list[Thing]]:
    """Split into consecutive parts whose lengths differ by one at most; order is kept."""
    cuts = [round(i * len(things) / parts) for i in range(parts + 1)] if parts else [0]
    return [list(things[a:b]) for a, b in pairwise(cuts)]


def pack(pictures: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image:
    """Place several subjects on one white canvas of `size` (width, height), in reading order. RGB.

    Every subject is cropped to what is visible of it, and all get the same area: nobody is small because the photo was
    taken from afar or because of a tall neighbour. Of all ways to break the line the one that makes them largest is
    taken; for a few people that is side by side.
    """
    subjects = [picture.crop(bounding_box(picture)) for picture in pictures]
    boxes = [_unit_box(subject) for subject in subjects]
    columns = max(range(1, len(boxes) + 1), key=lambda n: (_scale(_rows(boxes, n), size), n))
    lines, scale = _rows(list(zip(subjects, boxes, strict=True)), columns), _scale(_rows(boxes, columns), size)
    heights = [scale * max(box[1] for _, box in line) for line in lines]
    gap = (size[1] - sum(heights)) / (len(lines) + 1)
    canvas, y = Image.new("RGB", size, (255, 255, 255)), gap
    for line, height in zip(lines, heights, strict=True):
        space = (size[0] - scale * sum(box[0] for _, box in line)) / (len(line) + 1)
        x = space
        for subject, box in line:
            _place(canvas, subject, (x, y + (height - scale * box[1]) / 2, scale * box[0], scale * box[1]))
            x += scale * box[0] + space
        y += height + gap
    return canvas


def _place(canvas: Image.Image, subject: Image.Image, box: tuple[float, float, float, float]) -> None:
    """Fit the subject into `box` (x, y, width, height)."""
    x, y, width, height = box
    scale = min(width / subject.width, height / subject.height)
    inner = (max(1, round(subject.width * scale)), max(1, round(subject.height * scale)))
    small = flatten(subject.resize(inner, Image.Resampling.LANCZOS, reducing_gap=3.0))
    canvas.paste(small, (round(x + (width - inner[0]) / 2), round(y + (height - inner[1]) / 2)))


def _unit_box(subject: Image.Image) -> tuple[float, float]:
    """Return width and height of a box of area 1 in the subject's shape; the aspect is limited: a very long subject
    must not make all others tiny."""
    aspect = min(max(subject.width / subject.height, 1 / _LONGEST), _LONGEST)
    return aspect**0.5, aspect**-0.5


def _rows(things: Sequence[Thing], columns: int) -> list[list[Thing]]:
    return split_evenly(things, -(-len(things) // columns))


def _scale(lines: Sequence[Sequence[tuple[float, float]]], size: tuple[int, int]) -> float:
    """Compute the factor by which the unit boxes can be enlarged so that all lines fit on the canvas, margins
    included."""
    margin = _MARGIN * min(size)
    across = min((size[0] - margin * (len(line) + 1)) / sum(box[0] for box in line) for line in lines)
    down = (size[1] - margin * (len(lines) + 1)) / sum(max(box[1] for box in line) for line in lines)
    return min(across, down)
