"""`python tests/sealed.py all|names COMMAND…`: run a command that is killed as soon as it, or anything that it starts,
opens a socket to the internet (`all`), or one to look up names with (`names`: a server may listen, and is not to ask
where others are).

The kernel does it (seccomp), so that what a library does in its own machine code counts as well. Not a test file.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys

KILLED = -getattr(signal, "SIGSYS", 31)  # the exit status
_SOCKET = {"x86_64": 41, "aarch64": 198}  # the system call's number
_IPV4, _IPV6, _DATAGRAM = 2, 10, 2
_LOAD, _IF_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06  # of the kernel's filter language
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_NO_NEW_RIGHTS, _SECCOMP, _FILTER = 38, 22, 2  # of prctl


def can_seal() -> str:
    """Why this machine cannot; empty where it can."""
    if not sys.platform.startswith("linux") or platform.machine() not in _SOCKET:
        return "sealing a process takes Linux on x86-64 or ARM64"
    return ""


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


def seal(everything: bool) -> None:
    """Seal this process and all that it starts, for good. Raises OSError where the kernel refuses."""
    kind = [(_LOAD, 0, 0, 24), (_AND, 0, 0, 0xF), (_IF_EQUAL, 0, 1, _DATAGRAM)]  # the second argument, without flags
    kill, allow = [(_RETURN, 0, 0, _KILL)], [(_RETURN, 0, 0, _ALLOW)]
    rest = kill + allow if everything else kind + kill + allow
    steps = [
        (_LOAD, 0, 0, 0), (_IF_EQUAL, 0, 2 + len(rest), _SOCKET[platform.machine()]),
        (_LOAD, 0, 0, 16), (_IF_EQUAL, 1, 0, _IPV4), (_IF_EQUAL, 0, len(rest) - 1, _IPV6), *rest,
    ]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_RIGHTS, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    seal(sys.argv[1] == "all")
    os.execv(sys.argv[2], sys.argv[2:])
