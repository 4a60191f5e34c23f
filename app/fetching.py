"""Fetching a better background remover: in a process of its own, so that it can be watched and stopped."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def fetch_command(quality: str) -> list[str]:
    """What fetches the weights of a quality; it ends with 0 when they are there."""
    return [sys.executable, "-m", "engine.cutout", quality]


class Fetching:
    """One fetch at a time. `command(quality)` is what to run."""

    def __init__(self, command: Callable[[str], list[str]] = fetch_command) -> None:
        self._command = command
        self._process: subprocess.Popen | None = None
        self._quality = ""
        self._since = 0.0
        self._stopped = ""
        self._lock = threading.Lock()

    def start(self, quality: str) -> None:
        """Begin, unless this one is under way already; another one is stopped."""
        with self._lock:
            if self._running() and self._quality == quality:
                return
            self._stopped = ""
            self._end()
            hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)
            self._process = subprocess.Popen(
                self._command(quality), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, creationflags=hidden,
            )  # fmt: skip
            self._quality, self._since = quality, time.monotonic()

    def stop(self) -> None:
        """End what is under way; nothing partial is kept."""
        with self._lock:
            self._end()

    def seconds(self, quality: str) -> float | None:
        """How long this quality is being fetched; None when it is not."""
        return time.monotonic() - self._since if self._running() and self._quality == quality else None

    def was_stopped(self, quality: str) -> bool:
        """Whether the last fetch of this quality was stopped, rather than failed."""
        return self._stopped == quality

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _end(self) -> None:
        if self._running():
            self._process.kill()
            self._process.wait()
            self._stopped = self._quality
