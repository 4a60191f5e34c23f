"""Getting a quality ready before somebody waits for it."""

from __future__ import annotations

from collections.abc import Callable

from engine.cutout import weights
from engine.cutout.models import QUALITIES, shared_models
from engine.cutout.weights import Unavailable


def is_here(quality: str) -> bool:
    """Check whether a quality's weights are on this machine."""
    model = QUALITIES[quality]
    if model in weights.WEIGHTS:
        return weights.find(model, weights.weights_folder()) is not None
    return weights.lies_in(weights.home(model), model)  # rembg has put it there, and has checked it


def prepare(quality: str = "fast", say: Callable[[str], None] = print) -> bool:
    """Download a quality's weights where they are missing on this machine, and `say` so.

    Returns whether they are there. Where not, cut-outs still work, with a fallback and a notice.
    """
    model = QUALITIES[quality]
    try:
        if model not in weights.WEIGHTS:
            say(f"Fetching the background remover {model} (about 220 MB, once) …")
            shared_models().ready(model)  # rembg fetches this one itself
        elif weights.find(model, weights.weights_folder()) is None:
            say(f"Fetching the background remover {model} ({weights.WEIGHTS[model].megabytes:g} MB, once) …")
            weights.fetch(model, weights.weights_folder())
    except Unavailable as error:
        rough = f"The background remover {model} could not be fetched: {error}. Cut-outs are rougher until it is."
        say(f"{rough} {error.remedy}".rstrip())
        return False
    return True


def warm_up(quality: str = "fast") -> bool:
    """Load a quality's model now, as a server does in the background. Returns whether it is loaded."""
    try:
        shared_models().ready(QUALITIES[quality])
    except Unavailable:
        return False
    return True
