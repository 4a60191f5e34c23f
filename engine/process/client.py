"""The engine in its own process, kept at the server's side: what ends it ends the job, never the page.

`EngineProcess.render` is the engine's door (`engine.door.render`): the same arguments, result and errors. Between the
two ends runs `engine.process.messages`; the process itself is `engine.process.worker`.

Not concurrent.futures or loky: there a running job can neither be stopped nor tell how far it is, and the worker lives
on when the server is killed. Not multiprocessing.Process: it runs the server's main script again in the child, hears
the terminal's Ctrl-C, and its `kill` leaves the ffmpeg that the child has started.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

from engine.children import command_of
from engine.disk import atomic
from engine.door.render import Progress, RenderRequest, Result
from engine.errors import Stopped, TroupeError
from engine.process import messages
from engine.process.child import Child

COMMAND = tuple(command_of("engine.process.worker"))
_TICK = 0.1  # seconds between two looks at `stop`
_LAST_WORDS = 5.0  # seconds to wait for the end of a dead process's pipe: a grandchild may hold it open
_AGAIN = "Generate it again"


class EngineDied(TroupeError):
    """The engine's process ended, or was ended because it hung, before the clip was finished. The next job gets a new
    one."""


class EngineClosed(EngineDied):
    """Troupe is being closed. Not a fault of the job: it can be done after the next start."""


class EngineRunner(Protocol):
    """What makes the server's clips: a process of its own (`EngineProcess`), or, on a ZeroGPU Space, a function that is
    lent a GPU (`engine.process.inline.InlineEngine`)."""

    def start(self) -> None:
        """Do ahead what can be done, so that the first job finds it done. Returns at once."""

    def render(
        self,
        request: RenderRequest,
        on_progress: Callable[[Progress], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Result:
        """Make the clip, as `engine.door.render` does."""

    def release(self) -> None:
        """Give the loaded model's memory back, after the running job. Does not wait for it."""

    def holds(self) -> tuple[int, int] | None:
        """Return the bytes that it holds of this machine's card and memory, which the next clip can have; None where
        clips are made on a card that is only lent, and nothing can be planned here."""

    def close(self) -> None:
        """End what runs."""


class EngineProcess:
    """One process that renders one job at a time, started anew after every death.

    `command` starts it. `grace`: seconds that a stopped job may take to end by itself. `silence`: seconds without any
    line during a job after which the process counts as hung. `log` gets what it writes to stderr (None: our own).
    """

    def __init__(
        self, command: Sequence[str] = COMMAND, *, grace: float = 15.0, silence: float = 300.0, log: Path | None = None
    ) -> None:
        self._command, self._grace, self._silence, self._log = tuple(command), grace, silence, log
        self._child: Child | None = None
        self._guard = threading.Lock()  # of `_child` and `_closed`
        self._turn = threading.Lock()
        self._numbers = itertools.count(1)
        self._closed = False

    def start(self) -> None:
        """Start the process, so that the first job need not wait for that. Returns at once; errors are raised by the
        first job."""
        with contextlib.suppress(EngineDied):
            self._living_child()

    def render(
        self,
        request: RenderRequest,
        on_progress: Callable[[Progress], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Result:
        """Make the clip, as `engine.door.render` does, after those that were asked for before.

        Raises what the door raises; EngineDied where the process ends before the clip is finished; EngineFault for a
        fault of Troupe's own; ValueError for a request with `members`.
        """
        if request.members is not None:
            raise ValueError("members cannot be sent to the engine's process: give it the scene's files")
        watch = _Watch(on_progress or (lambda _: None), stop or (lambda: False))
        while not self._turn.acquire(timeout=_TICK):
            if watch.stop():
                raise Stopped
        try:
            if watch.stop():
                raise Stopped
            return self._render(messages.RenderOrder(next(self._numbers), request), watch)
        finally:
            self._turn.release()

    def release(self) -> None:
        """Tell the process to free the model's memory, after the running job. Does not wait for it."""
        with self._guard:
            if self._child is not None:
                self._child.send(messages.Release())

    def holds(self) -> tuple[int, int]:
        """Return the bytes that the process said last that it holds of card and memory."""
        with self._guard:
            return self._child.holds if self._child is not None and self._child.is_alive() else (0, 0)

    def close(self, patience: float = 3.0) -> None:
        """End the process, by force after `patience` seconds. A running job ends with EngineClosed."""
        with self._guard:
            self._closed = True
            child, self._child = self._child, None
        if child is not None:
            child.end(patience)

    def _living_child(self) -> Child:
        with self._guard:
            if self._closed:
                raise EngineClosed("Troupe is being closed", "Start it again")
            if self._child is not None and not self._child.is_alive():
                self._child.kill()  # it died between two jobs: end what it has left running
                self._child = None
            if self._child is None:
                try:
                    self._child = Child(self._command, self._log)
                except OSError as error:
                    problem = f"the engine's process cannot be started ({error.strerror or error})"
                    raise EngineDied(problem, "Start Troupe again.") from None
                self._child.send(messages.Hello())
            return self._child

    def _render(self, order: messages.RenderOrder, watch: _Watch) -> Result:
        child = self._living_child()
        try:
            return self._attend(child, order, watch)
        except _Gone:
            untouched = not child.fault and not watch.has_begun and watch.stopped_at is None
            if untouched and child.ended(_LAST_WORDS) == 0:
                watch.has_begun = True  # not more than once
                child.kill()
                return self._render(order, watch)  # it was ending by itself: the job before had spoilt it
            child.kill()
            _sweep(order.request, child.pid)
            if watch.stopped_at is not None and not self._closed:
                raise Stopped from None
            self._tell_death(child)
        except BaseException:
            if child.busy:  # with a job that nobody waits for any more, such as after an error in `on_progress`
                child.kill()
                _sweep(order.request, child.pid)
            raise

    def _attend(self, child: Child, order: messages.RenderOrder, watch: _Watch) -> Result:
        """Wait for the job's end and return its result. Raises what the job raised, and _Gone where the process has
        ended or must be ended."""
        silent = 0.0
        if child.is_greeted:
            child.begin(order)
        while True:
            heard = child.hear(_TICK)
            # Counted in ticks, not read from a clock: a laptop that slept for a night has been silent for none of it.
            silent = 0.0 if heard is not None else silent + _TICK
            if isinstance(heard, messages.Ready):
                self._greet(child, heard)
                child.begin(order)
            elif isinstance(heard, messages.Told) and heard.job == order.job:
                watch.has_begun = True
                watch.on_progress(heard.progress)
            elif isinstance(heard, messages.Done | messages.Halted | messages.Failed) and heard.job == order.job:
                child.busy = False
                return self._answer(heard)
            elif heard is None and not child.is_alive() and (child.is_drained() or silent > _LAST_WORDS):
                raise _Gone
            if watch.wants_stop():
                child.send(messages.StopOrder(order.job))
            if watch.waited() > self._grace:
                raise _Gone
            if silent > self._silence:
                minutes = f"{self._silence / 60:.2g} minutes"
                child.fault = f"the engine gave no sign of life for {minutes} and was ended"
                raise _Gone

    def _greet(self, child: Child, ready: messages.Ready) -> None:
        if fault := messages.version_fault(ready):
            child.fault = f"the engine's process is of another version ({fault})"
            raise _Gone
        child.is_greeted = True

    def _answer(self, end: messages.Done | messages.Halted | messages.Failed) -> Result:
        if isinstance(end, messages.Done):
            return end.result
        if self._closed:
            raise self._closing()
        if isinstance(end, messages.Halted):
            raise Stopped
        raise messages.error_of(end)

    def _tell_death(self, child: Child) -> NoReturn:
        if self._closed:
            raise self._closing()
        log = f" Its last words are in {self._log.name}." if self._log is not None else ""
        if child.fault:
            raise EngineDied(child.fault, f"{_AGAIN}; if that happens again, restart Troupe.{log}")
        problem, remedy = what_happened(child.status)
        if not child.is_greeted:
            problem = f"{problem} while it was starting"
        raise EngineDied(problem, f"{remedy}{log}")

    def _closing(self) -> EngineClosed:
        return EngineClosed("Troupe was closed before the clip was finished", f"{_AGAIN}.")


class _Gone(Exception):
    """The process has ended, or must be ended."""


class _Watch:
    """The callbacks of whoever waits for a job, and when they first wanted it to stop."""

    def __init__(self, on_progress: Callable[[Progress], None], stop: Callable[[], bool]) -> None:
        self.on_progress, self.stop = on_progress, stop
        self.stopped_at: float | None = None
        self.has_begun = False  # something was heard of the job

    def wants_stop(self) -> bool:
        """Return whether a stop is wanted that has not been passed on yet; note the time."""
        if self.stopped_at is not None or not self.stop():
            return False
        self.stopped_at = time.monotonic()
        return True

    def waited(self) -> float:
        """Return the seconds since the stop was wanted; 0 where it was not."""
        return 0.0 if self.stopped_at is None else time.monotonic() - self.stopped_at


# What Windows puts into the exit status where Unix has signals
_OUT_OF_MEMORY = {0xC0000017, 0xC000012D}
_WINDOWS_CRASH = range(0xC0000000, 0xD0000000)


def what_happened(status: int | None) -> tuple[str, str]:
    """Explain the end of a process by its exit status (-n: ended by signal n): the problem, and what to do."""
    smaller = "Make the clip smaller or shorter, or close other programs, and generate it again."
    code = (status or 0) & 0xFFFFFFFF
    if status == -getattr(signal, "SIGKILL", 9) or code in _OUT_OF_MEMORY:
        return "the system ended the engine, most likely for want of memory", smaller
    crash = _name_of(-status) if status is not None and -65 < status < 0 else ""
    if crash in ("SIGTERM", "SIGINT", "SIGHUP"):
        return f"somebody ended the engine ({crash})", f"{_AGAIN}."
    if crash or code in _WINDOWS_CRASH:
        problem = f"the engine crashed ({crash or f'0x{code:08X}'})"
        return problem, f"{_AGAIN}; if that happens again, update the graphics driver."
    return f"the engine ended unexpectedly (exit status {status})", f"{_AGAIN}."


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _sweep(request: RenderRequest, ended: int) -> None:
    """Remove the half-written files of a killed process."""
    for target in (request.out, *(request.options.written if request.options is not None else ())):
        atomic.sweep(target, ended)
