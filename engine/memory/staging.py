"""Copies from memory that cannot be pinned: a thread takes them through a few small buffers that are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from engine.memory.card import CHUNK, CHUNKS
from engine.memory.layout import Piece


class Staging:
    """One thread and a ring of pinned buffers. Where not even these can be pinned, the driver does the staging
    itself."""

    def __init__(self, copies: Any, chunk: int = CHUNK) -> None:
        self._copies = copies
        self._chunk = chunk
        buffers = [copies.staging(chunk) for _ in range(CHUNKS)]
        places: list[tuple[torch.Tensor, Any] | None] = [(each, copies.event()) for each in buffers if each is not None]
        self.nbytes = chunk * len(places)
        self._ring = itertools.cycle(places or [None])
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slabs")

    def submit(self, target: torch.Tensor, pieces: Sequence[Piece], after: Any, done: Any) -> Future[None]:
        """Copy the pieces to their places in `target` once the event `after` is reached. The future is done when all
        copies are queued and the event `done` is recorded, not before: whoever waits for `done` waits for the future
        first."""
        return self._thread.submit(self._carry, target, pieces, after, done)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _carry(self, target: torch.Tensor, pieces: Sequence[Piece], after: Any, done: Any) -> None:
        copies = self._copies
        for start, load in _loads(pieces, self._chunk):
            place = next(self._ring)
            if place is None:
                for begin, piece in load:
                    copies.copy(target[start + begin : start + begin + len(piece)], piece, after)
                continue
            buffer, emptied = place
            copies.hold(emptied)
            for begin, piece in load:
                buffer[begin : begin + len(piece)].copy_(piece)
            used = load[-1][0] + len(load[-1][1])  # what lies between the pieces is carried along
            copies.copy(target[start : start + used], buffer[:used], after)
            copies.mark_copied(emptied)
        copies.mark_copied(done)


def _loads(pieces: Sequence[Piece], size: int) -> Iterator[tuple[int, list[Piece]]]:
    """Cut the pieces, which are in order, into loads of at most `size` bytes from their first to their last: yield
    where each begins, and what is in it, relative to that."""
    start, load = 0, list[Piece]()
    for begin, piece in pieces:
        for part in torch.split(piece, size):
            if load and begin + len(part) - start > size:
                yield start, load
                load = []
            if not load:
                start = begin
            load.append((begin - start, part))
            begin += len(part)
    if load:
        yield start, load
