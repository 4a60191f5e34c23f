"""What the server's process may take of its machine: handles as many as there are, memory no more than it uses."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def raise_handles() -> int:
    """Take as many handles as this process may have; how many that is. Windows has no such limit."""
    try:
        import resource
    except ImportError:
        return 1_000_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 10_240 if hard == resource.RLIM_INFINITY else hard  # macOS says "infinite" and takes so many
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else soft


def keep_few_arenas() -> None:
    """Let threads share their memory. glibc gives each its own, up to eight a core, and none of them gives back what a
    picture once took: 100 MB more after some drafts, for handlers that wait for each other anyway."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
