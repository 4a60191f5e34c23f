"""Masks as other programs write them -> white is what stays.

White and grey are understood as they are. Label tools write the number of a class into each pixel, or the colour that
stands for it; ComfyUI makes see-through what was painted.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from engine.cutout.result import is_inside_out
from engine.media.images import lowest

_LABELS = 32  # most classes in one mask
_DIM = 128  # a mask that is darker throughout would keep nothing
_HIGHEST_LABEL = 64  # beside the 255 that says "no class"
_VOID = (224, 224, 192)  # PASCAL VOC's colour for the doubtful rim between two classes
_GREY = 12  # levels that channels of a grey picture may differ by, as a JPEG makes them


def understood(mask: Image.Image) -> tuple[Image.Image, str]:
    """Convert a mask to L, where white is kept; and return a notice where it was not taken as it is, else ""."""
    if mask.mode in ("RGBA", "LA") and lowest(mask.getchannel("A")) < 255:
        alpha = mask.getchannel("A")
        if is_inside_out(np.asarray(alpha)):
            return Image.eval(alpha, lambda value: 255 - value), (
                "The mask is see-through in its middle, as ComfyUI saves what was painted: that is what stays."
            )
        return alpha, ""
    colours = mask.convert("RGB")
    return _of_greys(colours.getchannel(0)) if _is_grey(colours) else _of_colours(colours)


def _of_greys(grey: Image.Image) -> tuple[Image.Image, str]:
    counts = np.array(grey.histogram())
    values = np.flatnonzero(counts)
    brightest = int(values[-1])
    labels = [int(value) for value in values if 0 < value < 255]
    few = len(values) <= _LABELS and 0 in values and labels
    rim = brightest == 255 and few and max(labels) < _HIGHEST_LABEL and counts[255] < counts[labels].sum()
    if few and (brightest < _DIM or rim):
        kept = grey.point([255 * (value in labels) for value in range(256)])
        return kept, "" if len(labels) == 1 else _told(", ".join(map(str, labels)))
    if 0 < brightest < _DIM:
        sentence = f"The mask's brightest value is {brightest} of 255: it was taken as white."
        return grey.point([min(255, value * 255 // brightest) for value in range(256)]), sentence
    return grey, ""


def _of_colours(colours: Image.Image) -> tuple[Image.Image, str]:
    """Convert a mask of one colour per class on black to white on black; any other picture to its luminance."""
    found = colours.getcolors(_LABELS) or []
    classes = [colour for _, colour in found if colour not in ((0, 0, 0), _VOID)]
    if not classes or all(colour != (0, 0, 0) for _, colour in found):
        return colours.convert("L"), ""
    pixels = np.asarray(colours)
    kept = (pixels.any(axis=2) & (pixels != _VOID).any(axis=2)).astype(np.uint8) * 255
    return Image.fromarray(kept), "" if len(classes) == 1 else _told(f"{len(classes)} colours")


def _told(what: str) -> str:
    return f"The mask holds several classes ({what}): all of them stay. For one alone, save a mask of it in white."


def _is_grey(colours: Image.Image) -> bool:
    pixels = np.asarray(colours)
    lowest, highest = pixels.min(axis=2), pixels.max(axis=2)
    return bool((highest - lowest).max() <= _GREY)
