"""Log files that do not grow without end, for those who only write to the end of one."""

from __future__ import annotations

import contextlib
import logging.handlers
from pathlib import Path

BYTES, OLDER = 500_000, 3  # of one file; how many older ones are kept


def rotate(path: Path) -> None:
    """Rotate a log that has become large, before it is opened by a process that never does so itself: one that writes
    its stderr there. A file that cannot be moved (another process holds it, on Windows) is left for the next time."""
    with contextlib.suppress(OSError):
        if path.stat().st_size >= BYTES:
            handler = logging.handlers.RotatingFileHandler(path, backupCount=OLDER, delay=True)
            try:
                handler.doRollover()
            finally:
                handler.close()
