"""How much one visitor, and all together, may ask of this machine. Guests only: the owner has no limits."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import TroupeError

MB = 1_000_000
_DAY = 86_400.0  # seconds: Gradio deletes uploads after a day
_KNOWN = 20_000  # visitors remembered


@dataclass(frozen=True)
class Limits:
    """Of one visitor and of all guests: uploads within a day, requests, open connections, clips under way."""

    files: int = 300
    upload_bytes: int = 1_000 * MB
    upload_bytes_in_all: int = 10_000 * MB
    free_disk: int = 2_000 * MB  # what uploads leave free
    requests_per_second: float = 20.0
    requests_at_once: int = 150
    requests_per_second_in_all: float = 200.0
    open: int = 80  # connections; one that keeps no cookie shares them with all others of its kind
    open_in_all: int = 600
    jobs: int = 3
    body_bytes: int = 4 * MB  # of a call; pictures are uploaded


class Rates:
    """Requests of each visitor and of all, as buckets that fill again; and who has how many connections open."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # visitor -> left, when
        self._open: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    def take(self, visitor: str) -> bool:
        """Take one request out of the visitor's bucket and everybody's; False: it is empty."""
        limits = self._limits
        with self._lock:
            own = self._take(visitor, limits.requests_per_second, limits.requests_at_once)
            return own and self._take("*", limits.requests_per_second_in_all, 10 * limits.requests_per_second_in_all)

    def _take(self, key: str, rate: float, most: float) -> bool:
        now = self._clock()
        left, when = self._buckets.pop(key, (most, now))
        left = min(most, left + (now - when) * rate)
        self._buckets[key] = max(0.0, left - 1), now
        while len(self._buckets) > _KNOWN:
            self._buckets.popitem(last=False)
        return left >= 1

    def enter(self, visitor: str) -> bool:
        """Count a connection in; False: there are too many. Who entered must leave."""
        with self._lock:
            if self._open[visitor] >= self._limits.open or self._open["*"] >= self._limits.open_in_all:
                return False
            self._open[visitor] += 1
            self._open["*"] += 1
            return True

    def leave(self, visitor: str) -> None:
        with self._lock:
            self._open["*"] -= 1
            self._open[visitor] -= 1
            if not self._open[visitor]:
                del self._open[visitor]


class Uploads:
    """What each visitor, and all of them, have uploaded within a day."""

    def __init__(self, limits: Limits, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._folder, self._clock = limits, folder, clock
        self._taken: list[tuple[float, str, int, int]] = []  # when, who, bytes, files
        self._lock = threading.Lock()

    def check(self, visitor: str, size: int, files: int = 1) -> None:
        """Raises TroupeError where `files` more of `size` bytes together are too much."""
        limits = self._limits
        with self._lock:
            since = self._clock() - _DAY
            self._taken = [entry for entry in self._taken if entry[0] > since]
            own = [entry for entry in self._taken if entry[1] == visitor]
            own_bytes, in_all = sum(entry[2] for entry in own), sum(entry[2] for entry in self._taken)
            own_files = sum(entry[3] for entry in own)
        if own_files + files > limits.files:
            raise TroupeError(f"These are too many pictures: {limits.files} a day are taken", "Send fewer.")
        if own_bytes + size > limits.upload_bytes:
            problem = f"These pictures are too large: {limits.upload_bytes // MB} MB a day are taken"
            raise TroupeError(problem, "Save them smaller.")
        if in_all + size > limits.upload_bytes_in_all:
            raise TroupeError("This Troupe has taken all the pictures that it takes in a day", "Try again tomorrow.")
        if shutil.disk_usage(self._folder).free - size < limits.free_disk:
            raise TroupeError("The disk of this Troupe is full", "Tell its owner.")

    def note(self, visitor: str, size: int, files: int) -> None:
        with self._lock:
            self._taken.append((self._clock(), visitor, size, files))


class Line:
    """The clips that each visitor has under way, over all of their desks and calls."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: dict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, visitor: str, is_active: Callable[[str], bool]) -> Iterator[Callable[[str], None]]:
        """Room for one more clip, or TroupeError. Yields what is to be told the new job's id."""
        place = f"?{uuid.uuid4().hex}"  # held while the job has no id yet, so that two calls at once count as two
        with self._lock:
            active = [job for job in self._jobs[visitor] if job.startswith("?") or is_active(job)]
            if len(active) >= self._most:
                raise TroupeError(f"{len(active)} of your clips are being made already", "Wait for one to finish.")
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
