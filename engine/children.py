"""Starts Troupe's own modules as processes: they are found although Python is told not to look beside the script (`-P`,
`PYTHONSAFEPATH`), and never shadowed by what lies in the working folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command_of(module: str, *arguments: str, python: str = sys.executable) -> list[str]:
    """Build the command that runs a module of ours, such as `engine.cutout`, in `environment()`."""
    return [python, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Build the environment for it: this process's, with our modules first in PYTHONPATH."""
    more = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *([more] if more else [])])}
