"""Brings a checkpoint's components to where they compute, and lets them go: the acts of a course (plan/course.py), done
with tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from engine.a2.adapters import NO_ADAPTERS, Adapters
from engine.a2.loading import OnLoad, align, load_component, use_loras
from engine.a2.plan.course import Component
from engine.a2.plan.fallbacks import tiling_of
from engine.a2.plan.settings import RunSettings, blocks_bytes
from engine.errors import EngineUnavailable, StopCheck, Stopped
from engine.memory.host import free_for_us
from engine.memory.ledger import NOTHING, Held
from engine.memory.shortage import give_back, is_shortage
from engine.words import GIB

if TYPE_CHECKING:
    import torch

    from engine.a2.checkpoint import Checkpoint
    from engine.a2.compute import Compute
    from engine.a2.geometry import ClipSize
    from engine.a2.options import A2Options
    from engine.memory.homes import Waiting
    from engine.memory.slabs import Slabs

_FOR_OTHERS = 4 * GIB  # of memory: what decoding, the libraries and other programs need

STREAMED: tuple[Component, ...] = ("text_encoder", "transformer")


def settings_of(options: A2Options, checkpoint: Checkpoint, clip: ClipSize) -> RunSettings:
    """Return how the options run a clip, in the plan's words."""
    compute, layers = checkpoint.compute, checkpoint.shapes.transformer.layers
    streams, on_card = options.offload == "blocks", compute.device.type != "cpu"
    resident = min(options.resident_blocks or 0, layers) if streams else layers
    host = (options.host or "pinned") if resident < layers else "none"
    waiting = 0 if host == "mapped" else layers - resident
    if options.host is None and options.in_memory is None and on_card and waiting:  # not planned
        waiting = min(waiting, _blocks_of_room(checkpoint, compute))
    together = options.together if options.together is not None else not streams
    return RunSettings(
        device=compute.device.type, precision=compute.precision, number=compute.dtype.itemsize,
        text_number=compute.dtype_of("text_encoder").itemsize,
        offload="blocks" if streams else "none", resident=resident, host=host,
        batched=bool(options.batched_guidance), chunk=options.chunk, tiling=tiling_of(options, clip, on_card),
        encode_tiled=options.encode_tiled, together=together and not streams, streamed=layers - resident,
        in_memory=waiting if options.in_memory is None else min(waiting, options.in_memory),
        keep_context=options.keep_context,
    )  # fmt: skip


def _blocks_of_room(checkpoint: Checkpoint, compute: Compute) -> int:
    """Return for how many of the transformer's blocks there is memory, where nobody has planned that."""
    room, weights = free_for_us(), checkpoint.shapes.transformer.weights
    if room is None:
        return weights.blocks
    block = blocks_bytes(weights, compute.precision, compute.dtype.itemsize) // weights.blocks
    return max(0, room - _FOR_OTHERS) // block


class ComponentMover:
    """Moves the components of a checkpoint as `settings` say; `adapters` change the transformer. `on_load` and `stop`
    are load_checkpoint's; `loading` surrounds what is read from the disk."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: RunSettings,
        adapters: Adapters = NO_ADAPTERS,
        on_load: OnLoad | None = None,
        stop: StopCheck | None = None,
        loading: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._checkpoint, self._settings, self._adapters = checkpoint, settings, adapters
        self._on_load, self._stop, self._loading = on_load, stop, loading

    def held(self, name: Component) -> Held:
        module, slabs = getattr(self._checkpoint, name), self._checkpoint.streams.get(name)
        if module is None:
            return NOTHING
        if slabs is not None:
            return Held(slabs.device_bytes, slabs.host_bytes) + self._elsewhere(name)
        return _bytes_of(module)

    def bring(self, name: Component, fewer: int) -> Held:
        """Load it, if it is not, and put it where it computes. Raises Stopped, or EngineUnavailable; where memory runs
        out, the component is dropped: the next attempt finds nothing halfway."""
        try:
            if self._settings.offload == "blocks" and name in STREAMED:
                self._stream(name, fewer)
            else:
                self._bring_whole(name)
        except EngineUnavailable:
            raise
        except BaseException:
            self.drop(name)
            raise
        return self.held(name)

    def aside(self, name: Component) -> Held:
        """Park it on the host; where there is no room for that, drop it."""
        module, slabs = getattr(self._checkpoint, name), self._checkpoint.streams.get(name)
        try:
            if slabs is not None:
                slabs.park()
            elif module is not None and _is_elsewhere(module, _host()):
                module.to("cpu")
                give_back()
        except Exception as error:
            if not is_shortage(error):
                raise
            return self.drop(name)
        return self.held(name)

    def lend(self, name: Component, card: int) -> Held:
        if (slabs := self._checkpoint.streams.get(name)) is not None:
            slabs.lend(card)
        return self.held(name)

    def drop(self, name: Component) -> Held:
        self._checkpoint.drop(name)
        give_back()
        return NOTHING

    # -- how ----------------------------------------------------------------------------------

    def _bring_whole(self, name: Component) -> None:
        checkpoint, device = self._checkpoint, self._checkpoint.compute.device
        if (slabs := checkpoint.streams.pop(name, None)) is not None:
            slabs.close()
        module = getattr(checkpoint, name)
        if module is not None and name in STREAMED and self._settings.quantised and _is_elsewhere(module, device):
            self.drop(name)  # quantised tensors are read to where they compute: moved, they could become another kind
        if name == "vae" and module is not None and module.dtype != (checkpoint.vae_dtype or module.dtype):
            self.drop(name)  # what was rounded cannot be brought back
        if getattr(checkpoint, name) is None:
            self._load(name, device)
        module, beside = getattr(checkpoint, name), self._settings.quantised
        if name == "transformer" and not checkpoint.fused.is_as(self._adapters, beside):
            use_loras(checkpoint, NO_ADAPTERS)  # as they were put in, where they were put in
        if _is_elsewhere(module, device):
            module.to(device)
        align(checkpoint, name)
        if name == "transformer":
            use_loras(checkpoint, self._adapters, beside)

    def _stream(self, name: Component, fewer: int) -> None:
        """Stream a component's blocks, or change how they do."""
        checkpoint, host = self._checkpoint, _host()
        module, slabs = getattr(checkpoint, name), checkpoint.streams.get(name)
        if module is not None and slabs is None and _is_elsewhere(module, host):  # it was whole, and on the card
            self.drop(name)
            module = None
        if module is None:
            self._load(name, host)
        waiting, resident = self._waiting(name), 0
        if name == "transformer":
            resident = max(0, self._settings.resident - fewer)
            if slabs is not None and not checkpoint.fused.is_as(self._adapters, True):
                checkpoint.streams.pop(name).close()
                slabs = None
            if slabs is None:
                use_loras(checkpoint, self._adapters, beside=True)
        if slabs is None:
            checkpoint.streams[name] = self._open(name, resident, waiting)
        else:
            slabs.rearrange(resident, waiting)
            slabs.unpark()

    def _open(self, name: Component, resident: int, waiting: Waiting) -> Slabs:
        from engine.memory.slabs import stream_blocks

        def ask(*_: int) -> None:
            if self._stop is not None and self._stop():
                raise Stopped

        module = getattr(self._checkpoint, name)
        blocks = module.blocks if hasattr(module, "blocks") else module.encoder.block
        return stream_blocks(module, blocks, self._checkpoint.compute.device, resident, ask, waiting)

    def _waiting(self, name: Component) -> Waiting:
        """Return where a component's blocks wait. A text is read once and the transformer runs a hundred times: memory
        that a card reads by itself is for the transformer; and the text encoder's table of words, of which a prompt
        needs a few hundred rows, does not come to the card."""
        from engine.memory.homes import Waiting

        settings, on_disk = self._settings, name in self._checkpoint.mapped
        if name == "text_encoder":
            encoder = self._checkpoint.text_encoder
            return Waiting("mapped", on_disk, elsewhere=(encoder.shared, encoder.encoder.embed_tokens))
        host = "pinned" if settings.host == "none" else settings.host
        return Waiting(host, on_disk, in_memory=settings.in_memory)

    def _elsewhere(self, name: Component) -> Held:
        """Return what the modules hold that neither stream nor come to the card."""
        if name != "text_encoder" or name in self._checkpoint.mapped:
            return NOTHING
        return _bytes_of(self._checkpoint.text_encoder.shared)

    def _load(self, name: Component, device: torch.device) -> None:
        with self._loading():
            load_component(self._checkpoint, name, device, self._on_load, self._stop)


def _host() -> torch.device:
    import torch

    return torch.device("cpu")


def _is_elsewhere(module: Any, device: torch.device) -> bool:
    there = next(module.parameters()).device
    return bool(there.type != device.type or (device.index is not None and there.index != device.index))


def _bytes_of(module: Any) -> Held:
    """Add up what a module's tensors take on the card and on the host; what is tied counts once."""
    from engine.memory.layout import parts_of

    sizes = {True: 0, False: 0}
    for tensor in {id(each): each for each in (*module.parameters(), *module.buffers())}.values():
        sizes[tensor.device.type == "cpu"] += sum(part.nbytes for part in parts_of(tensor))
    return Held(sizes[False], sizes[True])
