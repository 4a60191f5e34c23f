"""Check calls on their way in: the session and the files must be the visitor's own, and the queue must have room."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message, Receive

from app.guard import API
from app.guard.drawings import SECONDS
from app.guard.guard import Guard
from app.guard.redact import texts
from app.guard.refused import Refused, check_session
from app.guard.visitors import Visitor
from engine.errors import TroupeError

_LAYERS = 20  # of a drawing
_ARRIVE = 60.0  # seconds within which a guest's call has to arrive
_TOO_LARGE = "This call is too large. Pictures are uploaded, not sent with a call."
_NOT_YOURS = "This is not a file of yours. Upload it first."


class Calls:
    """Checks the calls to one server."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def checked(self, request: Request, visitor: Visitor) -> Receive:
        """Check a call and return the ASGI `receive` that gives it to Gradio. Raises Refused."""
        limits, path = self._guard.limits, request.scope["path"].removeprefix(API).rstrip("/")
        if path == "queue/join" or path.startswith("call/"):
            self._check_queue(request, visitor)
        body = await self._body(request, visitor, limits.drawing_bytes if visitor.is_owner else limits.body_bytes)
        if request.headers.get("content-type", "").startswith("multipart/"):
            await self._check_drawing(request, body, visitor)
        elif body or path != "reset":
            body = self._checked(request, body, visitor)
        return _again(body, request.receive)

    def _check_queue(self, request: Request, visitor: Visitor) -> None:
        """Check Gradio's queue, raising Refused where a guest, or all guests together, have enough events in it; the
        rest is reserved for the owner."""
        if visitor.is_owner:
            return
        guard, queue = self._guard, request.scope["app"].get_blocks()._queue  # there is no public way to it
        waiting = [guard.visitor(event.request) for event in list(queue.event_ids_to_events.values())]
        guests = [each for each in waiting if not each.is_owner]
        if sum(each.who == visitor.who for each in guests) >= guard.limits.events:
            raise Refused(429, "You have asked for much already. Wait for an answer, then go on.")
        if len(guests) >= guard.limits.events_in_all:
            raise Refused(503, "Many are using this Troupe just now. Try again in a few seconds.")

    async def _body(self, request: Request, visitor: Visitor, most: int) -> bytes:
        """Read a whole call into memory. Raises Refused where it is too large or too slow, or too many are held at
        once."""
        said = request.headers.get("content-length", "")
        if said.isascii() and said.isdigit() and int(said) > most:
            raise Refused(413, _TOO_LARGE)
        rates, body, held, is_owner = self._guard.rates, bytearray(), 0, visitor.is_owner
        try:
            async with asyncio.timeout(None if is_owner else _ARRIVE):
                async for chunk in request.stream():
                    if not is_owner:
                        if not rates.hold(visitor.who, len(chunk)):
                            raise Refused(429, "Too much at once. Wait a few seconds and try again.")
                        held += len(chunk)
                    body += chunk
                    if len(body) > most:
                        raise Refused(413, _TOO_LARGE)
        except TimeoutError:
            raise Refused(408, "This call took too long to arrive.") from None
        finally:
            if held:
                rates.let_go(visitor.who, held)
        return bytes(body)

    def _open_session(self, request: Request, name: object, visitor: Visitor) -> None:
        """Check that a call's session is the visitor's, and note its use, before Gradio allocates it. Raises
        Refused."""
        check_session(self._guard, "session", name, visitor)
        if not visitor.is_owner:
            self._guard.sessions.touch(visitor.who, str(name), request.scope["app"].state_holder)

    def _checked(self, request: Request, body: bytes, visitor: Visitor) -> bytes:
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, "This is not JSON.") from None
        if not isinstance(data, dict):
            raise Refused(400, "This is not a call: a JSON object is one.")
        if (name := data.get("session_hash")) is not None:
            self._open_session(request, name, visitor)
        if (name := data.get("event_id")) is not None:
            check_session(self._guard, "event", name, visitor)
        ownership, changed = self._guard.ownership, False
        for place, key, text in list(texts(data)):
            path = self._guard.redaction.reveal(text) if key == "path" else text
            is_file = (key == "path" and text) or ownership.file_key(path)
            if is_file and not ownership.has_file(path, visitor.id):
                raise Refused(403, _NOT_YOURS)
            if path != text:
                place[key], changed = path, True
        return json.dumps(data).encode() if changed else body

    async def _check_drawing(self, request: Request, body: bytes, visitor: Visitor) -> None:
        """Check a drawing, which is sent as a form, and note its size: Gradio allocates as many layers as the form
        says, and keeps them under the name in it. Raises Refused."""

        async def chunks() -> Any:
            yield body

        try:
            form = await MultiPartParser(request.headers, chunks(), max_files=4, max_fields=20).parse()
        except (MultiPartException, KeyError, ValueError):
            raise Refused(400, "This is not a form.") from None
        try:
            layer, session, name = form.get("index"), form.get("session_hash"), form.get("id")
            self._open_session(request, session, visitor)
            if name is not None:
                check_session(self._guard, "drawing", name, visitor)
            if isinstance(layer, str) and layer not in ("", "null") and not 0 <= _number(layer) < _LAYERS:
                raise Refused(400, "A drawing has fewer layers.")
            store = _store_of(request, form.get("component_id"))
            if store is not None:
                part = f"{form.get('type')} {layer}", len(body)
                self._guard.drawings.note(visitor.who, str(session), str(name), part, store)
        except TroupeError as error:
            raise Refused(413, str(error)) from None
        finally:
            await form.close()
        asyncio.get_running_loop().call_later(SECONDS + 1, self._guard.drawings.sweep)


def _store_of(request: Request, component: object) -> dict[str, Any] | None:
    """Return the dict in which Gradio's editor keeps the drawings that are sent to it; None where there is none."""
    block = request.scope["app"].get_blocks().blocks.get(_number(component) if isinstance(component, str) else -1)
    return getattr(block, "blob_storage", None)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return -1


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body which was read already, then what the connection sends."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
