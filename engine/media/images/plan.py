"""How a picture will be decoded, and by what: Pillow's plugins, and OpenCV where they take too much or too little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from PIL import Image

from engine.media.images import moving
from engine.media.images.colour import ColourConversion
from engine.media.images.gate import DECODING
from engine.media.images.pixels import Deep

ONE_BYTE, TWO_BYTES = ("1", "L", "P"), ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass
class DecodePlan:
    """How a picture will be decoded. `size` (width, height) as stored; `cost` in bytes; `what`: the kind, for a person.

    `smallest`: the decoder itself makes it smaller; `instead`: the kind of file that would take less. `deep`: `decode`
    gives more than 8 bits where `way` asks for them. `frames` opens it again, where it is an animation.
    """

    size: tuple[int, int]
    cost: float
    what: str
    decode: Callable[[], Image.Image | Deep]
    way: ColourConversion = field(default_factory=ColourConversion)
    orientation: int = 1
    told: list[str] = field(default_factory=list)
    smallest: bool = False
    instead: str = "an ordinary JPEG"
    deep: bool = False
    frames: Callable[[], Image.Image] | None = None

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    def decoded(self) -> Image.Image | Deep:
        """Decode the pixels, once.

        They are not kept here, so that they are freed as soon as a smaller picture is made.
        """
        decode, self.decode = self.decode, _no_more
        return decode()

    def another_frame(self, picture: Image.Image) -> tuple[Image.Image, str] | None:
        """Return a frame to take instead of a first one that shows nothing, and a sentence about it; else None."""
        if self.frames is None or moving.A_PIXEL * self.pixels > DECODING:
            return None
        return moving.better(self.frames, picture)


def _no_more() -> Image.Image:
    raise RuntimeError("these pixels were decoded before")


def open_header(kind: str, stream: BinaryIO) -> Image.Image:
    """Read the header. Not by `Image.open`: its limit of pixels is one number for all formats."""
    Image.init()  # registers all plugins; before, Pillow knows only a few formats
    return Image.OPEN[kind][0](stream, "")


def loaded(picture: Image.Image) -> Image.Image:
    picture.load()
    return picture


def bytes_a_pixel(mode: str) -> int:
    return 1 if mode in ONE_BYTE else 2 if mode in TWO_BYTES else 4


def rewound(stream: BinaryIO) -> BinaryIO:
    stream.seek(0)
    return stream


def by_opencv(stream: BinaryIO, kind: type) -> Deep | None:
    """Decode a still with OpenCV: with all its bits, and without what an animation's decoder holds beside.

    None where it cannot, or where the samples are not of `kind`.
    """
    import cv2

    stream.seek(0)
    read = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    stream.seek(0)
    if read is None or read.dtype != kind:
        return None
    if read.ndim == 2:
        return Deep(read[..., None], "L")
    return Deep(read, "RGB", read.shape[2] == 4, backwards=True)
