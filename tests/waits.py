"""Waiting for what comes by itself. Not a test file: tests use it."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG = 120.0  # seconds: on a busy machine even what should come at once takes its time


def until(holds: Callable[[], object], what: str = "it to come to pass", seconds: float = LONG) -> None:
    """Wait until it holds. Raises AssertionError where it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
