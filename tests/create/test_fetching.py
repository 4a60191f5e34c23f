"""Fetching a background remover can be watched, is not begun twice, and can be stopped."""

from __future__ import annotations

import sys
import time

from app.create.fetching import Fetching, fetch_command
from engine.children import command_of


def slow(begun: list[str]):
    """Something that goes on until it is stopped; `begun` hears of each time that it is begun."""
    return lambda quality: begun.append(quality) or [sys.executable, "-c", "import time; time.sleep(600)"]


def until(condition, seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def test_a_fetch_under_way_says_for_how_long_and_is_not_begun_twice():
    fetching = Fetching(slow(begun := []))
    fetching.start("standard")
    fetching.start("standard")
    assert until(lambda: fetching.seconds("standard") > 0)
    assert fetching.seconds("best") is None
    assert begun == ["standard"]
    fetching.stop()


def test_stopping_ends_the_process_at_once():
    fetching = Fetching(slow([]))
    fetching.start("standard")
    fetching.stop()
    assert fetching.seconds("standard") is None
    assert fetching.was_stopped("standard")


def test_another_quality_takes_the_place_of_the_first():
    fetching = Fetching(slow(begun := []))
    fetching.start("standard")
    fetching.start("best")
    assert fetching.seconds("standard") is None
    assert fetching.seconds("best") is not None
    assert fetching.was_stopped("standard")
    assert begun == ["standard", "best"]
    fetching.stop()


def test_a_fetch_that_ends_is_seen_to_end():
    fetching = Fetching(lambda quality: [sys.executable, "-c", "raise SystemExit(1)"])
    fetching.start("standard")
    assert until(lambda: fetching.seconds("standard") is None)
    assert not fetching.was_stopped("standard")


def test_what_is_run_is_the_cut_outs_own_command():
    assert fetch_command("standard") == command_of("engine.cutout", "standard")
