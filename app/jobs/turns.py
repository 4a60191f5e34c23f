"""Turns in the queue: whoever has fewer clips ahead goes first, so that nobody waits for all of another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Asker:
    """Who asks for a clip. `who` identifies them over all of their desks; `is_owner`: they have no limits here."""

    who: str
    is_owner: bool = False


def place_in_line(line: Sequence[str], running: Sequence[str], who: str, whose: Callable[[str], str]) -> int:
    """Return where in `line` (the ids of the waiting jobs, in order) the next job of `who` goes, by round robin: after
    one job of every other person for each that they have themselves. `running` jobs count as everybody's first."""
    had = Counter(map(whose, running))
    mine = had[who] + sum(whose(job) == who for job in line)
    place = len(line)
    for index, job in enumerate(line):
        if had[whose(job)] > mine and place == len(line):
            place = index
        had[whose(job)] += 1
        if whose(job) == who:
            place = len(line)  # never before one of their own
    return place
