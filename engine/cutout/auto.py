"""The way from a photo to its cut-out: the file's own alpha, else the cache, else a model, else a fallback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from engine.cutout import cache as kept
from engine.cutout import fallback
from engine.cutout.brush import apply_mask
from engine.cutout.matte import bleed, matte
from engine.cutout.models import QUALITIES, Models, ladder, model_view, shared_models
from engine.cutout.result import WORKING_SIDE, Cutout, doubts_about, empty_doubt
from engine.cutout.weights import Unavailable
from engine.errors import CutoutError
from engine.images import flatten, has_real_alpha, open_image, within
from engine.scene import Element


def cut_out(
    photo: Image.Image, *, quality: str = "fast", cache: Path | None = None, models: Models | None = None
) -> Cutout:
    """Remove the background of a picture from `open_image`.

    A picture with real alpha is its own cut-out. Otherwise the quality's model does it ("fast", "standard", "best"),
    the next lower one where that is out of reach, and a plain-background key or GrabCut where none is; the notice
    says so. What a model made is kept in the folder `cache` and taken from there the next time. The photo is made
    smaller to `WORKING_SIDE` first. Safe to call from several threads. Raises CutoutError.
    """
    if quality not in QUALITIES:
        raise CutoutError(f"There is no cut-out quality {quality!r}", f"Use {', '.join(QUALITIES)}.")
    photo = within(photo, WORKING_SIDE)
    if has_real_alpha(photo):
        return Cutout(bleed(photo), "alpha", empty_doubt(_alpha(photo)))
    photo = flatten(photo)
    models = models or shared_models()
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
    """The photo as it is, background and all; where it is see-through it stays so."""
    photo = within(photo, WORKING_SIDE)
    if photo.mode == "RGBA":
        return Cutout(bleed(photo), "none", empty_doubt(_alpha(photo)))
    return Cutout(photo.convert("RGBA"), "none")


def cut_out_element(
    element: Element, root: Path, *, quality: str = "fast", cache: Path | None = None, models: Models | None = None
) -> Cutout:
    """Open an element's picture and cut it out as the element says: `auto`, `none`, or with a mask file.

    Paths are relative to `root`, the scene file's folder. A background is never cut out: its picture is RGB, in the
    photo's full size. Raises ImageError, CutoutError.
    """
    photo = open_image(root / element.image)
    if element.role == "background":
        return Cutout(flatten(photo), "none")
    if element.cutout == "none":
        return uncut(photo)
    if element.cutout == "auto":
        return cut_out(photo, quality=quality, cache=cache, models=models)
    return apply_mask(photo, open_image(root / element.cutout))


def _by_model(photo: Image.Image, model: str, cache: Path | None, models: Models) -> Image.Image:
    name = kept.key(photo, model) if cache else ""
    picture = kept.get(cache, name, photo.size) if cache else None
    if picture is None:
        picture = matte(photo, models.mask(model, model_view(photo)))
        if cache:
            kept.put(cache, name, picture)
    return picture


def _by_fallback(photo: Image.Image, fault: Unavailable) -> Cutout:
    """Not kept in the cache: the next time a model may be there."""
    picture, source = fallback.key_plain_background(photo), "plain background"
    if picture is None:
        picture, source = fallback.grabcut(photo), "grabcut"
    way = "its plain background was taken away" if source == "plain background" else "its subject was guessed"
    notice = f"The background remover is out of reach ({fault}), so {way}. {fault.remedy}"
    return Cutout(picture, source, doubts_about(_alpha(picture)), notice.rstrip())


def _alpha(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.getchannel("A"))
