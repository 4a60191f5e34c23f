"""The way from a photo to its cut-out: the file's own alpha, else the cache, else a model, else a fallback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from engine.cutout import cache as kept
from engine.cutout import fallback
from engine.cutout.brush import apply_mask
from engine.cutout.frame import is_only_a_frame
from engine.cutout.matte import bleed, matte
from engine.cutout.models import QUALITIES, Models, ladder, model_view, shared_models
from engine.cutout.result import ADVICE, WORKING_SIDE, Cutout, doubts_about, empty_doubt
from engine.cutout.weights import Unavailable
from engine.errors import CutoutError
from engine.media.images import bounding_box, flatten, has_real_alpha, open_with_notices, within
from engine.media.images.gate import shared_gate
from engine.scene.scene import Element

_MATTE = 75  # bytes a pixel that `matte` takes, measured: `tests/bench/pictures.py`
_LEAST_INSIDE, _MOST_INSIDE = 0.1, 0.9  # of a frame's area: how much a subject inside it covers


def cut_out(
    photo: Image.Image, *, quality: str = "fast", cache: Path | None = None, models: Models | None = None
) -> Cutout:
    """Remove the background of a picture from `open_image`.

    A picture with real alpha is kept as it is, unless its alpha only forms a frame (frame.py): then the subject is cut
    out inside the frame. Otherwise the quality's model does it ("fast", "standard", "best"), the next faster one where
    that is unavailable, and a plain-background key or GrabCut where none is available; the notice says so. A model's
    result is cached in the folder `cache`. The photo is first scaled down to `WORKING_SIDE`. Thread-safe. Raises
    CutoutError.
    """
    if quality not in QUALITIES:
        raise CutoutError(f"There is no cut-out quality {quality!r}", f"Use {', '.join(QUALITIES)}.")
    photo = within(photo, WORKING_SIDE)
    models = models or shared_models()
    if not has_real_alpha(photo):
        return _cut_photo(flatten(photo), quality, cache, models)
    if is_only_a_frame(photo):
        return _cut_inside(photo, quality, cache, models)
    return Cutout(bleed(photo), "alpha", empty_doubt(_alpha(photo)))


def _cut_inside(photo: Image.Image, quality: str, cache: Path | None, models: Models) -> Cutout:
    """Cut out the subject inside the opaque part of a picture whose alpha only forms a frame.

    The file's own alpha is kept where the subject fills that part (a ball or a box on its own has such a shape, too),
    and, with a doubt, where no subject was found in it or only GrabCut guessed one.
    """
    box = bounding_box(photo)
    inside = bleed(photo.crop(box)).convert("RGB")
    found, own = _cut_photo(inside, quality, cache, models), np.asarray(photo.crop(box).getchannel("A"))
    alpha = np.minimum(_alpha(found.picture), own)
    share = np.count_nonzero(alpha >= 128) / max(1, int(np.count_nonzero(own >= 128)))
    if share > _MOST_INSIDE:
        return Cutout(bleed(photo), "alpha", empty_doubt(_alpha(photo)))
    # GrabCut only guesses, and what is inside the frame may be the subject already
    if share < _LEAST_INSIDE or found.source == "grabcut":
        return Cutout(
            bleed(photo), "alpha", (f"Only a frame is see-through, and no subject was found in it. {ADVICE}",)
        )
    cut = found.picture.copy()
    cut.putalpha(Image.fromarray(alpha))
    picture = Image.new("RGBA", photo.size)
    picture.paste(cut, box[:2])
    notice = "Only a frame of the picture is see-through, so its subject was cut out inside it."
    return Cutout(bleed(picture), found.source, found.doubts, " ".join(filter(None, (notice, found.notice))))


def _cut_photo(photo: Image.Image, quality: str, cache: Path | None, models: Models) -> Cutout:
    """Cut out an RGB photo with the first available model on the quality's ladder, else with a fallback."""
    wanted, faults = ladder(quality)[0], []
    for model in ladder(quality):
        try:
            picture = _by_model(photo, model, cache, models)
        except Unavailable as error:
            faults.append(error)
            continue
        notice = (
            "" if model == wanted else f"The model {wanted} is out of reach ({faults[0]}); {model} was used instead."
        )
        return Cutout(picture, model, doubts_about(_alpha(picture)), notice)
    return _by_fallback(photo, faults[-1])


def uncut(photo: Image.Image) -> Cutout:
    """Return the photo as RGBA, background and all, scaled down to `WORKING_SIDE`; its own transparency stays."""
    photo = within(photo, WORKING_SIDE)
    if photo.mode == "RGBA":
        return Cutout(bleed(photo), "none", empty_doubt(_alpha(photo)))
    return Cutout(photo.convert("RGBA"), "none")


def cut_out_element(
    element: Element, root: Path, *, quality: str = "fast", cache: Path | None = None, models: Models | None = None
) -> Cutout:
    """Open an element's picture and cut it out as the element says: `auto`, `none`, or with a mask file.

    Paths are relative to `root`, the scene file's folder. A background is never cut out: its picture is RGB, in the
    size in which it was opened. The notice also includes those of opening the files. Raises ImageError, CutoutError.
    """
    opened = open_with_notices(root / element.image)
    photo, told = opened.picture, opened.notices
    if element.role == "background":
        cut = Cutout(flatten(photo), "none")
    elif element.cutout == "none":
        cut = uncut(photo)
    elif element.cutout == "auto":
        cut = cut_out(photo, quality=quality, cache=cache, models=models)
    else:
        mask = open_with_notices(root / element.cutout)
        cut = apply_mask(photo, mask.picture)
        told += mask.notices
    return replace(cut, notice=" ".join(filter(None, (*told, cut.notice))))


def _by_model(photo: Image.Image, model: str, cache: Path | None, models: Models) -> Image.Image:
    name = kept.key(photo, model) if cache else ""
    picture = kept.get(cache, name, photo.size) if cache else None
    if picture is None:
        mask = models.mask(model, model_view(photo))
        with shared_gate().holding(_MATTE * photo.width * photo.height):
            picture = matte(photo, mask)
        if cache:
            kept.put(cache, name, picture)
    return picture


def _by_fallback(photo: Image.Image, fault: Unavailable) -> Cutout:
    """Cut out a photo by a plain background or GrabCut. Not cached: next time a model may be available."""
    with shared_gate().holding(_MATTE * photo.width * photo.height):
        picture, source = fallback.key_plain_background(photo), "plain background"
        if picture is None:
            picture, source = fallback.grabcut(photo), "grabcut"
    way = "its plain background was taken away" if source == "plain background" else "its subject was guessed"
    notice = f"The background remover is out of reach ({fault}), so {way}. {fault.remedy}"
    return Cutout(picture, source, doubts_about(_alpha(picture)), notice.rstrip())


def _alpha(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.getchannel("A"))
