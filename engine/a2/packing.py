"""Many of the cast on few canvases: who shares one, and how they stand on it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from PIL import Image

from engine.images import flatten

Thing = TypeVar("Thing")

_MARGIN = 0.03  # of the canvas's shorter side, around everybody
_VISIBLE = 16  # alpha below this does not count as part of a subject


def share_slots(counts: Sequence[int], slots: int) -> list[int]:
    """How many canvases each group gets. No group goes without; further canvases go, one by one, to the group that is
    most crowded (the first of them where it is a tie). `slots` must be at least the number of groups that have any."""
    shares = [min(count, 1) for count in counts]
    while sum(shares) < slots:
        crowd = [count / share if share < count else 0.0 for count, share in zip(counts, shares, strict=True)]
        if not any(crowd):
            break
        shares[crowd.index(max(crowd))] += 1
    return shares


def split_evenly(things: Sequence[Thing], parts: int) -> list[list[Thing]]:
    """Consecutive parts whose lengths differ by one at most; order is kept."""
    cuts = [round(i * len(things) / parts) for i in range(parts + 1)] if parts else [0]
    return [list(things[a:b]) for a, b in pairwise(cuts)]


def pack(pictures: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image:
    """Several subjects on one white canvas of `size` (width, height), in reading order. RGB.

    Every subject is cropped to what is visible of it and gets a cell of the same size, filled as far as it goes: so
    nobody is small because the photo was taken from afar. Of all grids the one that makes the smallest of them
    largest is taken; for people that is side by side.
    """
    subjects = [_visible(picture) for picture in pictures]
    columns = max(range(1, len(subjects) + 1), key=lambda n: (_smallest(subjects, size, n), n))
    rows = -(-len(subjects) // columns)
    margin = _margin(size)
    height = (size[1] - margin * (rows + 1)) / rows
    canvas = Image.new("RGB", size, (255, 255, 255))
    for row in range(rows):
        line = subjects[row * columns : (row + 1) * columns]
        width = (size[0] - margin * (columns + 1)) / columns
        indent = (size[0] - len(line) * (width + margin) + margin) / 2  # a last line that is not full stands centred
        for column, subject in enumerate(line):
            scale = min(width / subject.width, height / subject.height)
            inner = (max(1, round(subject.width * scale)), max(1, round(subject.height * scale)))
            x = indent + column * (width + margin) + (width - inner[0]) / 2
            y = margin + row * (height + margin) + (height - inner[1]) / 2
            small = flatten(subject.resize(inner, Image.Resampling.LANCZOS, reducing_gap=3.0))
            canvas.paste(small, (round(x), round(y)))
    return canvas


def _smallest(subjects: Sequence[Image.Image], size: tuple[int, int], columns: int) -> float:
    """The area, in pixels, of the smallest subject in a grid of so many columns."""
    rows, margin = -(-len(subjects) // columns), _margin(size)
    width, height = (size[0] - margin * (columns + 1)) / columns, (size[1] - margin * (rows + 1)) / rows
    return min(s.width * s.height * min(width / s.width, height / s.height) ** 2 for s in subjects)


def _margin(size: tuple[int, int]) -> float:
    return _MARGIN * min(size)


def _visible(picture: Image.Image) -> Image.Image:
    if picture.mode != "RGBA":
        return picture
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha >= _VISIBLE else 0).getbbox()
    return picture.crop(box) if box else picture
