"""The guard of one server: all state about its visitors, and the checks that handlers call."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.requests import Request

from app.guard.access import LOCAL, Access
from app.guard.address import asked_from
from app.guard.drawings import Drawings
from app.guard.key import visitors_key
from app.guard.limits import Daily, Limits, Line, Rates, UploadLimits
from app.guard.ownership import Ownership
from app.guard.quota import Quota
from app.guard.redact import Redaction
from app.guard.sessions import PerVisitor
from app.guard.streams import OpenStreams
from app.guard.throttle import Throttle
from app.guard.visitors import KEY, OWNER, Passes, Visitor
from app.jobs.turns import Asker
from engine.errors import TroupeError
from engine.surroundings import home

ROOT = Path(__file__).resolve().parent.parent.parent


class Guard:
    """The visitors of a server over an outputs folder. `clock` is wall-clock seconds: a link ends on time even if the
    machine slept."""

    def __init__(
        self, access: Access, outputs: Path, limits: Limits | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.access, self.limits, self._clock = access, limits or Limits(), clock
        uploads = (outputs / "uploads").resolve()  # it can be a link to another disk; Gradio uses both paths
        self.ownership = Ownership(outputs / "belongings.jsonl", uploads)
        self.redaction = Redaction(uploads, [outputs, ROOT, *filter(None, [home()])])
        self._key = visitors_key(outputs / "visitors.key") if access.shared else b""
        self.passes, self.throttle = Passes(access, self._key, self.ownership.is_known), Throttle()
        self.rates, self.uploads = Rates(self.limits), UploadLimits(self.limits, outputs)
        self.drawings, self.sessions = Drawings(self.limits.drawing_bytes), PerVisitor(self.limits.sessions)
        self.streams = OpenStreams()
        self._line, self._quota = Line(self.limits.jobs), Quota(self.limits, outputs)
        self._exports = Line(self.limits.exports, "Another clip of yours is being saved")
        self._desks = Daily(self.limits.desks)
        self.ends_at = None if access.hours is None else clock() + 3600 * access.hours

    @classmethod
    def local(cls, outputs: Path) -> Guard:
        """Make the guard of a server that is not shared: everything is its owner's."""
        return cls(LOCAL, outputs)

    @property
    def has_ended(self) -> bool:
        """Whether the public link has ended."""
        return self.ends_at is not None and self._clock() >= self.ends_at

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the public link ends; None: it never does."""
        return None if self.ends_at is None else max(0.0, self.ends_at - self._clock())

    def link_failed(self) -> None:
        """Remove the time limit: the public link could not be made."""
        self.ends_at = None

    def address(self, request: Request) -> str:
        """Return the address that a request comes from, for the limits."""
        return asked_from(request, through_link=self.access.hours is not None, on_space=self.access.embedded)

    # -- what handlers ask -------------------------------------------------------

    def visitor(self, request: Any) -> Visitor:
        """Return who sent this request, Gradio's or the one inside it; nobody (an empty id) where the middleware has
        not marked it."""
        if not self.access.shared:
            return OWNER
        scope = getattr(getattr(request, "request", request), "scope", None) or {}
        return scope.get(KEY) or Visitor("")

    def current(self) -> Visitor:
        """Return the visitor whose request the running handler works for."""
        from gradio.context import LocalContext

        return self.visitor(LocalContext.request.get(None))

    def is_owner(self) -> bool:
        """Return whether the running handler works for the owner."""
        return self.current().is_owner

    def asker(self) -> Asker:
        """Return the current visitor in the form that the queue takes."""
        visitor = self.current()
        return Asker(visitor.who, visitor.is_owner)

    def mine(self, key: str, is_kept: bool = True) -> bool:
        """Return whether a desk or job, such as `desk:<id>`, is the current visitor's; what nobody owns becomes theirs.
        What is not saved on disk (`is_kept`) is theirs until the server ends, and not recorded: anybody can ask for any
        id."""
        if not self.access.shared:
            return True
        visitor, ownership = self.current(), self.ownership
        if not is_kept and not ownership.is_given(key):
            return ownership.claim_session(key, visitor.id)
        if not ownership.is_given(key) and ownership.owner_of_session(key) not in (None, visitor.id):
            return False  # another visitor has it open, with nothing saved yet
        is_theirs = ownership.claim(key, visitor.id)
        if is_theirs and key.startswith("desk:") and not visitor.is_owner:
            ownership.give(f"made:{key}", self._filed(visitor))
        return is_theirs

    def may_see_job(self, request: Any, job: str) -> bool:
        """Return whether whoever sent this request may read a job's files."""
        visitor = self.visitor(request)
        return visitor.is_owner or self.ownership.claim(f"job:{job}", visitor.id)

    # -- how much a guest may have -------------------------------------------------

    def new_desk(self) -> None:
        """Count a new desk for the current visitor. Raises TroupeError where they have made too many within a day."""
        visitor = self.current()
        if not visitor.is_owner and not self._desks.take(visitor.who):
            raise TroupeError("Too many pages were opened from where you are today", "Use one that is open.")

    def check_disk(self, visitor: Visitor | None = None) -> None:
        """Check a visitor's disk quota (None: the current visitor's), raising TroupeError where it is used up or the
        disk is nearly full."""
        visitor = visitor or self.current()
        if not visitor.is_owner:
            self._quota.check(self.ownership.theirs(self._filed(visitor)).__contains__)

    @contextmanager
    def turn(self, is_active: Callable[[str], bool]) -> Iterator[Callable[[str], None]]:
        """Run the block with a place for one more clip of the current visitor. Raises TroupeError where their quota of
        active clips or of disk is used up. Yields a function to call with the new job's id, which makes the job theirs.
        `is_active(job id)` asks the queue."""
        if not self.access.shared:
            yield lambda job: None
            return
        visitor = self.current()
        if visitor.is_owner:
            yield lambda job: self.ownership.give(f"job:{job}", visitor.id)
            return
        with self._line.turn(visitor.who, is_active) as joined:
            self.check_disk(visitor)

            def started(job: str) -> None:
                self.ownership.give(f"made:job:{job}", self._filed(visitor))
                self.ownership.give(f"job:{job}", visitor.id)
                joined(job)

            yield started

    @contextmanager
    def exporting(self) -> Iterator[None]:
        """Run the block as an export of the current visitor's, raising TroupeError where they have too many."""
        visitor = self.current()
        if visitor.is_owner:
            yield
            return
        with self._exports.turn(visitor.who, lambda job: False):
            self.check_disk(visitor)
            yield

    def _filed(self, visitor: Visitor) -> str:
        """Return an HMAC of a visitor's account and address, under which their desks and jobs are recorded: the address
        itself is not saved."""
        return hmac.new(self._key, visitor.who.encode(), hashlib.sha256).hexdigest()[:32]
