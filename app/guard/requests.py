"""Requests of visitors who are let in: pages, calls, uploads and files, each checked for its owner, in the request and
in the response. Calls and uploads have a module each."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from app.guard import API
from app.guard.calls import Calls
from app.guard.guard import Guard
from app.guard.incoming import IncomingUploads, until_gone
from app.guard.redact import texts
from app.guard.refused import Refused, check_session
from app.guard.responses import GuestResponses
from app.guard.visitors import Visitor

log = logging.getLogger("troupe.guard")


class GuardedRequests:
    """Passes requests of visitors who are let in on to `app`."""

    def __init__(self, app: Any, guard: Guard) -> None:
        self._app, self._guard = app, guard
        self._calls, self._incoming = Calls(guard), IncomingUploads(guard)

    async def serve(self, request: Request, visitor: Visitor, send: Any) -> None:
        path = request.scope["path"]
        is_upload = path.rstrip("/") == API + "upload"
        try:
            if path.startswith(API + "file="):
                receive = self._file(request, visitor)
            elif is_upload:
                await self._upload(request, visitor, send)
                return
            elif request.method == "POST":
                receive = await self._calls.checked(request, visitor)
            else:
                receive = self._read(request, visitor)
            await self._pass_on(request, receive, self._outgoing(visitor, send))
        except Refused as refused:
            said = path.partition("file=")[0][:200]  # a file's name is its owner's own
            log.info("refused (%s): %s %r", refused.status, request.method, said)
            answer: Response = JSONResponse({"detail": refused.said}, refused.status)
            if is_upload:  # the page shows this answer as it is
                answer = PlainTextResponse(refused.said, refused.status)
            await answer(request.scope, request.receive, send)

    async def _pass_on(self, request: Request, receive: Any, send: GuestResponses) -> None:
        """Pass a request on; an exception in Gradio becomes a short refusal and one line in the log."""
        try:
            await self._app(request.scope, receive, send)
        except (Refused, ClientDisconnect):
            raise
        except Exception as error:
            log.warning("a request could not be answered: %s: %r", type(error).__name__, str(error)[:200])
            if send.has_started:
                await send.end()
                return
            raise Refused(400, "This call cannot be understood. 'Use via API' on the page shows how.") from None

    def _outgoing(self, visitor: Visitor, send: Any) -> GuestResponses:
        async def edit(raw: bytes) -> bytes:
            return self._edited(raw, visitor)

        return GuestResponses(send, edit)

    def _edited(self, raw: bytes, visitor: Visitor) -> bytes:
        """Edit JSON of a response: record the files in it as the visitor's, and redact this machine's folders for
        guests."""
        ownership, redaction = self._guard.ownership, self._guard.redaction
        learns = b'"event_id"' in raw and len(raw) < 200
        if not (learns or redaction.is_needed(raw)):
            return raw
        try:
            box = [json.loads(raw)]
        except (ValueError, RecursionError):
            return redaction.hide(raw.decode("utf-8", "replace")).encode("utf-8", "replace")
        for place, key, text in texts(box):
            if key == "event_id" and learns:
                ownership.claim_session(f"event:{text}", visitor.id)
            ownership.give_file(text, visitor.id)
            if not visitor.is_owner:
                place[key] = redaction.hide(text)
        return json.dumps(box[0]).encode()

    # -- reading -----------------------------------------------------------------

    def _file(self, request: Request, visitor: Visitor) -> Any:
        """Check a request for a file, raising Refused unless it is the visitor's own; return its `receive`."""
        named = request.scope["path"].partition("file=")[2]
        path = self._guard.redaction.reveal(named)
        if not (self._guard.ownership.has_file(path, visitor.id) and os.path.isfile(path)):
            raise Refused(404, "There is no such file.")
        request.scope["path"] = f"{API}file={os.path.normpath(path)}"
        return request.receive

    def _read(self, request: Request, visitor: Visitor) -> Any:
        """Check a request for a page, or for the stream of a session or event, raising Refused where that is another
        visitor's; return its `receive`."""
        path, query = request.scope["path"].removeprefix(API).rstrip("/"), request.query_params
        for kind, key in (("session", "session_hash"), ("upload", "upload_id")):
            if key in query:
                check_session(self._guard, kind, query[key], visitor)
        if path.startswith("call/"):
            self._check_event(path.rpartition("/")[2], visitor)
        if path.startswith("heartbeat/"):
            session = path.partition("/")[2]
            check_session(self._guard, "session", session, visitor)
            return until_gone(request.receive, lambda: self._guard.drawings.end(session))
        return request.receive

    def _check_event(self, name: str, visitor: Visitor) -> None:
        """Check an event, raising Refused where it is not one of this visitor's."""
        owner = self._guard.ownership.owner_of_session(f"event:{name}")
        if owner is None:
            raise Refused(404, "There is no such event.")
        if owner != visitor.id:
            raise Refused(403, "This is not an event of yours.")

    # -- uploads -------------------------------------------------------------------

    async def _upload(self, request: Request, visitor: Visitor, send: Any) -> None:
        self._read(request, visitor)

        async def pass_on(receive: Any, kept: Any, refusal: Any) -> None:
            async def edit(raw: bytes) -> bytes:
                raw = await kept(raw)
                return self._edited(raw, visitor) if raw else raw

            await self._pass_on(request, receive, GuestResponses(send, edit, refusal))

        await self._incoming.take_in(request, visitor, pass_on)
