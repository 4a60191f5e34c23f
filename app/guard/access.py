"""How a server is open: for its owner only, or for guests as well, and with which password."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from app import address
from engine.errors import TroupeError

HOURS = 24.0  # a public link lasts this long unless asked otherwise
LONGEST = 168.0  # hours: Gradio ends its links after a week
SAFETY = (
    "You are sharing a video model. The licence of SkyReels asks for a security review before it serves the public on "
    "the internet: share it with people you know."
)
_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aeiou"


@dataclass(frozen=True)
class Terms:
    """What the command line asks for. `accounts`: each `user:password`; `hours`: how long a public link lasts."""

    accounts: tuple[str, ...] = ()
    no_password: bool = False
    hours: float = HOURS


@dataclass(frozen=True)
class Access:
    """How a server is open. `shared`: others than its owner may reach it. `accounts`: (user, password) pairs; user ""
    matches any name; empty means no password. `hours`: guests' sessions end after this long; None: never."""

    shared: bool
    accounts: tuple[tuple[str, str], ...] = ()
    owner_key: str = ""
    hours: float | None = None
    embedded: bool = False  # in a frame on another site, as a Space is

    def account(self, user: str, password: str) -> int | None:
        """Return the number of the account that matches, from 0; None where none does. Compared in constant time."""
        fits = [
            number
            for number, (name, secret) in enumerate(self.accounts)
            if (not name or _same(user, name)) & _same(password, secret)
        ]
        return fits[0] if fits else None

    def is_owner(self, key: str) -> bool:
        return bool(self.owner_key) and _same(key, self.owner_key)


LOCAL = Access(shared=False)


def decide(terms: Terms, settings: Mapping[str, object], environ: Mapping[str, str]) -> Access:
    """Return the access that terms, launch settings (`share`, `server_name`) and environment ask for. Raises
    TroupeError for terms that contradict each other or are out of range."""
    if not 0 < terms.hours <= LONGEST:
        problem = f"--share-for {terms.hours:g} is not a time"
        raise TroupeError(problem, f"Use hours above 0 and up to {LONGEST:g}.")
    asked = terms.accounts or tuple(environ.get("TROUPE_AUTH", "").split())
    if asked and terms.no_password:
        raise TroupeError("--auth and --no-auth contradict each other", "Use one of them.")
    accounts = tuple(_account(text) for text in asked)
    if not (accounts or is_shared(settings, environ)):
        return LOCAL
    on_space = "SPACE_ID" in environ
    if not (accounts or terms.no_password or on_space):  # a Space's own settings decide who may open it
        accounts = (("", new_password()),)
    hours = terms.hours if settings.get("share") and not on_space else None
    return Access(True, accounts, secrets.token_urlsafe(24), hours, embedded=on_space)


def is_shared(settings: Mapping[str, object], environ: Mapping[str, str]) -> bool:
    """Return whether strangers can reach the server: by a public link, from the network, or on a Space."""
    host = address.wanted(settings.get("server_name"), environ)
    return bool(settings.get("share")) or not is_this_machine(host) or "SPACE_ID" in environ


def is_this_machine(name: str) -> bool:
    """Return whether a host name or address always means this machine (loopback)."""
    name = name.strip("[]").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def new_password() -> str:
    """Generate a password that can be read aloud: four words of four letters, about 50 bits of randomness."""

    def word() -> str:
        return "".join(secrets.choice(_CONSONANTS) + secrets.choice(_VOWELS) for _ in range(2))

    return "-".join(word() for _ in range(4))


def spoken(access: Access, local: str, public: str | None) -> list[str]:
    """Return the lines that the console prints about an access: how guests log in, and until when."""
    if not access.shared:
        return []
    lines = []
    names = [name for name, _ in access.accounts]
    if names == [""]:
        lines.append(f"Guests need this password: {access.accounts[0][1]}")
    elif names:
        lines.append(f"Guests log in as {' or '.join(names)}, with the password you gave.")
    else:
        lines.append(
            "No password is asked: whoever has the address can use this machine. Everyone sees only their own."
        )
    lines.append(f"Your own page, not to be passed on: {owner_address(access, local)}")
    if access.hours and public:
        lines.append(f"The public link ends after {in_words(access.hours)} (--share-for).")
    return lines


def in_words(hours: float) -> str:
    return "1 hour" if hours == 1 else f"{hours:g} hours"


def owner_address(access: Access, local: str) -> str:
    """Return the URL for the owner's browser: on a shared server, with the key that logs it in as the owner."""
    return f"{local}?owner={access.owner_key}" if access.shared else local


def _account(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise TroupeError("--auth wants a name and a password", "Write --auth NAME:PASSWORD.")
    return user, password


def _same(one: str, other: str) -> bool:
    digests = [hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (one, other)]
    return secrets.compare_digest(*digests)  # of equal length, so that the time does not depend on the length
