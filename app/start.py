"""Start the page on the wanted port, or on the next that is free."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from app.guard.access import Terms
from app.port import FIRST, free_port, wanted_host
from engine.errors import TroupeError


def serve_on_free_port(
    host: str | None, port: int | None, *, share: bool, browser: bool, outputs: Path, terms: Terms
) -> None:
    """Serve the page until it is stopped. Host and port from the environment (a Space sets them) come first.

    Another program may take the port while Gradio is still loading, such as a second start of Troupe: then the next
    port is tried. Raises TroupeError where no port can be used.
    """
    from app.jobs.lock import check_free
    from app.server import serve

    check_free(outputs)  # before anything is printed about ports: a second start prints one line only
    if os.environ.get("SPACE_ID") or (port is None and "GRADIO_SERVER_PORT" in os.environ):
        serve(host, port, share, browser, outputs, terms)
        return
    host = wanted_host(host)
    wanted = FIRST if port is None else port
    chosen = free_port(host, wanted)
    while True:
        if chosen != wanted:
            print(f"Port {wanted} is taken; using {chosen}.", flush=True)
        try:
            serve(host, chosen, share, browser, outputs, terms)
            return
        except OSError as error:
            if not _is_taken(error):
                named = f": {error.filename}" if error.filename else ""
                raise TroupeError(f"the page cannot be served ({error.strerror or error}{named})") from None
        chosen = free_port(host, chosen + 1)


def _is_taken(error: OSError) -> bool:
    return error.errno == errno.EADDRINUSE or "empty port" in str(error)  # the second is how Gradio says it
