"""Transformer blocks that stream through the device's memory: two slots, and copies that overlap with the computing.

A block's bytes wait in a slab on the host, so that it is one copy, or in the mapped file that they were read from
(homes.py). The device has two slots of a block's size (slots.py), and a block's tensors are views of its slot from the
beginning to the end: nothing is allocated and nothing is pointed elsewhere while the model runs. Whenever a block is
done, its slot is refilled with the block that uses the slot next; after the last blocks these are the first ones of the
next forward. Two events a slot say when it is filled (`ready`) and when it may be overwritten (`free`); the device
waits for them, the host does not.

Blocks may be left out or come in any order, as step caches do it: what a slot does not hold is fetched when it is
needed.

Not diffusers' group offload (0.42): it assigns `.data`, which leaves a quanto weight's bytes where they are; it
allocates and copies each tensor by itself, and the host waits for the device at every block; without a stream the
weights are copied back. On a card the two have not been compared yet (tests/bench/streaming.py; on a CPU it copies
nothing, and its hooks add 6 ms to a forward of ten blocks, leaf by leaf 12, where this adds 0.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from engine.memory.copies import CudaCopies, PlainCopies, copies_for
from engine.memory.homes import IN_MEMORY, Home, Waiting
from engine.memory.layout import Layout, lay_out
from engine.memory.slots import Slots
from engine.memory.staging import Staging
from engine.memory.streamed import Streamed, check_unwrapped

OnBlock = Callable[[int, int], None]  # blocks packed, of


def interleave(count: int, resident: int) -> tuple[int, ...]:
    """Choose which of `count` blocks stay on the device: evenly spread, so that copies overlap with their computing
    too, and with the first among them, which every step cache computes."""
    resident = min(resident, count)
    return tuple(index * count // resident for index in range(resident))


class Slabs:
    """A model whose blocks stream; everything else in it is moved to the device.

    `blocks` is the model's list of them, such as WanTransformer3DModel.blocks; they may differ in size, and may be
    quantised. `resident` of them stay on the device; `waiting` says where the others wait. `on_block` is called before
    each block is packed, and may raise.

    Weights are changed (a LoRA is fused, say) before this is opened: what is written to a view of a slot is lost with
    the next copy. A step cache is put on the blocks after it. Where opening fails, the model is left without weights.
    One thread at a time may run the model.

    `notices` is what the person should know; `device_bytes` and `host_bytes` are what weights take there now: mapped
    files do not count.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        blocks: Sequence[torch.nn.Module],
        copies: PlainCopies | CudaCopies,
        resident: int = 0,
        on_block: OnBlock | None = None,
        waiting: Waiting = IN_MEMORY,
    ) -> None:
        if resident < 0:
            raise ValueError(f"{resident} resident blocks")
        for index, block in enumerate(blocks):
            check_unwrapped(index, block)
        self._copies, self.waiting = copies, waiting
        self._forwards: list[tuple[torch.nn.Module, Streamed]] = []
        self._homes: list[Home] = []  # of the blocks
        self._rest: Home | None = None  # what is in none of them
        self._slots = Slots(copies)
        self._hook: Any = None
        self._refused = False  # the system: to pin more
        self._open, self.parked, self._lent = True, False, False
        self.resident = interleave(len(blocks), resident)
        try:
            with torch.inference_mode(False), torch.no_grad():
                layouts = [lay_out(block.modules()) for block in blocks]
                self._make_slots([layout.nbytes for layout in layouts])
                self._rest = self._stay(_outside(model, blocks, waiting.elsewhere))
                for index, layout in enumerate(layouts):
                    if on_block is not None:
                        on_block(index, len(layouts))
                    self._homes.append(self._stay(layout) if index in self.resident else self._wait(index, layout))
            for index, block in enumerate(blocks):
                block.forward = Streamed(self._slots.in_place, index, block.forward)
                self._forwards.append((block, block.forward))
            self._slots.serve(self._homes)
            self._slots.fill()
            self._hook = model.register_forward_pre_hook(lambda *_: self.unpark())
        except BaseException:
            self.close(restore=False)
            raise

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
        if self._slots.staging is not None:
            self._slots.staging.close()
        self._copies.drain()
        for block, forward in self._forwards:
            forward.in_place = None
            if block.forward is forward:
                del block.forward
        with torch.inference_mode(False), torch.no_grad():
            for home in self._all_homes():
                home.leave(self._copies, restore)
        self._slots.drop()
        self._homes, self._rest, self._forwards = [], None, []
        self._copies.close()

    @property
    def device_bytes(self) -> int:
        kept = sum(home.kept.numel() for home in self._all_homes() if home.kept is not None)
        return kept + self._slots.nbytes

    @property
    def host_bytes(self) -> int:
        slabs = sum(home.slab.numel() for home in self._all_homes() if home.slab is not None)
        return slabs + (self._slots.staging.nbytes if self._slots.staging is not None else 0)

    @property
    def notices(self) -> tuple[str, ...]:
        paged = sum(home.slab is not None and not home.pinned for home in self._homes)
        if not paged or not self._refused:
            return ()
        return (
            f"{paged} of the model's {len(self._homes)} blocks take a detour through a small buffer, which can be"
            " slower: there is no more memory here that the card may read by itself. Closing other programs can help.",
        )

    # ------------------------------------------------------------------------------------------------------------------
    # Making room for others, between two forwards

    def lend(self, nbytes: int) -> int:
        """Free at least so many bytes of the device, as far as resident blocks that are on disk, too, hold them; return
        how many are free now. They come back with the next forward."""
        freed = 0
        if self.waiting.on_disk and not self.parked:
            for index in reversed(self.resident):
                if freed >= nbytes:
                    break
                freed += self._homes[index].give_up()
        if freed:
            self._lent = True
            self._copies.give_back()
        return freed

    def park(self) -> None:
        """Free the device's memory for other components. What does not stream moves to the host, and takes memory
        there (unless it is on disk), until the model runs again. Where that memory cannot be allocated, the error is
        raised and everything stays as it was."""
        if not self._open or self.parked:
            return
        self._slots.settle()
        with torch.inference_mode(False), torch.no_grad():
            self._make_slabs([home for home in self._all_homes() if home.kept is not None and home.origin is None])
            for home in self._all_homes():
                home.give_up()
            self._slots.park()
        self.parked, self._lent = True, False
        self._copies.give_back()

    def unpark(self) -> None:
        """Allocate the device's memory again and move back what was there; the model's forward does it by itself."""
        if not (self.parked or self._lent):
            return
        with torch.inference_mode(False), torch.no_grad():
            room = self._slots.room() if self.parked else []
            self._bring_back()
            if self.parked:
                self._slots.unpark(room)
        self.parked = self._lent = False
        self._slots.fill()

    def rearrange(self, resident: int, waiting: Waiting | None = None) -> None:
        """Let another number of blocks stay on the device, or the others wait elsewhere. The model must not run
        meanwhile."""
        wanted, waiting = interleave(len(self._homes), resident), waiting or self.waiting
        if wanted == self.resident and waiting == self.waiting:
            return
        self._slots.settle()
        self.waiting = waiting
        with torch.inference_mode(False), torch.no_grad():
            leaving = [index for index in self.resident if index not in wanted]
            self._make_slabs([self._homes[index] for index in leaving if self._homes[index].origin is None])
            for index in leaving:
                self._homes[index].give_up()
            self._slots.drop()
            self.resident = wanted
            self._copies.give_back()
            self._make_slots([home.nbytes for home in self._homes])
            self._bring_back()
            for index, home in enumerate(self._homes):
                if index in wanted or (index not in self._in_slabs and home.origin is not None):
                    home.drop_slab(self._copies)
            for index in self._slots.blocks:
                home = self._homes[index]
                self._make_slabs([home] if index in self._in_slabs else [])
                self._pin(home)
                home.layout.show(self._slots.buffer_of(index))
        self.parked = self._lent = False
        self._slots.fill()

    def _bring_back(self) -> None:
        """Bring to the device what stays there and is not there now."""
        staying = [self._homes[index] for index in self.resident] + ([self._rest] if self._rest else [])
        self._keep([home for home in staying if home.kept is None])

    def _make_slabs(self, homes: Sequence[Home]) -> None:
        """Put these into slabs, all of them or none."""
        made: list[Home] = []
        try:
            for home in homes:
                if home.slab is None:
                    home.make_slab(self._copies)
                    made.append(home)
        except BaseException:
            for home in made:
                home.drop_slab(self._copies)
            raise

    def _keep(self, homes: Sequence[Home]) -> None:
        """Bring these to the device, where they stay, all of them or none."""
        there = [self._copies.allocate(home.nbytes) for home in homes]
        for home, buffer in zip(homes, there, strict=True):
            home.keep(buffer)
            if home.slab is not None and not home.pinned:
                home.drop_slab(self._copies)

    def _all_homes(self) -> list[Home]:
        return self._homes + ([self._rest] if self._rest is not None else [])

    # ------------------------------------------------------------------------------------------------------------------
    # Opening

    def _make_ring(self) -> None:
        """Have the buffers through which blocks go that the card cannot read by itself, before anything is pinned."""
        all_pinned = self.waiting.host == "pinned" and self._in_slabs >= set(self._slots.blocks)
        reads = self._copies.reads_anything or all_pinned
        if not reads and self._slots.staging is None:
            self._slots.staging = Staging(self._copies)

    def _make_slots(self, sizes: Sequence[int]) -> None:
        streamed = [index for index in range(len(sizes)) if index not in self.resident]
        self._slots.make({index: sizes[index] for index in streamed})
        self._in_slabs = {streamed[rank] for rank in interleave(len(streamed), self._room_for(len(streamed)))}
        self._make_ring()

    def _room_for(self, streamed: int) -> int:
        """Return how many of so many streamed blocks wait in memory; the others in the file."""
        if not self.waiting.on_disk:
            return streamed
        if self.waiting.host == "mapped":
            return 0
        return streamed if self.waiting.in_memory is None else min(streamed, self.waiting.in_memory)

    def _stay(self, layout: Layout) -> Home:
        """Pack modules into a buffer on the device, where they stay."""
        home, buffer = Home(layout, self.waiting.on_disk), self._copies.allocate(layout.nbytes)
        layout.pack(buffer, buffer)
        home.kept = buffer
        return home

    def _wait(self, index: int, layout: Layout) -> Home:
        """Put a block where it waits, and show it in its slot."""
        home, slot = Home(layout, self.waiting.on_disk), self._slots.buffer_of(index)
        if index not in self._in_slabs:
            layout.show(slot)
            return home
        home.pack(self._copies, slot)
        self._pin(home)
        return home

    def _pin(self, home: Home) -> None:
        """Let the card read a slab by itself, until the system refuses that."""
        if home.slab is None or home.pinned or self._refused or self.waiting.host != "pinned":
            return
        home.pinned = self._copies.pin(home.slab)
        if not home.pinned:
            self._refused = True
            self._slots.staging = self._slots.staging or Staging(self._copies)


def stream_blocks(
    model: torch.nn.Module,
    blocks: Sequence[torch.nn.Module],
    device: torch.device,
    resident: int = 0,
    on_block: OnBlock | None = None,
    waiting: Waiting = IN_MEMORY,
) -> Slabs:
    """Stream a model's blocks to `device`; see Slabs."""
    return Slabs(model, blocks, copies_for(device), resident, on_block, waiting)


def _outside(model: torch.nn.Module, blocks: Sequence[torch.nn.Module], elsewhere: Sequence[torch.nn.Module]) -> Layout:
    inside = {id(module) for part in (*blocks, *elsewhere) for module in part.modules()}
    return lay_out(module for module in model.modules() if id(module) not in inside)
