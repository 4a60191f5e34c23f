"""PNG: the chunks that make the picture; the rest says something about it at most (third edition of PNG)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from engine.media.images import kinds
from engine.media.images.files import Piece, stream
from engine.media.images.survey import Colour, Survey, inflated, with_exif

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_MOST_CHUNKS = 200_000  # 400 MB in pieces of 8 KB have 50,000
_MOST_SAID = 8_000_000  # bytes of one chunk that says something about the picture
_ABOUT = {b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"eXIf"}
_BLOCK = 4096  # bytes: what comes before a fault in the same block is lost with it
_MOVING = {b"acTL", b"fcTL", b"fdAT"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True)
class Header:
    """The header (IHDR), and where the pixels lie."""

    width: int
    height: int
    depth: int
    kind: int
    interlaced: bool
    moving: BinaryIO | None  # the same file with its further frames
    pixels: tuple[tuple[int, int], ...]  # start and length of each IDAT's data
    front: tuple[Piece, ...]  # all that comes before the pixels

    @property
    def channels(self) -> int:
        return _CHANNELS[self.kind]


def survey(file: BinaryIO, size: int, name: str) -> tuple[Survey, Header]:
    """Read the chunks. Raises ImageError where they hold no picture."""
    front: list[Piece] = [_SIGNATURE]
    pieces: list[Piece] = []
    moving: list[Piece] = []
    pixels: list[tuple[int, int]] = []
    said: dict[bytes, bytes] = {}
    header, broken, whole = b"", False, False
    for start, length, kind in _chunks(file, size, name):
        chunk = (start - 8, 12 + length)
        if kind == b"IHDR" and not header:
            header = _checked_header(file.read(length), name)
            front.append(chunk)
        elif kind in (b"PLTE", b"tRNS"):
            if not pixels and length <= 768 and (kind == b"PLTE" or _sound(file, start, length)):
                front.append(chunk)
        elif kind == b"IDAT":
            pixels.append((start, max(0, min(length, size - start))))
            pieces.append(chunk)
            moving.append(chunk)
        elif kind in _MOVING:
            moving.append(chunk)
        elif kind == b"IEND":
            whole = True
            break
        elif kind in _ABOUT and kind not in said:
            if length <= _MOST_SAID and _sound(file, start, length):
                file.seek(start)
                said[kind] = file.read(length)
            broken |= kind == b"iCCP" and kind not in said
    if not header or not pixels:
        raise kinds.damaged(name) if whole else kinds.cut_off(name)
    width, height, depth, colours, _, _, lace = struct.unpack(">IIBBBBB", header)
    found = Survey("PNG", stream(file, [*front, *pieces, _END]), whole=whole)
    found.colour, found.orientation = with_exif(_colour(said, broken), said.get(b"eXIf"))
    moves = stream(file, [*front, *moving, _END]) if len(moving) > len(pieces) else None
    return found, Header(width, height, depth, colours, bool(lace), moves, tuple(pixels), tuple(front))


def repaired(file: BinaryIO, header: Header) -> tuple[BinaryIO, float]:
    """Rebuild a damaged PNG from the pixels that can be decompressed, padded with zeros; and the share missing.

    Whatever was wrong with their packing (a checksum, the end of the stream), it is right afterwards.
    """
    wanted, got = _unpacked_size(header), 0
    # raw deflate, without zlib's frame: a wrong checksum at its end is no reason to drop the rows before it
    unpack, pack, whole = zlib.decompressobj(-15), zlib.compressobj(1), io.BytesIO()
    whole.write(stream(file, header.front).read() + b"\0\0\0\0IDAT")
    start = whole.tell()
    try:
        for number, block in enumerate(_blocks(file, header.pixels)):
            block = block[2:] if number == 0 else block
            while block and got < wanted and not unpack.eof:
                part = unpack.decompress(block, min(1 << 20, wanted - got))
                block = unpack.unconsumed_tail
                got += len(part)
                whole.write(pack.compress(part))
                if not part:
                    break
    except zlib.error:
        pass
    for at in range(got, wanted, 1 << 20):
        whole.write(pack.compress(bytes(min(1 << 20, wanted - at))))
    whole.write(pack.flush())
    length = whole.tell() - start
    whole.write(b"\0\0\0\0" + _END)  # the decoder does not check this checksum
    whole.seek(start - 8)
    whole.write(struct.pack(">I", length))
    whole.seek(0)
    return whole, (wanted - got) / max(1, wanted)


def _chunks(file: BinaryIO, size: int, name: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield start and length of each chunk's data, and its type; the file stands at the data.

    Raises ImageError where there are too many.
    """
    at = len(_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or not head[4:].isalpha():
            return
        length = int.from_bytes(head[:4], "big")
        yield at + 8, length, head[4:]
        at += 12 + length
        if at > size:
            return
    raise kinds.unsupported(name, f"a PNG of more than {_MOST_CHUNKS:,} parts", "Save it again, as PNG or JPEG.")


def _sound(file: BinaryIO, start: int, length: int) -> bool:
    """Check whether a chunk's checksum is right."""
    file.seek(start - 4)
    data, check = file.read(4 + length), file.read(4)
    return len(data) == 4 + length and check == struct.pack(">I", zlib.crc32(data))


def _checked_header(header: bytes, name: str) -> bytes:
    if len(header) != 13 or header[9] not in _CHANNELS or header[8] not in (1, 2, 4, 8, 16):
        raise kinds.damaged(name)
    return header


def _blocks(file: BinaryIO, pixels: tuple[tuple[int, int], ...]) -> Iterator[bytes]:
    for start, length in pixels:
        for at in range(start, start + length, _BLOCK):
            file.seek(at)
            yield file.read(min(_BLOCK, start + length - at))


def _unpacked_size(header: Header) -> int:
    """Compute the bytes of all rows with the filter's byte in front of each."""
    passes = _ADAM7 if header.interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        width, height = -(-(header.width - left) // across), -(-(header.height - top) // down)
        if width > 0 and height > 0:
            total += height * (1 + (width * header.depth * header.channels + 7) // 8)
    return total


def _colour(said: dict[bytes, bytes], broken: bool) -> Colour:
    colour = Colour(broken=broken)
    if name_and_profile := said.get(b"iCCP"):
        _, _, packed = name_and_profile.partition(b"\0")
        icc = inflated(packed[1:])
        colour = replace(colour, icc=icc, broken=icc is None)
    if len(said.get(b"cICP", b"")) == 4:
        colour = replace(colour, cicp=(said[b"cICP"][0], said[b"cICP"][1]))
    if len(said.get(b"gAMA", b"")) == 4:
        colour = replace(colour, gamma=int.from_bytes(said[b"gAMA"], "big") / 100_000)
    if len(said.get(b"cHRM", b"")) == 32:
        colour = replace(colour, chroma=tuple(value / 100_000 for value in struct.unpack(">8I", said[b"cHRM"])))
    return replace(colour, srgb=b"sRGB" in said)
