"""How linear layers multiply whose weights are quantised: dequantised for each use, once for several, or in eight bits.

optimum-quanto dequantises at each use, and adds the bias in a pass of its own over the output. `Dequantising` lets the
matrix product add it; `widened` holds a layer's weight dequantised for as long as it is used again and again; `W8A8`
quantises the activations, too: a scale a token, by its largest magnitude at that moment, nothing calibrated. The
products are `torch._int_mm` and `torch._scaled_mm`; other libraries' layers would want the weights in a form of theirs,
and would not stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.nn.functional import linear

from engine.errors import EngineUnavailable
from engine.memory.card import ROWS

_LEAST = 17  # rows that torch._int_mm wants on a card
_MULTIPLE = {torch.int8: 8, torch.float8_e4m3fn: 16}  # of which a weight's rows and columns must be
_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
_FP8_CARD, _INT8_CARD = (8, 9), (8, 0)  # compute capabilities


class Dequantising(torch.nn.Linear):
    """A linear layer that dequantises its weight when it is used, and lets the matrix product add the bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply (..., in) to (..., out)."""
        return linear(x, _dequantised(self.weight), self.bias)


class W8A8(torch.nn.Linear):
    """A linear layer that multiplies in eight bits; dequantising where its shape or the input's does not suit that."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply (..., in) to (..., out)."""
        flat = x.reshape(-1, x.shape[-1])
        if not _suits(self.weight, len(flat)):
            return linear(x, _dequantised(self.weight), self.bias)
        if torch.compiler.is_compiling():  # which fuses the scaling, and makes no int32 matrix
            return _product(flat, self.weight, self.bias).view(*x.shape[:-1], -1)
        out = flat.new_empty(len(flat), self.out_features)
        for start in range(0, len(flat), ROWS):
            out[start : start + ROWS] = _product(flat[start : start + ROWS], self.weight, self.bias)
        return out.view(*x.shape[:-1], -1)


def is_quantised(layer: torch.nn.Module) -> bool:
    """Return whether a linear layer's weight is quantised."""
    return hasattr(layer._parameters.get("weight"), "_scale")


@contextlib.contextmanager
def multiplying(layers: Iterable[torch.nn.Module], kind: type[Dequantising | W8A8]) -> Iterator[None]:
    """Let those of the linear layers whose weights are quantised multiply as `kind` does until exit. Their class is
    exchanged, not a function of each: so one compiled graph serves the same layer of all blocks."""
    changed = [layer for layer in layers if type(layer) is torch.nn.Linear and is_quantised(layer)]
    try:
        for layer in changed:
            layer.__class__ = kind
        yield
    finally:
        for layer in changed:
            layer.__class__ = torch.nn.Linear


@contextlib.contextmanager
def widened(*layers: Any) -> Iterator[None]:
    """Hold the quantised weights of linear layers dequantised until exit; layers that multiply in eight bits keep
    theirs, where they can."""
    before = []
    try:
        for layer in layers:
            if is_quantised(layer) and not (isinstance(layer, W8A8) and _suits(layer.weight, _LEAST)):
                before.append((layer, layer._parameters["weight"]))
                whole = _dequantised(layer.weight)
                layer._parameters["weight"] = torch.nn.Parameter(whole, requires_grad=False)
        yield
    finally:
        for layer, weight in before:
            layer._parameters["weight"] = weight


def check_w8a8(device: torch.device, precision: str) -> None:
    """Raise EngineUnavailable where a card does not multiply in these eight bits; a processor does in any case."""
    if device.type == "cuda" and torch.version.hip is None and not can_w8a8(
        torch.cuda.get_device_capability(device), precision
    ):  # fmt: skip
        needed = "an RTX 40 or newer" if precision == "fp8" else "an RTX 30 or newer"
        raise EngineUnavailable(
            f"--w8a8 with {precision} needs {needed}: {torch.cuda.get_device_name(device)} does not multiply in it",
            "Leave it out: the weights stay in 8 bits all the same.",
        )


def can_w8a8(capability: tuple[int, int], precision: str) -> bool:
    """Return whether a card of this compute capability multiplies in these eight bits."""
    return capability >= (_FP8_CARD if precision == "fp8" else _INT8_CARD)


def _dequantised(weight: Any) -> torch.Tensor:
    """Return a weight in the type of its scales; one that is not quantised as it is."""
    if not hasattr(weight, "_scale"):
        return weight  # type: ignore[no-any-return]  # a tensor, if not one of the library's
    data, scale = weight._data, weight._scale
    if data.dtype == torch.int8:
        whole: torch.Tensor = data * scale  # in one pass
        return whole
    return data.to(scale.dtype).mul_(scale)  # type: ignore[no-any-return]  # the same


def _suits(weight: Any, rows: int) -> bool:
    if not hasattr(weight, "_scale") or rows < _LEAST:
        return False
    multiple = _MULTIPLE[weight._data.dtype]
    return all(size % multiple == 0 for size in weight._data.shape)


def _product(x: torch.Tensor, weight: Any, bias: torch.Tensor | None) -> torch.Tensor:
    """Multiply (rows, in) by a quantised weight (out, in) in eight bits; (rows, out) of x's type."""
    kind, largest = weight._data.dtype, _LARGEST[weight._data.dtype]
    scale = x.abs().amax(dim=-1, keepdim=True).float().div(largest).clamp_min(1e-12)
    scaled = x / scale  # float32
    quantised = (scaled.round_() if kind == torch.int8 else scaled).to(kind)
    del scaled
    if kind == torch.int8:
        product = torch.mul(torch._int_mm(quantised, weight._data.t()), scale)
    else:
        product = _fp8_product(quantised, weight._data).mul_(scale)
    product.mul_(weight._scale.t().float())
    return (product if bias is None else product.add_(bias)).to(x.dtype)


def _fp8_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply (rows, in) and (out, in) of fp8 to (rows, out) float32; where there is no such card, by way of
    float32."""
    if x.device.type != "cuda":
        return x.float() @ weight.float().t()
    one = torch.ones((), device=x.device)
    return torch._scaled_mm(x, weight.t(), one, one, out_dtype=torch.float32, use_fast_accum=True)
