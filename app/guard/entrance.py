"""The log-in page, and the owner's own link."""

from __future__ import annotations

import html
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from app.guard.guard import Guard
from app.guard.visitors import asked_from

_FORM_BYTES = 8_192
_STYLE = (
    "body{margin:0;min-height:100vh;display:grid;place-items:center;background:#faf8f5;color:#272132;"
    "font:16px/1.5 system-ui,sans-serif}main{width:min(320px,86vw)}h1{font-size:26px;margin:0 0 4px}"
    "p{margin:0 0 16px}label{display:block;font-weight:600;margin:0 0 12px}input,button{box-sizing:border-box;"
    "width:100%;font:inherit;padding:10px 12px;border-radius:10px;border:1px solid #a59b93;margin-top:4px;"
    "background:#fff;color:inherit}button{background:#d3401f;border:0;color:#fff;font-weight:600;cursor:pointer}"
    "[role=alert]{color:#b3261e;font-weight:600}:focus-visible{outline:3px solid #fa7a57}"
    "@media(prefers-color-scheme:dark){body{background:#120e19;color:#f2eee8}input{background:#1b1624}"
    "[role=alert]{color:#ff8f85}}"
)


def page(guard: Guard, said: str = "", status: int = 401) -> Response:
    """The form, with what went wrong."""
    named = any(name for name, _ in guard.access.accounts)
    name = '<label>Name<input name="username" autocomplete="username" autofocus required></label>' if named else ""
    note = f'<p role="alert">{html.escape(said)}</p>' if said else "<p>Whoever sent you here has the password.</p>"
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Troupe</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style><main>'
        f'<h1>Troupe</h1>{note}<form method="post" action="login">{name}<label>Password<input name="password" '
        f'type="password" autocomplete="current-password" required{"" if named else " autofocus"}></label>'
        "<button>Open</button></form></main></html>"
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"
    return HTMLResponse(text, status, {"Content-Security-Policy": policy, "Cache-Control": "no-store"})


def message(said: str, status: int, wants_page: bool) -> Response:
    """One line, as a page for a person and as JSON for a program."""
    if wants_page:
        body = f'<main><h1>Troupe</h1><p role="alert">{html.escape(said)}</p></main>'
        text = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Troupe</title><style>{_STYLE}</style>{body}'
        )
        return HTMLResponse(text, status, {"Cache-Control": "no-store"})
    return JSONResponse({"detail": said}, status)


def wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


async def log_in(guard: Guard, request: Request) -> Response:
    """A password was sent: by our form, or by Gradio's client, which posts the same fields and keeps the cookies."""
    address, as_page = asked_from(request), wants_page(request)
    wait = guard.attempts.wait(address)
    if wait > 0:
        said = (
            f"Too many wrong passwords. Try again in {wait:.0f} seconds." if wait >= 1.5 else "Try again in a second."
        )
        answer = page(guard, said, 429) if as_page else message(said, 429, False)
        answer.headers["Retry-After"] = str(max(1, round(wait)))
        return answer
    fields = await _form(request)
    if fields is None or not guard.access.admits(
        fields.get("username", "").strip(), fields.get("password", "").strip()
    ):
        guard.attempts.wrong(address)
        said = "That is not the password." if fields is not None else "This is not a log-in form."
        return page(guard, said) if as_page else message(said, 401, False)
    guard.attempts.right(address)
    answer = RedirectResponse("./", 303) if as_page else JSONResponse({"success": True})
    return _with_cookies(answer, guard.passes.cookies(request, guard.passes.issue()))


def owner_link(guard: Guard, request: Request) -> Response:
    """The link from the console was opened: the browser is the owner's from now on, and the key leaves its address."""
    address = asked_from(request)
    if guard.attempts.wait(address) > 0 or not guard.access.is_owner(request.query_params.get("owner", "")):
        guard.attempts.wrong(address)
        said = "That is not this Troupe's own link. It changes with every start: look into the console."
        return message(said, 401, wants_page=True)
    answer = RedirectResponse("./", 303)
    return _with_cookies(answer, guard.passes.cookies(request, guard.passes.issue(is_owner=True)))


def _with_cookies(answer: Response, cookies: list[str]) -> Response:
    for cookie in cookies:
        answer.headers.append("Set-Cookie", cookie)
    return answer


async def _form(request: Request) -> dict[str, str] | None:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            return None
    try:
        return {key: values[0] for key, values in parse_qs(body.decode("utf-8"), max_num_fields=20).items()}
    except ValueError:
        return None
