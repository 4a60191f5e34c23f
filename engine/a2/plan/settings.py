"""How a clip is run, and what the weights take then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.a2.geometry import Tiling
from engine.a2.options import Precision
from engine.a2.plan.shapes import ParameterCount

PADDING = 64 * 256  # bytes a block: its tensors begin at multiples of 256 where it streams


@dataclass(frozen=True)
class RunSettings:
    """How to run. `number` is the bytes of a number that the transformer computes with, `text_number` of one of the
    text encoder's; `host` is
    where the `streamed` blocks wait that are not resident: `in_memory` of them in memory, the others in the file;
    `chunk`: tokens at a time, 0: all; `tiling` is the decoder's; `encode_tiled`: the VAE encodes in tiles; `together`:
    all components stay loaded, not each in turn; `keep_context`: the context's keys and values stay over a run.
    """

    device: str
    precision: Precision
    number: int
    offload: Literal["none", "blocks"]
    resident: int
    host: Literal["none", "pinned", "pageable", "mapped"]
    batched: bool
    chunk: int
    tiling: Tiling | None
    encode_tiled: bool
    together: bool
    streamed: int = 0
    in_memory: int = 0
    text_number: int = 0  # 0: as the transformer's
    keep_context: bool = False

    @property
    def of_text(self) -> int:
        """The bytes of a number that the text encoder computes with."""
        return self.text_number or self.number

    @property
    def from_disk(self) -> bool:
        """Whether some of the transformer's blocks are read from the disk each time."""
        return self.host != "none" and self.in_memory < self.streamed

    @property
    def quantised(self) -> bool:
        return self.precision in ("int8", "fp8")


def number_bytes(precision: Precision, device: str) -> int:
    """Return the bytes of one number that the transformer computes with: on a processor, 8-bit weights are computed
    with in float32."""
    if precision in ("int8", "fp8"):
        return 2 if device != "cpu" else 4
    return 4 if precision == "fp32" else 2


def blocks_bytes(weights: ParameterCount, precision: Precision, number: int) -> int:
    """Compute the bytes of all blocks of a component that may be quantised."""
    linear = weights.linear + weights.rows * number if precision in ("int8", "fp8") else weights.linear * number
    return linear + weights.small * number + weights.single * (4 - number)


def block_bytes(weights: ParameterCount, settings: RunSettings, number: int = 0) -> int:
    """Compute the bytes of one block, computed with in numbers of so many bytes (0: the transformer's)."""
    return -(-blocks_bytes(weights, settings.precision, number or settings.number) // weights.blocks) + PADDING


def outside_bytes(weights: ParameterCount, number: int) -> int:
    """Compute the bytes of what is before and after the blocks."""
    return weights.outside * number + weights.single_outside * (4 - number)


def weight_bytes(weights: ParameterCount, precision: Precision, number: int) -> int:
    return blocks_bytes(weights, precision, number) + outside_bytes(weights, number)
