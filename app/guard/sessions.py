"""Gradio's memory of sessions, freed when they are over.

Each POST to /call/<endpoint> without a session is a new one to Gradio: a copy of the whole page's config, about 380 kB,
kept until ten thousand of them exist. Here it is freed when the response was fetched, or after a while where nobody
fetches it. Gradio's other dicts that only grow are pruned, too.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, StreamingResponse

from app.guard import API

CAPACITY = 200  # sessions of pages that Gradio keeps, the most recently used
ANALYTICS = 100  # events whose times Gradio keeps; it iterates over all of them after every event
_UNFETCHED = 100  # finished calls whose answer nobody has fetched yet
_PATIENCE = 600.0  # seconds that an answer waits to be fetched
_MOMENT = 1.0  # seconds
_MANY = 1_000  # entries of a dict, above which it is pruned
_GONE = {"msg": "unexpected_error", "event_id": None, "message": "404: Not Found", "success": False,
         "session_not_found": True}  # fmt: skip  # Gradio's own message, at which the page reloads


class Sessions:
    """The innermost ASGI middleware around `app`; it frees Gradio's memory after requests."""

    def __init__(self, app: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.app, self._clock = app, clock
        self._calls: OrderedDict[str, float] = OrderedDict()  # events of calls, and when they were made
        self._uploads: OrderedDict[str, None] = OrderedDict()  # names of uploads, the oldest first

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "").rstrip("/")
        if scope["type"] != "http" or not path.startswith(API):
            await self.app(scope, receive, send)
            return
        room, _, rest = path.removeprefix(API).partition("/")
        if room == "call" and scope["method"] == "POST":
            await self._call(scope, receive, send)
        elif room == "call":
            await self._answer(scope, receive, send, rest.rpartition("/")[2])
        elif room == "queue" and rest == "data":
            await self._stream(scope, receive, send)
        elif room in ("upload", "upload_progress"):
            await self._upload(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    # -- calls -------------------------------------------------------------------

    async def _call(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on a call of a public endpoint and note its event, which Gradio uses as its session."""
        self._tidy(scope["app"])

        async def learning(message: Any) -> None:
            if message["type"] == "http.response.body" and (event := _event_in(message.get("body", b""))):
                self._calls[event] = self._clock()
            await send(message)

        await self.app(scope, receive, learning)

    async def _answer(self, scope: Any, receive: Any, send: Any, event: str) -> None:
        """Pass on a request for a call's result, then free the call. An unknown event gets a 404: Gradio would start a
        response and break it off."""
        if not _is_known(scope["app"], event):
            await JSONResponse({"detail": "There is no such event."}, 404)(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        finally:
            if event in self._calls:
                self._calls[event] = -math.inf  # it was fetched
                self._tidy(scope["app"])
                if event in self._calls:  # Gradio clears an event a moment after its response
                    asyncio.get_running_loop().call_later(_MOMENT, self._tidy, scope["app"])

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on a request for the events of a page's session. An unknown session gets the message that makes the page
        reload."""
        name = _query(scope, "session_hash")
        if name and name not in scope["app"].get_blocks()._queue.pending_messages_per_session:
            told = StreamingResponse(iter([f"data: {json.dumps(_GONE)}\n\n"]), media_type="text/event-stream")
            await told(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _tidy(self, app: Any) -> None:
        """Free calls that are over and whose results were not fetched, and prune what only grows."""
        late = self._clock() - _PATIENCE
        over = len(self._calls) - _UNFETCHED
        for number, (event, since) in enumerate(list(self._calls.items())):
            if (number < over or since <= late) and _forget(app, event):
                del self._calls[event]
        events = app.get_blocks()._queue.pending_event_ids_session
        if len(events) > _MANY:
            for name in [name for name, ids in events.items() if not ids]:
                del events[name]
        if len(app.iterators_to_reset) > _MANY:  # of runs that were cancelled, and never asked for again
            app.iterators_to_reset.clear()

    # -- uploads -----------------------------------------------------------------

    async def _upload(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on an upload, or a request for its progress, then forget the oldest: Gradio keeps a signal for every
        upload's name."""
        name = _query(scope, "upload_id")
        try:
            await self.app(scope, receive, send)
        finally:
            if name:
                self._uploads[name] = None
                self._uploads.move_to_end(name)
            while len(self._uploads) > _UNFETCHED:
                _forget_upload(self._uploads.popitem(last=False)[0])


class PerVisitor:
    """The sessions that each visitor has opened, limited so that one visitor cannot evict the others' from Gradio's
    memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: dict[str, OrderedDict[str, None]] = {}

    def touch(self, who: str, name: str, state_holder: Any) -> None:
        """Note that a session is used; the visitor's oldest are evicted where there are too many."""
        names = self._names.pop(who, OrderedDict())
        self._names[who] = names  # the last who came
        names[name] = None
        names.move_to_end(name)
        while len(names) > self._most:
            _drop_state(state_holder, names.popitem(last=False)[0])
        while len(self._names) > _MANY:
            del self._names[next(iter(self._names))]


def _forget(app: Any, event: str) -> bool:
    """Free the memory of a call's session; return False while its event is still running."""
    queue = app.get_blocks()._queue  # there is no public way to it
    if event in queue.event_ids_to_events:
        return False
    _drop_state(app.state_holder, event)
    for book in (queue.pending_messages_per_session, queue.pending_event_ids_session, queue.event_analytics):
        book.pop(event, None)
    return True


def _drop_state(state_holder: Any, session: str) -> None:
    with state_holder.lock:
        state_holder.session_data.pop(session, None)
        state_holder.time_last_used.pop(session, None)


def _is_known(app: Any, event: str) -> bool:
    queue = app.get_blocks()._queue
    return (
        event in queue.event_ids_to_events
        or event in queue.pending_messages_per_session
        or any(event in events for events in queue.pending_event_ids_session.values())
    )


def _forget_upload(name: str) -> None:
    from gradio.routes import file_upload_statuses

    file_upload_statuses.stop_tracking(name)
    file_upload_statuses._signals.pop(name, None)


def _event_in(body: bytes) -> str:
    """Return the event that a call's response names; empty where it names none."""
    if len(body) > 200:
        return ""
    try:
        data = json.loads(body)
    except ValueError:
        return ""
    event = data.get("event_id") if isinstance(data, dict) else None
    return event if isinstance(event, str) else ""


def _query(scope: Any, name: str) -> str:
    asked: bytes = scope.get("query_string", b"")
    return parse_qs(asked.decode("latin-1")).get(name, [""])[0]
