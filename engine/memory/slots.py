"""Two places on the device, into which streamed blocks are copied one after another while the block before computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch

from engine.memory.card import SLOTS
from engine.memory.copies import CudaCopies, PlainCopies
from engine.memory.homes import Home
from engine.memory.staging import Staging


@dataclass
class DeviceSlot:
    """A place, and whose bytes are in it. `ready`: the event that they are there; `free`: that nothing computes with
    them any more."""

    buffer: torch.Tensor  # empty while parked
    ready: Any
    free: Any
    holds: int | None = None  # the block whose copy was asked for last
    computing: int | None = None
    passage: Future[None] | None = None  # a copy that goes through the staging thread


class Slots:
    """The slots of some blocks, by their numbers. `staging` carries what the card cannot read by itself."""

    def __init__(self, copies: PlainCopies | CudaCopies) -> None:
        self._copies = copies
        self._homes: Sequence[Home] = ()
        self._slots: list[DeviceSlot] = []
        self._slot_of: dict[int, DeviceSlot] = {}
        self._next: dict[int, int] = {}  # the block that uses a block's slot after it
        self._size = 0
        self.staging: Staging | None = None

    def __iter__(self) -> Iterator[DeviceSlot]:
        return iter(self._slots)

    @property
    def blocks(self) -> Sequence[int]:
        """The blocks that stream, in order."""
        return tuple(self._slot_of)

    @property
    def nbytes(self) -> int:
        return sum(slot.buffer.numel() for slot in self._slots)

    def make(self, sizes: dict[int, int]) -> None:
        """Allocate slots for the blocks of these sizes; there are none before."""
        self._size, streamed = max(sizes.values(), default=0), list(sizes)
        self._slots = [
            DeviceSlot(self._copies.allocate(self._size), self._copies.event(), self._copies.event())
            for _ in streamed[:SLOTS]
        ]
        for slot in self._slots:
            self._copies.mark_computed(slot.free)  # kernels that used this memory before may still run
        self._slot_of = {index: self._slots[rank % SLOTS] for rank, index in enumerate(streamed)}
        for first in range(len(self._slots)):
            users = streamed[first::SLOTS]
            self._next.update(zip(users, [*users[1:], users[0]], strict=True))

    def buffer_of(self, index: int) -> torch.Tensor:
        return self._slot_of[index].buffer

    def serve(self, homes: Sequence[Home]) -> None:
        """Take blocks from these homes from now on."""
        self._homes = homes

    def drop(self) -> None:
        """Forget all slots and blocks."""
        self._slots, self._slot_of, self._next = [], {}, {}

    def park(self) -> None:
        """Free the slots' memory; nothing may be on its way."""
        for slot in self._slots:
            slot.buffer = slot.buffer.new_empty(0)
        for index in self._slot_of:
            self._homes[index].layout.hollow()

    def room(self) -> list[torch.Tensor]:
        """Allocate the slots' memory again, for `unpark`."""
        return [self._copies.allocate(self._size) for _ in self._slots]

    def unpark(self, room: Sequence[torch.Tensor]) -> None:
        for slot, buffer in zip(self._slots, room, strict=True):
            slot.buffer = buffer
            self._copies.mark_computed(slot.free)  # kernels that used this memory before may still run
        for index, slot in self._slot_of.items():
            self._homes[index].layout.show(slot.buffer)

    @contextlib.contextmanager
    def in_place(self, index: int) -> Iterator[None]:
        """Wait until block `index` is in its slot; on exit mark the slot free and prefetch the block that uses it next.
        Does nothing for a block that stays. Raises RuntimeError where another block computes in the slot."""
        slot = self._slot_of.get(index)
        if slot is None:
            yield
            return
        if slot.computing is not None:
            raise RuntimeError(f"block {index} was called while block {slot.computing} computes in the same slot")
        self._load(index)
        _arrive(slot)
        self._copies.wait(slot.ready)
        slot.computing = index
        try:
            yield
        finally:
            slot.computing = None
            self._copies.mark_computed(slot.free)
            self._load(self._next[index])

    def fill(self) -> None:
        """Start copying the first block of each slot."""
        for index in list(self._slot_of)[: len(self._slots)]:
            self._load(index)

    def settle(self) -> None:
        """Wait for all copies, and forget what the slots hold."""
        for slot in self._slots:
            _arrive(slot)
            slot.holds = None
        self._copies.drain()

    def _load(self, index: int) -> None:
        """Start copying a block into its slot, unless it is there or on its way."""
        slot, home = self._slot_of[index], self._homes[index]
        if slot.holds == index:
            return
        if slot.passage is not None and not slot.passage.cancel():  # a block that was skipped meanwhile
            _arrive(slot)
        slot.holds, slot.passage = None, None
        target, pieces = slot.buffer[: home.nbytes], home.pieces()
        if home.pinned or self._copies.reads_anything:
            for start, piece in pieces:
                self._copies.copy(target[start : start + piece.numel()], piece, slot.free)
            self._copies.mark_copied(slot.ready)
        else:
            assert self.staging is not None
            slot.passage = self.staging.submit(target, pieces, slot.free, slot.ready)
        slot.holds = index


def _arrive(slot: DeviceSlot) -> None:
    """Wait until the staging thread has handed the slot's copy to the device; raise here what went wrong there."""
    passage = slot.passage
    if passage is None:
        return
    try:
        passage.result()
    except BaseException:
        slot.holds = None
        if passage.done():  # else a signal ended the waiting, and the thread still copies
            slot.passage = None
        raise
    slot.passage = None
