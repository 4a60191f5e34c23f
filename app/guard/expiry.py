"""The end of a public link: the guests are logged out, their open streams end, the tunnel is closed, and the console
says so."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.guard.access import in_words
from app.guard.guard import Guard

_LOOK = 30.0  # seconds between two checks of the clock: a machine that slept wakes up late


def end_in_time(guard: Guard, close: Callable[[], None], look: float = _LOOK) -> threading.Thread | None:
    """Start a thread that ends a link at its time and then calls `close`; return it, or None where no end is set."""
    hours = guard.access.hours
    if guard.ends_at is None or hours is None:
        return None

    def watch() -> None:
        pause = threading.Event()
        while not guard.has_ended:
            pause.wait(min(look, max(0.01, guard.seconds_left or 0.0)))
        guard.streams.end_all()
        close()
        print(
            f"The public link has ended after {in_words(hours)}. The page stays open for you here; start "
            "again with --share for a new link.",
            flush=True,
        )

    thread = threading.Thread(target=watch, name="troupe-link", daemon=True)
    thread.start()
    return thread


def close_tunnels(port: int) -> None:
    """Close Gradio's tunnels to this port."""
    from gradio.tunneling import CURRENT_TUNNELS

    for tunnel in [each for each in CURRENT_TUNNELS if each.local_port == port]:
        tunnel.kill()  # type: ignore[no-untyped-call]  # Gradio's has no types
        CURRENT_TUNNELS.remove(tunnel)
