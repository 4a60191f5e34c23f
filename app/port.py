"""Which port the page is served on: the wanted one, or the next that is free."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from app import address
from app.guard.access import Terms
from engine.errors import TroupeError

FIRST = 7860
_TRIES = 100  # ports looked at


def serve_on_free_port(
    host: str | None, port: int | None, *, share: bool, browser: bool, outputs: Path, terms: Terms
) -> None:
    """Serve the page until it is stopped. Where the environment names host and port (a Space does), that counts.

    Somebody else may take the port while Gradio is still loading, such as a second start of Troupe: then the next one
    is tried. Raises TroupeError where no port will do.
    """
    from app.jobs.lock import check_free
    from app.server import serve

    check_free(outputs)  # before a word about ports: a second start by mistake is one line
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


def free_port(host: str | None, first: int) -> int:
    """The first port from `first` on that can be listened on at `host` (None: where the environment says, or for this
    machine only). Raises TroupeError."""
    host = wanted_host(host)
    for port in range(first, min(first + _TRIES, 65536)):
        try:
            _try(host, port)
            return port
        except socket.gaierror:
            raise TroupeError(f"--host {host} is not an address", "Use 127.0.0.1 or 0.0.0.0.") from None
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                problem = f"--host {host} is not an address of this machine"
                raise TroupeError(problem, "Use 127.0.0.1 or 0.0.0.0.") from None
            if error.errno == errno.EACCES and os.name != "nt":  # Windows says so of taken ports as well
                raise TroupeError(f"port {port} needs administrator rights", "Use --port 1024 or above.") from None
    raise TroupeError(f"no port from {first} on is free", "Name another one: --port N.")


def wanted_host(host: str | None) -> str:
    """Where to listen, as a socket wants it."""
    return address.bare(host or os.environ.get("GRADIO_SERVER_NAME") or address.HERE)


def _try(host: str, port: int) -> None:
    """Raises OSError where nobody can listen there now."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        if os.name != "nt":  # a port whose last connections are still fading away counts as free, as it does to Gradio
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _is_taken(error: OSError) -> bool:
    return error.errno == errno.EADDRINUSE or "empty port" in str(error)  # the second is how Gradio says it
