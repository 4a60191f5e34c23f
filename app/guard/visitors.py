"""Visitors: known by a signed cookie that this server has issued; one of them is the owner.

A browser keeps the cookie, and so does Gradio's client for Python. Requests without one share the visitor "" with each
other: there, only unguessable ids and paths keep them apart. Limits do not count by cookie, since anybody can delete a
cookie, but by the account and the address.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from app.guard.access import Access

COOKIE = "troupe-visitor"
KEY = "troupe.visitor"  # where a request's scope holds its Visitor
_YEAR = 365 * 86_400  # seconds
_SIGNED = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})")
_BARE = re.compile(r"[0-9a-f]{32}")  # as cookies were before they were signed
_PASS = re.compile(r"(owner|[0-9]{1,6})\.[0-9a-f]{32}\.[0-9a-f]{64}")


@dataclass(frozen=True)
class Visitor:
    """`id` is what ownership is recorded under; it is not the cookie and grants nothing. `who` is what limits count by:
    the account that they logged in with, and their address; empty on a server that is not shared."""

    id: str
    is_owner: bool = False
    who: str = ""


OWNER = Visitor("owner", True)  # on a server that is not shared


class Passes:
    """The signed cookies of one server. `key` signs the visitors' cookies and is kept over a restart; passes (the
    cookies of a log-in) end with the server.

    Both are signed, not stored, so that no number of log-ins evicts anybody's. `is_known(id)`: whether a visitor owns
    anything; then their cookie may be one from before cookies were signed.
    """

    def __init__(self, access: Access, key: bytes, is_known: Callable[[str], bool] = lambda visitor: False) -> None:
        self.cookie = f"troupe-pass-{secrets.token_hex(4)}"  # two Troupes on one machine share a browser's cookies
        self._access, self._key, self._is_known = access, key, is_known
        self._passing = secrets.token_bytes(32)

    def issue(self, account: int | None) -> str:
        """Issue a pass for the account with this number, counted from 0; None: for the owner."""
        said = f"{'owner' if account is None else account}.{secrets.token_hex(16)}"
        return f"{said}.{_signature(self._passing, said)}"

    def recognise(self, request: Request, foreign: bool, address: str) -> tuple[Visitor, bool]:
        """Return the visitor, and whether they are let in. `foreign`: the request comes from another site's page; its
        cookies are ignored."""
        cookies = {} if foreign else request.cookies
        secret, account = self._secret(cookies.get(COOKIE, "")), self._account(cookies.get(self.cookie, ""))
        visitor = _digest(secret) if secret else ""
        if account == "owner":
            return Visitor(visitor, True, "owner"), True
        is_in = bool(account) or not self._access.accounts
        return Visitor(visitor, False, f"{account or ('-' if is_in else '?')}@{address}"), is_in

    def cookies(self, request: Request, pass_secret: str = "") -> list[str]:
        """Return the Set-Cookie values that a response needs: a visitor's cookie where there is no valid one, and a new
        pass."""
        found, held = [], request.cookies.get(COOKIE, "")
        if not (_SIGNED.fullmatch(held) and self._secret(held)):
            secret = self._secret(held) or secrets.token_hex(16)
            found.append(f"{COOKIE}={secret}.{_signature(self._key, secret)}; Max-Age={_YEAR}; {self._flags}")
        if pass_secret:
            found.append(f"{self.cookie}={pass_secret}; {self._flags}")
        return found

    def _secret(self, cookie: str) -> str:
        """Return the secret in a visitor's cookie; empty where this server did not issue it."""
        if match := _SIGNED.fullmatch(cookie):
            return match[1] if hmac.compare_digest(match[2], _signature(self._key, match[1])) else ""
        return cookie if _BARE.fullmatch(cookie) and self._is_known(_digest(cookie)) else ""

    def _account(self, cookie: str) -> str:
        """Return the account that a pass was issued for, or "owner"; empty for a pass that this server did not
        issue."""
        match = _PASS.fullmatch(cookie)
        said, _, signature = cookie.rpartition(".")
        return match[1] if match and hmac.compare_digest(signature, _signature(self._passing, said)) else ""

    @property
    def _flags(self) -> str:
        # a Space is in a frame of another site, where browsers send no Lax cookies
        site = "SameSite=None; Secure; Partitioned" if self._access.embedded else "SameSite=Lax"
        return f"Path=/; HttpOnly; {site}"


def _signature(key: bytes, said: str) -> str:
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()[:32]
