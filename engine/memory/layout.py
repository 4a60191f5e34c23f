"""The tensors of some modules as one run of bytes: where each of them lies, and how it becomes a view of a buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

Piece = tuple[int, torch.Tensor]  # the byte of a buffer where it begins, and its bytes, uint8

ALIGNMENT = 256  # bytes; what CUDA's own allocator promises, and kernels that load vectors rely on


@dataclass(frozen=True)
class _Plain:
    """An ordinary tensor: `nbytes` from `start`."""

    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    start: int
    nbytes: int

    def view(self, buffer: torch.Tensor) -> torch.Tensor:
        flat = buffer[self.start : self.start + self.nbytes].view(self.dtype)
        return flat.as_strided(self.shape, self.stride)


@dataclass(frozen=True)
class _Wrapped:
    """A tensor subclass that wraps others, such as quanto's: its payload and its scales."""

    kind: Any  # the class, which knows how to put them together
    parts: dict[str, _Plain | _Wrapped]
    meta: Any
    shape: torch.Size
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Leaf:
    """One parameter or buffer, and every place (a module's table, a name) that holds it: tied weights have several."""

    spec: _Plain | _Wrapped
    trained: bool | None  # a parameter's requires_grad; None: a buffer
    places: list[tuple[dict[str, Any], str]]

    def get(self) -> torch.Tensor:
        table, name = self.places[0]
        tensor: torch.Tensor = table[name]
        return tensor

    def put(self, tensor: torch.Tensor, trained: bool = False) -> None:
        value = tensor
        if self.trained is not None and not isinstance(tensor, torch.nn.Parameter):
            value = torch.nn.Parameter(tensor, trained)
        for table, name in self.places:
            table[name] = value


@dataclass(frozen=True)
class Layout:
    """`nbytes` that hold every parameter and buffer of some modules. Tensors keep their dtype, shape, strides and, if
    they are made of others, their kind."""

    nbytes: int
    leaves: tuple[_Leaf, ...]

    def pack(self, home: torch.Tensor, shown: torch.Tensor) -> None:
        """Copy every tensor into `home` and replace it by a view of `shown`; both are uint8 of at least `nbytes`. Each
        is freed as soon as it is copied, so that a model is never there twice."""
        for leaf in self.leaves:
            _write(leaf.spec, leaf.get(), home)
            leaf.put(_build(leaf.spec, lambda plain: plain.view(shown)))

    def show(self, buffer: torch.Tensor) -> None:
        """Replace every tensor by a view of `buffer`, whatever that holds."""
        for leaf in self.leaves:
            leaf.put(_build(leaf.spec, lambda plain: plain.view(buffer)))

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Return the tensors as they are in the modules now, for `put_back` and `pieces`."""
        return tuple(leaf.get() for leaf in self.leaves)

    def put_back(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give the modules tensors that `tensors` returned."""
        for leaf, tensor in zip(self.leaves, tensors, strict=True):
            leaf.put(tensor, bool(leaf.trained))

    def copies(self, buffer: torch.Tensor, which: Sequence[int]) -> dict[int, torch.Tensor]:
        """Return copies, on the host, of some of the tensors as `buffer` holds them."""
        return {
            index: _build(self.leaves[index].spec, lambda plain: plain.view(buffer).to("cpu", copy=True))
            for index in which
        }

    def pieces(self, tensors: Sequence[torch.Tensor]) -> list[Piece]:
        """Return the bytes of tensors that `tensors` returned, and where in a buffer they belong. Copies none that lie
        as they will lie there."""
        return [
            piece for leaf, tensor in zip(self.leaves, tensors, strict=True) for piece in _pieces(leaf.spec, tensor)
        ]

    def unpack(self, home: torch.Tensor) -> None:
        """Copy every tensor out of `home` into an ordinary one on the host: the opposite of `pack`."""
        for leaf in self.leaves:
            leaf.put(_build(leaf.spec, lambda plain: plain.view(home).to("cpu", copy=True)), bool(leaf.trained))

    def hollow(self) -> None:
        """Replace every tensor by one without data, on the meta device."""
        for leaf in self.leaves:
            leaf.put(_build(leaf.spec, _without_data))


def lay_out(modules: Iterable[torch.nn.Module]) -> Layout:
    """Plan a layout of the modules' own tensors, not of their children's. Reads no data."""
    leaves: dict[int, _Leaf] = {}
    end = 0
    for module in modules:
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in leaves:
                    spec, end = _specify(tensor, end)
                    trained = tensor.requires_grad if table is module._parameters else None
                    leaves[id(tensor)] = _Leaf(spec, trained, [])
                leaves[id(tensor)].places.append((table, name))
    return Layout(end, tuple(leaves.values()))


def parts_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors of which one is made, such as a quantised weight: its bytes and its scales; the tensor itself
    where it is made of none."""
    if not is_traceable_wrapper_subclass(tensor):
        return [tensor]
    return [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]


def _specify(tensor: torch.Tensor, start: int) -> tuple[_Plain | _Wrapped, int]:
    """Return how a tensor is stored from byte `start` on, and the byte where the next one may begin."""
    if is_traceable_wrapper_subclass(tensor):
        names, meta = tensor.__tensor_flatten__()
        parts, end = {}, start
        for name in names:
            parts[name], end = _specify(getattr(tensor, name), end)
        return _Wrapped(type(tensor), parts, meta, tensor.shape, tensor.stride()), end
    stride = torch.empty_like(tensor, device="meta").stride()  # dense: as they are; with gaps: contiguous
    nbytes = tensor.numel() * tensor.element_size()
    return _Plain(tensor.dtype, tensor.shape, stride, start, nbytes), start + -(-nbytes // ALIGNMENT) * ALIGNMENT


def _write(spec: _Plain | _Wrapped, tensor: torch.Tensor, buffer: torch.Tensor) -> None:
    if isinstance(spec, _Wrapped):
        for name, part in spec.parts.items():
            _write(part, getattr(tensor, name), buffer)
    elif (view := spec.view(buffer)).data_ptr() != tensor.data_ptr() or view.device != tensor.device:
        view.copy_(tensor)


def _pieces(spec: _Plain | _Wrapped, tensor: torch.Tensor) -> Iterator[Piece]:
    if isinstance(spec, _Wrapped):
        for name, part in spec.parts.items():
            yield from _pieces(part, getattr(tensor, name))
        return
    if tensor.stride() != spec.stride:  # it has gaps; in a buffer it has none
        tensor = tensor.contiguous()
    if spec.nbytes:
        yield spec.start, tensor.detach().as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def _build(spec: _Plain | _Wrapped, make: Callable[[_Plain], torch.Tensor]) -> torch.Tensor:
    if isinstance(spec, _Plain):
        return make(spec)
    parts = {name: _build(part, make) for name, part in spec.parts.items()}
    whole: torch.Tensor = spec.kind.__tensor_unflatten__(parts, spec.meta, spec.shape, spec.stride)
    return whole


def _without_data(plain: _Plain) -> torch.Tensor:
    return torch.empty_strided(plain.shape, plain.stride, dtype=plain.dtype, device="meta")
