"""Troupe's own modules, started as processes of their own: found wherever Python was told not to look beside the
script (`-P`, `PYTHONSAFEPATH`), and never shadowed by what lies in the working folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command_of(module: str, *arguments: str, python: str = sys.executable) -> list[str]:
    """Return what runs a module of ours, such as `engine.cutout`, in `environment()`."""
    return [python, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return the environment for it: this process's, in which our modules come first."""
    more = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *([more] if more else [])])}
