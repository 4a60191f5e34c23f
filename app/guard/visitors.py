"""Who is asking: a visitor, known by a cookie that nobody can guess, and whether it is the owner.

A browser keeps the cookie, and so does Gradio's client for Python. What comes without one shares the visitor "" with
everything else that does: there, only unguessable ids and paths keep one from another.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

from starlette.requests import Request

from app.guard.access import Access

COOKIE = "troupe-visitor"
KEY = "troupe.visitor"  # where a request's scope holds its Visitor
_YEAR = 365 * 86_400  # seconds
_SECRET = re.compile(r"[0-9a-f]{32}")
_PASSES = 5_000  # remembered


@dataclass(frozen=True)
class Visitor:
    """`id` is what belongings are filed under; it is not the cookie and opens nothing."""

    id: str
    is_owner: bool = False


OWNER = Visitor("owner", True)  # on a server that is not shared


class Passes:
    """What was given to those who logged in; ended with the server, or taken back."""

    def __init__(self, access: Access) -> None:
        self.cookie = f"troupe-pass-{secrets.token_hex(4)}"  # two Troupes on one machine share a browser's cookies
        self._access = access
        self._passes: OrderedDict[str, bool] = OrderedDict()
        self._lock = threading.Lock()

    def issue(self, is_owner: bool = False) -> str:
        secret = secrets.token_hex(16)
        with self._lock:
            self._passes[_digest(secret)] = is_owner
            while len(self._passes) > _PASSES:
                self._passes.popitem(last=False)
        return secret

    def recognise(self, request: Request, foreign: bool) -> tuple[Visitor, bool]:
        """The visitor, and whether they are let in. `foreign`: another site's page asks; its cookies do not count."""
        cookies = {} if foreign else request.cookies
        secret = cookies.get(COOKIE, "")
        pass_held = self._passes.get(_digest(cookies.get(self.cookie, "")))
        visitor = Visitor(_digest(secret) if _SECRET.fullmatch(secret) else "", bool(pass_held))
        return visitor, pass_held is not None or not self._access.accounts

    def cookies(self, request: Request, pass_secret: str = "") -> list[str]:
        """The Set-Cookie values a response needs: the visitor's where there is none yet, and a new pass."""
        found = []
        if not _SECRET.fullmatch(request.cookies.get(COOKIE, "")):
            found.append(f"{COOKIE}={secrets.token_hex(16)}; Max-Age={_YEAR}; {self._flags}")
        if pass_secret:
            found.append(f"{self.cookie}={pass_secret}; {self._flags}")
        return found

    @property
    def _flags(self) -> str:
        # a Space stands in a frame of another site, where browsers send Lax cookies to nobody
        site = "SameSite=None; Secure; Partitioned" if self._access.embedded else "SameSite=Lax"
        return f"Path=/; HttpOnly; {site}"


def asked_from(request: Request) -> str:
    """The address that a request came from. A tunnel or proxy on this machine says it in its last X-Forwarded-For."""
    peer = request.client.host if request.client else ""
    said = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return said[:64] if said and (peer in ("127.0.0.1", "::1") or not peer) else peer


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()[:32]
