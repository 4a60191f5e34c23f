"""Where and how the model computes: device, precision, and what waits on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.a2.options import A2Options, Precision
from engine.errors import EngineUnavailable
from engine.memory.hardware import has_bf16, too_old
from engine.memory.quantize import EightBit, check_quanto
from engine.words import USE_THE_DRAFT

if TYPE_CHECKING:
    import torch


_SINGLE = 4  # bytes


@dataclass(frozen=True)
class Compute:
    """Where and how the model computes. `dtype` is the transformer's and the text encoder's; modules that their authors
    keep in float32 stay so, and the image encoder is float32 throughout, as is the VAE unless options say otherwise.
    `quantised` is how these two's weights are stored; None: in `dtype`. A text encoder of this kind is not computed in
    float16, which it overflows, but in float32."""

    device: torch.device
    dtype: torch.dtype
    quantised: EightBit | None = None

    def dtype_of(self, component: str) -> torch.dtype:
        """Return what a component computes in: the transformer, or the text encoder."""
        import torch

        return torch.float32 if component == "text_encoder" and self.dtype == torch.float16 else self.dtype

    @property
    def precision(self) -> Precision:
        """How the weights are stored, in a word."""
        return self.quantised or ("fp32" if self.dtype.itemsize == _SINGLE else "bf16")

    def __str__(self) -> str:
        """Return what results depend on: hardly on the device, and not on where the weights wait."""
        return f"{self.quantised} {self.dtype}" if self.quantised else str(self.dtype)


def choose_compute(options: A2Options) -> Compute:
    """Choose the device and precision that were asked for, or the best there is. Raises EngineUnavailable where they
    cannot be used."""
    import torch

    cuda = torch.cuda.is_available()
    name = options.device or ("cuda" if cuda else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EngineUnavailable(f"there is no device {name!r}", "Use cpu, cuda or cuda:1.") from None
    if device.type not in ("cpu", "cuda"):
        raise EngineUnavailable(f"the a2 engine does not run on {name!r}", "Use cpu, cuda or cuda:1.")
    if device.type == "cuda" and not (cuda and (device.index or 0) < torch.cuda.device_count()):
        count = torch.cuda.device_count() if cuda else 0
        raise EngineUnavailable(
            f"--device {name}: PyTorch sees {count or 'no'} CUDA device{'s' * (count != 1)} here",
            f"Check the driver and that PyTorch was installed with CUDA, {USE_THE_DRAFT}.",
        )
    if device.type == "cuda" and (why := _too_old(device)):
        raise EngineUnavailable(why, f"{USE_THE_DRAFT[:1].upper()}{USE_THE_DRAFT[1:]}.")
    halves = device.type == "cuda" and has_bf16(torch, torch.cuda.get_device_capability(device))
    precision = options.weights or ("fp32" if device.type == "cpu" else "bf16" if halves else "int8")
    if precision == "bf16" and device.type == "cuda" and not halves:
        raise EngineUnavailable(
            f"--precision bf16: {torch.cuda.get_device_name(device)} does not compute in it, and attention would need "
            "hundreds of GB",
            "Use --precision int8, or leave it out.",
        )
    if precision in ("int8", "fp8"):
        check_quanto(precision)
        return Compute(device, _beside_8_bits(device, halves), precision)
    return Compute(device, {"fp32": torch.float32, "bf16": torch.bfloat16}[precision])


def _beside_8_bits(device: torch.device, halves: bool) -> torch.dtype:
    """Return what quantised weights are computed with: on a card without bfloat16 float16, which its attention takes
    and its matrix units are made for."""
    import torch

    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if halves else torch.float16


def _too_old(device: torch.device) -> str:
    import torch

    return too_old(torch, torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Switch off the libraries' progress bars and warnings, which would overwrite ours; on exit restore them."""
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    logs = (diffusers_log, transformers_log)
    before = [(log.is_progress_bar_enabled(), log.get_verbosity()) for log in logs]
    for log in logs:
        log.disable_progress_bar()
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log, (bar, verbosity) in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
            if bar:
                log.enable_progress_bar()
