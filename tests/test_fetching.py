"""Fetching a background remover can be watched, is not begun twice, and can be stopped."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from app.create.fetching import Fetching, fetch_command


def slow(marks: Path):
    """A command that leaves a mark when it starts and another when it was let to its end."""
    code = "import sys, time, pathlib; p = pathlib.Path(sys.argv[1]); p.with_suffix('.began').touch(); time.sleep(30)"
    return lambda quality: [sys.executable, "-c", code, str(marks / quality)]


def until(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def test_a_fetch_under_way_says_for_how_long_and_is_not_begun_twice(tmp_path):
    fetching = Fetching(slow(tmp_path))
    fetching.start("standard")
    assert until((tmp_path / "standard.began").exists)
    (tmp_path / "standard.began").unlink()
    fetching.start("standard")
    assert fetching.seconds("standard") > 0
    assert fetching.seconds("best") is None
    time.sleep(0.3)
    assert not (tmp_path / "standard.began").exists()
    fetching.stop()


def test_stopping_ends_the_process_at_once(tmp_path):
    fetching = Fetching(slow(tmp_path))
    fetching.start("standard")
    fetching.stop()
    assert fetching.seconds("standard") is None
    assert fetching.was_stopped("standard")


def test_another_quality_takes_the_place_of_the_first(tmp_path):
    fetching = Fetching(slow(tmp_path))
    fetching.start("standard")
    fetching.start("best")
    assert fetching.seconds("standard") is None
    assert fetching.seconds("best") is not None
    assert fetching.was_stopped("standard")
    fetching.stop()


def test_a_fetch_that_ends_is_seen_to_end():
    fetching = Fetching(lambda quality: [sys.executable, "-c", "raise SystemExit(1)"])
    fetching.start("standard")
    assert until(lambda: fetching.seconds("standard") is None)
    assert not fetching.was_stopped("standard")


def test_what_is_run_is_the_cut_outs_own_command():
    assert fetch_command("standard")[1:] == ["-m", "engine.cutout", "standard"]
