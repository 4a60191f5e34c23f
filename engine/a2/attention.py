"""How attention is computed: PyTorch's own by default, other kernels where they are installed.

Only kernels that are installed here are offered: diffusers can also fetch some from the hub while it runs, which
nobody asked for. Which of them is fastest on a card, and exact enough, is the calibration's to measure.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from engine.a2.options import Attention
from engine.errors import EngineUnavailable

if TYPE_CHECKING:
    import torch

    from engine.a2.compute import Compute

_HOPPER = (9, 0)


@dataclass(frozen=True)
class _Kernel:
    """`name` is diffusers' for it, `module` what must be importable (empty: it is part of PyTorch), `install` how to
    get it, `effect` what it does to the picture."""

    name: str
    module: str
    install: str
    effect: str


_ROUNDING = "rounds differently, which changes the picture in small details"
_KERNELS = {
    # Not diffusers' "_native_cudnn", which first copies queries, keys and values: a gigabyte at 832x480x81.
    "cudnn": _Kernel("native", "", "", _ROUNDING),
    "flash": _Kernel("flash", "flash_attn", 'python -m pip install "flash-attn>=2.6.3"', _ROUNDING),
    "flash3": _Kernel("_flash_3", "flash_attn_interface", "build FlashAttention 3 from source", _ROUNDING),
    "sage": _Kernel(
        "sage", "sageattention", "build version 2.1.1 or newer from its sources: the package index has an older one",
        "computes in 8 bits, which changes the picture",
    ),
    "xformers": _Kernel("xformers", "xformers", 'python -m pip install "xformers>=0.0.29"', _ROUNDING),
}  # fmt: skip
_NATIVE = "Leave --attention out: the native one works everywhere."


def check_attention(attention: Attention | None, compute: Compute) -> None:
    """Raise EngineUnavailable where this attention is not installed, does not run here, or is known to give noise.
    Loads no weights."""
    import torch

    if attention in (None, "native"):
        return
    kernel = _KERNELS[attention]
    if compute.device.type != "cuda":
        raise EngineUnavailable(f"--attention {attention} runs on CUDA only, not on {compute.device}", _NATIVE)
    if compute.dtype == torch.float32:
        raise EngineUnavailable(f"--attention {attention} does not compute in fp32", "Use --precision bf16.")
    if attention == "sage" and torch.cuda.get_device_capability(compute.device) == _HOPPER:
        raise EngineUnavailable(
            "--attention sage gives noise on Hopper cards (H100, H200)", "Use --attention flash3, or leave it out."
        )
    if kernel.module and importlib.util.find_spec(kernel.module) is None:
        raise EngineUnavailable(
            f"--attention {attention} needs {kernel.module}, which is not installed here",
            f"Get it ({kernel.install}), or leave --attention out.",
        )
    from diffusers.models.attention_dispatch import attention_backend

    try:
        with attention_backend(kernel.name):  # only asked whether it would work
            pass
    except (RuntimeError, ImportError) as error:  # such as a version that is too old
        raise EngineUnavailable(f"--attention {attention}: {error}", _NATIVE) from error


def is_installed(attention: Attention) -> bool:
    """Return whether what this attention needs is on this machine. Imports nothing."""
    module = "" if attention == "native" else _KERNELS[attention].module
    return not module or importlib.util.find_spec(module) is not None


def usable(compute: Compute) -> tuple[Attention, ...]:
    """Return the kinds of attention that run here, native first."""
    found: list[Attention] = []
    for attention in get_args(Attention):
        with contextlib.suppress(EngineUnavailable):
            check_attention(attention, compute)
            found.append(attention)
    return tuple(found)


def library_name(attention: Attention | None) -> str:
    """Return what diffusers calls it."""
    return "native" if attention in (None, "native") else _KERNELS[attention].name


def set_attention(transformer: Any, attention: Attention | None) -> None:
    """Set how the transformer computes attention. Native is set like any other: DIFFUSERS_ATTN_BACKEND should not
    change a picture unnoticed."""
    from engine.a2.compute import quiet

    with quiet():
        transformer.set_attention_backend(library_name(attention))


@contextlib.contextmanager
def attending(attention: Attention | None) -> Iterator[None]:
    """Let PyTorch's own attention prefer cuDNN until exit, where that is asked for; what cuDNN cannot do, such as
    another type of numbers, is done by the next."""
    if attention != "cudnn":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    rest = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, *rest], set_priority=True):
        yield


def attend(attention: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Compute attention of (B, tokens, heads, size) each in this way."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    from engine.a2.compute import quiet

    with attending(attention), quiet():
        seen: torch.Tensor = dispatch_attention_fn(query, key, value, backend=library_name(attention))
    return seen


def effect(attention: Attention | None) -> str:
    """Return what the person should know about this attention; empty where there is nothing."""
    return "" if attention in (None, "native") else f"Attention {attention} {_KERNELS[attention].effect}."
