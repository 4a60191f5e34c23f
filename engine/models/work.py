"""Work that takes long, in a process of its own: watched, stopped and found again through three small files.

A lock is held as long as the process lives, whoever started it, and the system lets go of it when it dies. Twice a
second the process writes how far it is into `status.json` and looks whether there is a file `stop`. So a page, a second
tab and a terminal see the same work, and each can stop it, without knowing each other.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from engine.children import command_of, environment
from engine.disk.atomic import whole
from engine.disk.lock import FileLock, Taken, is_held
from engine.disk.room import full_disk, is_full
from engine.errors import TroupeError

RUNNING, DONE, STOPPED, FAILED = "running", "done", "stopped", "failed"
INTERVAL = 0.4  # seconds between two looks for the file `stop`
_SPEED_OVER = 20.0  # seconds
_PATIENCE = 2.0  # seconds: on Windows `is_held` itself takes the lock for a moment


class Busy(TroupeError):
    """The same work is under way already."""


@dataclass(frozen=True)
class Status:
    """How far some work is, or how it ended. `done` and `total` in bytes (total 0: not known), `speed` in bytes a
    second, `remaining` in seconds; `message` is the result or the error, one line."""

    kind: str  # download, verify, install
    state: str = RUNNING
    stage: str = ""
    detail: str = ""
    done: int = 0
    total: int = 0
    speed: float = 0.0
    remaining: float | None = None
    message: str = ""

    @property
    def share(self) -> float:
        """The part done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class Work:
    """The files of one piece of work: `folder` for its status, `lock` apart from it, so that it outlives a deletion."""

    def __init__(self, folder: Path, lock: Path) -> None:
        self.folder, self._lock = folder, lock
        self._status, self._stop = folder / "status.json", folder / "stop"

    def running(self) -> bool:
        """Return whether a process does this work now."""
        if not os.path.exists(self._lock):  # it may lie where we may not look
            return False
        try:
            return is_held(self._lock)
        except OSError:  # not ours to lock: a folder that we may only read
            return False

    def status(self) -> Status | None:
        """Read the last status; None where nothing was ever begun. Work whose process died counts as stopped."""
        try:
            found = Status(**json.loads(self._status.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return replace(found, state=STOPPED, speed=0.0) if found.state == RUNNING and not self.running() else found

    def write(self, status: Status) -> None:
        """Write the status: how far the work is."""
        write_whole(self._status, json.dumps(asdict(status)))

    def forget(self) -> None:
        """Delete the status of the last work."""
        self._status.unlink(missing_ok=True)

    def stop(self) -> None:
        """Ask the process to end; it does so within a second. Does nothing where none runs."""
        if self.running():
            self._stop.touch()

    def is_to_stop(self) -> bool:
        """Return whether `stop` was called; the process itself asks."""
        return self._stop.exists()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock as the one process that does the work. Raises Busy, TroupeError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._lock, patience=_PATIENCE):
                self._stop.unlink(missing_ok=True)
                yield
        except Taken:
            raise Busy("this is under way already", "Wait for it, or stop it.") from None
        except OSError as error:
            raise explain_disk(error, self.folder.parent) from None


class WorkProgress:
    """What a working process counts; a thread of its own writes it to the status and ends the process when it is asked
    to."""

    def __init__(self, work: Work, kind: str) -> None:
        self._work = work
        self._status = Status(kind)
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._marks: deque[tuple[float, int]] = deque()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="troupe-progress", daemon=True)
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the thread that writes the status and looks for a stop."""
        self._work.write(self._status)
        self._thread.start()

    def say(self, stage: str, detail: str = "") -> None:
        """Set what is done now."""
        with self._lock:
            self._status = replace(self._status, stage=stage, detail=detail)

    def expect(self, total: int, done: int = 0) -> None:
        """Set how many bytes there are, and how many of them are here already."""
        with self._lock:
            self._status = replace(self._status, total=total, done=done)
            self._marks.clear()

    def add(self, count: int) -> None:
        """Add so many bytes to those that are here; a negative number where some have to come again."""
        with self._lock:
            self._status = replace(self._status, done=self._status.done + count)

    def owns(self, child: subprocess.Popen[bytes]) -> None:
        """Add a process that has to end with this one."""
        self._children.append(child)

    def end(self, state: str, message: str) -> None:
        """Write the last status."""
        self._over.set()
        self._thread.join()
        with self._writing, contextlib.suppress(OSError):
            self._work.write(replace(self._status, state=state, message=message, speed=0.0, remaining=None))

    def give_up(self) -> None:
        """End this process now, as a person asked; what has come is kept."""
        for child in self._children:
            with contextlib.suppress(OSError):
                child.kill()
        with self._writing:  # till the end: no other thread writes after this status, or replaces it half-written
            if not self._over.is_set():
                with contextlib.suppress(OSError):
                    self._work.write(replace(self._status, state=STOPPED, speed=0.0, remaining=None))
            os._exit(130)

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            if self._work.is_to_stop():
                self.give_up()
            with self._writing, contextlib.suppress(OSError):  # a full disk is told by the work itself
                self._work.write(self._measured())

    def _measured(self) -> Status:
        with self._lock:
            status, now = self._status, time.monotonic()
            self._marks.append((now, status.done))
            while len(self._marks) > 2 and now - self._marks[0][0] > _SPEED_OVER:
                self._marks.popleft()
            since, before = self._marks[0]
            speed = max(0.0, (status.done - before) / (now - since)) if now - since >= 1 else 0.0
            left = (status.total - status.done) / speed if speed and status.total else None
            self._status = replace(status, speed=speed, remaining=left)
            return self._status


def carry_out(work: Work, kind: str, action: Callable[[WorkProgress], str]) -> int:
    """Do the work in this process: hold its lock, keep its status, end with 0, or 1 where it failed. Raises Busy and
    whatever is a fault of the code."""
    with work.held():
        progress = WorkProgress(work, kind)
        progress.start()
        try:
            progress.end(DONE, action(progress))
            return 0
        except TroupeError as error:
            progress.end(FAILED, str(error))
        except OSError as error:
            progress.end(FAILED, str(explain_disk(error, work.folder.parent)))
        except BaseException:
            progress.end(FAILED, "this is a fault in Troupe, not yours. The console shows the details.")
            raise
    return 1


def begin(arguments: Sequence[str], errors: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start `python -m engine.models ARGUMENTS`. It ends when this process ends, however that happens: then the pipe to
    it closes. `errors` takes what it says on stderr (None: the console does)."""
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    return subprocess.Popen(
        command_of("engine.models", *arguments), env=environment(), stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=errors, creationflags=hidden,
    )  # fmt: skip


def explain_disk(error: OSError, folder: Path) -> TroupeError:
    """Return the error, in words for a person, for a disk that cannot be written."""
    if is_full(error):
        return TroupeError(*full_disk(folder, " and start again; what has come is kept."))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return TroupeError(f"{folder} cannot be written", "Set HF_HOME to a folder of your own, or mend its rights.")
    return TroupeError(f"{error.filename or folder} cannot be used ({error.strerror or error})", "Check this disk.")


def write_whole(path: Path, text: str) -> None:
    """Write a small file of the cache in one step, so that nobody reads half of it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path, even_protected=True) as growing:
        growing.write_text(text, encoding="utf-8")
