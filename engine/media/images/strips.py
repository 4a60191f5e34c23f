"""TIFFs of kinds that Pillow lacks, or gets wrong: deep samples channel by channel, colours as floats, CMYK with alpha.

Pillow 12 reads 16-bit planes that are not compressed as if they had 8 bits, and 16-bit grey whose 0 is white as if it
were black. Here the samples come out as they are stored.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from engine.media.images import kinds, tiff
from engine.media.images.tiff import TiffPage

_PACKINGS = {1: "none", 8: "ZIP", 32946: "ZIP"}
_NAMES = {5: "LZW", 7: "JPEG", 34925: "LZMA", 50000: "ZSTD", 50001: "WebP", 34712: "JPEG 2000", 32773: "PackBits"}
_COLOURS = {0: ("L", 1), 1: ("L", 1), 2: ("RGB", 3), 5: ("CMYK", 4)}
_PLACED, _ASSOCIATED, _STRAIGHT = 2, 1, 2


@dataclass(frozen=True)
class Samples:
    """How a page's samples are stored. `mode` L, RGB or CMYK; `alpha`: whether the channel after them is one;
    `associated`: the colours are premultiplied by it; `inverted`: 0 is white."""

    mode: str
    alpha: bool
    associated: bool
    channels: int
    kind: np.dtype
    inverted: bool

    @property
    def bytes_a_pixel(self) -> int:
        return self.channels * self.kind.itemsize


def pillow_is_wrong(page: TiffPage) -> bool:
    """Check whether Pillow would open this page, but decode it wrongly."""
    deep = max(page.tags.get(tiff.BITS, (1,)), default=1) > 8
    planes = page.one(tiff.PLANAR, 1) == _PLACED and page.one(tiff.SAMPLES, 1) > 1
    return deep and ((planes and page.one(tiff.COMPRESSION, 1) == 1) or page.one(tiff.PHOTOMETRIC, 1) == 0)


def samples_of(page: TiffPage, name: str) -> Samples:
    """Read how the page's samples are stored.

    Raises ImageError, which says what the page is, where it cannot be read here either.
    """
    bits, formats = page.tags.get(tiff.BITS, (1,)), page.tags.get(tiff.FORMAT, (1,)) or (1,)
    count, photometric = page.one(tiff.SAMPLES, 1), page.one(tiff.PHOTOMETRIC, 1)
    packing = page.one(tiff.COMPRESSION, 1)
    remedy = "Save it as 8-bit PNG, or as TIFF with 8 or 16 bits a channel, interleaved, without compression."
    if photometric not in _COLOURS or count < _COLOURS[photometric][1]:
        raise kinds.unsupported(name, f"a TIFF of an uncommon kind (photometric interpretation {photometric})", remedy)
    letter = {1: "u", 3: "f"}.get(formats[0])
    known = letter and len({*bits}) == 1 and (letter, bits[0]) in (
        ("u", 8), ("u", 16), ("u", 32), ("f", 16), ("f", 32), ("f", 64),
    )  # fmt: skip
    if not known:
        raise kinds.unsupported(name, f"a TIFF with {_numbers(bits, formats[0])} a channel", remedy)
    if packing not in _PACKINGS:
        how = _NAMES.get(packing, f"method {packing}")
        what = "floats" if letter == "f" else f"{bits[0]} bits"
        raise kinds.unsupported(name, f"a TIFF with {what} a channel under {how} compression", remedy)
    mode, own = _COLOURS[photometric]
    extra = (page.tags.get(tiff.EXTRA) or (0,))[0]
    alpha = count > own and extra in (_ASSOCIATED, _STRAIGHT)
    kind = np.dtype(f"{page.order}{letter}{bits[0] // 8}")
    return Samples(mode, alpha, alpha and extra == _ASSOCIATED, count, kind, photometric == 0)


def _numbers(bits: tuple[int, ...], sample_format: int) -> str:
    how = {2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}.get(sample_format, "")
    return f"{'/'.join(map(str, sorted({*bits})))} {how}bits"


def copies(page: TiffPage, size: int, samples: Samples) -> float:
    """Estimate the bytes held at once beside the picture: a strip, as it was packed, and without its predictor."""
    piece = tiff.piece_bytes(page, samples.bytes_a_pixel)
    packed = min(size, 2 * piece) if page.one(tiff.COMPRESSION, 1) != 1 else 0
    return packed + piece * (3 if page.one(tiff.PREDICTOR, 1) > 1 else 1)


def read(file: BinaryIO, page: TiffPage, samples: Samples, name: str) -> np.ndarray:
    """Decode the page's samples, (H, W, C): its colours, and its alpha where it has one. Raises ImageError."""
    width, height = page.size
    planes = page.one(tiff.PLANAR, 1) == _PLACED and samples.channels > 1
    tiled = tiff.TILE_WIDTH in page.tags
    if tiled:
        across, down = page.one(tiff.TILE_WIDTH), page.one(tiff.TILE_HEIGHT)
    else:
        across, down = width, min(page.one(tiff.STRIP_ROWS, height) or height, height)
    if not (0 < across <= 2 * width + 4096 and 0 < down <= 2 * height + 4096):
        raise kinds.damaged(name)
    starts = tiff.values(file, page, tiff.TILE_OFFSETS if tiled else tiff.STRIP_OFFSETS)
    lengths = tiff.values(file, page, tiff.TILE_BYTES if tiled else tiff.STRIP_BYTES)
    depth = 1 if planes else samples.channels
    columns, rows = -(-width // across), -(-height // down)
    if len(starts) < columns * rows * (samples.channels if planes else 1):
        raise kinds.damaged(name)
    wanted = len(samples.mode) + samples.alpha
    picture = np.empty((height, width, wanted), samples.kind.newbyteorder("="))
    for plane in range(wanted if planes else 1):
        for number in range(columns * rows):
            top, left = number // columns * down, number % columns * across
            tall = down if tiled else min(down, height - top)
            index = plane * columns * rows + number
            size = tall * across * depth * samples.kind.itemsize
            data = _unpacked(file, page, starts[index], lengths[index] if index < len(lengths) else size, size, name)
            block = _unpredicted(data, page, samples.kind, (tall, across, depth))
            into = picture[top : top + tall, left : left + across]
            block = block[: into.shape[0], : into.shape[1]]
            if planes:
                into[..., plane] = block[..., 0]
            else:
                into[...] = block[..., :wanted]
    return picture


def _unpacked(file: BinaryIO, page: TiffPage, start: int, length: int, size: int, name: str) -> bytes:
    file.seek(start)
    data = file.read(min(length, 2 * size + 4096))
    if page.one(tiff.COMPRESSION, 1) != 1:
        data = zlib.decompressobj().decompress(data, size)
    if len(data) < size:
        raise kinds.cut_off(name, "some of its rows are missing")
    return data[:size]


def _unpredicted(data: bytes, page: TiffPage, kind: np.dtype, shape: tuple[int, int, int]) -> np.ndarray:
    """Undo the predictor, differences between neighbours (TIFF 6.0, section 14; Adobe's note 3), where there is one."""
    rows, across, depth = shape
    predictor = page.one(tiff.PREDICTOR, 1) if page.one(tiff.COMPRESSION, 1) != 1 else 1
    if predictor == 3:  # the bytes of all floats of a row, the highest first, then differences
        raw = np.frombuffer(data, np.uint8).reshape(rows, kind.itemsize * across, depth)
        raw = np.cumsum(raw, axis=1, dtype=np.uint8).reshape(rows, kind.itemsize, across * depth)
        high_first = np.ascontiguousarray(raw.transpose(0, 2, 1))
        return high_first.view(kind.newbyteorder(">")).reshape(shape)
    values = np.frombuffer(data, kind).reshape(shape)
    if predictor == 2:
        whole = np.dtype(f"u{kind.itemsize}")
        return np.cumsum(values.view(whole.newbyteorder(kind.byteorder)), axis=1, dtype=whole).view(
            kind.newbyteorder("=")
        )
    return values
