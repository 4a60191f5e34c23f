"""The log-in page, and the owner's own link."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from markupsafe import Markup
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from app.guard.guard import Guard
from app.guard.visitors import Visitor
from app.ui.markup import fill

_FORM_BYTES = 8_192
_FORM_SECONDS = 10.0  # within which a log-in form has to arrive
_STYLE = Markup(
    "body{margin:0;min-height:100vh;display:grid;place-items:center;background:#faf8f5;color:#272132;"
    "font:16px/1.5 system-ui,sans-serif}main{width:min(320px,86vw)}h1{font-size:26px;margin:0 0 4px}"
    "p{margin:0 0 16px}label{display:block;font-weight:600;margin:0 0 12px}input,button{box-sizing:border-box;"
    "width:100%;font:inherit;padding:10px 12px;border-radius:10px;border:1px solid #a59b93;margin-top:4px;"
    "background:#fff;color:inherit}button{background:#d3401f;border:0;color:#fff;font-weight:600;cursor:pointer}"
    "[role=alert]{color:#b3261e;font-weight:600}:focus-visible{outline:3px solid #fa7a57}"
    "@media(prefers-color-scheme:dark){body{background:#120e19;color:#f2eee8}input{background:#1b1624}"
    "[role=alert]{color:#ff8f85}}"
)


_HEAD = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Troupe</title>'
_LOGIN = (
    _HEAD + '<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style><main>'
    '<h1>Troupe</h1>{note}<form method="post" action="login">{name}<label>Password<input name="password" '
    'type="password" autocomplete="current-password" required{focus}></label><button>Open</button></form></main></html>'
)
_MESSAGE = _HEAD + '<style>{}</style><main><h1>Troupe</h1><p role="alert">{}</p></main>'


def page(guard: Guard, said: str = "", status: int = 401) -> Response:
    """Draw the log-in page, with what went wrong."""
    named = any(name for name, _ in guard.access.accounts)
    name = '<label>Name<input name="username" autocomplete="username" autofocus required></label>' if named else ""
    note = fill('<p role="alert">{}</p>', said) if said else Markup("<p>Whoever sent you here has the password.</p>")
    text = fill(_LOGIN, style=_STYLE, note=note, name=Markup(name), focus="" if named else " autofocus")
    policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"
    return HTMLResponse(text, status, {"Content-Security-Policy": policy, "Cache-Control": "no-store"})


def message(said: str, status: int, wants_page: bool) -> Response:
    """Return a response with one line: a page for a person, JSON for a program."""
    if wants_page:
        return HTMLResponse(fill(_MESSAGE, _STYLE, said), status, {"Cache-Control": "no-store"})
    return JSONResponse({"detail": said}, status)


def wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


async def log_in(guard: Guard, request: Request, visitor: Visitor) -> Response:
    """Handle a password, sent by our form or by Gradio's client, which posts the same fields and keeps the cookies."""
    throttle, as_page = guard.throttle, wants_page(request)
    who = throttle.counted_by(visitor.id, guard.address(request))
    if wait := throttle.wait(who):
        return _wait(wait, as_page, guard)
    fields = await _form(request)
    if not await throttle.slowed():
        return _later("Many are trying to log in. Try again in a few seconds.", 5, as_page, guard)
    if wait := throttle.wait(who):  # others may have failed meanwhile; nothing is awaited from here on
        return _wait(wait, as_page, guard)
    account = guard.access.account(fields.get("username", "").strip(), fields.get("password", "").strip())
    if account is None:
        throttle.wrong(who)
        said = "That is not the password." if fields else "This is not a log-in form."
        return page(guard, said) if as_page else message(said, 401, False)
    throttle.right(who, visitor.id)
    answer = RedirectResponse("./", 303) if as_page else JSONResponse({"success": True})
    return _with_cookies(answer, guard.passes.cookies(request, guard.passes.issue(account)))


def owner_link(guard: Guard, request: Request) -> Response:
    """Handle the owner's link from the console: log the browser in as the owner and redirect, so that the key leaves
    the URL. The key has 192 bits, so attempts are neither throttled nor counted."""
    if not guard.access.is_owner(request.query_params.get("owner", "")):
        said = "That is not this Troupe's own link. It changes with every start: look into the console."
        return message(said, 401, wants_page=True)
    answer = RedirectResponse("./", 303)
    return _with_cookies(answer, guard.passes.cookies(request, guard.passes.issue(None)))


def too_much() -> Response:
    answer = message("Too much at once. Wait a few seconds and try again.", 429, False)
    answer.headers["Retry-After"] = "5"
    return answer


def _wait(wait: float, as_page: bool, guard: Guard) -> Response:
    said = f"Too many wrong passwords. Try again in {wait:.0f} seconds." if wait >= 1.5 else "Try again in a second."
    return _later(said, wait, as_page, guard)


def _later(said: str, wait: float, as_page: bool, guard: Guard) -> Response:
    answer = page(guard, said, 429) if as_page else message(said, 429, False)
    answer.headers["Retry-After"] = str(max(1, round(wait)))
    return answer


def _with_cookies(answer: Response, cookies: list[str]) -> Response:
    for cookie in cookies:
        answer.headers.append("Set-Cookie", cookie)
    return answer


async def _form(request: Request) -> dict[str, str]:
    """Read the fields of a form; empty where it is not a form, or does not arrive in time."""
    body = b""
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _FORM_BYTES:
                    return {}
        return {key: values[0] for key, values in parse_qs(body.decode("utf-8"), max_num_fields=20).items()}
    except (ValueError, TimeoutError, ClientDisconnect):
        return {}
