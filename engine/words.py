"""Words for a person, and from one: how much and how long, the same on the page and in a terminal; and what people
wrote, as it may be kept and shown."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any

GIB = 2**30  # bytes of a gigabyte of memory, as cards are sold
USE_THE_DRAFT = "or use the draft (--engine draft): it works now"  # the end of what to do where the model cannot run

# marks that turn the direction in which a line is read
_TURNING = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])


def duration(seconds: float) -> str:
    """Format a length of time: 40 s, 12 min, 3 h 05 min."""
    whole = max(1, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def gigabytes(count: float) -> str:
    """Format a number of bytes: 46.2 GB, 310 MB, 5 kB."""
    for unit, one in (("GB", 10**9), ("MB", 10**6)):
        if count >= one:
            return f"{count / one:.1f} {unit}" if count < 100 * one else f"{count / one:.0f} {unit}"
    return f"{count / 1000:.0f} kB"


def gib_up(count: int) -> str:
    """Format a number of bytes of memory in GB with one decimal, rounded up: who finds that much free has enough."""
    return f"{-(-count * 10 // GIB) / 10:.1f}"


def command_line(*parts: object) -> str:
    """Quote a command so that it can be copied into a terminal, whatever is in the names of its files and folders."""
    words = [str(part) for part in parts]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def sentence(text: str) -> str:
    """Return the text with its first letter as a capital, the others unchanged."""
    return text[:1].upper() + text[1:]


def listed(words: Sequence[str], last: str = "and") -> str:
    """Join words for a sentence: "a", "a and b", "a, b and c"; "" for none."""
    return f" {last} ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def plain_text(value: object) -> str:
    """Return text that every file can hold: half a surrogate pair becomes a question mark. Empty for what is no
    text."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def plain_name(value: object) -> str:
    """Return `plain_text` without the marks that turn the direction of what follows, so that "exe.png" reads as what it
    is."""
    return plain_text(value).translate(_TURNING)


def shown(value: Any) -> str:
    """Write a value that somebody else's file or call holds on one short line, as JSON."""
    return cut(json.dumps(value, ensure_ascii=False, default=str))


def cut(text: str) -> str:
    """Cut a text to 60 characters."""
    return text if len(text) <= 60 else text[:57] + "…"
