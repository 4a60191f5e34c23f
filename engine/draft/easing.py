"""Curves of time: everything in a shot starts and stops softly."""

from __future__ import annotations

import math


def smooth(p: float) -> float:
    """Compute smootherstep (Perlin 2002): 0 to 1 with zero speed and acceleration at both ends; clamped outside."""
    p = min(max(p, 0.0), 1.0)
    return p * p * p * (p * (6 * p - 15) + 10)


def glide(p: float, ramp: float = 0.25) -> float:
    """Move from 0 to 1 at an even speed, with a soft start and stop that each last `ramp` (at most 0.5) of the time."""
    p = min(max(p, 0.0), 1.0)
    top = 1 / (1 - ramp)  # the even speed
    if p < ramp:
        return top * p * p / (2 * ramp)
    if p > 1 - ramp:
        return 1 - top * (1 - p) ** 2 / (2 * ramp)
    return top * (p - ramp / 2)


def fade(seconds: float, total: float, ramp: float = 0.7) -> float:
    """Compute a weight, 1 in the middle of a clip, eased from 0 at its start and to 0 at its end.

    `ramp` is the seconds that each takes, at most three tenths of the clip.
    """
    ramp = max(min(ramp, total * 0.3), 1e-6)
    return smooth(seconds / ramp) * smooth((total - seconds) / ramp)


def wave(cycles: float) -> float:
    """Compute the sine of a phase in cycles."""
    return math.sin(2 * math.pi * cycles)


def pulse(cycles: float) -> float:
    """Move from 0 to 1 and back in each cycle, smoothly (a raised cosine)."""
    return 0.5 - 0.5 * math.cos(2 * math.pi * cycles)
