"""Colour spaces by their numbers: primaries and curves (ITU-T H.273, PNG, DCF), and as ICC profiles."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

Curve = Callable[[np.ndarray], np.ndarray]  # stored value -> light, both from 0 to 1

_SDR_WHITE = 203.0  # cd/m² of diffuse white in HDR (ITU-R BT.2408)
_KNEE = 0.5  # of that: darker values stay, brighter ones are compressed (tone mapping)
_DISPLAY_LIKE = 0.1  # how far 0.5 may move on the way to sRGB before 8 bits are too few
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Chroma = tuple[float, ...]  # x, y of white, red, green, blue
_D65 = (0.3127, 0.3290)
SRGB: Chroma = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE: Chroma = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_PRIMARIES: dict[int, Chroma] = {
    1: SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}


def srgb_light(value: np.ndarray) -> np.ndarray:
    """Apply sRGB's transfer function (IEC 61966-2-1): stored value to light."""
    return np.where(value <= 0.04045, value / 12.92, ((np.maximum(value, 0) + 0.055) / 1.055) ** 2.4)


def srgb_stored(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _gamma(exponent: float) -> Curve:
    return lambda value: np.power(value, exponent)


def _smpte240(value: np.ndarray) -> np.ndarray:
    return np.where(value < 0.0913, value / 4, ((value + 0.1115) / 1.1115) ** (1 / 0.45))


def _pq(value: np.ndarray) -> np.ndarray:
    """Apply the PQ transfer function (SMPTE ST 2084, to 10,000 cd/m²): diffuse white is 1, highlights compressed."""
    root = np.power(value, 1 / 78.84375)
    nits = 10_000 * np.power(np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root), 1 / 0.1593017578125)
    return _toned(nits / _SDR_WHITE)


def _hlg(value: np.ndarray) -> np.ndarray:
    """Apply the HLG transfer function (ARIB STD-B67) for a display of 1,000 cd/m².

    ITU-R BT.2100 gives that a system gamma of 1.2.
    """
    scene = np.where(value <= 0.5, value**2 / 3, (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return _toned(1000 * np.power(scene, 1.2) / _SDR_WHITE)


def _toned(light: np.ndarray) -> np.ndarray:
    return np.where(light <= _KNEE, light, 1 - (1 - _KNEE) * np.exp((_KNEE - light) / (1 - _KNEE)))


# Television's transfer functions (1, 6, 11, 12, 14, 15) are those of cameras; displays, and browsers, show them with a
# gamma of 2.4 (ITU-R BT.1886).
_TRANSFERS: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), _gamma(2.4)),
    4: _gamma(2.2), 5: _gamma(2.8), 7: _smpte240, 8: lambda value: value, 13: srgb_light, 16: _pq,
    17: lambda value: np.power(value, 2.6) * (52.37 / 48), 18: _hlg,
}  # fmt: skip
HDR = {16, 18}


@dataclass(frozen=True)
class Space:
    """A colour space of three primaries, white, and one transfer function for all three channels."""

    chroma: Chroma
    curve: Curve
    hdr: bool = False

    def table(self, levels: int) -> np.ndarray:
        """Compute the lookup table, (levels,) uint8, from stored values to those of sRGB's transfer function.

        The primaries stay the same.
        """
        light = self.curve(np.linspace(0, 1, levels))
        stored: np.ndarray = np.rint(255 * srgb_stored(light)).astype(np.uint8)
        return stored

    @property
    def needs_depth(self) -> bool:
        """Whether eight bits are too few for its transfer function: linear light, or HDR."""
        middle = srgb_stored(self.curve(np.array([0.5])))[0]
        return self.hdr or abs(middle - 0.5) > _DISPLAY_LIKE

    @property
    def same_primaries(self) -> bool:
        return bool(np.abs(np.subtract(self.chroma, SRGB)).max() < 0.002)

    def profile(self) -> bytes:
        """Return an ICC profile of these primaries with sRGB's transfer function."""
        return _profile(self.chroma)


def of_cicp(primaries: int, transfer: int) -> Space | None:
    """Return the colour space that two code points of H.273 name; None where one is unknown or "unspecified"."""
    if transfer not in _TRANSFERS or (primaries not in _PRIMARIES and transfer not in HDR):
        return None
    return Space(_PRIMARIES.get(primaries, _PRIMARIES[9]), _TRANSFERS[transfer], transfer in HDR)


def of_png(gamma: float, chroma: Chroma | None) -> Space | None:
    """Return the colour space of PNG's gAMA and cHRM; None for a gamma that nothing is stored with."""
    if not 0.1 <= gamma <= 10:
        return None
    if chroma is None or not all(0 <= value <= 1 for value in chroma) or min(chroma[1::2]) <= 0:
        chroma = SRGB
    if abs(gamma - 0.45455) < 0.0005:  # what writers store for sRGB
        return Space(chroma, srgb_light)
    return Space(chroma, _gamma(1 / gamma))


def adobe_rgb() -> Space:
    """Return Adobe RGB (1998)."""
    return Space(_ADOBE, _gamma(563 / 256))


def srgb() -> Space:
    return Space(SRGB, srgb_light)


@cache
def _profile(chroma: Chroma) -> bytes:
    """Build an ICC profile, version 2, of three primaries and sRGB's transfer function, adapted to D50 (Bradford)."""
    points = [np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in zip(chroma[::2], chroma[1::2], strict=True)]
    white, columns = points[0], np.array(points[1:]).T
    columns = columns * np.linalg.solve(columns, white)
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    columns = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ columns
    values = np.rint(65535 * srgb_light(np.linspace(0, 1, 1024))).astype(">u2").tobytes()
    curve = b"curv\0\0\0\0" + struct.pack(">I", 1024) + values
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78), b"cprt": b"text\0\0\0\0\0",
            b"wtpt": _xyz(_D50), b"rXYZ": _xyz(columns[:, 0]), b"gXYZ": _xyz(columns[:, 1]),
            b"bXYZ": _xyz(columns[:, 2]), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}  # fmt: skip
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _xyz(_D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))
