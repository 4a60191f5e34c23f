"""Pieces of HTML. Values put into a template are escaped, unless they are pieces (Markup) themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

NOTHING = Markup("")


def fill(template: str, *values: Any, **named: Any) -> Markup:
    """Put values into a template of ours, as `str.format` does, escaping each."""
    return Markup(template).format(*values, **named)


def each(template: str, values: Iterable[Any]) -> Markup:
    """Fill a template with one value after another, and join the pieces."""
    return NOTHING.join(fill(template, value) for value in values)


def note(said: str) -> Markup:
    """Draw a small line of text that screen readers announce."""
    return fill('<p class="tr-note" role="status">{}</p>', said)


def message(said: Any, kind: str = "", role: str = "status") -> Markup:
    """Draw a box with a message; `kind` is "bad" or "warn", a class of the stylesheet."""
    return fill('<div class="tr-message {}" role="{}">{}</div>', kind, role, said)
