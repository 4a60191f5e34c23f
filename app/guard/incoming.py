"""Check uploads on their way in: not larger than announced, within the limits, and only files that can be used."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
from starlette.requests import Request
from starlette.types import Message, Receive

from app.guard.guard import Guard
from app.guard.refused import Refused
from app.guard.visitors import Visitor
from engine.errors import ImageError, TroupeError
from engine.media.images import check_image

Kept = Callable[[bytes], Awaitable[bytes]]
Refusal = Callable[[], Exception | None]
PassOn = Callable[[Receive, Kept, Refusal], Awaitable[None]]
_STALLED = 60.0  # seconds without a byte, after which a guest's upload is given up


class IncomingUploads:
    """Checks the uploads to one server."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def take_in(self, request: Request, visitor: Visitor, pass_on: PassOn) -> None:
        """Take an upload in, if there is room for it. What is refused is deleted at once, and Refused is raised.
        `pass_on(receive, edit, refusal)` passes the upload on to Gradio, and the response through `edit`, unless there
        is a refusal."""
        length = request.headers.get("content-length", "")
        # the server ignores Content-Length where there is a Transfer-Encoding
        if "transfer-encoding" in request.headers or not (length.isascii() and length.isdigit()):
            raise Refused(411, "An upload has to say how large it is.")
        size = int(length)
        try:
            if visitor.is_owner:
                await self._hand_on(request, visitor, size, pass_on, lambda files: None)
                return
            await anyio.to_thread.run_sync(self._guard.check_disk, visitor)
            with self._guard.uploads.coming(visitor.who, size) as taken:
                await self._hand_on(request, visitor, size, pass_on, taken)
        except TroupeError as error:
            raise Refused(413, str(error)) from None

    async def _hand_on(
        self, request: Request, visitor: Visitor, size: int, pass_on: PassOn, taken: Callable[[int], None]
    ) -> None:
        refused: list[Exception] = []

        async def kept(raw: bytes) -> bytes:
            try:
                await anyio.to_thread.run_sync(self._keep, json.loads(raw), taken, visitor)
            except (Refused, TroupeError) as error:
                refused.append(error)
                return b""
            except (ValueError, TypeError):  # Gradio's own refusal
                pass
            return raw

        receive = _counted(request.receive, size, None if visitor.is_owner else _STALLED)
        await pass_on(receive, kept, lambda: refused[0] if refused else None)
        if refused:
            raise refused[0]

    def _keep(self, paths: object, taken: Callable[[int], None], visitor: Visitor) -> None:
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise TypeError
        try:
            self._guard.uploads.check_files(visitor.who, 0 if visitor.is_owner else len(paths))
            problems = {path: said for path in paths if (said := _problem(path))}
            if problems and len(problems) == len(paths):
                raise Refused(415, next(iter(problems.values())))
            taken(len(paths))
        except (Refused, TroupeError):
            self._drop(paths)
            raise
        for path in problems:  # the others are kept; the handler reports each emptied file
            Path(path).write_bytes(b"")
        for path in paths:
            self._guard.ownership.give_file(path, visitor.id)

    def _drop(self, paths: list[str]) -> None:
        """Delete the refused files, but none that somebody uploaded before under the same name."""
        for path in paths:
            if not self._guard.ownership.is_owned(path):
                Path(path).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # other names of the same picture may be in there
                    Path(path).parent.rmdir()


def until_gone(receive: Receive, then: Callable[[], None]) -> Receive:
    """Wrap `receive`; `then` is called when the client has disconnected."""

    async def receiving() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect":
            then()
        return message

    return receiving


def _counted(receive: Receive, most: int, patience: float | None) -> Receive:
    """Wrap `receive` to raise Refused where more than `most` bytes arrive, or nothing for `patience` seconds."""
    left, is_whole = most, False

    async def receiving() -> Message:
        nonlocal left, is_whole
        try:
            async with asyncio.timeout(None if is_whole else patience):
                message = await receive()
        except TimeoutError:
            raise Refused(408, "Nothing more of this upload has arrived. Try again.") from None
        left -= len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if left < 0:
            raise Refused(413, "This upload is larger than it said.")
        return message

    return receiving


def _problem(path: str) -> str:
    """Return why an uploaded file cannot be used; empty for a picture, or an MP4 whose scene may be opened."""
    try:
        with open(path, "rb") as file:
            if file.read(12)[4:8] == b"ftyp" and path.lower().endswith(".mp4"):  # HEIC and AVIF begin like it, too
                return ""
    except OSError:
        pass
    try:
        check_image(path)
    except ImageError as error:
        return str(error)
    return ""
