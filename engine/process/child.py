"""A running engine process and the two threads that write to it and read from it, so that nobody else ever blocks."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.children import environment
from engine.process import messages
from engine.process.rotate import rotate

_FAREWELL = 5.0  # seconds for the system to end what has been killed

# In a process group of its own: the terminal's Ctrl-C is for the server, which then ends the engine.
_APART: dict[str, Any] = {"start_new_session": True}
if sys.platform == "win32":
    _APART = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}


class Child:
    """Starts `command`; what it writes to stderr is added to the file `log` (None: to our own stderr).

    `is_greeted`: it has said who it is. `busy`: it has a job. `holds`: what it said last that it holds of card and
    memory. `fault`: why it had to be ended, where it did not end by itself. Raises OSError where it cannot be started.
    """

    def __init__(self, command: Sequence[str], log: Path | None) -> None:
        self.is_greeted = self.busy = self._is_buried = False
        self._burying = threading.Lock()
        self.fault = ""
        self.holds = 0, 0
        self._process = _start(command, log)
        self.pid = self._process.pid
        self._inbox: queue.SimpleQueue[messages.FromEngine] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=target, name=f"troupe-engine{target.__name__}", daemon=True)
            for target in (self._write, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, message: messages.ToEngine) -> None:
        """Queue a message to the process; to a dead one it is dropped. Raises ChannelError for what cannot be sent."""
        self._outbox.put(messages.line_of(message))

    def begin(self, order: messages.RenderOrder) -> None:
        """Send it a job, and mark it busy. Raises ChannelError, and then it has none."""
        self.send(order)
        self.busy = True

    def hear(self, seconds: float) -> messages.FromEngine | None:
        """Wait for its next message, at most so many seconds; None where there is none."""
        try:
            return self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None

    def is_alive(self) -> bool:
        """Return whether it runs, and its messages are understood."""
        return self._process.poll() is None and self._threads[1].is_alive() and not self.fault

    def is_drained(self) -> bool:
        """Return whether its pipe has ended and all of its messages have been taken by `hear`."""
        return self._inbox.empty() and not self._threads[1].is_alive()

    @property
    def status(self) -> int | None:
        """Its exit status, -n where signal n has ended it; None while it runs."""
        return self._process.poll()

    def ended(self, seconds: float) -> int | None:
        """Wait for its end, at most so many seconds; return its exit status (None while it runs)."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.status

    def end(self, patience: float) -> None:
        """Tell it to end, and kill it where it has not after `patience` seconds."""
        self.send(messages.Quit())
        self._outbox.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self.kill()

    def kill(self) -> None:
        """Kill it and all that it has started, in whatever state they are. Does nothing the second time."""
        with self._burying:
            if not self._is_buried:
                self._is_buried = True
                self._bury()

    def _bury(self) -> None:
        # A short wait first: a dying process has closed its pipes before the system knows what it died of.
        if not self.fault and not self._threads[1].is_alive():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_FAREWELL)
        _kill_tree(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in a driver: not even the system can end it
            self._process.wait(_FAREWELL)
        self._outbox.put(None)
        for thread in self._threads:
            thread.join(_FAREWELL)

    def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as pipe:
            while (line := self._outbox.get()) is not None:
                pipe.write(line)
                pipe.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError), self._process.stdout as pipe:
            for line in pipe:
                if not line.endswith(b"\n"):  # it ended in the middle of a word
                    return
                try:
                    message = messages.read(line, messages.FromEngine)
                    if isinstance(message, messages.Alive):
                        self.holds = message.card, message.host
                    self._inbox.put(message)
                except messages.ChannelError as error:
                    self.fault = f"the engine's process said what is not understood ({error})"
                    return


def _start(command: Sequence[str], log: Path | None) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as stack:
        errors: Any = None if _is_open(2) else subprocess.DEVNULL
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            rotate(log)
            errors = stack.enter_context(log.open("ab"))
        return subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            env=environment(), **_APART,
        )  # fmt: skip


def _is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        if process.poll() is None:  # an ffmpeg whose feeder is gone ends by itself
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left, or only what is dying
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()
