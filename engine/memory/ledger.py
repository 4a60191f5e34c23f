"""An account of memory: what is held on the card and on the host, by name, and the peaks of each phase.

Whoever brings something enters it here, and asks here what must leave first. The entries are bytes, whether or not
there are tensors behind them: so the same course of acts can be run for real, or only on paper, to plan it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple


class Held(NamedTuple):
    """Bytes on the card and on the host."""

    card: int = 0
    host: int = 0

    def __add__(self, other: Held) -> Held:  # type: ignore[override]  # a sum of bytes, not a longer tuple
        return Held(self.card + other.card, self.host + other.host)

    def __sub__(self, other: Held) -> Held:
        """Subtract, down to nothing."""
        return Held(max(0, self.card - other.card), max(0, self.host - other.host))

    def __or__(self, other: Held) -> Held:
        """Return the larger of each."""
        return Held(max(self.card, other.card), max(self.host, other.host))

    def __bool__(self) -> bool:
        return self.card > 0 or self.host > 0


NOTHING = Held()


class Ledger:
    """`card` and `host` are what may be held there, in bytes (None: not known, and nothing is ever lacking). `peaks`:
    by phase, the most that was held at once."""

    def __init__(self, card: int | None = None, host: int | None = None) -> None:
        self.card, self.host = card, host
        self.peaks: dict[str, Held] = {}
        self.total = NOTHING
        self._entries: dict[str, Held] = {}
        self._phase = ""

    def held(self, name: str) -> Held:
        """Return what an entry holds."""
        return self._entries.get(name, NOTHING)

    def enter(self, name: str, held: Held) -> None:
        """Note what an entry holds from now on."""
        before, now = self._entries.get(name, NOTHING), self.total
        self._entries[name] = held
        self.total = Held(now.card - before.card + held.card, now.host - before.host + held.host)
        self._see()

    def begin(self, phase: str) -> None:
        """Count peaks for another phase from now on."""
        self._phase = phase
        self._see()

    @contextlib.contextmanager
    def during(self, name: str, held: Held) -> Iterator[None]:
        """Hold something until exit."""
        self.enter(name, held)
        try:
            yield
        finally:
            self.enter(name, NOTHING)

    def lack(self, more: Held) -> Held:
        """Compute what would be lacking if so much more were held."""
        return Held(
            max(0, self.total.card + more.card - self.card) if self.card is not None else 0,
            max(0, self.total.host + more.host - self.host) if self.host is not None else 0,
        )

    def _see(self) -> None:
        peak, now = self.peaks.get(self._phase, NOTHING), self.total
        if now.card > peak.card or now.host > peak.host:
            self.peaks[self._phase] = peak | now
