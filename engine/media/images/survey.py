"""What a file says about its picture, gathered before anything is decoded."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from engine.media.images import tiff

_MOST_PROFILE = 8_000_000  # bytes; printers' largest have 4 MB
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_COLOUR_SPACE, _EXIF_IFD, _INTEROP_IFD, _INDEX = 0xA001, 0x8769, 0xA005, 1
_ADOBE_RGB, _UNCALIBRATED = 2, 0xFFFF


@dataclass(frozen=True)
class Colour:
    """What the file says about its colours; `engine.media.images.colour` knows what takes precedence.

    `cicp`: primaries and transfer function of ITU-T H.273. `gamma`: of PNG's gAMA, such as 0.45455. `chroma`: x, y of
    white, red, green and blue. `adobe`: Adobe RGB as cameras say it (DCF 2.0). `broken`: the file has a profile, but an
    unusable one.
    """

    icc: bytes | None = None
    cicp: tuple[int, int] | None = None
    srgb: bool = False
    gamma: float | None = None
    chroma: tuple[float, ...] | None = None
    adobe: bool = False
    broken: bool = False


@dataclass
class Survey:
    """What a file says, before decoding. `stream` is what the decoder gets; `whole` whether the file has its end."""

    kind: str
    stream: BinaryIO
    colour: Colour = field(default_factory=Colour)
    orientation: int = 1  # EXIF's 1 to 8
    whole: bool = True
    told: list[str] = field(default_factory=list)  # notices


def with_exif(colour: Colour, exif: bytes | None) -> tuple[Colour, int]:
    """Read EXIF, and return the colours with what it says of them, and the orientation (1 to 8).

    Broken EXIF is common and says nothing.
    """
    if not exif:
        return colour, 1
    first = tiff.directory(exif)
    camera = tiff.directory(exif, *first[_EXIF_IFD]) if len(first.get(_EXIF_IFD, ())) == 1 else {}
    interop = tiff.directory(exif, *camera[_INTEROP_IFD]) if len(camera.get(_INTEROP_IFD, ())) == 1 else {}
    space = (camera.get(_COLOUR_SPACE) or (_UNCALIBRATED,))[0]
    # sRGB is 1; the camera makers' 65535 is Adobe RGB only where the interoperability index says so
    adobe = space == _ADOBE_RGB or (space == _UNCALIBRATED and bytes(interop.get(_INDEX, ()))[:3] == b"R03")
    orientation = (first.get(tiff.ORIENTATION) or (1,))[0]
    return replace(colour, adobe=adobe), orientation if orientation in range(1, 9) else 1


def xmp_orientation(xmp: bytes) -> int:
    """Read the orientation in XMP, 1 where there is none."""
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1


def inflated(data: bytes, most: int = _MOST_PROFILE) -> bytes | None:
    """Decompress a profile (zlib); None where it is damaged or has more than `most` bytes, as no profile has."""
    try:
        unfold = zlib.decompressobj()
        found = unfold.decompress(data, most)
        return found if unfold.eof else None
    except zlib.error:
        return None
