"""How a cut-out is shown: on a checkerboard, so that what is gone can be seen."""

from __future__ import annotations

import numpy as np
from PIL import Image

_LIGHT, _DARK = 250, 220


def checkerboard(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Draw the whole picture, centred and never enlarged, on a checkerboard of `size` (width, height). Returns RGB."""
    width, height = size
    scale = min(width / picture.width, height / picture.height, 1.0)
    inner = picture.convert("RGBA")
    inner = inner.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), reducing_gap=2.0
    )
    square = max(4, min(size) // 24)
    rows, columns = np.arange(height)[:, None] // square, np.arange(width)[None] // square
    board = Image.fromarray(np.where((rows + columns) % 2 == 0, _LIGHT, _DARK).astype(np.uint8)).convert("RGB")
    board.paste(inner.convert("RGB"), ((width - inner.width) // 2, (height - inner.height) // 2), inner.getchannel("A"))
    return board
