"""What a cut-out is, and when it is doubtful."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from engine.media.images import ALPHA_FLOOR

WORKING_SIDE = 1536  # pixels; frames have at most 1920, and a subject rarely fills one

_EMPTY = 0.001  # share of the frame
_EVERYTHING = 0.93
_TOUCHES = 0.02  # share of a border's length

_FEW = 12  # pixels
_RIM, _MOSTLY, _DIFFERENT = 0.02, 0.6, 0.25  # of the shorter side; shares that are kept

ADVICE = "Use the photo as it is, or paint the subject with the brush."
_INVERTED = (
    "The photo's borders stay and its middle is gone: perhaps the mask is inverted. White, or what is painted, stays."
)
_EMPTY_DOUBT = f"The cut-out is empty: nothing stands out from the background. {ADVICE}"


@dataclass(frozen=True)
class Cutout:
    """A subject without its background.

    `picture` is RGBA with straight alpha in the photo's own frame, its longer side at most `WORKING_SIDE` pixels.
    `source` says how it was made: "alpha" (the file's own), a model's name, "plain background", "grabcut", "mask", or
    "none" (not cut out). `doubts` are sentences about what looks wrong, `notice` is about how it was made, such as a
    fallback.
    """

    picture: Image.Image
    source: str
    doubts: tuple[str, ...] = ()
    notice: str = ""


def empty_doubt(alpha: np.ndarray) -> tuple[str, ...]:
    """Return the doubt that a cut-out by the file's own alpha or by a person is empty; a faint or tiny subject is not.

    `alpha` is (H, W) uint8.
    """
    return (_EMPTY_DOUBT,) if np.count_nonzero(alpha > ALPHA_FLOOR) < _FEW else ()


def is_inside_out(alpha: np.ndarray) -> bool:
    """Check whether the background is kept and the subject is a hole, as an inverted mask has it.

    `alpha` is (H, W) uint8. The kept part lies along the borders and is missing in the middle; a bust's hole may reach
    the lower border.
    """
    kept = alpha >= 128
    height, width = kept.shape
    margin = max(1, round(_RIM * min(height, width)))
    rim = np.ones_like(kept)
    rim[margin:, margin : width - margin] = False  # the top and the sides
    middle = kept[height // 4 : -(-3 * height // 4), width // 4 : -(-3 * width // 4)]
    around, within = kept[rim].mean(), middle.mean()
    return bool(around > _MOSTLY and around - within > _DIFFERENT and not kept.all())


def doubts_about(alpha: np.ndarray) -> tuple[str, ...]:
    """Return the doubts about a cut-out that an algorithm made. `alpha` is (H, W) uint8."""
    solid = alpha >= 128
    if solid.mean() < _EMPTY:
        return (_EMPTY_DOUBT,)
    everything: tuple[str, ...] = ()
    if solid.mean() > _EVERYTHING:
        everything = (f"The cut-out covers nearly the whole photo: hardly any background was found. {ADVICE}",)
    return everything + _border_doubt(solid)


def doubts_about_painted(alpha: np.ndarray, empty: str = _EMPTY_DOUBT) -> tuple[str, ...]:
    """Return the doubts about a cut-out that a person or another program has painted, (H, W) uint8.

    `empty` is the doubt where nothing is left. All of the photo being kept is no doubt: it may be meant.
    """
    solid = alpha >= 128
    if empty_doubt(alpha):
        return (empty,)
    if is_inside_out(alpha):
        return (_INVERTED,)
    return () if solid.mean() > _EVERYTHING else _border_doubt(solid)


def _border_doubt(solid: np.ndarray) -> tuple[str, ...]:
    if all(border.mean() > _TOUCHES for border in (solid[0], solid[-1], solid[:, 0], solid[:, -1])):
        return (f"The cut-out touches all four borders of the photo: some background may be left in it. {ADVICE}",)
    return ()
