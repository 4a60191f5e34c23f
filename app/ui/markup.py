"""Pieces of HTML. What is put into a template is escaped, unless it is a piece itself: no call can be forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

NOTHING = Markup("")


def fill(template: str, *values: Any, **named: Any) -> Markup:
    """Put values into a template of ours, as `str.format` does, each of them escaped."""
    return Markup(template).format(*values, **named)


def each(template: str, values: Iterable[Any]) -> Markup:
    """Fill a template with one value after another, and put the pieces together."""
    return NOTHING.join(fill(template, value) for value in values)


def note(said: str) -> Markup:
    """Return a quiet line that screen readers tell."""
    return fill('<p class="tr-note" role="status">{}</p>', said)


def message(said: Any, kind: str = "", role: str = "status") -> Markup:
    """Return a box with a message; `kind` is "bad" or "warn", as the stylesheet has them."""
    return fill('<div class="tr-message {}" role="{}">{}</div>', kind, role, said)
