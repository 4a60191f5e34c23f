"""Reads a LoRA file: what it does to which parameter of diffusers' model.

Names are left to diffusers: its loader knows the layouts in use. What is done here is only what it leaves out or fails
on: files that train some layers only, alphas of layers outside the blocks, and the plain differences of norms, biases
and modulations that step-distilled files bring along.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EngineUnavailable

if TYPE_CHECKING:
    import torch

_PAIR = re.compile(r"(.+)\.(?:lora_A|lora_down|lora_B|lora_up)(?:\.default)?\.weight")
_UP = re.compile(r"\.(?:lora_B|lora_up)(?:\.default)?\.weight$")
_DIFFERENCE = re.compile(r"(.+)\.(diff|diff_b|diff_m|lora_B\.bias)")
_OF_DIFFERENCE = {"diff": "weight", "diff_b": "bias", "diff_m": "modulation", "lora_B.bias": "bias"}
_IN_A_BLOCK = re.compile(r"lora_unet_blocks_(\d+)_(self_attn|cross_attn|ffn)_(\w+?)(\..+)")
_OUTSIDE = re.compile(r"lora_unet_(time_embedding|text_embedding|time_projection|img_emb_proj|head)_(\w+?)(\..+)")
ANOTHER = "Choose one that was made for Wan2.1 14B image-to-video; one for text-to-video 14B may do."
_AGAIN = "Download or copy this file again."


@dataclass
class Changes:
    """What LoRA files do to a model's parameters, by name: pairs (down (r, in), up (out, r), factor) and differences
    (tensor of the parameter's shape, factor). `left_out` names differences that cannot fit."""

    pairs: dict[str, list[tuple[torch.Tensor, torch.Tensor, float]]] = field(default_factory=dict)
    differences: dict[str, list[tuple[torch.Tensor, float]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The parameters that change."""
        return sorted({*self.pairs, *self.differences})

    def fused(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Compute the changed parameter, float32 on the weight's device; return the weight itself where nothing changes
        it."""
        if name not in self.pairs and name not in self.differences:
            return weight
        total = weight.detach().float().clone()
        for down, up, factor in self.pairs.get(name, ()):
            total.addmm_(up.to(total.device).float(), down.to(total.device).float(), alpha=factor)
        for difference, factor in self.differences.get(name, ()):
            total.add_(difference.to(total.device).float(), alpha=factor)
        return total


class _Unknown(ValueError):
    """A tensor whose place in the model is not known."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def read_lora(path: Path, check_only: bool = False) -> Changes:
    """Read the file's changes at strength 1; with `check_only` from its header alone, the tensors without data. Raises
    EngineUnavailable, which names the file."""
    tensors = _read(path, check_only)
    try:
        return _understand(tensors, _settings(path))
    except (ValueError, KeyError, AttributeError, IndexError, re.error) as error:
        # diffusers' loader raises these over names that it does not know, in words for programmers
        raise not_for_this(path, error.name if isinstance(error, _Unknown) else next(iter(tensors))) from error


def not_for_this(path: Path, name: str) -> EngineUnavailable:
    return EngineUnavailable(f"{path.name} is not a LoRA for this model: it holds {name[:80]}", ANOTHER)


def unreadable(path: Path, error: OSError) -> EngineUnavailable:
    what = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
    return EngineUnavailable(f"the LoRA {path} cannot be read ({what})", "Check its name.")


def _read(path: Path, check_only: bool) -> dict[str, torch.Tensor]:
    """Read the file's tensors; with `check_only` without data (on the meta device) but for the alphas, which are single
    numbers."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            start = file.read(8)
        tensors = {}
        with safe_open(str(path), "pt") as file:
            for name in file.keys():  # noqa: SIM118
                shape = file.get_slice(name).get_shape()
                hollow = check_only and math.prod(shape) > 1
                tensors[name] = torch.empty(shape, device="meta") if hollow else file.get_tensor(name)
    except OSError as error:
        raise unreadable(path, error) from None
    except SafetensorError as error:
        if start.startswith((b"PK\x03\x04", b"\x80")):
            raise EngineUnavailable(
                f"{path.name} is a pickle, and opening one can run a program",
                "LoRAs are read as .safetensors only: look for this one as such a file.",
            ) from None
        what = "is cut off" if "incomplete" in str(error).lower() else "is damaged, or not a safetensors file"
        raise EngineUnavailable(f"the LoRA {path.name} {what}", _AGAIN) from None
    if not tensors:
        raise EngineUnavailable(f"{path.name} is empty", _AGAIN)
    return tensors


def _settings(path: Path) -> dict[str, Any]:
    """Read how PEFT was configured, where the file says so ({}: it does not): then alpha stands there and not beside
    the weights."""
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        text = (file.metadata() or {}).get("lora_adapter_metadata", "{}")
    try:
        config = json.loads(text)
        return {key.removeprefix("transformer."): value for key, value in config.items()}
    except (ValueError, AttributeError):
        return {}


def _understand(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> Changes:
    """Sort a file's tensors into changes of parameters by diffusers' names."""
    changes = Changes()
    pairs: dict[str, tuple[torch.Tensor | None, torch.Tensor | None]] = {}
    alphas: dict[str, float] = {}
    differences: dict[str, tuple[torch.Tensor, str | None]] = {}
    for raw, tensor in tensors.items():
        name = _plain(raw)
        if match := _PAIR.fullmatch(name):
            down, up = pairs.get(match[1], (None, None))
            pairs[match[1]] = (down, tensor) if _UP.search(name) else (tensor, up)
        elif name.endswith(".alpha"):
            alphas[name.removesuffix(".alpha")] = float(tensor.item())
        elif match := _DIFFERENCE.fullmatch(name):
            scaled_as = match[1] if match[2] == "lora_B.bias" else None
            differences[f"{match[1]}.{_OF_DIFFERENCE[match[2]]}"] = tensor, scaled_as
        else:
            raise _Unknown(raw)
    whole: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for module, (down, up) in pairs.items():
        if down is None or up is None or down.ndim != 2 or up.ndim != 2:
            raise _Unknown(module)
        whole[module] = down, up
    factors: dict[str | None, float] = {None: 1.0}
    for (module, (down, up)), target in zip(whole.items(), _modules(list(whole)), strict=True):
        alpha = alphas.get(module, _alpha(config, target, down.shape[0]))
        root = config.get("use_rslora") and module not in alphas
        factors[module] = alpha / (math.sqrt(down.shape[0]) if root else down.shape[0])
        changes.pairs[f"{target}.weight"] = [(down, up, factors[module])]
    for name, (tensor, scaled_as) in differences.items():
        changes.differences[_parameter(name)] = [(tensor, factors[scaled_as])]
    return changes


def _plain(name: str) -> str:
    """Translate a tensor's name into one of the layouts that diffusers' loader knows: `transformer.` its own,
    `diffusion_model.` that of Wan2.1's authors."""
    name = name.removeprefix("base_model.model.")
    if match := _IN_A_BLOCK.fullmatch(name):
        return f"diffusion_model.blocks.{match[1]}.{match[2]}.{match[3]}{match[4]}"
    if match := _OUTSIDE.fullmatch(name):
        return f"diffusion_model.{match[1].replace('img_emb_proj', 'img_emb.proj')}.{match[2]}{match[3]}"
    if name.startswith("blocks."):
        theirs = re.match(r"blocks\.\d+\.(self_attn|cross_attn|ffn\.[02]\.)", name)
        return ("diffusion_model." if theirs else "transformer.") + name
    return name


def _modules(modules: list[str]) -> list[str]:
    """Find these layers in diffusers' model, with its own loader. Raises ValueError where that leaves some out."""
    import torch
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    if not modules:
        return []
    numbers = {module: number for number, module in enumerate(modules)}
    if any(module.startswith("diffusion_model.") for module in modules):
        # The loader expects a block, and either both of these or none.
        numbers = {f"diffusion_model.blocks.0.cross_attn.{part}": -1 for part in ("k_img", "v_img")} | numbers
    marks: dict[str, torch.Tensor] = {}
    for module, number in numbers.items():  # it renames; the number tells which one became which
        marks |= {f"{module}.lora_{side}.weight": torch.full((1, 1), float(number)) for side in "AB"}
    renamed = WanLoraLoaderMixin.lora_state_dict(marks)
    found = {int(mark): name for name, mark in renamed.items() if name.endswith(".lora_A.weight")}
    found.pop(-1, None)
    if sorted(found) != list(range(len(modules))):
        raise ValueError("some layers were left out")
    return [found[n].removeprefix("transformer.").removesuffix(".lora_A.weight") for n in range(len(modules))]


def _parameter(name: str) -> str:
    """Find the parameter of diffusers' model that a difference belongs to."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    if name.startswith("transformer."):
        return name.removeprefix("transformer.")
    of_wan = {name.removeprefix("diffusion_model."): None}
    renamed: dict[str, None] = convert_wan_transformer_to_diffusers(of_wan)
    return next(iter(renamed))


def _alpha(config: dict[str, Any], module: str, rank: int) -> float:
    """Read a layer's alpha as PEFT does: its own, the file's, or the rank."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module.removeprefix("transformer.")):
            return float(alpha)
    return float(config.get("lora_alpha") or rank)
