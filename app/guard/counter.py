"""What passes the door: calls, uploads and files, each checked against whom it belongs to, on the way in and out."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from app.guard.guard import Guard
from app.guard.outgoing import Outgoing
from app.guard.veil import texts
from app.guard.visitors import Visitor
from engine.errors import ImageError, TroupeError
from engine.images import check_image

log = logging.getLogger("troupe.guard")

API = "/gradio_api/"
_ID_LENGTH = 200  # the longest name a page gives its session
_LAYERS = 20  # of a drawing
_NOT_YOURS = "This is not a file of yours. Upload it first."


class Refused(Exception):
    """Why a request goes no further: `status` and one line."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status, self.said = status, said


class Counter:
    """Hands requests of known visitors on to `app`."""

    def __init__(self, app: Any, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def serve(self, request: Request, visitor: Visitor, send: Any) -> None:
        path = request.scope["path"]
        try:
            if path.startswith(API + "file="):
                receive = self._file(request, visitor)
            elif path.rstrip("/") == API + "upload":
                await self._upload(request, visitor, send)
                return
            elif request.method == "POST":
                receive = await self._call(request, visitor)
            else:
                receive = self._read(request, visitor)
            await self._pass_on(request, receive, self._outgoing(visitor, send))
        except Refused as refused:
            said = path.partition("file=")[0][:200]  # a file's name is its owner's own
            log.info("refused (%s): %s %s", refused.status, request.method, said)
            answer: Response = JSONResponse({"detail": refused.said}, refused.status)
            if path.rstrip("/") == API + "upload":  # the page shows this answer as it is
                answer = PlainTextResponse(refused.said, refused.status)
            await answer(request.scope, request.receive, send)
        except ClientDisconnect:
            pass

    async def _pass_on(self, request: Request, receive: Any, send: Any) -> None:
        """Hand on; a call that Gradio stumbles over is refused in one line, and the console has the rest."""
        try:
            await self._app(request.scope, receive, send)
        except Exception as error:
            if send.has_started or request.method != "POST":
                raise
            log.warning("a call could not be read: %s: %s", type(error).__name__, error)
            raise Refused(400, "This call cannot be understood. 'Use via API' on the page shows how.") from None

    def _outgoing(self, visitor: Visitor, send: Any) -> Outgoing:
        async def edit(raw: bytes) -> bytes:
            return self._edited(raw, visitor)

        return Outgoing(send, edit)

    def _edited(self, raw: bytes, visitor: Visitor) -> bytes:
        """JSON on its way out: the files in it become the visitor's, guests see no folder of this machine."""
        belongings, veil = self._guard.belongings, self._guard.veil
        learns = b'"event_id"' in raw and len(raw) < 200
        if not (learns or veil.is_needed(raw)):
            return raw
        try:
            box = [json.loads(raw)]
        except (ValueError, RecursionError):
            return veil.hide(raw.decode("utf-8", "replace")).encode("utf-8", "replace")
        for place, key, text in texts(box):
            if key == "event_id" and learns:
                belongings.claim_session(f"event:{text}", visitor.id)
            belongings.give_file(text, visitor.id)
            if not visitor.is_owner:
                place[key] = veil.hide(text)
        return json.dumps(box[0]).encode()

    # -- reading -----------------------------------------------------------------

    def _file(self, request: Request, visitor: Visitor) -> Any:
        """A file of the visitor's own, and no other file whatever."""
        named = request.scope["path"].partition("file=")[2]
        path = self._guard.veil.reveal(named)
        if not (self._guard.belongings.has_file(path, visitor.id) and os.path.isfile(path)):
            raise Refused(404, "There is no such file.")
        request.scope["path"] = f"{API}file={os.path.normpath(path)}"
        return request.receive

    def _read(self, request: Request, visitor: Visitor) -> Any:
        """A page, or the stream of a session or event: of one's own."""
        path, query = request.scope["path"].removeprefix(API).rstrip("/"), request.query_params
        names = [("session", query[key]) for key in ("session_hash",) if key in query]
        names += [("upload", query[key]) for key in ("upload_id",) if key in query]
        if path.startswith("heartbeat/"):
            names.append(("session", path.partition("/")[2]))
        elif path.startswith("call/"):
            names.append(("event", path.rpartition("/")[2]))
        for kind, name in names:
            self._check_session(kind, name, visitor)
        return request.receive

    def _check_session(self, kind: str, name: object, visitor: Visitor) -> None:
        if not isinstance(name, str) or len(name) > _ID_LENGTH:
            raise Refused(400, f"This is not the name of a {kind}.")
        if not self._guard.belongings.claim_session(f"{kind}:{name}", visitor.id):
            raise Refused(403, f"This is not a {kind} of yours.")

    # -- calls ---------------------------------------------------------------------

    async def _call(self, request: Request, visitor: Visitor) -> Any:
        """A call: of one's own session, and about one's own files."""
        is_form = request.headers.get("content-type", "").startswith("multipart/")
        size = self._guard.limits.body_bytes
        body = await _body(request, 10 * size if is_form else size)
        if is_form:
            await self._check_drawing(request, body, visitor)
        elif body or request.scope["path"].rstrip("/") != API + "reset":
            body = self._checked(body, visitor)
        return _again(body, request.receive)

    def _checked(self, body: bytes, visitor: Visitor) -> bytes:
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, "This is not JSON.") from None
        if not isinstance(data, dict):
            raise Refused(400, "This is not a call: a JSON object is one.")
        for kind in ("session", "event"):
            name = data.get({"session": "session_hash", "event": "event_id"}[kind])
            if name is not None:
                self._check_session(kind, name, visitor)
        belongings, changed = self._guard.belongings, False
        for place, key, text in list(texts(data)):
            path = self._guard.veil.reveal(text) if key == "path" else text
            is_file = (key == "path" and text) or belongings.file_key(path)
            if is_file and not belongings.has_file(path, visitor.id):
                raise Refused(403, _NOT_YOURS)
            if path != text:
                place[key], changed = path, True
        return json.dumps(data).encode() if changed else body

    async def _check_drawing(self, request: Request, body: bytes, visitor: Visitor) -> None:
        """What was painted comes as a form: Gradio makes room for as many layers as it is told of."""
        self._check_room(visitor, len(body), files=0)

        async def chunks() -> Any:
            yield body

        try:
            form = await MultiPartParser(request.headers, chunks(), max_files=4, max_fields=20).parse()
        except (MultiPartException, KeyError, ValueError):
            raise Refused(400, "This is not a form.") from None
        try:
            layer, session = form.get("index"), form.get("session_hash")
            self._check_session("session", session, visitor)
            if form.get("id") is not None:
                self._check_session("drawing", form.get("id"), visitor)
            if isinstance(layer, str) and layer not in ("", "null") and not 0 <= _number(layer) < _LAYERS:
                raise Refused(400, "A drawing has fewer layers.")
        finally:
            await form.close()
        if not visitor.is_owner:
            self._guard.uploads.note(visitor.id, len(body), 0)

    # -- uploads -------------------------------------------------------------------

    def _check_room(self, visitor: Visitor, size: int, files: int) -> None:
        if visitor.is_owner:
            return
        try:
            self._guard.uploads.check(visitor.id, size, files)
        except TroupeError as error:
            raise Refused(413, str(error)) from None

    async def _upload(self, request: Request, visitor: Visitor, send: Any) -> None:
        """Pictures, as many as there is room for, and nothing else. What is refused is deleted at once."""
        self._read(request, visitor)
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(411, "An upload has to say how large it is.")
        self._check_room(visitor, int(length), files=1)
        refused: list[Refused] = []

        async def taken(raw: bytes) -> bytes:
            try:
                paths = json.loads(raw)
                await anyio.to_thread.run_sync(self._keep, paths, int(length), visitor)
            except Refused as error:
                refused.append(error)
                return b""
            except (ValueError, TypeError):  # Gradio's own refusal
                pass
            return self._edited(raw, visitor)

        held = Outgoing(send, taken, lambda: refused[0] if refused else None)
        await self._pass_on(request, request.receive, held)
        if refused:
            raise refused[0]

    def _keep(self, paths: list[str], size: int, visitor: Visitor) -> None:
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise TypeError
        try:
            self._check_room(visitor, size, len(paths))
        except Refused:
            self._drop(paths)
            raise
        problems = {path: said for path in paths if (said := _problem(path))}
        if problems and len(problems) == len(paths):
            self._drop(paths)
            raise Refused(415, next(iter(problems.values())))
        for path in problems:  # the others are taken; the handler says of each empty one that it is
            Path(path).write_bytes(b"")
        for path in paths:
            self._guard.belongings.give_file(path, visitor.id)
        if not visitor.is_owner:
            self._guard.uploads.note(visitor.id, size, len(paths))

    def _drop(self, paths: list[str]) -> None:
        """Delete what was refused, but nothing that somebody uploaded before under the same name."""
        for path in paths:
            if not self._guard.belongings.is_owned(path):
                Path(path).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # other names of the same picture may be in there
                    Path(path).parent.rmdir()


def _problem(path: str) -> str:
    """Why an upload is nothing that can be used; nothing where it is a picture, or a film whose scene may be opened."""
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


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return -1


async def _body(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise Refused(413, "This call is too large. Pictures are uploaded, not sent with a call.")
    return bytes(body)


def _again(body: bytes, receive: Any) -> Callable:
    """Give a body that was read to who comes next; after it, what the connection says."""
    given = False

    async def receiving() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
