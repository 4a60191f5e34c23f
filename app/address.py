"""Host names: as the command line gives them, as a socket takes them, and as they stand in a URL."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping

from engine.errors import TroupeError

HERE = "127.0.0.1"
_EVERYWHERE = {"0.0.0.0": "localhost", "::": "[::1]"}  # to listen on: any address of this machine, of that kind
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_CERTIFICATES = ("ssl_cert_file", "ssl_cert_dir")


def wanted(host: object, environ: Mapping[str, str]) -> str:
    """Return the host to listen on: from the command line, else from Gradio's variable, else this machine only."""
    return str(host or environ.get("GRADIO_SERVER_NAME") or HERE)


def of_header(said: str) -> str:
    """Return the host in a request's `Host` header, without its port and an IPv6 address's brackets."""
    return said[1:].partition("]")[0] if said.startswith("[") else said.partition(":")[0]


def bare(host: str) -> str:
    """Return the host as a socket takes it: `::1` for `[::1]`, and without surrounding spaces."""
    return host.strip().removeprefix("[").removesuffix("]")


def in_url(host: str) -> str:
    """Return the host as it is written in a URL, an IPv6 address in brackets."""
    host = bare(host)
    return f"[{host}]" if ":" in host else host


def for_a_browser(host: str, port: int) -> str:
    """Return the URL at which a browser on this machine reaches a server that listens on `host`."""
    return f"http://{_EVERYWHERE.get(bare(host)) or in_url(host)}:{port}/"


@contextlib.contextmanager
def reached_directly(host: str, internet: bool) -> Iterator[None]:
    """Run the block with an environment in which requests to `host`, this server, use no proxy and no custom
    certificates; those are for the internet. `internet`: the block also makes requests to the internet; then the
    variables stay, and `no_proxy` lists the host. Raises TroupeError where these settings cannot work."""
    before = dict(os.environ)
    if internet:
        _check_internet()
        known = {name: os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")}
        hosts = [*filter(None, known.values()), "localhost", HERE, "::1", bare(host)]
        os.environ.update(dict.fromkeys(known, ",".join(dict.fromkeys(hosts))))
    else:
        for name in [name for name in os.environ if name.lower() in (*_PROXIES, *_CERTIFICATES)]:
            del os.environ[name]
    try:
        yield
    finally:
        for name in os.environ.keys() | before.keys():
            if name not in before:
                del os.environ[name]
            elif os.environ.get(name) != before[name]:
                os.environ[name] = before[name]


def _check_internet() -> None:
    without = "or start without --share"
    for name, value in os.environ.items():
        if name.lower() in _CERTIFICATES and value and not os.path.exists(value):
            raise TroupeError(f"{name} names {value}, which is not there", f"Correct it, remove it, {without}.")
        if name.lower() in _PROXIES and value.lower().startswith("socks") and not importlib.util.find_spec("socksio"):
            remedy = f"Name an HTTP proxy, remove it, {without}."
            raise TroupeError(f"The public link cannot be made through the SOCKS proxy that {name} names", remedy)
