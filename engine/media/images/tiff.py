"""TIFF: which of the file's pictures is the picture, and whether it is a camera's raw file (TIFF 6.0, TIFF/EP, DNG)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from engine.media.images import kinds

_MOST_PAGES = 200
_MOST_ENTRIES = 1000
_FEW = 64  # most values of a tag that are read with its page; longer lists (of strips) only for the chosen page
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_LETTERS = {1: "B", 2: "B", 7: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MOST_VALUES = 500_000

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANAR, PREDICTOR = 266, 273, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SUB_IFDS = 322, 323, 324, 325, 330
EXTRA, FORMAT, ORIENTATION, ICC = 338, 339, 274, 34675
_CFA_SIZE, _CFA_PATTERN, _DNG = 33421, 33422, 50706
_RAW_PHOTOMETRIC = {32803, 34892}  # colour filter array, and linear raw (the same demosaiced)
_RAW_COMPRESSION = {32767, 32769, 32770, 34713, 34892, 65000, 65535}  # Sony, Epson, Samsung, Nikon, DNG, Kodak, Pentax
_REDUCED, _MASK = 1, 4  # of SUBFILE
_THUMBNAIL = 640  # pixels of the longer side: a first page is one where a later one has four times its pixels


@dataclass(frozen=True)
class TiffPage:
    """One picture of the file. `tags`: the integers of each tag, empty for other types and for long lists; `long`:
    type, count and offset of those."""

    offset: int
    order: str
    tags: dict[int, tuple[int, ...]]
    long: dict[int, tuple[int, int, int]]
    main: bool

    def one(self, tag: int, default: int = 0) -> int:
        return self.tags.get(tag, (default,))[0] if self.tags.get(tag, (default,)) else default

    @property
    def size(self) -> tuple[int, int]:
        return self.one(WIDTH), self.one(HEIGHT)

    @property
    def pixels(self) -> int:
        return self.one(WIDTH) * self.one(HEIGHT)

    @property
    def full(self) -> bool:
        return not self.one(SUBFILE) & (_REDUCED | _MASK)


def choose(file: BinaryIO, size: int, name: str) -> tuple[TiffPage, int]:
    """Choose the page to take, and count the full pictures in the file. Raises ImageError for a camera's raw file.

    It is the first full one; the thumbnail that some programs put before it is passed over, marked as one or not.
    """
    file.seek(0)
    head = file.read(16)
    pages = list(_pages(file, size, head))
    if head[8:10] == b"CR" or any(_is_raw(page) for page in pages):
        raise kinds.camera_raw(name)
    pages = [page for page in pages if page.pixels]
    if not pages:
        raise kinds.cut_off(name, "no picture is left in it") if _first(head) >= size else kinds.damaged(name)
    full = [page for page in pages if page.full] or pages
    first, largest = full[0], max(full, key=lambda page: page.pixels)
    if max(first.size) <= _THUMBNAIL and largest.pixels >= 4 * first.pixels:
        first = largest
    if not first.full:
        first = max(pages, key=lambda page: page.pixels)
    return first, sum(page.main for page in full if page.pixels * 4 > first.pixels)


def directory(data: bytes, offset: int | None = None) -> dict[int, tuple[int, ...]]:
    """Read the tags of a directory of EXIF data, the first one where no offset is given; empty where there is none."""
    file = io.BytesIO(data.removeprefix(b"Exif\0\0"))
    head = file.read(16)
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return {}
    offset = _first(head) if offset is None else offset
    return _page(file, offset, "<" if head[:2] == b"II" else ">", False, True)[0].tags


def values(file: BinaryIO, page: TiffPage, tag: int) -> tuple[int, ...]:
    """Read all integers of a tag, however many.

    Raises ValueError for more than a file can mean, and struct.error where the file is too short for them.
    """
    if tag not in page.long:
        return page.tags.get(tag, ())
    kind, count, start = page.long[tag]
    if count > _MOST_VALUES:
        raise ValueError("too many values")
    file.seek(start)
    return struct.unpack(f"{page.order}{count}{_LETTERS[kind]}", file.read(count * _SIZES[kind]))


def blob(file: BinaryIO, page: TiffPage, tag: int, most: int = 8_000_000) -> bytes | None:
    """Read the bytes of a tag, such as an ICC profile; None where there are none, or more than `most`."""
    if tag not in page.long:
        return bytes(page.tags[tag]) if page.tags.get(tag) else None
    kind, count, start = page.long[tag]
    if count * _SIZES[kind] > most:
        return None
    file.seek(start)
    data = file.read(count * _SIZES[kind])
    return data if len(data) == count * _SIZES[kind] else None


def piece_bytes(page: TiffPage, a_pixel: float) -> float:
    """Compute the bytes decompressed at once: of a tile or a strip, of one channel where planes are separate."""
    width, height = page.size
    if page.one(PLANAR, 1) == 2:
        a_pixel /= max(1, page.one(SAMPLES, 1))
    if TILE_WIDTH in page.tags:
        return a_pixel * page.one(TILE_WIDTH) * page.one(TILE_HEIGHT)
    return a_pixel * width * min(page.one(STRIP_ROWS, height) or height, height)


def is_cut(file: BinaryIO, page: TiffPage, size: int) -> bool:
    """Check whether the file ends before the page's data does."""
    try:
        starts = values(file, page, TILE_OFFSETS) or values(file, page, STRIP_OFFSETS)
        lengths = values(file, page, TILE_BYTES) or values(file, page, STRIP_BYTES)
    except (ValueError, struct.error):
        return True
    return any(start + length > size for start, length in zip(starts, lengths, strict=False))


def _is_raw(page: TiffPage) -> bool:
    return (
        bool({_DNG, _CFA_SIZE, _CFA_PATTERN} & set(page.tags))
        or page.one(PHOTOMETRIC) in _RAW_PHOTOMETRIC
        or page.one(COMPRESSION) in _RAW_COMPRESSION
    )


def _first(head: bytes) -> int:
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    return struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])[0] if len(head) >= 16 else 0


def _pages(file: BinaryIO, size: int, head: bytes) -> Iterator[TiffPage]:
    """Yield the pages of the main chain, each followed by those that hang below it (sub-IFDs)."""
    order, big, at = "<" if head[:2] == b"II" else ">", 43 in head[2:4], _first(head)
    seen: set[int] = set()
    waiting: list[int] = []
    while (at or waiting) and len(seen) < _MOST_PAGES:
        main = not waiting
        offset = at if main else waiting.pop(0)
        if offset in seen or not 0 < offset < size:
            at = 0 if main else at
            continue
        seen.add(offset)
        page, following = _page(file, offset, order, big, main)
        at = following if main else at
        if main:  # sub-IFDs of sub-IFDs are no picture of their own
            waiting = list(page.tags.get(SUB_IFDS, ()))
        yield page


def _page(file: BinaryIO, offset: int, order: str, big: bool, main: bool) -> tuple[TiffPage, int]:
    """Read the page whose directory lies at an offset; returns also the offset of the next one, 0 for none."""
    file.seek(offset)
    counting, entry, link = ("Q", 20, 8) if big else ("H", 12, 4)
    width = struct.calcsize("=" + counting)
    raw = file.read(width)
    if len(raw) < width:
        return TiffPage(offset, order, {}, {}, main), 0
    count = min(struct.unpack(order + counting, raw)[0], _MOST_ENTRIES)
    data = file.read(count * entry + link)
    tags: dict[int, tuple[int, ...]] = {}
    long: dict[int, tuple[int, int, int]] = {}
    for at in range(0, min(len(data) // entry, count) * entry, entry):
        tag, kind = struct.unpack(order + "HH", data[at : at + 4])
        number = struct.unpack(order + ("Q" if big else "I"), data[at + 4 : at + 4 + link])[0]
        field = data[at + 4 + link : at + entry]
        tags[tag] = ()
        if kind not in _LETTERS:
            continue
        if number * _SIZES[kind] > len(field):
            start = int.from_bytes(field, "little" if order == "<" else "big")
            if number > _FEW:
                long[tag] = (kind, number, start)
                continue
            file.seek(start)
            field = file.read(number * _SIZES[kind])
        if len(field) >= number * _SIZES[kind]:
            tags[tag] = struct.unpack(f"{order}{number}{_LETTERS[kind]}", field[: number * _SIZES[kind]])
    rest = data[count * entry :]
    return TiffPage(offset, order, tags, long, main), (
        struct.unpack(order + ("Q" if big else "I"), rest)[0] if len(rest) == link else 0
    )
