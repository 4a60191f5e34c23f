"""Where a block's bytes are while it does not compute: in a slab on the host, in the mapped file that they came from,
or on the device, where it stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from engine.memory.layout import Layout, Piece

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
    `origin`: the tensors themselves, views of a mapped file. There is always one of the three."""

    def __init__(self, layout: Layout, on_disk: bool) -> None:
        self.layout = layout
        self.origin: tuple[torch.Tensor, ...] | None = layout.tensors() if on_disk else None
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
        assert self.origin is not None, "these bytes are on the device only"
        return self.layout.pieces(self.origin)

    def pack(self, buffer: torch.Tensor, shown: torch.Tensor) -> None:
        """Copy the tensors from where the modules have them into `buffer`, and show them as views of `shown`."""
        self.layout.pack(buffer, shown)

    def make_slab(self, copies: Any) -> None:
        """Put the bytes into a slab, from wherever they are. What the modules show stays."""
        slab = copies.allocate_host(self.nbytes)
        _fill(slab, [(0, self.kept[: self.nbytes])] if self.kept is not None else self.pieces())
        self.slab = slab

    def drop_slab(self, copies: Any) -> None:
        if self.slab is not None:
            copies.unpin(self.slab)
        self.slab, self.pinned = None, False

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
            assert self.origin is not None
            self.layout.put_back(self.origin)
        return freed

    def leave(self, copies: Any, restore: bool) -> None:
        """Give the modules ordinary tensors on the host again, or, without `restore`, tensors without data."""
        if not restore:
            self.layout.hollow()
        elif self.origin is not None:
            self.layout.put_back(self.origin)
        else:
            held = self.kept if self.kept is not None else self.slab
            assert held is not None
            self.layout.unpack(held)
        self.drop_slab(copies)
        self.kept = self.origin = None


IN_MEMORY = Waiting()


def _fill(buffer: torch.Tensor, pieces: Sequence[Piece]) -> None:
    for start, piece in pieces:
        buffer[start : start + piece.numel()].copy_(piece)
