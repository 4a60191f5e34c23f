"""The middleware through which every request passes: only what a page or a client needs goes on to the app.

ASGI middleware inside Gradio's server. On a server that is not shared it only keeps other sites' pages out.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app import address
from app.guard import API, login
from app.guard.access import is_this_machine
from app.guard.guard import Guard
from app.guard.limits import FILE, PAGE
from app.guard.requests import GuardedRequests
from app.guard.visitors import KEY, OWNER, Visitor

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
_COSTLY = {"/", "/config", API + "info", API + "openapi.json"}
_FRAMES = ("iframe", "frame", "embed", "object")
_FORWARDED = ("forwarded", "via", "x-real-ip")
_OWN = "This Troupe is open for its own machine only. Start it with --host or --share for others."
_ENDED = "This link has ended. Ask for a new one."
_STARTUP = API + "startup-events"  # Gradio's own first call, without which the queue does not run


class GuardMiddleware:
    """ASGI middleware around `app`."""

    def __init__(self, app: Any, guard: Guard) -> None:
        self.app, self.guard, self._counter = app, guard, GuardedRequests(app, guard)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":  # not used here
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with contextlib.suppress(ClientDisconnect):  # the client disconnected: a closed tab, a phone
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        request, guard = Request(scope, receive), self.guard
        send = self._with_headers(request, send)
        if not guard.access.shared:
            scope[KEY] = OWNER
            answer = _keep_to_this_machine(request) or _keep_out_of_frames(request)
            await (answer or self.app)(scope, receive, send)
            return
        visitor, is_in = guard.passes.recognise(request, _is_foreign(request), guard.address(request))
        scope[KEY] = visitor
        answer = await self._turn_away(request, visitor, is_in)
        if answer is not None:
            await answer(scope, receive, send)
        elif scope["path"] == _STARTUP:
            await self.app(scope, receive, send)
        else:
            await self._let_in(request, visitor, send)

    async def _turn_away(self, request: Request, visitor: Visitor, is_in: bool) -> Response | None:
        """Return the response to a request that does not reach the app; None: it does."""
        guard, path, as_page = self.guard, request.scope["path"].rstrip("/") or "/", login.wants_page(request)
        if path == _STARTUP:
            return None
        if path == "/" and "owner" in request.query_params:  # before the rate limit: nobody can lock the owner out
            return login.owner_link(guard, request)
        if not guard.access.embedded and (answer := _keep_out_of_frames(request)):
            return answer
        if guard.has_ended and not visitor.is_owner:
            return login.message(_ENDED, 410, as_page)
        if not is_in and not guard.rates.take_outside(visitor.who):
            return login.too_much()
        if path == "/login" and request.method == "POST" and guard.access.accounts:
            if is_in and not visitor.is_owner and not guard.rates.take(visitor.who, PAGE):
                return login.too_much()
            return await login.log_in(guard, request, visitor)
        if not is_in:
            return login.page(guard) if path in ("/", "/login") else login.message("Log in first.", 401, False)
        if not _is_needed(path, request.method):
            return login.message("There is nothing here.", 404, as_page)
        return None

    async def _let_in(self, request: Request, visitor: Visitor, send: Any) -> None:
        rates, cost = self.guard.rates, _cost(request.scope["path"].rstrip("/") or "/", request.method)
        if visitor.is_owner:
            await self._counter.serve(request, visitor, send)
            return
        if not rates.take(visitor.who, cost) or not rates.enter(visitor.who):
            await login.too_much()(request.scope, request.receive, send)
            return
        try:
            await self._serve_in_time(request, visitor, send)
        finally:
            rates.leave(visitor.who)

    async def _serve_in_time(self, request: Request, visitor: Visitor, send: Any) -> None:
        """Serve a guest until the public link ends: a stream that is open then ends, too."""
        begun = done = False

        async def sending(message: Any) -> None:
            nonlocal begun, done
            await send(message)
            begun, done = True, message["type"] == "http.response.body" and not message.get("more_body")

        with self.guard.streams.stay(self.guard.seconds_left) as scope:
            await self._counter.serve(request, visitor, sending)
        if scope.cancelled_caught and not begun:
            await login.message(_ENDED, 410, False)(request.scope, request.receive, send)
        elif scope.cancelled_caught and not done:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _with_headers(self, request: Request, send: Any) -> Any:
        """Wrap `send` to add the security headers to every response, and the visitor's cookie to a page or a client's
        first request."""
        guard = self.guard
        begins = guard.access.shared and request.scope["path"] in ("/", "/config", "/config/")

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                if not guard.access.embedded:
                    headers["X-Frame-Options"] = "SAMEORIGIN"
                    headers.append("Content-Security-Policy", "frame-ancestors 'self'")
                if begins and "set-cookie" not in headers:
                    for cookie in guard.passes.cookies(request):
                        headers.append("Set-Cookie", cookie)
            await send(message)

        return sending


def _cost(path: str, method: str) -> float:
    """Return what a request costs of the visitor's rate limit: the most where Gradio goes through its whole page."""
    if path in _COSTLY:
        return PAGE
    return 1.0 if method == "POST" else FILE


def _is_needed(path: str, method: str) -> bool:
    if method in ("GET", "HEAD"):
        return path in _READ or path.startswith(_READ_BELOW)
    return method == "POST" and (path in _WRITTEN or path.startswith(API + "call/"))


def _is_foreign(request: Request) -> bool:
    """Return whether a page of another site sent the request. Opening a link does not count. A page on another port of
    this machine counts as another site's, since anything may run there."""
    site = request.headers.get("sec-fetch-site") or _site_by_origin(request)
    opened = request.headers.get("sec-fetch-mode") == "navigate" and request.method in ("GET", "HEAD")
    return site not in ("same-origin", "none") and not opened


def _site_by_origin(request: Request) -> str:
    """Return the value for a missing `Sec-Fetch-Site`, from `Origin`: browsers leave the former out at a plain http
    address of the network. Programs send neither."""
    origin = request.headers.get("origin")
    if origin is None:
        return "none"
    asked = {request.headers.get("host", ""), request.headers.get("x-forwarded-host", "")}
    return "same-origin" if urlsplit(origin).netloc in asked - {""} else "cross-site"


def _keep_out_of_frames(request: Request) -> Response | None:
    """Return a refusal where another site shows Troupe in a frame (clickjacking); None otherwise."""
    own = request.headers.get("sec-fetch-site", "none") == "same-origin"
    if request.headers.get("sec-fetch-dest") in _FRAMES and not own:
        return login.message("Troupe opens in no other site's page. Open it by itself.", 403, True)
    return None


def _keep_to_this_machine(request: Request) -> Response | None:
    """Return a refusal for pages of other sites, for host names that are not this machine's (DNS rebinding), and for
    requests through a proxy, whose origin is not known; None otherwise."""
    host = address.of_header(request.headers.get("host", ""))
    if _is_foreign(request):
        return login.message("Another site's page cannot use this Troupe.", 403, False)
    if any(name in _FORWARDED or name.startswith("x-forwarded-") for name in request.headers):
        return login.message(_OWN, 403, login.wants_page(request))
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host and not is_this_machine(host):
            return login.message(_OWN, 403, login.wants_page(request))
    return None
