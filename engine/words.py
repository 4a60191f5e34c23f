"""How much and how long, for a person: the same words on the page and in a terminal."""

from __future__ import annotations

import os
import shlex
import subprocess


def duration(seconds: float) -> str:
    """A length of time: 40 s, 12 min, 3 h 05 min."""
    whole = max(1, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def gigabytes(count: float) -> str:
    """Bytes: 46.2 GB, 310 MB, 5 kB."""
    for unit, one in (("GB", 10**9), ("MB", 10**6)):
        if count >= one:
            return f"{count / one:.1f} {unit}" if count < 100 * one else f"{count / one:.0f} {unit}"
    return f"{count / 1000:.0f} kB"


def command_line(*parts: object) -> str:
    """A command to be copied into a terminal, whatever is in the names of its files and folders."""
    words = [str(part) for part in parts]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def sentence(text: str) -> str:
    """The text with its first letter as a capital, the others as they are."""
    return text[:1].upper() + text[1:]
