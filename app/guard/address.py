"""Find the address that a request came from, for the rate limits.

`--share` sends guests through frpc, which runs on this machine: to the server they all come from the loopback address.
The remote side, frps, is Go's ReverseProxy (huggingface/frp, pkg/util/vhost/http.go): it appends its own peer to
X-Forwarded-For, after whatever the guest has written there. The links are https and frps listens on http, so that peer
is the machine that terminates TLS, at a private address, and the guest's address stands before it. So the header is
used only where a tunnel or proxy on this machine can have written it, and read from its end: the last entry, and behind
a link the last one that is a public address. What a guest writes stands further to the left and is ignored. A Space is
reached through its host's proxies only, so there the same holds for whichever peer forwards a request.
"""

from __future__ import annotations

import ipaddress

from starlette.requests import Request

_LOOPBACK = ("127.0.0.1", "::1", "")
_HOPS = 8  # entries looked at, from the end


def asked_from(request: Request, through_link: bool = False, on_space: bool = False) -> str:
    """Return the address that a request came from, an IPv6 one as its network. `through_link`: a public link is open,
    so a request from this machine may come from its tunnel."""
    peer, port = request.client or ("", 0)
    said = ",".join(request.headers.getlist("x-forwarded-for"))
    entries = [entry for part in said.split(",") if (entry := network(part.strip()))][-_HOPS:]
    # uvicorn has put the last entry in the place of a peer on this machine already, with a port that nobody has
    is_handed_on = on_space or peer in _LOOPBACK or port == 0
    if not (entries and is_handed_on):
        return network(peer) or peer[:64]
    if through_link or on_space:
        return next((entry for entry in reversed(entries) if _is_public(entry)), entries[-1])
    return entries[-1]


def network(text: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 one, since one household has all of it; empty for anything
    else."""
    try:
        found = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return ""
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False).network_address)


def _is_public(text: str) -> bool:
    return ipaddress.ip_address(text).is_global
