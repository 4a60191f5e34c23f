"""Copies from memory that cannot be pinned: a thread takes them through a few small buffers that are."""

from __future__ import annotations

import itertools
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

CHUNK = 32 * 2**20  # bytes; a power of two, which is what the pinned allocator hands out
CHUNKS = 3  # one is filled while another is copied; the third evens out delays


class Staging:
    """One thread and a ring of pinned buffers. Where not even these can be pinned, the driver does the staging
    itself."""

    def __init__(self, copies: Any, chunk: int = CHUNK) -> None:
        self._copies = copies
        self._chunk = chunk
        buffers = [copies.staging(chunk) for _ in range(CHUNKS)]
        places: list[tuple[torch.Tensor, Any] | None] = [(each, copies.event()) for each in buffers if each is not None]
        self._ring = itertools.cycle(places or [None])
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slabs")

    def submit(self, target: torch.Tensor, source: torch.Tensor, after: Any, done: Any) -> Future[None]:
        """Copy `source` to `target` once the event `after` is reached. The future is done when all copies are queued
        and the event `done` is recorded, not before: whoever waits for `done` waits for the future first."""
        return self._thread.submit(self._carry, target, source, after, done)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _carry(self, target: torch.Tensor, source: torch.Tensor, after: Any, done: Any) -> None:
        copies = self._copies
        for there, here in zip(torch.split(target, self._chunk), torch.split(source, self._chunk), strict=True):
            place = next(self._ring)
            if place is None:
                copies.copy(there, here, after)
                continue
            buffer, emptied = place
            copies.hold(emptied)
            buffer[: len(here)].copy_(here)
            copies.copy(there, buffer[: len(here)], after)
            copies.mark_copied(emptied)
        copies.mark_copied(done)
