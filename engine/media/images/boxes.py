"""HEIF and AVIF: what their boxes say of the main picture's colours (ISO/IEC 14496-12 and 23008-12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from engine.media.images import kinds

_TELEVISION, _SRGB_CURVE = (1, 6, 14, 15), 13
_MOST_META = 4_000_000  # bytes
_MOST_BOXES = 100_000


def meta_of(file: BinaryIO, size: int, name: str) -> bytes:
    """Read the content of the file's `meta` box; empty where there is none.

    Raises ImageError where the file is shorter than its boxes say.
    """
    at, meta = 0, b""
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            break
        length, kind, skip = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:
            length, skip = int.from_bytes(head[8:16], "big"), 16
        length = length or size - at
        if length < skip or not kind.isascii():
            break  # no valid box: leave the rest to the decoder
        if at + length > size and kind in (b"meta", b"mdat", b"moov", b"idat"):
            raise kinds.cut_off(name)
        if kind == b"meta" and not meta:
            file.seek(at + skip)
            meta = file.read(min(length - skip, _MOST_META))
        at += length
    return meta


def cicp_of(meta: bytes) -> tuple[int, int] | None:
    """Read primaries and transfer function (ITU-T H.273) from the main picture's `colr` box (nclx); else None."""
    for kind, data in _main_properties(meta):
        if kind == b"colr" and data[:4] == b"nclx" and len(data) >= 8:
            return as_still(int.from_bytes(data[4:6], "big"), int.from_bytes(data[6:8], "big"))
    return None


def as_still(primaries: int, transfer: int) -> tuple[int, int]:
    """Replace television's transfer function by sRGB's, for a photo.

    Encoders made for video tag pictures with it that were in sRGB, and browsers show them so.
    """
    return primaries, _SRGB_CURVE if transfer in _TELEVISION else transfer


def planes_of(meta: bytes) -> float:
    """Return the bytes a pixel of an AVIF's decoded planes: 1.5 for 4:2:0 with 8 bits; 6, the most, if unknown."""
    for kind, data in _main_properties(meta):
        if kind == b"av1C" and len(data) >= 3:
            chroma = 0.0 if data[2] & 0x10 else 2 / ((1 + (data[2] >> 3 & 1)) * (1 + (data[2] >> 2 & 1)))
            return (1 + chroma) * (2 if data[2] & 0x40 else 1)
    return 6.0


def _main_properties(meta: bytes) -> list[tuple[bytes, bytes]]:
    """Return the boxes, as (type, content), that describe the main picture.

    Those of all pictures where the file does not say which are its own.
    """
    properties: dict[bytes, bytes] = {}
    try:
        inner = dict(_boxes(meta[4:]))
        properties = dict(_boxes(inner[b"iprp"]))
        kept = list(_boxes(properties[b"ipco"]))
        main = int.from_bytes(inner[b"pitm"][4 : 8 if inner[b"pitm"][0] else 6], "big")
        return [kept[number - 1] for number in _properties_of(main, properties[b"ipma"])]
    except (KeyError, IndexError, ValueError):
        return list(_boxes(properties.get(b"ipco", b"")))


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        if length < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length


def _properties_of(item: int, ipma: bytes) -> list[int]:
    """Read the numbers, from 1, of an item's properties from the content of an `ipma` box."""
    version, wide, at = ipma[0], ipma[3] & 1, 8
    for _ in range(int.from_bytes(ipma[4:8], "big")):
        long = 4 if version else 2
        found, count, at = int.from_bytes(ipma[at : at + long], "big"), ipma[at + long], at + long + 1
        step, bits = (2, 0x7FFF) if wide else (1, 0x7F)
        if found == item:
            return [int.from_bytes(ipma[at + n * step : at + (n + 1) * step], "big") & bits for n in range(count)]
        at += count * step
    return []
