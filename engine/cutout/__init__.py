"""Cut-outs: a photo's subject without its background, by a model, the file's own alpha, a mask, or a fallback.

result.py    what a cut-out is, and when it is doubtful
auto.py      the way from a photo to its cut-out
frame.py     see-through parts that only frame a picture
brush.py     cut-outs by hand: mask files and brush strokes
masks.py     masks as other programs write them
preview.py   the checkerboard
matte.py     a model's soft mask -> clean edge and colours
models.py    rembg's models, loaded once
weights.py   where their weights come from
fallback.py  without a model
cache.py     kept by content
warmup.py    fetching and loading ahead of time
"""

from engine.cutout.auto import cut_out, cut_out_element, uncut
from engine.cutout.brush import apply_mask, retouch
from engine.cutout.models import QUALITIES, Models
from engine.cutout.preview import checkerboard
from engine.cutout.result import WORKING_SIDE, Cutout
from engine.cutout.warmup import is_here, prepare, warm_up

__all__ = [
    "QUALITIES",
    "WORKING_SIDE",
    "Cutout",
    "Models",
    "apply_mask",
    "checkerboard",
    "cut_out",
    "cut_out_element",
    "is_here",
    "prepare",
    "retouch",
    "uncut",
    "warm_up",
]
