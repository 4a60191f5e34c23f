"""How much memory opening pictures may take: of one picture, and of all that are opened at once in this process."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

DECODING = 245_000_000  # bytes that decoding one picture may take: 61 megapixels in Pillow's 4 bytes each
TOGETHER = 290_000_000  # bytes that all at once may take, with the pictures made of them
KEPT_PIXELS = 16_000_000  # most pixels of the result: an ordinary phone's photo stays as it is; a frame has 2 million
_MUCH = 30_000_000  # bytes after which the allocator is asked to give back what is free


class Gate:
    """Limits the memory of concurrent work: each waits until the bytes that it is going to take are free, in order of
    arrival."""

    def __init__(self, room: int = TOGETHER) -> None:
        self._room, self._taken = room, 0
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, wanted: int) -> Iterator[None]:
        """Hold so many bytes, a context manager that first waits until they are free.

        More than there is at all counts as all of it.
        """
        wanted, ticket = min(wanted, self._room), object()
        with self._changed:
            self._line.append(ticket)
            try:
                self._changed.wait_for(lambda: self._line[0] is ticket and self._taken + wanted <= self._room)
                self._taken += wanted
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()
        try:
            if wanted > _MUCH:
                _give_back()
            yield
        finally:
            if wanted > _MUCH:
                _give_back()
            with self._changed:
                self._taken -= wanted
                self._changed.notify_all()


def _give_back() -> None:
    """Return freed memory to the system.

    glibc keeps it for each thread, so that four threads in turn would hold four times what one needs. Elsewhere the
    allocators do it by themselves.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)


@cache
def shared_gate() -> Gate:
    """Return the process's only gate, created at the first call."""
    return Gate()
