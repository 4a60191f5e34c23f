"""Uploads and a full disk: refuse an upload that has no room before it is written, and explain a disk that fills up
meanwhile. Gradio's answer would be a bare HTTP 500."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse

from engine.disk.room import free_bytes, is_full

log = logging.getLogger("troupe.guard")

OURS = "The disk of this Troupe is full"  # for guests: no folder is named
FULL = f"{OURS}. Free some space on it, then add the pictures again."
_SPARE = 1_000_000  # bytes that an upload leaves free, for the desk that it goes to
_READ_OUT = 100_000_000  # bytes of a refused upload that are still read


class UploadRoom:
    """ASGI middleware around `app` that watches the disk of the folder `uploads` during uploads."""

    def __init__(self, app: Any, uploads: Path) -> None:
        self.app, self._uploads = app, uploads
        self._under_way, self._cut_off = 0, False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "").rstrip("/")
        if scope["type"] != "http" or scope["method"] != "POST" or not path.endswith("/upload"):
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        answer = await self._upload(request, send)
        if answer is not None:
            await _read_out(request)
            await answer(scope, receive, send)

    async def _upload(self, request: Request, send: Any) -> PlainTextResponse | None:
        """Pass an upload on to the app; return a response instead where the disk has no room for it."""
        has_begun = False

        async def sending(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        length = request.headers.get("content-length", "")
        if length.isdecimal() and not has_room(self._uploads, int(length)):
            return PlainTextResponse(FULL, 507)
        self._under_way += 1
        try:
            await self.app(request.scope, request.receive, sending)
        except BaseException as error:
            self._cut_off = True
            if has_begun or not isinstance(error, OSError):
                raise
            log.warning("an upload could not be taken in: %s", error.strerror or type(error).__name__)
            return _in_words(error)
        finally:
            self._under_way -= 1
            if self._cut_off and not self._under_way:  # else its files cannot be told from those of running uploads
                self._cut_off = False
                sweep(self._uploads)
        return None


def has_room(folder: Path, size: int) -> bool:
    """Return whether so many bytes should fit on the disk; True where the free space is not known: the write will fail
    then."""
    free, _ = free_bytes(folder)
    return free is None or free >= size + _SPARE


def sweep(uploads: Path) -> None:
    """Delete what interrupted uploads have left, which Gradio never does. No upload may be running."""
    with contextlib.suppress(OSError):
        for path in list(uploads.glob("tmp*")):
            with contextlib.suppress(OSError):
                if path.is_file():
                    path.unlink()


def _in_words(error: OSError) -> PlainTextResponse:
    if is_full(error):
        return PlainTextResponse(FULL, 507)
    said = f"The outputs folder cannot be used ({error.strerror or error}). Check its disk, then try again."
    return PlainTextResponse(said, 500)


async def _read_out(request: Request) -> None:
    """Read the rest of a refused upload, up to a limit: a browser that is cut off while it sends shows no response."""
    heard = 0
    with contextlib.suppress(ClientDisconnect):
        async for chunk in request.stream():
            heard += len(chunk)
            if heard > _READ_OUT:
                return
