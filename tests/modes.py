"""An ordinary user's rights for who runs the tests as root, as CI does: root reads and writes whatever a file's or
folder's mode says, so that what is about that would have to be skipped there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

_VERSION = 0x20080522  # of Linux's interface: two halves of 32 capabilities each
_OVERRIDE = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
_GET_SECURE, _SET_SECURE = 27, 28
_PLAIN = 0b101  # programs that are started get no rights of root's, and access() asks for those that are in effect


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("process", ctypes.c_int)]


class _Half(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


class NotHere(Exception):
    """Why modes cannot be made to count."""


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """Within the block the modes of files and folders hold for this thread, and for the threads and processes that it
    starts. Raises NotHere on a system that does not let root go without its rights, or has no such modes."""
    if not hasattr(os, "geteuid"):
        raise NotHere("folders have no such modes here")
    if os.geteuid():
        yield
        return
    if not sys.platform.startswith("linux"):
        raise NotHere("root cannot go without its rights here")
    libc = ctypes.CDLL(None, use_errno=True)
    header, halves = _Header(_VERSION, 0), (_Half * 2)()
    _done(libc.capget(ctypes.byref(header), halves))
    secure, before = libc.prctl(_GET_SECURE, 0, 0, 0, 0), halves[0].effective
    _done(libc.prctl(_SET_SECURE, secure | _PLAIN, 0, 0, 0))
    try:
        halves[0].effective = before & ~_OVERRIDE
        _done(libc.capset(ctypes.byref(header), halves))
        yield
    finally:
        halves[0].effective = before
        libc.capset(ctypes.byref(header), halves)
        libc.prctl(_SET_SECURE, secure, 0, 0, 0)


def _done(status: int) -> None:
    if status:
        raise NotHere(f"root cannot go without its rights here ({os.strerror(ctypes.get_errno())})")
