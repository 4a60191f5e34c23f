"""What a cut-out is, and when it is doubtful."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

WORKING_SIDE = 1536  # pixels; frames have at most 1920, and a subject rarely fills one

_EMPTY = 0.001  # share of the frame
_EVERYTHING = 0.93
_TOUCHES = 0.02  # share of a border's length

ADVICE = "Use the photo as it is, or paint the subject with the brush."


@dataclass(frozen=True)
class Cutout:
    """A subject without its background.

    `picture` is RGBA with straight alpha in the photo's own frame, its longer side at most `WORKING_SIDE` pixels.
    `source` says how it was made: "alpha" (the file's own), a model's name, "plain background", "grabcut", "mask", or
    "none" (not cut out). `doubts` are sentences about what looks wrong, `notice` one about a way that was not open.
    """

    picture: Image.Image
    source: str
    doubts: tuple[str, ...] = ()
    notice: str = ""


def empty_doubt(alpha: np.ndarray) -> tuple[str, ...]:
    """The doubt that nothing is left. `alpha` is (H, W) uint8."""
    if (alpha >= 128).mean() < _EMPTY:
        return (f"The cut-out is empty: nothing stands out from the background. {ADVICE}",)
    return ()


def doubts_about(alpha: np.ndarray) -> tuple[str, ...]:
    """What looks wrong with a cut-out that somebody's algorithm made. `alpha` is (H, W) uint8."""
    empty = empty_doubt(alpha)
    if empty:
        return empty
    solid = alpha >= 128
    doubts = []
    if solid.mean() > _EVERYTHING:
        doubts.append(f"The cut-out covers nearly the whole photo: hardly any background was found. {ADVICE}")
    if all(border.mean() > _TOUCHES for border in (solid[0], solid[-1], solid[:, 0], solid[:, -1])):
        doubts.append(f"The cut-out touches all four borders of the photo: some background may be left in it. {ADVICE}")
    return tuple(doubts)
