"""Which components are on the device: those whose blocks stream, and the others, which are moved there in turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from engine.errors import Stopped

if TYPE_CHECKING:
    from engine.a2.checkpoint import Checkpoint
    from engine.a2.compute import Compute
    from engine.memory.slabs import Slabs

STREAMED = ("text_encoder", "transformer")


def open_streams(parts: dict[str, Any], compute: Compute, stop: Callable[[], bool] | None = None) -> dict[str, Slabs]:
    """Stream the blocks of what can be streamed, with offload "blocks"; {} without. The weights lie on the host until
    then.

    Raises Stopped; the components cannot be used then.
    """
    if compute.offload != "blocks":
        return {}
    from engine.memory.slabs import stream_blocks

    def ask(*_: int) -> None:
        if stop is not None and stop():
            raise Stopped

    with contextlib.ExitStack() as opened:
        streams = {}
        for name in STREAMED:
            # A text is read once and the transformer runs a hundred times: what may stay is the transformer's.
            resident = compute.resident_blocks if name == "transformer" else 0
            streams[name] = stream_blocks(parts[name], _blocks(parts[name]), compute.device, resident, ask)
            opened.callback(streams[name].close, restore=False)
        opened.pop_all()
    return streams


@contextlib.contextmanager
def turn(checkpoint: Checkpoint, name: str) -> Iterator[None]:
    """Move a component to the device; on exit move it back. With offload "blocks" it waits on the host before and
    after, so that the card holds one of them at a time; without, all stay where they are."""
    streams, home, device = checkpoint.streams, checkpoint.compute.home, checkpoint.compute.device
    if not streams:
        yield
        return
    module = getattr(checkpoint, name)
    try:
        if name not in streams:  # what streams comes by itself when it runs
            module.to(device)
        yield
    finally:
        if name in streams:
            streams[name].park()
        else:
            module.to(home)


def step_aside(checkpoint: Checkpoint, all_of_it: bool) -> None:
    """Park the transformer, if its blocks stream, until it runs again, so that other components have its device memory.
    Where some of its blocks are resident only with `all_of_it`, since they then take as much memory on the host."""
    slabs = checkpoint.streams.get("transformer")
    if slabs is not None and (all_of_it or not slabs.resident):
        slabs.park()


def _blocks(module: Any) -> Any:
    return module.blocks if hasattr(module, "blocks") else module.encoder.block
