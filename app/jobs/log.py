"""A log for every job, beside its clip: the request, how long each stage took, and why it failed.

The prompt and the cast's names are left out, so that the log can be passed on; an error may still quote them, so the
diagnostics redact it (`app.help.diagnostics.without_private`).
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import time
import traceback
from collections import Counter
from pathlib import Path

from engine import VERSION
from engine.door.render import Progress, RenderRequest
from engine.scene.engines import find_engine

NAME = "job.log"
_BYTES, _OLDER = 100_000, 1  # of one file; how many older ones are kept
_BEGINS, _GOES_ON, _FAILED = "begins", "goes on", "failed"
_LOOKED_AT = 200  # newest jobs among which a failed one is sought


class JobLog:
    """Appends one run of a job to the log in its folder. Errors in writing it are ignored."""

    def __init__(self, folder: Path) -> None:
        self._handler = logging.handlers.RotatingFileHandler(
            folder / NAME, maxBytes=_BYTES, backupCount=_OLDER, encoding="utf-8", delay=True
        )
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk must not end a job
        self._stage, self._since = "", time.monotonic()

    def begin(self, request: RenderRequest, engine: str, goes_on: bool) -> None:
        """Log the request. `goes_on`: the run continues from the saved steps of an earlier one."""
        scene, video = request.scene, request.scene.video
        cast = ", ".join(f"{count} {role}" for role, count in Counter(each.role for each in scene.cast).items())
        asked = f"{video.width}x{video.height}, {video.frames} frames at {video.fps} a second, {cast}"
        read = find_engine(engine).sampling
        asked += "".join(f", {_plain(name)} {getattr(scene.sampling, name)}" for name in read)
        said = request.options.said() if request.options is not None else {}
        asked += "".join(f", {_plain(name)} {value}" for name, value in said.items())
        how = _GOES_ON if goes_on else _BEGINS
        self._say(f"{how}: Troupe {VERSION}, {engine}, seed {scene.sampling.seed}, {asked}")

    def tell(self, progress: Progress) -> None:
        """Log each stage's duration when the next one begins."""
        if progress.stage != self._stage:
            self._end_stage()
            self._stage, self._since = progress.stage, time.monotonic()

    def end(self, state: str, said: str = "", error: BaseException | None = None) -> None:
        """Log the result, for an error with its traceback, that of the engine's process included."""
        self._end_stage()
        self._say(f"{_FAILED if error else state}: {said}" if said else state)
        if error is not None:
            self._say("".join(traceback.format_exception(error)).rstrip())

    def note(self, said: str) -> None:
        self._say(f"note: {said}")

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._handler.close()

    def _end_stage(self) -> None:
        if self._stage:
            self._say(f"{self._stage}: {time.monotonic() - self._since:.1f} s")
        self._stage = ""

    def _say(self, line: str) -> None:
        self._handler.handle(logging.LogRecord("troupe.job", logging.INFO, "", 0, line, None, None))


def _plain(name: str) -> str:
    return name.replace("_", " ")


def last_failure(clips: Path) -> list[str]:
    """Return the lines of the last run of the newest job that failed, without the notes about its cast; empty where
    none of the newest jobs failed."""
    for path in _newest(clips):
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            starts = [i for i, line in enumerate(lines) if _what(line) in (_BEGINS, _GOES_ON)]
            run = lines[starts[-1] :] if starts else lines
            if any(_what(line) == _FAILED for line in run):
                return [line for line in run if _what(line) != "note"]
    return []


def _what(line: str) -> str:
    """Return a line's first words, after the time, which say what kind of line it is."""
    return line[24:].partition(":")[0] if line[:4].isdigit() and line[4:5] == "-" else ""


def _newest(clips: Path) -> list[Path]:
    found = []
    with contextlib.suppress(OSError):
        for folder in clips.iterdir():
            with contextlib.suppress(OSError):
                found.append(((folder / NAME).stat().st_mtime, folder / NAME))
    return [path for _, path in sorted(found, reverse=True)[:_LOOKED_AT]]
