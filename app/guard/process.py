"""What the server's process takes of its machine: handles as many as there are, memory no more than it uses, and of
the console only what a person should read."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

import PIL

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


def quiet_libtiff() -> None:
    """Keep libtiff, which Pillow brings along, from writing to the console what it thinks of each broken picture that
    is sent here: the page says that in words. Where Pillow uses another one (Windows', a system's), it goes on."""
    place = Path(PIL.__file__).resolve().parent
    for path in [*place.parent.glob("pillow.libs/libtiff*"), *place.glob(".dylibs/libtiff*")]:
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))  # the one that is loaded, or will be
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                handler = getattr(library, name)
                handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                handler(None)
