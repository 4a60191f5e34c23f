"""What an ICC profile holds (ICC.1:2010), read as far as its numbers are simple: curves, and a `cicp` tag."""

from __future__ import annotations

import struct

import numpy as np

from engine.media.images.spaces import Curve


def space_of(profile: bytes) -> str:
    """Return the colour space that an ICC profile is for, such as "RGB", "GRAY" or "CMYK"; "" for anything else."""
    return profile[16:20].decode("latin-1").strip() if profile[36:40] == b"acsp" else ""


def cicp_of(profile: bytes) -> tuple[int, int] | None:
    """Read primaries and transfer function from the `cicp` tag (version 4.4), as HDR pictures have it; else None."""
    data = _tag(profile, b"cicp")
    return (data[8], data[9]) if len(data) >= 12 else None


def curve_of(profile: bytes) -> Curve | None:
    """Read the one tone curve of a profile, grey or with three primaries; None for tables or differing curves."""
    names = (b"kTRC",) if space_of(profile) == "GRAY" else (b"rTRC", b"gTRC", b"bTRC")
    found = [_tag(profile, name) for name in names]
    if not all(found) or any(_tag(profile, name) for name in (b"A2B0", b"A2B1")) or len(set(found)) > 1:
        return None
    return _curve(found[0])


def with_curve(profile: bytes, curve: bytes) -> bytes:
    """Replace the profile's tone curves by another one, the data of a `curv` tag."""
    names = (b"kTRC", b"rTRC", b"gTRC", b"bTRC")
    count, tail = struct.unpack(">I", profile[128:132])[0], len(profile)
    table = bytearray(profile[:132])
    for number in range(count):
        entry = profile[132 + 12 * number : 144 + 12 * number]
        changed = entry[:4] + struct.pack(">II", tail, len(curve)) if entry[:4] in names else entry
        table += changed
    whole = bytes(table) + profile[len(table) :] + curve
    return struct.pack(">I", len(whole)) + whole[4:]


def _tag(profile: bytes, name: bytes) -> bytes:
    count = min(int.from_bytes(profile[128:132], "big"), 200)
    for number in range(count):
        entry = profile[132 + 12 * number : 144 + 12 * number]
        if len(entry) == 12 and entry[:4] == name:
            start, length = struct.unpack(">II", entry[4:])
            return profile[start : start + length]
    return b""


def _curve(data: bytes) -> Curve | None:
    if data[:4] == b"curv" and len(data) >= 12:
        count = int.from_bytes(data[8:12], "big")
        if count == 0:
            return lambda value: value
        if count == 1 and len(data) >= 14:
            exponent = int.from_bytes(data[12:14], "big") / 256
            return lambda value: np.power(value, exponent)
        points = np.frombuffer(data[12 : 12 + 2 * count], ">u2") / 65535 if len(data) >= 12 + 2 * count else None
        return None if points is None else lambda value: np.interp(value, np.linspace(0, 1, count), points)
    if data[:4] == b"para" and len(data) >= 16:
        kind = int.from_bytes(data[8:10], "big")
        few = (1, 3, 4, 5, 7)[kind] if kind < 5 else 0
        if few and len(data) >= 12 + 4 * few:
            return _parametric(kind, [value / 65536 for value in struct.unpack(f">{few}i", data[12 : 12 + 4 * few])])
    return None


def _parametric(kind: int, given: list[float]) -> Curve:
    """Build the curve of a function type, 0 to 4, of `parametricCurveType`."""
    g, a, b, c, d, e, f = (*given, *[0.0] * (7 - len(given)))
    if kind == 0:
        return lambda value: np.power(value, g)
    if kind in (1, 2):
        d, low, add = -b / a if a else 0.0, 0.0, c if kind == 2 else 0.0
        return lambda value: np.where(value >= d, np.power(np.maximum(a * value + b, 0), g) + add, low + add)
    add, low = (e, f) if kind == 4 else (0.0, 0.0)
    return lambda value: np.where(value >= d, np.power(np.maximum(a * value + b, 0), g) + add, c * value + low)
