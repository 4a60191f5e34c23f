"""Transformer blocks that stream through the device's memory: two slots, and copies that overlap with the computing.

Every block's tensors lie in one slab on the host, so that a block is one copy. The device has two slots of a block's
size, and a block's tensors are views of its slot from the beginning to the end: nothing is allocated and nothing is
pointed elsewhere while the model runs. Whenever a block is done, its slot is refilled with the block that uses the slot
next; after the last blocks these are the first ones of the next forward. Two events a slot say when it is filled
(`ready`) and when it may be overwritten (`free`); the device waits for them, the host does not.

Blocks may be left out or come in any order, as step caches do it: what a slot does not hold is fetched when it is
needed.

Not diffusers' group offload (0.42): it assigns `.data`, which leaves a quanto weight's bytes where they are; it
allocates and copies each tensor by itself, and the host waits for the device at every block; without a stream the
weights are copied back. On a card the two have not been compared yet (tests/bench/streaming.py; on a CPU it copies
nothing, and its hooks add 6 ms to a forward of ten blocks, leaf by leaf 12, where this adds 0.3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import torch

from engine.memory.copies import CudaCopies, PlainCopies, copies_for
from engine.memory.layout import Layout, lay_out
from engine.memory.staging import Staging
from engine.memory.streamed import Streamed, check_unwrapped

OnBlock = Callable[[int, int], None]  # blocks packed, of


def interleave(count: int, resident: int) -> tuple[int, ...]:
    """Choose which of `count` blocks stay on the device: evenly spread, so that copies overlap with their computing
    too, and with the first among them, which every step cache computes."""
    resident = min(resident, count)
    return tuple(index * count // resident for index in range(resident))


@dataclass
class _Slot:
    buffer: torch.Tensor  # empty while parked
    ready: Any
    free: Any
    holds: int | None = None  # the block whose copy was asked for last
    computing: int | None = None
    passage: Future[None] | None = None  # a copy that goes through the staging thread


@dataclass(frozen=True)
class _Home:
    """Where a block's bytes stay: on the host, or, if it is resident and not parked, on the device."""

    layout: Layout
    buffer: torch.Tensor
    pinned: bool = True


class Slabs:
    """A model whose blocks stream; everything else in it is moved to the device.

    `blocks` is the model's list of them, such as WanTransformer3DModel.blocks; they may differ in size, and may be
    quantised. `resident` of them stay on the device. `on_block` is called before each block is packed, and may raise.

    Weights are changed (a LoRA is fused, say) before this is opened, or inside `changing()`: what is written to a view
    of a slot is lost with the next copy. A step cache is put on the blocks after it. Where opening fails, the model is
    left without weights. One thread at a time may run the model.

    `notices` is what the person should know; `device_bytes` and `host_bytes` are what weights take there, unless it is
    `parked`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        blocks: Sequence[torch.nn.Module],
        copies: PlainCopies | CudaCopies,
        resident: int = 0,
        on_block: OnBlock | None = None,
    ) -> None:
        if resident < 0:
            raise ValueError(f"{resident} resident blocks")
        for index, block in enumerate(blocks):
            check_unwrapped(index, block)
        self._copies = copies
        self._forwards: list[tuple[torch.nn.Module, Streamed]] = []
        self._homes: dict[int | None, _Home] = {}  # None: what is not in a block
        self._slots: list[_Slot] = []
        self._slot_of: dict[int, _Slot] = {}  # by a block that streams
        self._staging: Staging | None = None
        self._hook: Any = None
        self._open, self.parked = True, False
        self.resident = interleave(len(blocks), resident)
        streamed = [index for index in range(len(blocks)) if index not in self.resident]
        try:
            with torch.inference_mode(False), torch.no_grad():
                layouts = [lay_out(block.modules()) for block in blocks]
                self._make_slots(layouts, streamed)
                self._keep(None, _outside(model, blocks))
                for index, layout in enumerate(layouts):
                    if on_block is not None:
                        on_block(index, len(layouts))
                    self._keep(index, layout)
            for index in streamed:
                block = blocks[index]
                block.forward = Streamed(self.in_place, index, block.forward)
                self._forwards.append((block, block.forward))
            self._fill()
            self._hook = model.register_forward_pre_hook(lambda *_: self.unpark())
        except BaseException:
            self.close(restore=False)
            raise
        self.notices = self._say(len(blocks))
        self.host_bytes = sum(self._homes[index].layout.nbytes for index in streamed)
        kept = sum(home.layout.nbytes for home in self._homes.values()) - self.host_bytes
        self.device_bytes = kept + sum(slot.buffer.numel() for slot in self._slots)

    def __enter__(self) -> Slabs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, restore: bool = True) -> None:
        """Free the slots, the slabs and the staging thread. The model then has ordinary weights on the host again, or,
        without `restore`, tensors without data (on the meta device). Closing twice does nothing."""
        if not self._open:
            return
        self._open = False
        if self._hook is not None:
            self._hook.remove()
        if self._staging is not None:
            self._staging.close()
        self._copies.drain()
        for block, forward in self._forwards:
            forward.in_place = None
            if block.forward is forward:
                del block.forward
        while self._homes:
            self._leave_home(*self._homes.popitem(), restore)
        self._slots, self._slot_of, self._forwards = [], {}, []
        self._copies.close()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Make every weight changeable, those of streamed blocks on the host; on exit copy the blocks to the device
        again. Shapes and types must stay, and the model must not run meanwhile."""
        self.unpark()
        self._settle()
        streamed = [(slot, self._homes[index]) for index, slot in self._slot_of.items()]
        for _, home in streamed:
            home.layout.show(home.buffer)
        try:
            yield
        finally:
            with torch.inference_mode(False), torch.no_grad():
                for slot, home in streamed:
                    home.layout.pack(home.buffer, slot.buffer)
            self._fill()

    def park(self) -> None:
        """Free the device's memory for other components. What does not stream moves to the host, and takes memory
        there, until the model runs again. Where that memory cannot be allocated, the error is raised and everything
        stays as it was."""
        if not self._open or self.parked:
            return
        self._settle()
        with torch.inference_mode(False), torch.no_grad():
            self._move(self._copies.allocate_host)
            for slot in self._slots:
                slot.buffer = slot.buffer.new_empty(0)
            for index in self._slot_of:
                self._homes[index].layout.hollow()
        self.parked = True
        self._copies.give_back()

    def unpark(self) -> None:
        """Allocate the device's memory again and move back what was there; the model's forward does it by itself."""
        if not self.parked:
            return
        with torch.inference_mode(False), torch.no_grad():
            room = [self._copies.allocate(self._slot_size) for _ in self._slots]
            self._move(self._copies.allocate)
            for slot, buffer in zip(self._slots, room, strict=True):
                slot.buffer = buffer
                self._copies.mark_computed(slot.free)  # kernels that used this memory before may still run
            for index, slot in self._slot_of.items():
                self._homes[index].layout.show(slot.buffer)
        self.parked = False
        self._fill()

    def _move(self, allocate: Callable[[int], torch.Tensor]) -> None:
        """Move what does not stream into newly allocated buffers, all of it or nothing."""
        kept = {index: home for index, home in self._homes.items() if index not in self._slot_of}
        there = {index: allocate(home.layout.nbytes) for index, home in kept.items()}
        for index, home in kept.items():
            buffer = there.pop(index)
            buffer[: home.layout.nbytes].copy_(home.buffer[: home.layout.nbytes])
            home.layout.show(buffer)
            self._homes[index] = replace(home, buffer=buffer)

    # ------------------------------------------------------------------------------------------------------------------
    # Opening

    def _make_slots(self, layouts: Sequence[Layout], streamed: Sequence[int]) -> None:
        self._slot_size = max((layouts[index].nbytes for index in streamed), default=0)
        self._slots = [
            _Slot(self._copies.allocate(self._slot_size), self._copies.event(), self._copies.event())
            for _ in streamed[:2]
        ]
        for slot in self._slots:
            self._copies.mark_computed(slot.free)  # kernels that used this memory before may still run
        self._slot_of = {index: self._slots[rank % 2] for rank, index in enumerate(streamed)}
        self._next: dict[int, int] = {}  # the block that uses a block's slot after it
        for first in range(len(self._slots)):
            users = streamed[first::2]
            self._next.update(zip(users, [*users[1:], users[0]], strict=True))

    def _keep(self, index: int | None, layout: Layout) -> None:
        """Pack a block (None: what is outside all of them) into the buffer where it stays: on the device, or, where it
        streams, on the host, pinned if possible."""
        slot = None if index is None else self._slot_of.get(index)
        if slot is None:
            buffer = self._copies.allocate(layout.nbytes)
            self._homes[index] = _Home(layout, buffer)
            layout.pack(buffer, buffer)
            return
        buffer = self._copies.allocate_host(layout.nbytes)
        self._homes[index] = _Home(layout, buffer, pinned=False)
        layout.pack(buffer, slot.buffer)
        if self._staging is None:
            if self._copies.pin(buffer):
                self._homes[index] = _Home(layout, buffer)
            else:
                self._staging = Staging(self._copies)

    def _leave_home(self, index: int | None, home: _Home, restore: bool) -> None:
        if restore:
            with torch.inference_mode(False), torch.no_grad():
                home.layout.unpack(home.buffer)
        else:
            home.layout.hollow()
        self._copies.unpin(home.buffer)

    def _say(self, blocks: int) -> tuple[str, ...]:
        paged = sum(not home.pinned for home in self._homes.values())
        if not paged:
            return ()
        return (
            f"{paged} of the model's {blocks} blocks take a detour through a small buffer, which can be slower: there"
            " is no more memory here that the card may read by itself. Closing other programs can help.",
        )

    # ------------------------------------------------------------------------------------------------------------------
    # Running

    @contextlib.contextmanager
    def in_place(self, index: int) -> Iterator[None]:
        """Wait until block `index` is in its slot; on exit mark the slot free and prefetch the block that uses it next.
        Raises RuntimeError where another block computes in the slot."""
        slot = self._slot_of[index]
        if slot.computing is not None:
            raise RuntimeError(f"block {index} was called while block {slot.computing} computes in the same slot")
        self._load(index)
        self._arrive(slot)
        self._copies.wait(slot.ready)
        slot.computing = index
        try:
            yield
        finally:
            slot.computing = None
            self._copies.mark_computed(slot.free)
            self._load(self._next[index])

    def _fill(self) -> None:
        """Start copying the first block of each slot."""
        for index in list(self._slot_of)[: len(self._slots)]:
            self._load(index)

    def _settle(self) -> None:
        """Wait for all copies, and forget what the slots hold."""
        for slot in self._slots:
            self._arrive(slot)
            slot.holds = None
        self._copies.drain()

    def _load(self, index: int) -> None:
        """Start copying a block into its slot, unless it is there or on its way."""
        slot, home = self._slot_of[index], self._homes[index]
        if slot.holds == index:
            return
        if slot.passage is not None and not slot.passage.cancel():  # a block that was skipped meanwhile
            self._arrive(slot)
        slot.holds, slot.passage = None, None
        target = slot.buffer[: home.layout.nbytes]
        if home.pinned or self._staging is None:
            self._copies.copy(target, home.buffer, slot.free)
            self._copies.mark_copied(slot.ready)
        else:
            slot.passage = self._staging.submit(target, home.buffer, slot.free, slot.ready)
        slot.holds = index

    def _arrive(self, slot: _Slot) -> None:
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


def stream_blocks(
    model: torch.nn.Module,
    blocks: Sequence[torch.nn.Module],
    device: torch.device,
    resident: int = 0,
    on_block: OnBlock | None = None,
) -> Slabs:
    """Stream a model's blocks to `device`; see Slabs."""
    return Slabs(model, blocks, copies_for(device), resident, on_block)


def _outside(model: torch.nn.Module, blocks: Sequence[torch.nn.Module]) -> Layout:
    inside = {id(module) for block in blocks for module in block.modules()}
    return lay_out(module for module in model.modules() if id(module) not in inside)
