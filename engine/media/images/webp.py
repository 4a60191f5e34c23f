"""WebP: the chunks that make the picture; the rest says something about it at most (RFC 9649)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from engine.media.images import kinds
from engine.media.images.files import Piece, stream
from engine.media.images.survey import Colour, Survey, with_exif, xmp_orientation

_SAYS = {b"ICCP", b"EXIF", b"XMP "}
_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: that those three are there
_MOVES = 0x02
_MOST_SAID = 8_000_000
_MOST_CHUNKS = 100_000


@dataclass(frozen=True)
class Coding:
    """How the picture is coded. `still`: it is no animation; `lossless`: without loss, which takes more memory to
    decode."""

    still: bool
    lossless: bool


def survey(file: BinaryIO, size: int, name: str) -> tuple[Survey, Coding]:
    """Read the chunks. Raises ImageError where the file ends before the picture does."""
    pieces: list[Piece] = []
    said: dict[bytes, bytes] = {}
    flags, lossless, broken, at = 0, False, False, 12
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            break
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        if kind in _SAYS:
            data = file.read(length) if length <= _MOST_SAID else b""
            broken |= kind == b"ICCP" and len(data) < length
            said.setdefault(kind, data)
        elif at + 8 + length > size:
            raise kinds.cut_off(name)
        elif kind == b"VP8X":
            data = file.read(length)
            flags = data[0] if data else 0
            pieces.append(head + bytes([flags & ~_FLAGS]) + data[1:])
        else:
            lossless |= kind == b"VP8L"
            pieces.append((at, 8 + length))
        if kind not in _SAYS and length % 2:
            pieces.append(b"\0")
        at += 8 + length + length % 2
    body = sum(len(piece) if isinstance(piece, bytes) else piece[1] for piece in pieces)
    if not body:
        raise kinds.cut_off(name)
    pieces.insert(0, b"RIFF" + struct.pack("<I", 4 + body) + b"WEBP")
    found = Survey("WEBP", stream(file, pieces))
    exif = said.get(b"EXIF", b"").removeprefix(b"Exif\0\0")
    profile = None if broken else said.get(b"ICCP") or None
    found.colour, found.orientation = with_exif(Colour(icc=profile, broken=broken), exif)
    if found.orientation == 1:
        found.orientation = xmp_orientation(said.get(b"XMP ", b""))
    return found, Coding(not flags & _MOVES, lossless)
