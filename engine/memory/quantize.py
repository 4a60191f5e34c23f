"""Linear weights in one byte each, with a scale a row: int8, or fp8 (e4m3), as optimum-quanto computes with them.

Symmetric, by each row's largest magnitude. Nothing is calibrated, and activations are not quantised. A weight is
dequantised when it is multiplied, so results agree between machines as far as those of a float multiplication do.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from engine.errors import EngineUnavailable
from engine.words import USE_THE_DRAFT

if TYPE_CHECKING:
    import torch

EightBit = Literal["int8", "fp8"]

_QTYPES = {"int8": "qint8", "fp8": "qfloat8_e4m3fn"}
_PIECE = 8_000_000  # weights that are quantised at a time: a few copies of them in float32 exist then


def check_quanto(precision: str) -> None:
    """Raise EngineUnavailable where optimum-quanto is missing. Imports nothing."""
    if importlib.util.find_spec("optimum") is None or importlib.util.find_spec("optimum.quanto") is None:
        raise EngineUnavailable(
            f"--precision {precision} needs optimum-quanto, which is not installed here",
            f"Install with: python -m pip install -r requirements-a2.txt, or use bf16, {USE_THE_DRAFT}.",
        )


@contextlib.contextmanager
def _plain_names(torch: Any) -> Iterator[None]:
    """Show the library only such names of cards as it can read, while it is imported: some builds of PyTorch are made
    for "sm_90a", too, of which it takes the number."""
    listed = torch.cuda.get_arch_list
    torch.cuda.get_arch_list = lambda: [name for name in listed() if name.rpartition("_")[2].isdecimal()]
    try:
        yield
    finally:
        torch.cuda.get_arch_list = listed


def _quanto() -> Any:
    if (there := sys.modules.get("optimum.quanto")) is not None:
        return there
    import torch

    with _plain_names(torch):
        return importlib.import_module("optimum.quanto")


def quantised_weights(module: torch.nn.Module, blocks: str) -> set[str]:
    """Return the names of the parameters to quantise: the weights of the blocks' linear layers. `blocks` is the prefix
    of the names in a block, such as "blocks."."""
    import torch

    return {
        f"{name}.weight"
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear) and name.startswith(blocks) and part.out_features > 1
    }


def stored_type(precision: EightBit) -> torch.dtype:
    dtype: torch.dtype = _qtype(precision).dtype
    return dtype


def quantise(weight: torch.Tensor, precision: EightBit, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise a (rows, columns) weight to (rows, columns) of one byte and (rows, 1) scales of `dtype`. The scales are
    rounded first, so that the bytes make up for it. Works piece by piece: a row's result depends on nothing but the
    row."""
    import torch

    qtype, (rows, _) = _qtype(precision), weight.shape
    data = torch.empty(weight.shape, dtype=qtype.dtype)
    scale = torch.empty((rows, 1), dtype=dtype)
    pieces = max(1, min(rows // 2, -(-weight.numel() // _PIECE)))  # of two rows at least: the library wants it so
    for piece, bytes_, scales in zip(*(each.tensor_split(pieces) for each in (weight, data, scale)), strict=True):
        piece = piece.float()
        scales.copy_(_quanto().AbsmaxOptimizer()(piece, qtype, 0))
        scales[scales == 0] = 1  # a row of zeros: 0 / 0 would be no number
        bytes_.copy_(torch.ops.quanto.quantize_symmetric(piece, qtype.dtype, 0, scales.float()))
    return data, scale


def as_weight(data: torch.Tensor, scale: torch.Tensor, precision: EightBit) -> torch.nn.Parameter:
    """Make the parameter of a `torch.nn.Linear` that computes with quantised weights; `data` and `scale` are kept as
    they are, memory-mapped or not, in its `_data` and `_scale`. It is always the class that works everywhere: the one
    that the library itself would choose compiles a kernel on the person's machine."""
    import torch

    shape, stride = data.size(), data.stride()
    weight = _quanto().WeightQBytesTensor(_qtype(precision), 0, shape, stride, data, scale, None)
    return torch.nn.Parameter(weight, requires_grad=False)


def _qtype(precision: EightBit) -> Any:
    return _quanto().qtypes[_QTYPES[precision]]
