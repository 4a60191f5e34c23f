"""Answers to guests that are open, such as streams: they end when the guests' time is over, not when they please."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import anyio


class OpenStreams:
    """Who is being answered now, in whichever loop."""

    def __init__(self) -> None:
        self._open: dict[anyio.CancelScope, asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def stay(self, seconds: float | None) -> Iterator[anyio.CancelScope]:
        """An answer, which is broken off after so many seconds (None: it may go on) and when all are ended."""
        scope = anyio.CancelScope() if seconds is None else anyio.move_on_after(seconds)
        with self._lock:
            self._open[scope] = asyncio.get_running_loop()
        try:
            with scope:
                yield scope
        finally:
            with self._lock:
                del self._open[scope]

    def end_all(self) -> None:
        """Break off all that are open. From any thread."""
        with self._lock:
            scopes = list(self._open.items())
        for scope, loop in scopes:
            with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(scope.cancel)
