"""Rate limits and quotas for one visitor, and for all together. For guests only: the owner has no limits.

A visitor here is `Visitor.who`: the account they logged in with and the address they come from. Cookies cost nothing,
so a guest with fourteen of them has one share, and guests of one household who use one password share it; the owner can
give each an account of their own (--auth, several times).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.guard.disk_space import OURS
from engine.disk.room import free_bytes
from engine.errors import TroupeError

MAX_UPLOAD = 40 * 2**20  # bytes of a file that anybody may upload, the owner too: Gradio holds some in memory
MB = 1_000_000
_DAY = 86_400.0  # seconds: Gradio deletes uploads after a day
_KNOWN = 20_000  # visitors remembered
PAGE = 10.0  # cost, in requests, of one for which Gradio goes through the whole page
DOOR = 2.0  # cost of a request of somebody who is not logged in
FILE = 0.2  # cost of a request that reads a file or a stream


@dataclass(frozen=True)
class Limits:
    """For one visitor, or (`in_all`) for all guests: uploads within a day, requests, open connections, active clips."""

    files: int = 300
    upload_bytes: int = 1_000 * MB
    upload_bytes_in_all: int = 10_000 * MB
    free_disk: int = 2_000 * MB  # what guests leave free
    disk_bytes: int = 3_000 * MB  # of a visitor's desks, clips and exports together
    desks: int = 200  # made within a day
    requests_per_second: float = 20.0
    requests_at_once: int = 150
    requests_per_second_in_all: float = 200.0
    open: int = 80  # connections
    open_in_all: int = 600
    events: int = 16  # waiting or running; opening a page takes half a dozen
    events_in_all: int = 150
    sessions: int = 40  # of pages, in Gradio's memory
    jobs: int = 3
    exports: int = 1
    body_bytes: int = 4 * MB  # of a call; pictures are uploaded
    bodies_bytes: int = 16 * MB  # of calls that are arriving
    bodies_bytes_in_all: int = 128 * MB
    drawing_bytes: int = 24 * MB  # of drawings that no handler has taken yet


class Rates:
    """Rate limits per visitor and for all: requests (token buckets), open connections, and bytes of calls that are
    arriving."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # visitor -> left, when
        self._open: dict[str, int] = defaultdict(int)
        self._held: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    def take(self, visitor: str, cost: float = 1.0) -> bool:
        """Take one request out of a guest's token bucket and everybody's; return False where one is empty."""
        in_all = self._limits.requests_per_second_in_all
        with self._lock:
            return self._own(visitor, cost) and self._take("*", cost, in_all, 10 * in_all)

    def take_outside(self, stranger: str) -> bool:
        """Take one request out of the bucket of somebody who is not logged in; return False where it is empty. They
        share no bucket: a few could use it to keep the others from the log-in page, and a refusal costs as much as that
        page."""
        with self._lock:
            return self._own(stranger, DOOR)

    def _own(self, visitor: str, cost: float) -> bool:
        return self._take(visitor, cost, self._limits.requests_per_second, self._limits.requests_at_once)

    def _take(self, key: str, cost: float, rate: float, most: float) -> bool:
        now = self._clock()
        left, when = self._buckets.pop(key, (most, now))
        left = min(most, left + (now - when) * rate)
        self._buckets[key] = max(0.0, left - cost), now
        while len(self._buckets) > _KNOWN:
            self._buckets.popitem(last=False)
        return left >= cost

    def enter(self, visitor: str) -> bool:
        """Count a connection in; return False where there are too many. Call `leave` after True."""
        with self._lock:
            if self._open[visitor] >= self._limits.open or self._open["*"] >= self._limits.open_in_all:
                return False
            self._open[visitor] += 1
            self._open["*"] += 1
            return True

    def leave(self, visitor: str) -> None:
        self._count_out(self._open, visitor, 1)

    def hold(self, visitor: str, size: int) -> bool:
        """Count so many bytes of a call in; return False where too many are being held. Call `let_go` after True."""
        with self._lock:
            own, in_all = self._held[visitor] + size, self._held["*"] + size
            if own > self._limits.bodies_bytes or in_all > self._limits.bodies_bytes_in_all:
                return False
            self._held[visitor], self._held["*"] = own, in_all
            return True

    def let_go(self, visitor: str, size: int) -> None:
        self._count_out(self._held, visitor, size)

    def _count_out(self, book: dict[str, int], visitor: str, number: int) -> None:
        with self._lock:
            for key in ("*", visitor):
                book[key] -= number
                if not book[key]:
                    del book[key]


class Daily:
    """Counts how often each visitor has done something within a day."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._done: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, visitor: str) -> bool:
        """Count one more time; return False where the limit is reached."""
        now = self._clock()
        with self._lock:
            done = [when for when in self._done.pop(visitor, []) if now - when < _DAY]
            self._done[visitor] = done
            while len(self._done) > _KNOWN:
                self._done.popitem(last=False)
            if len(done) >= self._most:
                return False
            done.append(now)
            return True


class UploadLimits:
    """What each visitor, and all of them, have uploaded within a day, running uploads included."""

    def __init__(self, limits: Limits, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._folder, self._clock = limits, folder, clock
        self._taken: list[tuple[float, str, int, int]] = []  # when, who, bytes, files
        self._coming: dict[str, tuple[str, int]] = {}  # uploads on their way: who, bytes; each is a file at least
        self._lock = threading.Lock()

    def check(self, visitor: str, size: int, files: int = 1) -> None:
        """Check whether `files` more of `size` bytes together are allowed, raising TroupeError where not."""
        with self._lock:
            self._check(visitor, size, files)

    def check_files(self, visitor: str, files: int) -> None:
        """Check the number of files of an upload that has arrived, raising TroupeError where they are too many."""
        with self._lock:
            own = sum(entry[3] for entry in self._taken if entry[1] == visitor)
        self._check_number(own + files)

    @contextmanager
    def coming(self, visitor: str, size: int) -> Iterator[Callable[[int], None]]:
        """Run the block with `size` bytes reserved for an upload. Raises TroupeError where there is no room. Yields a
        function to call with the number of files once the upload is complete; it raises TroupeError where they are too
        many."""
        place = uuid.uuid4().hex
        with self._lock:
            self._check(visitor, size, 1)
            self._coming[place] = visitor, size

        def taken(files: int) -> None:
            with self._lock:
                del self._coming[place]
                self._check(visitor, size, files, on_disk=True)
                self._taken.append((self._clock(), visitor, size, files))

        try:
            yield taken
        finally:
            with self._lock:
                self._coming.pop(place, None)

    def _check_number(self, files: int) -> None:
        if files > self._limits.files:
            raise TroupeError(f"These are too many pictures: {self._limits.files} a day are taken", "Send fewer.")

    def _check(self, visitor: str, size: int, files: int, on_disk: bool = False) -> None:
        limits, since = self._limits, self._clock() - _DAY
        self._taken = [entry for entry in self._taken if entry[0] > since]
        own = [entry[2:] for entry in self._taken if entry[1] == visitor]
        own += [(coming, 1) for who, coming in self._coming.values() if who == visitor]
        coming = sum(each for _, each in self._coming.values())
        self._check_number(sum(entry[1] for entry in own) + files)
        if sum(entry[0] for entry in own) + size > limits.upload_bytes:
            problem = f"These pictures are too large: {limits.upload_bytes // MB} MB a day are taken"
            raise TroupeError(problem, "Save them smaller.")
        if sum(entry[2] for entry in self._taken) + coming + size > limits.upload_bytes_in_all:
            raise TroupeError("This Troupe has taken all the pictures that it takes in a day", "Try again tomorrow.")
        free, _ = free_bytes(self._folder)
        if free is not None and free - coming - (0 if on_disk else size) < limits.free_disk:
            raise TroupeError(OURS, "Tell its owner.")


class Line:
    """The active jobs of each visitor, over all of their desks, calls and cookies. `said` is the message of a
    refusal."""

    def __init__(self, most: int, said: str = "{} of your clips are being made already") -> None:
        self._most, self._said = most, said
        self._jobs: dict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, visitor: str, is_active: Callable[[str], bool]) -> Iterator[Callable[[str], None]]:
        """Run the block with a place for one more job. Raises TroupeError where there is none. Yields a function to
        call with the new job's id."""
        place = f"?{uuid.uuid4().hex}"  # a placeholder until the job has an id: two calls at once count as two
        with self._lock:
            active = [job for job in self._jobs[visitor] if job.startswith("?") or is_active(job)]
            if len(active) >= self._most:
                raise TroupeError(self._said.format(len(active)), "Wait for one to finish.")
            self._jobs[visitor] = [*active, place]

        def joined(job: str) -> None:
            with self._lock:
                self._jobs[visitor].append(job)

        try:
            yield joined
        finally:
            with self._lock:
                self._jobs[visitor].remove(place)
                if not self._jobs[visitor]:
                    del self._jobs[visitor]
