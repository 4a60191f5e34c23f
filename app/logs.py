"""The server's log and the log of the engine's process. Both are rotated. A job's own log is in the job's folder
(`app.jobs.log`)."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import re
from pathlib import Path

from engine.process.rotate import BYTES, OLDER

NAME, ENGINE = "troupe.log", "engine.log"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TAIL = 400_000  # bytes read from the end of a log
_ENGINE_ERROR = re.compile(r"troupe: |Fatal Python error|(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b|CUDA|Killed")


class OneLine(logging.Formatter):
    """Formats an entry as one line, followed by its traceback. What strangers send is escaped: it can start no new
    entry and send no terminal codes."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in record.message
        )
        return super().formatMessage(record)


def keep_log(folder: Path) -> logging.Handler:
    """Write what Troupe logs to a file in `folder` from now on; return the handler, for `stop_log`. The console still
    gets warnings and worse."""
    with contextlib.suppress(OSError):  # a full disk must not prevent the start
        folder.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        folder / NAME, maxBytes=BYTES, backupCount=OLDER, encoding="utf-8", delay=True
    )
    handler.setFormatter(OneLine(_FORMAT))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk must not end a handler
    logger = logging.getLogger("troupe")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    if logging.lastResort is not None:
        logger.addHandler(logging.lastResort)
    return handler


def stop_log(handler: logging.Handler) -> None:
    """Remove the handler and close its file."""
    logger = logging.getLogger("troupe")
    logger.removeHandler(handler)
    if logging.lastResort is not None:
        logger.removeHandler(logging.lastResort)
    handler.close()


def last_errors(folder: Path, count: int = 20) -> list[str]:
    """Return the newest lines about errors and warnings, oldest first; of a traceback only its last line."""
    found: list[str] = []
    in_error = False
    for line in _end_of(folder / NAME):
        is_entry = line[:4].isdigit() and line[4:5] == "-"
        if is_entry:
            in_error = " ERROR " in line or " WARNING " in line or " CRITICAL " in line
            if in_error:
                found.append(line)
        elif in_error and line and not line[0].isspace() and not line.startswith("Traceback"):
            found.append("    " + line)
    return found[-count:]


def last_engine_errors(folder: Path, count: int = 10) -> list[str]:
    """Return the newest lines of the engine's log that name an error, oldest first; of a crash also where it was."""
    found: list[str] = []
    crashed = 0
    for line in _end_of(folder / ENGINE):
        crashed = 6 if line.startswith("Fatal Python error") else crashed - 1
        if _ENGINE_ERROR.match(line) or (crashed > 0 and line.startswith("  File ")):
            found.append(line[:300])
    return found[-count:]


def _end_of(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
