"""Loads a component's weights, one tensor at a time from the checkpoint's shards, so that the model is never in memory
twice. Quantised ones are memory-mapped from the second time on, from the cache file that the first has written; floats
that are stored as they are computed with, from the shards themselves."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import StopCheck, Stopped
from engine.memory.cache import CacheFile, Layout, Unusable, Unwritable, identify, make_cache_file
from engine.memory.quantize import EightBit, as_weight, quantise, quantised_weights, stored_type
from engine.memory.weights import ComponentFiles, missing_tensors, read_places

if TYPE_CHECKING:
    import torch

DATA, SCALE = "._data", "._scale"  # what a quantised weight's two tensors are called, as the library calls them
_CHECKERS = 4

OnShare = Callable[[float], None]  # how much of the work is done, up to 1


@dataclass(frozen=True)
class Quantisation:
    """How to quantise. `blocks` is the prefix of the names in a block; `device` is where the weights go, `cache` the
    folder that keeps them for the next time. `trusted` remembers which files of it were compared with their checksums
    by this process: it need not be done each time that a component takes its turn."""

    precision: EightBit
    blocks: str
    dtype: torch.dtype
    device: torch.device
    cache: Path
    trusted: set[tuple[Path, int, int]] = field(default_factory=set)


@dataclass(frozen=True)
class Loaded:
    """What came of loading: notices for the person, and the bytes of the weights that take memory of their own on the
    host; the others are views of mapped files."""

    notices: tuple[str, ...] = ()
    in_memory: int = 0


@dataclass(frozen=True)
class _Target:
    """A tensor of the module: all its names there, its name in the shards, and its type in memory."""

    names: tuple[str, ...]
    source: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    quantised: bool


def load_quantised(
    hollow: torch.nn.Module,
    weights: ComponentFiles,
    how: Quantisation,
    on_share: OnShare = lambda _: None,
    stop: StopCheck | None = None,
) -> Loaded:
    """Load the weights into a module on the meta device, the blocks' linear ones quantised.

    The module stays as it is: only its parameters change, a quantised one to a quanto `WeightQBytesTensor`. Raises
    Stopped between two tensors, and EngineUnavailable where the shards lack one.
    """
    component = weights.called
    targets = _targets(hollow, weights, how.dtype, quantised_weights(hollow, how.blocks))
    kind = (component, how.precision, _CALLED[str(how.dtype)])
    file = make_cache_file(how.cache, identify(weights), kind, _layout(targets, how))
    called, notices, stored, kept = component.replace("_", " "), [], None, ""
    try:
        if (sums := file.check()) is not None:
            stored = _open(file) if _stamp(file) in how.trusted else _mapped(file, sums, on_share, stop)
            how.trusted.add(_stamp(file))
    except Unusable as why:
        notices.append(f"The {how.precision} copy of the model's {called} {why}: it was made again.")
    if stored is None:
        stored, kept = _make(file, lambda: _stream(targets, weights, how, on_share, stop))
        notices += [f"The {how.precision} copy of the model's {called} was not kept ({kept}): {_COSTS}"] if kept else []
    in_memory = sum(tensor.nbytes for tensor in stored.values()) if kept and how.device.type == "cpu" else 0
    _fill(hollow, targets, stored, how)
    return Loaded(tuple(notices), in_memory)


def load_plain(
    hollow: torch.nn.Module,
    weights: ComponentFiles,
    dtype: torch.dtype,
    device: torch.device,
    stop: StopCheck | None = None,
) -> Loaded:
    """Load the weights as floats of `dtype` (but those that their authors keep in float32) into a module on the meta
    device. On the host, what is stored in its type stays in the mapped file. Raises Stopped between two tensors, and
    EngineUnavailable where the shards lack one."""
    targets, in_memory = _targets(hollow, weights, dtype), 0
    shards = {path: _Shard(path) for path in {path for _, path in weights.tensors.values()}}
    for target in targets:
        if stop is not None and stop():
            raise Stopped
        tensor = shards[weights.tensors[target.source][1]].tensor(weights.stored_as(target.source))
        mapped, there = tensor.data_ptr(), tensor.to(device, target.dtype)
        if device.type == "cpu" and there.data_ptr() != mapped:
            in_memory += there.nbytes
        _put(hollow, target, there)
    _buffers_to(hollow, device)
    return Loaded((), in_memory)


class _Shard:
    """A safetensors file, mapped into memory by torch, whatever the safetensors library would do."""

    def __init__(self, path: Path) -> None:
        import torch

        self._places, size = read_places(path), path.stat().st_size
        self._whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor as a view of the file, or as a copy where it lies at an odd address there."""
        import torch

        code, shape, (begin, end) = self._places[name]
        dtype, raw = _TYPES[code], self._whole[begin:end]
        dtype = getattr(torch, dtype)
        if begin % dtype.itemsize:
            raw = raw.clone()
        tensor: torch.Tensor = raw.view(dtype).view(shape)
        return tensor


def _stamp(file: CacheFile) -> tuple[Path, int, int]:
    """Return what tells a file from one that was written in its place."""
    status = file.path.stat()
    return file.path, status.st_size, status.st_mtime_ns


_COSTS = "the model takes as long to load the next time."


def _targets(
    hollow: torch.nn.Module, weights: ComponentFiles, floats: torch.dtype, quantised: Collection[str] = ()
) -> list[_Target]:
    """List the module's tensors in the order in which the shards hold them. A tensor that the module uses twice is one.
    Raises EngineUnavailable where the shards lack one."""
    import torch

    names: dict[int, list[str]] = {}
    tensors = hollow.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    missing = [each[0] for each in names.values() if not any(name in weights.tensors for name in each)]
    if missing:
        raise missing_tensors(weights, sorted(missing))
    targets, order = [], {name: i for i, name in enumerate(weights.tensors)}
    for each in names.values():
        source = min((name for name in each if name in order), key=order.__getitem__)
        dtype = torch.float32 if _stays_float32(hollow, each[0]) else floats
        targets.append(_Target(tuple(each), source, tuple(tensors[source].shape), dtype, source in quantised))
    return sorted(targets, key=lambda target: order[target.source])


def _stays_float32(module: Any, name: str) -> bool:
    """Return whether the model's authors keep a parameter in float32 where the rest is bfloat16. diffusers and
    transformers name the list of these differently."""
    kept = module._keep_in_fp32_modules if hasattr(module, "load_config") else module._keep_in_fp32_modules_strict
    return any(part in (kept or ()) for part in name.split("."))


def _layout(targets: list[_Target], how: Quantisation) -> Layout:
    layout: Layout = {}
    for target in targets:
        name = target.names[0]
        if target.quantised:
            layout[name + DATA] = _CODES[str(stored_type(how.precision))], target.shape
            layout[name + SCALE] = _CODES[str(how.dtype)], (target.shape[0], 1)
        else:
            layout[name] = _CODES[str(target.dtype)], target.shape
    return layout


_TYPES = {  # safetensors' words for what checkpoints hold
    "F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16", "I64": "int64", "I32": "int32",
    "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn",
}  # fmt: skip
_CALLED = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}  # in the cache files' names
_CODES = {
    "torch.float32": "F32",
    "torch.bfloat16": "BF16",
    "torch.float16": "F16",
    "torch.int8": "I8",
    "torch.float8_e4m3fn": "F8_E4M3",
}  # safetensors' words


def _stream(
    targets: list[_Target], weights: ComponentFiles, how: Quantisation, on_share: OnShare, stop: StopCheck | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors as the cache file holds them, quantised or cast, under their names there. The shard is opened
    anew for every tensor: the pages that were read would stay mapped in memory otherwise. Raises Stopped between two.
    """
    from safetensors import safe_open

    done, total = 0, sum(math.prod(target.shape) for target in targets)
    for target in targets:
        if stop is not None and stop():
            raise Stopped
        with safe_open(str(weights.tensors[target.source][1]), "pt") as shard:
            tensor = shard.get_tensor(weights.stored_as(target.source))
        name = target.names[0]
        if target.quantised:
            data, scale = quantise(tensor, how.precision, how.dtype)
            del tensor
            yield name + DATA, data
            yield name + SCALE, scale
            del data, scale
        else:
            tensor = tensor.to(target.dtype, copy=True)  # a copy of it, and the file's pages are released
            yield name, tensor
            del tensor
        done += math.prod(target.shape)
        on_share(done / total)


def _make(
    file: CacheFile, stream: Callable[[], Iterator[tuple[str, torch.Tensor]]]
) -> tuple[dict[str, torch.Tensor], str]:
    """Quantise into the cache file and map it; where it cannot be written, quantise into memory. Return the tensors,
    and why they are not in the file (empty: they are)."""
    try:
        with file.writing() as writer:
            for name, tensor in stream():
                writer.put(name, _bytes(tensor))
                del tensor
        return _open(file), ""
    except Unwritable as why:
        return dict(stream()), str(why)  # one by one, so that each can be freed as soon as it is copied elsewhere


def _mapped(
    file: CacheFile, sums: dict[str, int], on_share: OnShare, stop: StopCheck | None
) -> dict[str, torch.Tensor]:
    """Memory-map the file's tensors, read all of them once and compare them with their checksums. Raises Unusable where
    one differs, and Stopped between two."""
    stored = _open(file)
    with ThreadPoolExecutor(_CHECKERS) as pool:
        found = pool.map(lambda name: zlib.crc32(_bytes(stored[name])), sums)
        try:
            for done, (name, checksum) in enumerate(zip(sums, found, strict=True), 1):
                if stop is not None and stop():
                    raise Stopped
                if checksum != sums[name]:
                    raise Unusable("was damaged")
                on_share(done / len(sums))
        finally:
            pool.shutdown(cancel_futures=True)
    return stored


def _open(file: CacheFile) -> dict[str, torch.Tensor]:
    """Memory-map the file's tensors with torch, whatever the safetensors library would do."""
    import torch

    return _views(file, torch.from_file(str(file.path), shared=False, size=file.bytes, dtype=torch.uint8))


def _views(file: CacheFile, whole: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the file's tensors as views of `whole`, its bytes."""
    import torch

    types = {code: getattr(torch, name.removeprefix("torch.")) for name, code in _CODES.items()}
    return {
        name: whole[begin:end].view(types[file.layout[name][0]]).view(file.layout[name][1])
        for name, (begin, end) in file.places().items()
    }


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _fill(hollow: torch.nn.Module, targets: list[_Target], stored: dict[str, torch.Tensor], how: Quantisation) -> None:
    for target in targets:
        name = target.names[0]
        parts = [stored.pop(name + end).to(how.device) for end in ((DATA, SCALE) if target.quantised else ("",))]
        _put(hollow, target, as_weight(parts[0], parts[1], how.precision) if target.quantised else parts[0])
    _buffers_to(hollow, how.device)


def _put(hollow: torch.nn.Module, target: _Target, tensor: torch.Tensor) -> None:
    """Give the module a tensor under all of its names; one that is tied stays so."""
    import torch

    for each in target.names:
        owner, _, last = each.rpartition(".")
        module = hollow.get_submodule(owner)
        if last in module._buffers:
            module._buffers[last] = tensor
            continue
        if not isinstance(tensor, torch.nn.Parameter):
            tensor = torch.nn.Parameter(tensor, requires_grad=False)
        module._parameters[last] = tensor


def _buffers_to(hollow: torch.nn.Module, device: torch.device) -> None:
    for module in hollow.modules():
        for last, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[last] = buffer.to(device)
