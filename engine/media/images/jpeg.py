"""JPEG: the segments that make the picture; the rest says something about it at most (ITU-T T.81, annex B)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import BinaryIO

from PIL import Image, ImageChops, JpegImagePlugin

from engine.media.images import kinds
from engine.media.images.files import Piece, stream
from engine.media.images.survey import Colour, Survey, with_exif, xmp_orientation

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SAYS = {*range(0xE0, 0xF0), 0xFE}
_TABLES = {0xC4, 0xCC, 0xDB, 0xDD}  # Huffman and arithmetic tables, quantisation, restarts
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_READ_HERE = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # sequential and progressive, Huffman or arithmetic
_PROGRESSIVE = {0xC2, 0xCA}
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"  # its presence means YCbCr; the content does not matter
_MOST_SEGMENTS = 10_000
_MOST_PROFILE = 16_000_000  # bytes, of all of a profile's segments
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_OTHER_END = bytes(range(1, 255)) * 16  # `missing`: put behind a scan without an end, a decoder reads it as part of it
_SEEN_AT = 2_000_000  # most pixels at which `missing` compares


@dataclass(frozen=True)
class Scan:
    """How the picture is coded. `coefficients`: what a decoder has to hold at once beside the pixels, in bytes a pixel.
    `spoilt`: the same file with meaningless data behind its last byte, for `missing`."""

    coefficients: float
    spoilt: BinaryIO


def survey(file: BinaryIO, size: int, name: str) -> tuple[Survey, Scan]:
    """Read the segments up to the first scan. Raises ImageError where there is none, or one of an unusable kind."""
    pieces: list[Piece] = [_SOI]
    profile: dict[int, bytes] = {}
    exif, xmp, frame, broken = b"", b"", b"", False
    at = 2
    for _ in range(_MOST_SEGMENTS):
        at = _next_marker(file, at, size)
        file.seek(at)
        head = file.read(4)
        if len(head) < 4:
            raise kinds.cut_off(name)
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker == 0xDA:
            break
        if marker in _SAYS and length < 2:  # an APPn or comment segment without a valid length: step over its marker
            at += 2
            continue
        if marker == 0xD9 or length < 2:
            raise kinds.damaged(name)
        if marker in _TABLES or marker in _FRAMES:
            pieces.append((at, 2 + length))
            frame = file.read(length - 2) if marker in _FRAMES else frame
            if marker in _FRAMES:
                _check_frame(marker, frame, name)
                coding = marker
        elif marker == 0xE0 and file.read(4) == b"JFIF":
            pieces.append(_JFIF)
        elif marker == 0xEE and length >= 14:
            pieces.append(b"\xff\xee\0\x0e" + file.read(12))
        elif marker == 0xE1:
            data = file.read(length - 2)
            exif = exif or (data[6:] if data.startswith(b"Exif\0") else b"")
            xmp = xmp or (data if data.startswith(b"http://ns.adobe.com/xap/1.0/") else b"")
        elif marker == 0xE2:
            data = file.read(length - 2)
            if data.startswith(b"ICC_PROFILE\0") and len(data) > 14:
                broken |= sum(map(len, profile.values())) > _MOST_PROFILE
                profile.setdefault(data[12], b"" if broken else data[14:])
        at += 2 + length
    if not frame:
        raise kinds.damaged(name)
    icc = b"".join(profile[number] for number in sorted(profile)) or None
    colour, orientation = with_exif(Colour(icc=None if broken else icc, broken=broken), exif)
    pieces.append((at, size - at))
    found = Survey("JPEG", stream(file, [*pieces, _EOI]), replace(colour, adobe=colour.adobe and not icc), orientation)
    found.orientation = orientation if orientation != 1 else xmp_orientation(xmp)
    found.whole = _has_end(file, at, size)
    file.seek(at + 4)
    several = coding in _PROGRESSIVE or file.read(1)[0] < frame[5]  # else: one scan holds all there is
    return found, Scan(_samples(frame) * 2 if several else 0.0, stream(file, [*pieces, _OTHER_END, _EOI]))


def missing(found: Survey, scan: Scan, rough: bool = False) -> float:
    """Measure the share of the picture's height that is missing, from 0 to 1, where the file has no end.

    With `rough` at an eighth of the size, for which the fine detail of a progressive JPEG is not needed. A decoder
    fills in what it does not find, so the file is decoded twice, with two different ends: where the pictures differ,
    data is missing.
    """
    pictures = []
    for raw in (found.stream, scan.spoilt):
        raw.seek(0)
        picture = open_stream(raw)
        reduce_to(picture, 0 if rough else _SEEN_AT)
        picture.load()
        pictures.append(picture.convert("RGB"))
    found.stream.seek(0)
    box = ImageChops.difference(*pictures).getbbox()
    return 0.0 if box is None else 1 - box[1] / pictures[0].height


def open_stream(raw: BinaryIO) -> Image.Image:
    """Read the header. Not by `Image.open`: its limit of pixels is one number for all formats."""
    return JpegImagePlugin.JpegImageFile(raw)


def reduce_to(picture: Image.Image, most: int) -> None:
    """Make the decoder scale the picture to 1/2, 1/4 or 1/8 of its sides, the first with at most `most` pixels."""
    scale = next((by for by in (1, 2, 4) if picture.width * picture.height / by**2 <= most), 8)
    if scale > 1:
        picture.draft(None, (max(1, picture.width // scale), max(1, picture.height // scale)))


def _next_marker(file: BinaryIO, at: int, size: int) -> int:
    """Find the next marker, stepping over what lies before it as decoders do; `size` where there is none."""
    while at < size:
        file.seek(at)
        block = file.read(65536)
        for hit in re.finditer(rb"\xff[^\x00\xff\xd0-\xd8]", block, re.DOTALL):
            return at + hit.start()
        at += max(1, len(block) - 1)
    return size


def _has_end(file: BinaryIO, at: int, size: int) -> bool:
    """Check whether an end marker follows the scan that begins at `at`; what comes after it is not the picture."""
    file.seek(size - 2)
    if file.read(2) == _EOI:
        return True
    file.seek(at)
    before = b""
    while block := file.read(1 << 20):
        if any(hit[0] == _EOI for hit in _MARKER.finditer(before + block)):
            return True
        before = block[-1:]
    return False


def _check_frame(marker: int, frame: bytes, name: str) -> None:
    if len(frame) < 6 or len(frame) < 6 + 3 * frame[5]:
        raise kinds.damaged(name)
    if marker not in _READ_HERE or frame[0] != 8:
        what = f"a JPEG with {frame[0]} bits a colour" if frame[0] != 8 else "a lossless or hierarchical JPEG"
        raise kinds.unsupported(name, what, "Save it as an ordinary JPEG, or as PNG.")


def _samples(frame: bytes) -> float:
    """Return how many samples are coded for a pixel: 3 for 4:4:4, 1.5 for 4:2:0."""
    factors = [(factor >> 4, factor & 15) for factor in frame[7 : 6 + 3 * frame[5] : 3]]
    across, down = max(1, *(h for h, _ in factors), 1), max(1, *(v for _, v in factors), 1)
    return sum(h * v for h, v in factors) / (across * down)
