"""The guard of one server: everything that is remembered about its visitors, and what handlers ask about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.guard.access import LOCAL, Access
from app.guard.attempts import Attempts
from app.guard.belongings import Belongings
from app.guard.limits import Limits, Line, Rates, Uploads
from app.guard.veil import Veil
from app.guard.visitors import KEY, OWNER, Passes, Visitor
from engine.surroundings import home

ROOT = Path(__file__).resolve().parent.parent.parent


class Guard:
    """Over an outputs folder. `clock` is wall-clock seconds: a link ends on time even if the machine slept."""

    def __init__(
        self, access: Access, outputs: Path, limits: Limits | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.access, self.limits, self._clock = access, limits or Limits(), clock
        uploads = (outputs / "uploads").resolve()  # it can be a link to another disk, and Gradio names files both ways
        self.belongings = Belongings(outputs / "belongings.jsonl", uploads)
        self.veil = Veil(uploads, [outputs, ROOT, *filter(None, [home()])])
        self.passes, self.attempts = Passes(access), Attempts()
        self.rates, self.uploads = Rates(self.limits), Uploads(self.limits, outputs)
        self._line = Line(self.limits.jobs)
        self.ends_at = None if access.hours is None else clock() + 3600 * access.hours

    @classmethod
    def local(cls, outputs: Path) -> Guard:
        """The guard of a server that is its owner's alone: everything is theirs."""
        return cls(LOCAL, outputs)

    @property
    def has_ended(self) -> bool:
        """Whether the time of the guests is over."""
        return self.ends_at is not None and self._clock() >= self.ends_at

    # -- what handlers ask -------------------------------------------------------

    def visitor(self, request: Any) -> Visitor:
        """Who sent this request: Gradio's, or the one inside it. Without a sign of the door it is nobody's."""
        if not self.access.shared:
            return OWNER
        scope = getattr(getattr(request, "request", request), "scope", None) or {}
        return scope.get(KEY) or Visitor("")

    def current(self) -> Visitor:
        """Who the handler that is running now works for."""
        from gradio.context import LocalContext

        return self.visitor(LocalContext.request.get(None))

    def is_owner(self) -> bool:
        """Whether the handler that is running now works for the owner."""
        return self.current().is_owner

    def mine(self, key: str) -> bool:
        """Whether a desk or job, such as `desk:<id>`, is the current visitor's; what nobody has becomes theirs."""
        return not self.access.shared or self.belongings.claim(key, self.current().id)

    def may_see_job(self, request: Any, job: str) -> bool:
        """Whether who sent this request may have a job's files."""
        visitor = self.visitor(request)
        return visitor.is_owner or self.belongings.claim(f"job:{job}", visitor.id)

    @contextmanager
    def turn(self, is_active: Callable[[str], bool]) -> Iterator[Callable[[str], None]]:
        """Room for one more clip of the current visitor; raises TroupeError where they have enough under way. Yields
        what is to be told the new job's id, which then is theirs. `is_active(job id)` asks the board."""
        if not self.access.shared:
            yield lambda job: None
            return
        visitor = self.current()
        if visitor.is_owner:
            yield lambda job: self.belongings.give(f"job:{job}", visitor.id)
            return
        with self._line.turn(visitor.id, is_active) as joined:

            def started(job: str) -> None:
                self.belongings.give(f"job:{job}", visitor.id)
                joined(job)

            yield started
