"""Open responses to guests, such as streams: they are cancelled when the public link ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import anyio


class OpenStreams:
    """The responses that are being sent now, in any event loop."""

    def __init__(self) -> None:
        self._open: dict[anyio.CancelScope, asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def stay(self, seconds: float | None) -> Iterator[anyio.CancelScope]:
        """Run the block as a response that is cancelled after so many seconds (None: it has no limit) and by
        `end_all`."""
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
        """Cancel all open responses. Can be called from any thread."""
        with self._lock:
            scopes = list(self._open.items())
        for scope, loop in scopes:
            with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(scope.cancel)
