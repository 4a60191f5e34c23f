"""Where a block's bytes are while it does not compute: in a slab on the host, in the mapped file that they came from,
or on the device, where it stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from engine.memory.layout import Layout, Piece, parts_of

Host = Literal["pinned", "pageable", "mapped"]


@dataclass(frozen=True)
class Waiting:
    """Where blocks wait for their turn. "pinned": in memory that a card reads by itself; "pageable": in ordinary
    memory; "mapped": in the file that the tensors are mapped from, which takes no memory that the system could not have
    back.

    `on_disk`: the model's tensors are views of mapped files. They are kept then, and what has to leave the device is
    simply let go; without it, "mapped" is as good as "pageable". With `in_memory` only so many of the blocks are put
    into memory, and the others stream from the file. `elsewhere`: modules that neither stream nor come to the device.
    """

    host: Host = "pinned"
    on_disk: bool = False
    in_memory: int | None = None
    elsewhere: Sequence[torch.nn.Module] = field(default_factory=tuple)


class Home:
    """Some modules' tensors, and where their bytes are. `slab`: on the host, in one run; `kept`: on the device;
    `origin`: the tensors themselves, views of a mapped file. There is always one of the three.

    A tensor that is no view, such as a LoRA's, has memory of its own: beside a slab it would be there twice, and is let
    go.
    """

    def __init__(self, layout: Layout, on_disk: bool) -> None:
        self.layout = layout
        self.origin: list[torch.Tensor | None] | None = list(layout.tensors()) if on_disk else None
        self.slab: torch.Tensor | None = None
        self.kept: torch.Tensor | None = None
        self.pinned = False

    @property
    def nbytes(self) -> int:
        return self.layout.nbytes

    def pieces(self) -> list[Piece]:
        """Return the bytes as they lie on the host: a slab in one piece, or the mapped tensors, one by one."""
        if self.slab is not None:
            return [(0, self.slab)]
        return self.layout.pieces(self._whole())

    def pack(self, copies: Any, shown: torch.Tensor) -> None:
        """Copy the tensors from where the modules have them into a slab, and show them as views of `shown`."""
        self.slab = copies.allocate_host(self.nbytes)
        self._let_go()
        self.layout.pack(self.slab, shown)

    def make_slab(self, copies: Any) -> None:
        """Put the bytes into a slab, from wherever they are. What the modules show stays."""
        slab = copies.allocate_host(self.nbytes)
        _fill(slab, [(0, self.kept[: self.nbytes])] if self.kept is not None else self.pieces())
        self.slab = slab
        self._let_go()

    def drop_slab(self, copies: Any) -> None:
        if self.slab is not None:
            self._take_back()
            copies.unpin(self.slab)
        self.slab, self.pinned = None, False

    def _let_go(self) -> None:
        """Keep only views beside the slab: to let go of one would free nothing."""
        if self.origin is not None:
            self.origin = [tensor if tensor is not None and _is_view(tensor) else None for tensor in self.origin]

    def _take_back(self) -> None:
        """Have all tensors again, those that were let go as copies from the slab."""
        if self.origin is not None and self.slab is not None:
            gone = [index for index, tensor in enumerate(self.origin) if tensor is None]
            for index, tensor in self.layout.copies(self.slab, gone).items():
                self.origin[index] = tensor

    def _whole(self) -> list[torch.Tensor]:
        assert self.origin is not None, "these bytes are on the device only"
        return [tensor for tensor in self.origin if tensor is not None]

    def keep(self, buffer: torch.Tensor) -> None:
        """Copy the bytes to the device, into `buffer`, and compute with them there."""
        _fill(buffer, self.pieces())
        self.layout.show(buffer)
        self.kept = buffer

    def give_up(self) -> int:
        """Let go of what is on the device: the bytes are on the host, too. Return how many are free now."""
        if self.kept is None:
            return 0
        freed, self.kept = self.kept.numel(), None
        if self.slab is not None:
            self.layout.show(self.slab)
        else:
            self.layout.put_back(self._whole())
        return freed

    def leave(self, copies: Any, restore: bool) -> None:
        """Give the modules ordinary tensors on the host again, or, without `restore`, tensors without data."""
        if not restore:
            self.layout.hollow()
        elif self.origin is not None:
            self._take_back()
            self.layout.put_back(self._whole())
        else:
            held = self.kept if self.kept is not None else self.slab
            assert held is not None
            self.layout.unpack(held)
        self.origin = self.kept = None
        self.drop_slab(copies)


IN_MEMORY = Waiting()


def _is_view(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is a part of something larger, such as a mapped file."""
    return all(part.untyped_storage().nbytes() > part.nbytes for part in parts_of(tensor))


def _fill(buffer: torch.Tensor, pieces: Sequence[Piece]) -> None:
    for start, piece in pieces:
        buffer[start : start + piece.numel()].copy_(piece)
