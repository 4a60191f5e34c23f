"""Limits of the server's process: as many file handles as allowed, little memory per thread, and only useful lines on
the console."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

import PIL

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def raise_handles() -> int:
    """Raise the limit of open file handles as far as allowed and return it. Windows has no such limit."""
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
    """Limit glibc's malloc arenas to two. It makes up to eight per core for threads, and they do not give memory back:
    100 MB more after some drafts, for handlers that wait for each other anyway."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def quiet_libtiff() -> None:
    """Silence the messages about broken pictures that libtiff, bundled with Pillow, writes to the console: the page
    reports these pictures. A libtiff from elsewhere (Windows', a system's) stays as it is."""
    place = Path(PIL.__file__).resolve().parent
    for path in [*place.parent.glob("pillow.libs/libtiff*"), *place.glob(".dylibs/libtiff*")]:
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))  # the one that is loaded, or will be
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                handler = getattr(library, name)
                handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                handler(None)
