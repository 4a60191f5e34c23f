"""Small pictures for the page, as data URLs: no route serves a person's pictures, so no stranger can request one."""

from __future__ import annotations

import base64
import io

from PIL import Image

from engine.media.images import bounding_box

THUMB = (320, 240)  # pixels, what a cast card shows on a dense screen
STAGE_HEIGHT = 420  # pixels: the tallest a cut-out is drawn on the stage
STAGE_FRAME = 960  # pixels: the longest side of the stage's background


def data_url(picture: Image.Image, quality: int = 80) -> str:
    """Encode a picture as a WebP data URL; alpha is kept."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def shrunk(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Return a copy that fits into (width, height) pixels; it is never enlarged."""
    small = picture.copy()
    small.thumbnail((width, height), Image.Resampling.LANCZOS)
    return small


def trimmed(picture: Image.Image) -> Image.Image:
    """Crop an RGBA picture to its visible pixels: the box to which a placement's scale and foot refer."""
    return picture.crop(bounding_box(picture))
