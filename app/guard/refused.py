"""The exception for a refused request, and the check that all kinds of requests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.guard.visitors import Visitor

if TYPE_CHECKING:
    from app.guard.guard import Guard

_ID_LENGTH = 200  # the longest name a page gives its session


class Refused(Exception):
    """The request is refused: an HTTP `status` and one line."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status, self.said = status, said


def check_session(guard: Guard, kind: str, name: object, visitor: Visitor) -> None:
    """Check the name of a session, event, drawing or upload, raising Refused where it is another visitor's or not
    valid."""
    if not isinstance(name, str) or len(name) > _ID_LENGTH:
        raise Refused(400, f"This is not the name of a {kind}.")
    if not guard.ownership.claim_session(f"{kind}:{name}", visitor.id):
        raise Refused(403, f"This is not a {kind} of yours.")
