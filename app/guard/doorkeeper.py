"""The door: every request to the server passes here first, and only what a page or a client needs goes on.

ASGI middleware inside Gradio's server. On a server that is its owner's alone it only keeps other sites' pages out.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from app.guard import entrance
from app.guard.access import is_this_machine
from app.guard.counter import Counter
from app.guard.guard import Guard
from app.guard.visitors import KEY, OWNER, Visitor

API = "/gradio_api/"
_READ = {"/", "/config", "/favicon.ico", "/robots.txt", "/manifest.json", "/theme.css", "/pwa_icon"} | {
    API + name
    for name in (
        "info", "openapi.json", "startup-events", "app_id", "theme.css", "queue/data", "queue/status",
        "upload_progress", "login_check",
    )
}  # fmt: skip
_READ_BELOW = (
    "/assets/", "/static/", "/svelte/", "/pwa_icon/", "/clips/", API + "heartbeat/", API + "call/", API + "file=",
)  # fmt: skip
_WRITTEN = {API + name for name in ("queue/join", "upload", "cancel", "reset", "component_server")}
_STARTUP = API + "startup-events"  # Gradio's own first call, without which the queue does not run


class Doorkeeper:
    """`app` is what lies behind the door."""

    def __init__(self, app: Any, guard: Guard) -> None:
        self.app, self.guard, self._counter = app, guard, Counter(app, guard)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        if not self.guard.access.shared:
            scope[KEY] = OWNER
            answer = _keep_to_this_machine(request)
            await (answer or self.app)(scope, receive, send)
            return
        visitor, is_in = self.guard.passes.recognise(request, _is_foreign(request, ("same-origin", "none")))
        scope[KEY] = visitor
        answer = await self._turn_away(request, visitor, is_in)
        send = self._with_headers(request, send)
        if answer is not None:
            await answer(scope, receive, send)
        elif scope["path"] == _STARTUP:
            await self.app(scope, receive, send)
        else:
            await self._let_in(request, visitor, send)

    async def _turn_away(self, request: Request, visitor: Visitor, is_in: bool) -> Response | None:
        """What to say instead of the page; None: come in."""
        guard, path, as_page = self.guard, request.scope["path"].rstrip("/") or "/", entrance.wants_page(request)
        if path == _STARTUP:
            return None
        if path == "/" and "owner" in request.query_params:
            return entrance.owner_link(guard, request)
        if guard.has_ended and not visitor.is_owner:
            return entrance.message("This link has ended. Ask for a new one.", 410, as_page)
        if path == "/login" and request.method == "POST" and guard.access.accounts:
            return await entrance.log_in(guard, request)
        if not is_in:
            return entrance.page(guard) if path in ("/", "/login") else entrance.message("Log in first.", 401, False)
        if not _is_needed(path, request.method):
            return entrance.message("There is nothing here.", 404, as_page)
        return None

    async def _let_in(self, request: Request, visitor: Visitor, send: Any) -> None:
        rates, asks = self.guard.rates, request.method == "POST"
        if visitor.is_owner:
            await self._counter.serve(request, visitor, send)
            return
        if (asks and not rates.take(visitor.id)) or not rates.enter(visitor.id):
            answer = entrance.message("Too much at once. Wait a few seconds and try again.", 429, False)
            answer.headers["Retry-After"] = "5"
            await answer(request.scope, request.receive, send)
            return
        try:
            await self._counter.serve(request, visitor, send)
        finally:
            rates.leave(visitor.id)

    def _with_headers(self, request: Request, send: Any) -> Any:
        """What every answer carries: a visitor's cookie where a page or client begins, and who may frame or guess."""
        begins = request.scope["path"] in ("/", "/config", "/config/")

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                if not self.guard.access.embedded:
                    headers["X-Frame-Options"] = "SAMEORIGIN"
                if begins and "set-cookie" not in headers:
                    for cookie in self.guard.passes.cookies(request):
                        headers.append("Set-Cookie", cookie)
            await send(message)

        return sending


def _is_needed(path: str, method: str) -> bool:
    if method in ("GET", "HEAD"):
        return path in _READ or path.startswith(_READ_BELOW)
    return method == "POST" and (path in _WRITTEN or path.startswith(API + "call/"))


def _is_foreign(request: Request, own: tuple[str, ...]) -> bool:
    """Whether a page of another site asks. Browsers say where a request comes from; opening a link is no such thing."""
    site = request.headers.get("sec-fetch-site", "none")
    opened = request.headers.get("sec-fetch-mode") == "navigate" and request.method in ("GET", "HEAD")
    return site not in own and not opened


def _keep_to_this_machine(request: Request) -> Response | None:
    """A refusal for pages of other sites, which a browser on this machine could be made to send here, also by a name
    of theirs that leads to this machine's address."""
    said = request.headers.get("host", "")
    host = said[1:].partition("]")[0] if said.startswith("[") else said.partition(":")[0]
    if _is_foreign(request, ("same-origin", "same-site", "none")):
        return entrance.message("Another site's page cannot use this Troupe.", 403, False)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host and not is_this_machine(host):
            said = "This Troupe is open for its own machine only. Start it with --host or --share for others."
            return entrance.message(said, 403, entrance.wants_page(request))
    return None
