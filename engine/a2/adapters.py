"""LoRA files, fused into the weights or computed beside them (arXiv 2106.09685).

W' = W + sum over files of strength * (alpha / rank) * B A. Fused, the sum is taken in float32 and rounded once, and
costs nothing in a step; taking it out reads the weights again from the checkpoint, since subtracting would leave
rounding behind. Where the weights are quantised or stream, they are views of a file that serves every mixture: then
B A x is added to what each layer computes, for two or three per cent more work, and another LoRA takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.a2.lora_files import ANOTHER, Changes, not_for_this, read_lora, unreadable
from engine.errors import EngineUnavailable
from engine.memory.quantize import EightBit, as_weight, quantise
from engine.memory.weights import ComponentFiles
from engine.scene.engine import Lora

if TYPE_CHECKING:
    import torch


DOWN, UP = "lora_down_", "lora_up_"  # what is computed beside a layer's weight, by number: (rank, in) and (out, rank)


@dataclass(frozen=True)
class Adapters:
    """LoRAs that are asked for, and their `identity`, for which their files have to be read."""

    loras: tuple[Lora, ...] = ()
    identity: tuple[tuple[str, float], ...] = ()


NO_ADAPTERS = Adapters()


def adapters_of(loras: Sequence[Lora]) -> Adapters:
    """Return the LoRAs with their identity. Raises EngineUnavailable where a file cannot be read."""
    return Adapters(tuple(loras), identity(loras))


@dataclass(frozen=True)
class Fused:
    """What LoRAs have done to a transformer: `loras` by content and strength, the parameters whose values they changed
    (`names`), what of the files could not be used, and what takes those out that compute beside the weights."""

    loras: tuple[tuple[str, float], ...] = ()
    names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    undo: tuple[Callable[[], object], ...] = ()
    beside: bool = False

    def is_as(self, adapters: Adapters, beside: bool) -> bool:
        """Return whether this is what these LoRAs would do."""
        return self.loras == adapters.identity and (not self.loras or self.beside == beside)


def check_loras(loras: Sequence[Lora], transformer: ComponentFiles) -> None:
    """Refuse a file that is not whole, holds no LoRA, or was made for another model, by its header alone.

    Raises EngineUnavailable, which names the file.
    """
    read_loras(loras, transformer.shapes, check_only=True)


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


def refit(
    transformer: Any, weights: ComponentFiles, before: Fused, adapters: Adapters, beside: EightBit | bool = False
) -> Fused:
    """Let exactly these change a transformer that `before` has changed. That is undone first: without any, the weights
    are bit for bit the checkpoint's. `beside`: they compute beside the weights; in what is not a linear layer they are
    fused all the same, and quantised again where that names how.

    Raises EngineUnavailable, which names the file; the transformer is then as it was.
    """
    wanted = adapters.identity
    if before.is_as(adapters, bool(beside)):
        return before
    changes = read_loras(adapters.loras, weights.shapes)
    for undo in reversed(before.undo):
        undo()
    _restore(transformer, before.names, weights)
    left_out = tuple(changes.left_out)
    if beside:
        done: list[Callable[[], object]] = []
        try:
            done.extend(_beside(transformer, weights, changes, beside))
        except BaseException:
            for undo in reversed(done):
                undo()
            raise
        return Fused(wanted, (), left_out, tuple(done), True)
    _fuse(transformer, changes)
    return Fused(wanted, tuple(changes.names), left_out)


def _fuse(transformer: Any, changes: Changes) -> None:
    import torch

    parameters = dict(transformer.named_parameters())
    with torch.no_grad():
        for name in changes.names:
            parameters[name].copy_(changes.fused(name, parameters[name]))


def _beside(
    transformer: Any, weights: ComponentFiles, changes: Changes, quantised: EightBit | bool
) -> Iterator[Callable[[], object]]:
    """Let the changes compute beside the weights; yield what undoes each. The tensors that were there are kept, not
    copied: they may be views of a file."""
    import torch

    for name in changes.names:
        path, _, last = name.rpartition(".")
        module = transformer.get_submodule(path)
        linear = last == "weight" and isinstance(module, torch.nn.Linear)
        if linear and name not in changes.differences:
            yield _hook(module, changes.pairs.pop(name))
        else:
            yield _replace(module, last, changes.fused(name, _stored(weights, name)), quantised)


def _hook(module: Any, pairs: list[tuple[torch.Tensor, torch.Tensor, float]]) -> Callable[[], object]:
    """Add each pair's `factor up down x` to what a linear layer computes. The matrices are buffers of the layer, and
    stream with its block; as their file has them, unless the layer computes with less."""
    like = module.bias if module.bias is not None else module.weight
    for number, (down, up, _) in enumerate(pairs):
        for name, matrix in ((DOWN, down), (UP, up)):
            dtype = matrix.dtype if matrix.dtype.itemsize <= like.dtype.itemsize else like.dtype
            module.register_buffer(f"{name}{number}", matrix.to(like.device, dtype).contiguous(), persistent=False)
    handle = module.register_forward_hook(partial(_add, factors=tuple(factor for *_, factor in pairs)))

    def undo() -> None:
        handle.remove()
        for number in range(len(pairs)):
            for name in (f"{DOWN}{number}", f"{UP}{number}"):
                module._buffers.pop(name, None)
                module._non_persistent_buffers_set.discard(name)

    return undo


def _add(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """Add the LoRAs' part to a layer's output, in place: a second output of that size would be half a gigabyte."""
    import torch

    output = output.contiguous()
    flat = output.view(-1, output.shape[-1])
    for number, factor in enumerate(factors):
        down, up = module._buffers[f"{DOWN}{number}"], module._buffers[f"{UP}{number}"]
        low = torch.nn.functional.linear(inputs[0], down.to(inputs[0].dtype))
        flat.addmm_(low.view(-1, low.shape[-1]).to(flat.dtype), up.to(flat.dtype).t(), alpha=factor)
    return output


def _replace(module: Any, name: str, value: torch.Tensor, quantised: EightBit | bool) -> Callable[[], object]:
    """Put a changed value in a parameter's place, quantised where it was."""
    import torch

    before = module._parameters[name]
    if hasattr(before, "_scale") and isinstance(quantised, str):
        data, scale = quantise(value, quantised, before._scale.dtype)
        changed = as_weight(data.to(before.device), scale.to(before.device), quantised)
    else:
        changed = torch.nn.Parameter(value.to(before.device, before.dtype), requires_grad=False)
    module._parameters[name] = changed

    def undo() -> None:
        there = module._parameters[name].device  # it may have been moved since
        same = there in (before.device, torch.device("meta"))
        module._parameters[name] = before if same else torch.nn.Parameter(before.data.to(there), requires_grad=False)

    return undo


def _stored(weights: ComponentFiles, name: str) -> torch.Tensor:
    """Read a parameter as the checkpoint stores it."""
    from safetensors import safe_open

    with safe_open(str(weights.tensors[name][1]), "pt") as file:
        tensor: torch.Tensor = file.get_tensor(weights.stored_as(name))
    return tensor


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
                    parameters[name].copy_(file.get_tensor(weights.stored_as(name)))


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
