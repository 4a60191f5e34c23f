"""Find the port to serve the page on: the wanted one, or the next that is free."""

from __future__ import annotations

import errno
import os
import socket

from app import address
from engine.errors import TroupeError

FIRST = 7860
_TRIES = 100  # ports looked at


def free_port(host: str | None, first: int) -> int:
    """Return the first port from `first` on that can be listened on at `host` (None: from the environment, else this
    machine only). Raises TroupeError where none is free or the host is not one."""
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
    """Return the host to listen on, as a socket takes it."""
    return address.bare(address.wanted(host, os.environ))


def _try(host: str, port: int) -> None:
    """Listen on the port for a moment, raising OSError where that is not possible."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        if os.name != "nt":  # a port in TIME_WAIT counts as free, as it does to Gradio
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
