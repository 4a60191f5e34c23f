"""Connections on which no request has arrived yet. They cannot be counted per visitor, so their number and time are
limited: each costs a file handle, and a server without handles can accept nobody.

Where there are too many, the oldest is closed. A browser sends its request at once, so even then it gets through, and
so does the owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MOST = 256  # waiting at once; fewer where there are few file handles
PATIENCE = 15.0  # seconds within which the head of a request has to arrive
_LOOK = 1.0  # seconds between two checks of the waiting connections
_EVERY = 60.0  # seconds between two lines about the same problem
_NOISY = {
    "socket.accept() out of system resource": "Too many connections are open; new ones wait. ulimit -n sets how many "
    "are possible.",
    "Invalid HTTP request received.": "Something that is no HTTP request was received, and refused.",
    "Unsupported upgrade request.": "A connection of a kind that is not spoken here was asked for, and refused.",
    "No supported WebSocket library": "",
}


class Connections:
    """The waiting connections of one server; all methods run in its event loop."""

    def __init__(
        self, most: int = MOST, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._patience, self._clock = most, patience, clock
        self._waiting: OrderedDict[Any, float] = OrderedDict()  # connections, and since when, the oldest first
        self._is_looking = False

    def watch(self, server: Any) -> None:
        """Watch the connections of a uvicorn server that has been started."""

        class Watched(server.config.http_protocol_class):  # type: ignore[misc]  # uvicorn chooses it as it starts
            lobby = self

            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                self.lobby.look_at(self)

            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                self.lobby.look_at(self)

            def connection_lost(self, exc: Exception | None) -> None:
                self.lobby.gone(self)
                super().connection_lost(exc)

        server.config.http_protocol_class = Watched  # it is read for each new connection

    def look_at(self, connection: Any) -> None:
        """Note a connection that was opened or has received data: it waits until a request is being answered."""
        cycle = connection.cycle
        if cycle is not None and not cycle.response_complete:  # a request is being answered
            self._waiting.pop(connection, None)
            return
        if connection not in self._waiting and not connection.transport.is_closing():
            self._waiting[connection] = self._clock()
            if len(self._waiting) > self._most:
                _close(self._waiting.popitem(last=False)[0])
            if not self._is_looking:
                self._is_looking = True
                asyncio.get_running_loop().call_later(_LOOK, self._look)

    def gone(self, connection: Any) -> None:
        self._waiting.pop(connection, None)

    def _look(self) -> None:
        late = self._clock() - self._patience
        for connection, since in list(self._waiting.items()):
            if since > late:
                break
            del self._waiting[connection]
            _close(connection)
        self._is_looking = bool(self._waiting)
        if self._is_looking:
            asyncio.get_running_loop().call_later(_LOOK, self._look)


class _Seldom(logging.Filter):
    """Replaces log messages that strangers can cause as often as they like by a line of ours, at most once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        found = next((begins for begins in _NOISY if message.startswith(begins)), None)
        if found is None:
            return True
        now = time.monotonic()
        if not _NOISY[found] or now - self._said.get(found, -_EVERY) < _EVERY:
            return False
        self._said[found] = now
        record.msg, record.args, record.exc_info, record.exc_text = _NOISY[found], (), None, None
        return True


def speak_seldom() -> None:
    """Rate limit the log messages about connections, so that strangers cannot flood the console."""
    for name in ("asyncio", "uvicorn.error"):
        logger = logging.getLogger(name)
        if not any(isinstance(each, _Seldom) for each in logger.filters):
            logger.addFilter(_Seldom())


def _close(connection: Any) -> None:
    with contextlib.suppress(Exception):  # it may be closing by itself
        connection.transport.abort()
