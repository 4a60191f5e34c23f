"""Download a better background remover in a process of its own, so that it can be watched and stopped."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from app.create.desk import Desk
from engine import cutout
from engine.children import command_of, environment


def fetch_command(quality: str) -> list[str]:
    """Return the command that downloads the weights of a quality; it exits with 0 when they are there."""
    return command_of("engine.cutout", quality)


class Fetching:
    """Runs one download at a time. `command(quality)` is the command to run."""

    def __init__(self, command: Callable[[str], list[str]] = fetch_command) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._quality = ""
        self._since = 0.0
        self._stopped = ""
        self._lock = threading.Lock()

    def start(self, quality: str) -> None:
        """Start a download, unless the same one is running already; another one is stopped."""
        with self._lock:
            if self._running() and self._quality == quality:
                return
            self._stopped = ""
            self._end()
            hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)
            self._process = subprocess.Popen(
                self._command(quality), env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, creationflags=hidden,
            )  # fmt: skip
            self._quality, self._since = quality, time.monotonic()

    def stop(self) -> None:
        """Stop the running download; nothing partial is kept."""
        with self._lock:
            self._end()

    def seconds(self, quality: str) -> float | None:
        """Return how long this quality has been downloading; None when it is not."""
        return time.monotonic() - self._since if self._running() and self._quality == quality else None

    def was_stopped(self, quality: str) -> bool:
        """Return whether the last download of this quality was stopped, rather than failed."""
        return self._stopped == quality

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _end(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
            self._stopped = self._quality


def choose_quality(fetching: Fetching, desk: Desk, value: str, may_fetch: bool = True) -> Iterator[tuple[str, str]]:
    """Choose another background remover for a desk, downloading it first where it is missing and the visitor
    `may_fetch` it; until then the current one stays in use. Choosing anything else stops the download. Yields (what to
    say, the quality to show as chosen)."""
    if value not in cutout.QUALITIES:
        return
    if cutout.is_here(value):
        if may_fetch:
            fetching.stop()
        yield "", _settled(desk, value)
        return
    if not may_fetch:
        yield "It is not on this machine, and only its owner can fetch it. The one before goes on.", desk.sheet.quality
        return
    fetching.start(value)
    while (seconds := fetching.seconds(value)) is not None:
        yield f"Fetching it: {seconds:.0f} s so far. Choose Fast to stop.", value
        time.sleep(1)
    if cutout.is_here(value):
        yield "It is here. Your next picture uses it.", _settled(desk, value)
    elif not fetching.was_stopped(value):
        yield "It could not be fetched; check the network. The one before goes on.", desk.sheet.quality


def _settled(desk: Desk, quality: str) -> str:
    with desk.lock:
        desk.put("quality", quality)
    return quality
