"""What files may be called, and looking through a folder in which others may write and delete meanwhile."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.ASCII)  # names that Windows refuses, whatever the ending


def files_below(folder: Path, look: Callable[[str], os.stat_result] = os.lstat) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file in a folder, however deep, with its status; a link's own, unless `look` is `os.stat`. What is
    gone when its turn comes is left out, and a folder that is not there holds none."""
    for inside, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(inside, name)
            try:
                status = look(path)
            except OSError:
                continue
            yield path, status
