"""Log-in attempts: per address limited with a growing wait, in total only slowed down.

A total limit would let one stranger lock out all guests. A generated password has 50 bits and needs none; for one that
somebody has chosen, each address has few tries, and when many addresses try at once their tries are served one after
the other. A browser that has logged in once is counted separately, so that guesses of others at its address, as in a
household or an office, do not keep it out.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

FREE = 5  # wrong tries of one address before it has to wait
LONGEST = 60.0  # seconds
MANY = 30  # wrong tries of everybody within a minute, after which tries are served one by one
SPACING = 0.2  # seconds between two such tries
_WAITING = 100  # tries that may wait then
_FORGET = 900.0  # seconds after which an address starts anew
_ADDRESSES = 10_000  # remembered
_T = TypeVar("_T")


@dataclass
class _Record:
    wrong: int = 0
    until: float = 0.0
    last: float = 0.0


class Throttle:
    """Counts log-in attempts by address, or by a visitor who has logged in before. `clock` gives seconds; only
    differences count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._let_in: OrderedDict[str, None] = OrderedDict()
        self._recent: list[float] = []
        self._in_line, self._turn = 0, asyncio.Lock()
        self._lock = threading.Lock()

    def counted_by(self, visitor: str, address: str) -> str:
        """Return the key under which an attempt is counted."""
        with self._lock:
            return f"visitor:{visitor}" if visitor and visitor in self._let_in else address

    def wait(self, who: str) -> float:
        """Return the seconds until the next attempt is allowed; 0: now."""
        now = self._clock()
        with self._lock:
            record = self._records.get(who)
            return max(0.0, record.until - now) if record and now - record.last < _FORGET else 0.0

    async def slowed(self) -> bool:
        """Wait for a turn where many wrong passwords come in; return False where too many attempts are waiting."""
        now = self._clock()
        self._recent = [when for when in self._recent[-MANY:] if now - when < 60]
        if len(self._recent) < MANY:
            return True
        if self._in_line >= _WAITING:
            return False
        self._in_line += 1
        try:
            async with self._turn:
                await asyncio.sleep(SPACING)
        finally:
            self._in_line -= 1
        return True

    def wrong(self, who: str) -> None:
        """Note a wrong password: from the fifth on there is a wait, each twice the one before, up to a minute."""
        now = self._clock()
        with self._lock:
            record = self._records.pop(who, None)
            if record is None or now - record.last >= _FORGET:
                record = _Record()
            record.wrong, record.last = record.wrong + 1, now
            if record.wrong >= FREE:
                record.until = now + min(LONGEST, 2.0 ** min(record.wrong - FREE + 1, 10))
            _put(self._records, who, record)
            self._recent.append(now)

    def right(self, who: str, visitor: str) -> None:
        """Note a right password: the count starts anew, and the visitor is counted separately from now on."""
        with self._lock:
            self._records.pop(who, None)
            if visitor:
                self._let_in.pop(visitor, None)
                _put(self._let_in, visitor, None)


def _put(book: OrderedDict[str, _T], key: str, value: _T) -> None:
    book[key] = value
    while len(book) > _ADDRESSES:
        book.popitem(last=False)
