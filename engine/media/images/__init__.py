"""Pictures as people have them -> 8-bit RGB or RGBA that stands upright, or one clear refusal.

`open_image` is the only door: it looks at the header before it decodes, so a small file that would unpack to
gigabytes is refused for free. What a file says *about* its picture never decides whether there is one.

opening.py   the door: a path -> a picture in sRGB, with notices
files.py     the file, and the parts of it that a decoder gets to see
kinds.py     what kind it is; the sentences for what cannot be used
readers.py, plan.py   for each kind: what decoding will cost, and how it is done
jpeg.py, png.py, webp.py, boxes.py, tiff.py   what a file of each kind says
strips.py    TIFFs that Pillow lacks or gets wrong
moving.py    of an animation, the frame that shows something
survey.py    what all of them say: colours, orientation
colour.py, spaces.py, icc.py   from the file's colours to sRGB
pixels.py    16 bits, floats, palettes -> 8 bits, in strips
gate.py      how much memory that may take
fitting.py   cover, flatten, within, bounding box
"""

from engine.media.images.fitting import ALPHA_FLOOR, bounding_box, cover, flatten, has_real_alpha, lowest, within
from engine.media.images.gate import KEPT_PIXELS
from engine.media.images.opening import (
    MAX_ASPECT,
    MAX_PIXELS,
    MIN_SIDE,
    Opened,
    check_image,
    open_image,
    open_with_notices,
)

__all__ = [
    "ALPHA_FLOOR",
    "KEPT_PIXELS",
    "MAX_ASPECT",
    "MAX_PIXELS",
    "MIN_SIDE",
    "Opened",
    "bounding_box",
    "check_image",
    "cover",
    "flatten",
    "has_real_alpha",
    "lowest",
    "open_image",
    "open_with_notices",
    "within",
]
