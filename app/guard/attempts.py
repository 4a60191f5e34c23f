"""Log-in attempts, limited: per address with a growing wait, and in all.

Behind a public link everybody may come from one address, and a guest must not be locked out for long by somebody
else's guessing. So no wait is longer than a minute, and the waits alone make a generated password safe for ages.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE = 5  # wrong tries of one address before it has to wait
LONGEST = 60.0  # seconds
IN_ALL = 30  # wrong tries of everybody within a minute
_FORGET = 900.0  # seconds after which an address starts anew
_ADDRESSES = 10_000  # remembered


@dataclass
class _Record:
    wrong: int = 0
    until: float = 0.0
    last: float = 0.0


class Attempts:
    """`clock` gives seconds; only differences count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._recent: list[float] = []
        self._lock = threading.Lock()

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0: now."""
        now = self._clock()
        with self._lock:
            record = self._records.get(address)
            own = record.until - now if record and now - record.last < _FORGET else 0.0
            self._recent = [when for when in self._recent if now - when < 60]
            all_of_us = self._recent[-IN_ALL] + 60 - now if len(self._recent) >= IN_ALL else 0.0
        return max(0.0, own, all_of_us)

    def wrong(self, address: str) -> None:
        """Note a wrong password: from the sixth on, each wait is twice the one before."""
        now = self._clock()
        with self._lock:
            record = self._records.pop(address, None)
            if record is None or now - record.last >= _FORGET:
                record = _Record()
            record.wrong, record.last = record.wrong + 1, now
            if record.wrong >= FREE:
                record.until = now + min(LONGEST, 2.0 ** min(record.wrong - FREE + 1, 10))
            self._records[address] = record
            self._recent.append(now)
            while len(self._records) > _ADDRESSES:
                self._records.popitem(last=False)

    def right(self, address: str) -> None:
        with self._lock:
            self._records.pop(address, None)
