"""What happened, on disk: one log for the server that turns over, so that it never grows without end."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

NAME = "troupe.log"
_BYTES, _OLDER = 500_000, 3  # of one file; how many older ones are kept
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def keep_log(folder: Path) -> logging.Handler:
    """From now on write what Troupe logs to a file in `folder`; the handler, to be removed with `stop_log`."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        folder / NAME, maxBytes=_BYTES, backupCount=_OLDER, encoding="utf-8", delay=True
    )
    handler.setFormatter(logging.Formatter(_FORMAT))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk must not end a handler
    logger = logging.getLogger("troupe")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler


def stop_log(handler: logging.Handler) -> None:
    """Let go of the file."""
    logging.getLogger("troupe").removeHandler(handler)
    handler.close()


def last_errors(folder: Path, count: int = 20) -> list[str]:
    """The newest lines about something that went wrong, oldest first; tracebacks come with their last line."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines()[-4000:]
    except OSError:
        return []
    found: list[str] = []
    in_error = False
    for line in lines:
        is_entry = line[:4].isdigit() and line[4:5] == "-"
        if is_entry:
            in_error = " ERROR " in line or " WARNING " in line or " CRITICAL " in line
            if in_error:
                found.append(line)
        elif in_error and line and not line[0].isspace() and not line.startswith("Traceback"):
            found.append("    " + line)
    return found[-count:]
