"""Small pictures of known colours, and files with what people's programs put beside a picture."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import ImageError
from engine.media.images import open_with_notices

COLOURS = np.array([[(200, 40, 40), (40, 160, 60), (50, 70, 190)], [(230, 170, 140), (128, 128, 128), (64, 64, 64)]])
PIXELS = np.repeat(np.repeat(COLOURS.astype(np.uint8), 40, 0), 40, 1)  # (80, 120, 3)
PRIMARIES = {
    "sRGB": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    "Adobe": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
    "2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
}
D65, D50 = np.array([0.95047, 1.0, 1.08883]), np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def patches() -> Image.Image:
    return Image.fromarray(PIXELS)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def error_of(path: Path, wanted: np.ndarray = PIXELS) -> float:
    """By how many levels the opened picture differs, on average."""
    found = np.asarray(open_with_notices(path).picture.convert("RGB")).astype(int)
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted.astype(int)).mean())


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        open_with_notices(path)
    return str(caught.value)


def chunk(kind: bytes, data: bytes, *, sound: bool = True) -> bytes:
    """A PNG's chunk, its checksum wrong where it is not `sound`."""
    check = zlib.crc32(kind + data) ^ (0 if sound else 1)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """The PNG with these before its pixels."""
    at = png.index(b"IDAT") - 4
    return png[:at] + b"".join(chunks) + png[at:]


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """The JPEG with these in front."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


# ---------------------------------------------------------------------------
# Colour spaces


def light(value: np.ndarray) -> np.ndarray:
    """sRGB's curve, from stored to light."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def stored(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 0) ** (1 / 2.4) - 0.055)


def to_xyz(space: str) -> np.ndarray:
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in PRIMARIES[space]]).T
    return columns * np.linalg.solve(columns, D65)


def encoded(space: str, curve=stored, pixels: np.ndarray = PIXELS) -> np.ndarray:
    """The patches' own colours in another space, from 0 to 1."""
    across = np.linalg.inv(to_xyz(space)) @ to_xyz("sRGB")
    return curve(np.clip(light(pixels / 255) @ across.T, 0, 1))


def eight(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values * 255), 0, 255).astype(np.uint8))


def gamma_curve(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


def srgb_curve() -> bytes:
    values = np.rint(65535 * light(np.linspace(0, 1, 1024))).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + values.tobytes()


def rgb_profile(space: str, curve: bytes, name: str, padding: int = 0) -> bytes:
    cones = np.diag((BRADFORD @ D50) / (BRADFORD @ D65))
    columns = np.linalg.inv(BRADFORD) @ cones @ BRADFORD @ to_xyz(space)
    tags = {b"rXYZ": columns[:, 0], b"gXYZ": columns[:, 1], b"bXYZ": columns[:, 2]}
    return _profile(b"RGB ", name, dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve), tags, padding)


def grey_profile(curve: bytes) -> bytes:
    return _profile(b"GRAY", "grey", {b"kTRC": curve}, {}, 0)


def _profile(space: bytes, name: str, curves: dict, points: dict, padding: int) -> bytes:
    text = name.encode("ascii") + b"\0"
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
            b"cprt": b"text\0\0\0\0none" + b"x" * padding + b"\0", **curves}  # fmt: skip
    for tag, values in {b"wtpt": D50, **points}.items():
        tags[tag] = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0\0\0\0", 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3i", *(round(float(value) * 65536) for value in D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
