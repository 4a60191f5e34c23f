"""Edit responses: JSON as a whole, an event stream event by event, everything else passes unchanged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import MutableHeaders

Edit = Callable[[bytes], Awaitable[bytes]]


class GuestResponses:
    """An ASGI `send`. `edit` gets each JSON text and returns its replacement. Where `refusal` returns something after a
    response was edited, nothing of the response is sent: the caller sends another one."""

    def __init__(self, send: Any, edit: Edit, refusal: Callable[[], object] = lambda: None) -> None:
        self._send, self._edit, self._refusal = send, edit, refusal
        self._start: Any = None
        self._kind = ""
        self._held = b""
        self.has_started = False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            kind = MutableHeaders(scope=message).get("content-type", "").partition(";")[0].strip()
            self._kind = kind if kind in ("application/json", "text/event-stream") else ""
            if self._kind == "application/json":
                self._start = message
            else:
                await self._forward(message)
        elif message["type"] != "http.response.body" or not self._kind:
            await self._forward(message)
        elif self._kind == "application/json":
            await self._json(message)
        else:
            await self._events(message)

    async def end(self) -> None:
        """End a response that was started and cannot be finished."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _forward(self, message: Any) -> None:
        self.has_started = True
        await self._send(message)

    async def _json(self, message: Any) -> None:
        self._held += message.get("body", b"")
        if message.get("more_body"):
            return
        body = await self._edit(self._held) if self._held else b""
        if self._refusal():
            return
        if self._held:  # HEAD has no body, but its content-length is the body's
            MutableHeaders(scope=self._start)["content-length"] = str(len(body))
        await self._forward(self._start)
        await self._forward({"type": "http.response.body", "body": body, "more_body": False})

    async def _events(self, message: Any) -> None:
        self._held += message.get("body", b"")
        more = message.get("more_body", False)
        whole, end, self._held = self._held.rpartition(b"\n\n")
        if not more:
            whole, end, self._held = whole + end + self._held, b"", b""
        lines = (whole + end).split(b"\n")
        edited = [b"data: " + await self._edit(line[6:]) if line.startswith(b"data: ") else line for line in lines]
        await self._forward({"type": "http.response.body", "body": b"\n".join(edited), "more_body": more})
