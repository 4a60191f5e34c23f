"""LoRA files, fused into the weights before the first step (arXiv 2106.09685).

W' = W + sum over files of strength * (alpha / rank) * B A, summed in float32 and rounded once. Fused weights cost
nothing in a step, and can be quantised afterwards. Taking a LoRA out reads the weights again from the checkpoint:
subtracting would leave rounding behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.a2.lora_files import ANOTHER, Changes, not_for_this, read_lora, unreadable
from engine.errors import EngineUnavailable
from engine.memory.weights import ComponentFiles
from engine.scene.engine import Lora


@dataclass(frozen=True)
class Fused:
    """What is in a transformer's weights: `loras` by content and strength, the parameters they changed, and what of
    the files could not be used."""

    loras: tuple[tuple[str, float], ...] = ()
    names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def check_loras(loras: Sequence[Lora], transformer: ComponentFiles) -> None:
    """Refuse a file that is not whole, holds no LoRA, or was made for another model, by its header alone.

    Raises EngineUnavailable, which names the file.
    """
    read_loras(loras, {name: shape for name, (shape, _) in transformer.tensors.items()}, check_only=True)


def read_loras(loras: Sequence[Lora], shapes: dict[str, tuple[int, ...]], check_only: bool = False) -> Changes:
    """Read what the files do together to a transformer with parameters of these `shapes`. Raises EngineUnavailable,
    which names the file. `check_only` reads no weights."""
    together = Changes()
    for lora in loras:
        one = read_lora(lora.path, check_only)
        _check(lora.path, one, shapes)
        together.left_out += one.left_out
        if lora.strength == 0:
            continue
        for name, pairs in one.pairs.items():
            held = together.pairs.setdefault(name, [])
            held += [(down, up, factor * lora.strength) for down, up, factor in pairs]
        for name, differences in one.differences.items():
            together.differences.setdefault(name, []).extend((d, factor * lora.strength) for d, factor in differences)
    return together


def refit(transformer: Any, weights: ComponentFiles, before: Fused, loras: Sequence[Lora]) -> Fused:
    """Fuse exactly these into a transformer of float weights that has `before` fused in. Those are taken out first:
    without any, the weights are bit for bit the checkpoint's. Quantise afterwards.

    Raises EngineUnavailable, which names the file; the transformer is then as it was.
    """
    import torch

    wanted = identity(loras)
    if wanted == before.loras:
        return before
    changes = read_loras(loras, {name: shape for name, (shape, _) in weights.tensors.items()})
    _restore(transformer, before.names, weights)
    parameters = dict(transformer.named_parameters())
    with torch.no_grad():
        for name in changes.names:
            parameters[name].copy_(changes.fused(name, parameters[name]))
    return Fused(wanted, tuple(changes.names), tuple(changes.left_out))


def _restore(transformer: Any, names: Iterable[str], weights: ComponentFiles) -> None:
    """Read these parameters again from the checkpoint."""
    import torch
    from safetensors import safe_open

    parameters = dict(transformer.named_parameters())
    files: dict[Path, list[str]] = {}
    for name in names:
        files.setdefault(weights.tensors[name][1], []).append(name)
    with torch.no_grad():
        for path, inside in files.items():
            with safe_open(str(path), "pt") as file:
                for name in inside:
                    parameters[name].copy_(file.get_tensor(name))


def identity(loras: Sequence[Lora]) -> tuple[tuple[str, float], ...]:
    """Return what a run depends on: contents (SHA-256) and strengths. Contents, since a LoRA that is trained further
    keeps its name and size. In their order: float sums depend on it. Raises EngineUnavailable where a file cannot be
    read."""
    import hashlib

    found = []
    for lora in loras:
        if lora.strength:
            try:
                with lora.path.open("rb") as file:
                    found.append((hashlib.file_digest(file, "sha256").hexdigest(), lora.strength))
            except OSError as error:
                raise unreadable(lora.path, error) from None
    return tuple(found)


def _check(path: Path, changes: Changes, shapes: dict[str, tuple[int, ...]]) -> None:
    """Compare the changes with the model's parameters, and drop the one difference that text-to-video files bring and
    that cannot fit. Raises EngineUnavailable."""
    for name, ((down, up, _),) in changes.pairs.items():
        if name not in shapes:
            raise not_for_this(path, name)
        made = (up.shape[0], down.shape[1])
        if made != shapes[name] or up.shape[1] != down.shape[0]:
            raise EngineUnavailable(
                f"the LoRA {path.name} was made for another model: for its {name} of {list(made)}, "
                f"where this one has {list(shapes[name])}",
                ANOTHER,
            )
    for name, ((tensor, _),) in list(changes.differences.items()):
        if name not in shapes:
            raise not_for_this(path, name)
        if tuple(tensor.shape) != shapes[name]:
            if name != "patch_embedding.weight" or tensor.shape[0] != shapes[name][0]:
                raise EngineUnavailable(
                    f"the LoRA {path.name} was made for another model: its {name} is {list(tensor.shape)}, "
                    f"where this one has {list(shapes[name])}",
                    ANOTHER,
                )
            del changes.differences[name]
            changes.left_out.append(f"{path.name}: {name}")
