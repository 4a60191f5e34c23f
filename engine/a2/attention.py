"""How attention is computed: PyTorch's own by default, other kernels where they are installed.

Only kernels that are installed here are offered: diffusers can also fetch some from the hub while it runs, which
nobody asked for.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.a2.options import Attention
from engine.errors import EngineUnavailable

if TYPE_CHECKING:
    from engine.a2.compute import Compute

_HOPPER = (9, 0)


@dataclass(frozen=True)
class _Kernel:
    """`name` is diffusers' for it, `module` what must be importable, `install` how to get it, `effect` what it does to
    the picture."""

    name: str
    module: str
    install: str
    effect: str


_ROUNDING = "rounds differently, which changes the picture in small details"
_KERNELS = {
    "flash": _Kernel("flash", "flash_attn", 'python -m pip install "flash-attn>=2.6.3"', _ROUNDING),
    "flash3": _Kernel("_flash_3", "flash_attn_interface", "build FlashAttention 3 from source", _ROUNDING),
    "sage": _Kernel(
        "sage", "sageattention",
        "version 2.1.1 or newer, which the package index may not have: build it from SageAttention's sources (thu-ml)",
        "computes in 8 bits, which changes the picture",
    ),
    "xformers": _Kernel("xformers", "xformers", 'python -m pip install "xformers>=0.0.29"', _ROUNDING),
}  # fmt: skip
_NATIVE = "Leave --attention out: the native one works everywhere."


def check_attention(attention: Attention, compute: Compute, precision: str | None = None) -> None:
    """Raise EngineUnavailable where this attention is not installed, does not run here, or is known to give noise.
    Loads no weights."""
    import torch

    if attention == "native":
        return
    kernel = _KERNELS[attention]
    if compute.device.type != "cuda":
        raise EngineUnavailable(f"--attention {attention} runs on CUDA only, not on {compute.device}", _NATIVE)
    if compute.dtype == torch.float32:
        raise EngineUnavailable(f"--attention {attention} does not compute in fp32", "Use --precision bf16.")
    if attention == "sage" and precision == "fp8":
        raise EngineUnavailable("--attention sage with --precision fp8 gives black frames", "Leave one of them out.")
    if attention == "sage" and torch.cuda.get_device_capability(compute.device) == _HOPPER:
        raise EngineUnavailable(
            "--attention sage gives noise on Hopper cards (H100, H200)", "Use --attention flash3, or leave it out."
        )
    if importlib.util.find_spec(kernel.module) is None:
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


def set_attention(transformer: Any, attention: Attention) -> None:
    """Set how the transformer computes attention. Native is set like any other: DIFFUSERS_ATTN_BACKEND should not
    change a picture unnoticed."""
    from engine.a2.compute import quiet

    with quiet():
        transformer.set_attention_backend("native" if attention == "native" else _KERNELS[attention].name)


def effect(attention: Attention) -> str:
    """Return what the person should know about this attention; empty where there is nothing."""
    return "" if attention == "native" else f"Attention {attention} {_KERNELS[attention].effect}."
