"""How a clip is run, and what the weights take then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.a2.geometry import Tiling
from engine.a2.options import Precision
from engine.a2.plan.shapes import ParameterCount


@dataclass(frozen=True)
class RunSettings:
    """How to run. `host` is where the blocks wait that are not resident; `chunk`: tokens at a time, 0: all; `tiling` is
    the decoder's; `encode_tiled`: the VAE encodes in tiles; `together`: all components stay loaded, not each in turn.
    """

    device: str
    precision: Precision
    offload: Literal["none", "blocks"]
    resident: int
    host: Literal["none", "pinned", "pageable", "mapped"]
    batched: bool
    chunk: int
    tiling: Tiling | None
    encode_tiled: bool
    together: bool


def number_bytes(precision: Precision) -> int:
    """Return the bytes of one number that is computed with."""
    return 4 if precision == "fp32" else 2


def blocks_bytes(weights: ParameterCount, precision: Precision) -> int:
    """Compute the bytes of all blocks of a component that may be quantised."""
    each = number_bytes(precision)
    linear = weights.linear + weights.rows * each if precision in ("int8", "fp8") else weights.linear * each
    return linear + weights.small * each


def block_bytes(weights: ParameterCount, precision: Precision) -> int:
    return -(-blocks_bytes(weights, precision) // weights.blocks)


def weight_bytes(weights: ParameterCount, precision: Precision) -> int:
    return blocks_bytes(weights, precision) + weights.outside * number_bytes(precision)
