"""The components whose blocks stream: which of their modules are the blocks, and how many of them stay."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.errors import Stopped

if TYPE_CHECKING:
    from engine.a2.checkpoint import Compute
    from engine.memory.slabs import Slabs

STREAMED = ("text_encoder", "transformer")


def open_streams(parts: dict[str, Any], compute: Compute, stop: Callable[[], bool] | None = None) -> dict[str, Slabs]:
    """With offload "blocks", stream what can be; {} without. The weights lie on the host until then.

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


def _blocks(module: Any) -> Any:
    return module.blocks if hasattr(module, "blocks") else module.encoder.block
