"""Turns in the queue: whoever has fewer clips in front goes first, so that nobody waits for all of another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Asker:
    """Who asks for a clip. `who` are they, over all of their desks; `is_owner`: they have no limits here."""

    who: str
    is_owner: bool = False


def place_in_line(line: Sequence[str], running: Sequence[str], who: str, whose: Callable[[str], str]) -> int:
    """Where in `line` (the ids of the jobs that wait, in their order) the next job of `who` goes: behind one job of
    each for every one that they have themselves. `running` count as the first of theirs."""
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
