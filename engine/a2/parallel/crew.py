"""The processes of a crew, from the side of whoever has started them: one a card, all on this machine.

They are started here and not by torchrun, for whose rendezvous two ports are open on every network of the machine while
a clip is made, and what comes in there is unpickled; and whose agent is one process more, which sits between us and a
process that ends. Here they meet over a file and talk over the loopback, each has a pipe of its own to us, and we see
at once with which status one has ended. A pipe that ends tells them that we are gone, whatever has ended us.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NoReturn
from weakref import finalize

from engine.a2.parallel.messages import Broke, Cue, FromRank, Halt, Joined, Raised, StoodDown, Wrapped
from engine.children import command_of, environment
from engine.disk import atomic
from engine.errors import EngineUnavailable, StopCheck, Stopped, TroupeError
from engine.memory.host import free_for_us
from engine.memory.shortage import Shortage

_TICK = 0.1  # seconds between two looks at `stop`
_GRACE = 10.0  # seconds that they have to come to an end once the clip is to stop
_NEWS = 3.0  # seconds in which the cause of a fault is heard, where its effect in another process came first
_FAREWELL = 3.0  # seconds for a process to end whose pipe has ended


class CrewDied(EngineUnavailable):
    """One of the processes that make a clip together has ended, and with it the others were."""


class Crew:
    """Starts `size` processes, each on a card of its own, or on the processor where `device` is "cpu". Their models
    stay loaded from clip to clip. `held` are the bytes of the first's card and of all their memory.

    Raises CrewDied where they cannot be started, or Stopped.
    """

    def __init__(self, size: int, device: str, stop: StopCheck) -> None:
        self.size, self.held = size, (0, 0)
        free = free_for_us()
        self.host = free // size if free is not None else None  # what each may take of it
        self.folder = Path(tempfile.mkdtemp(prefix="troupe-crew-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[Connection] = []
        self._written: tuple[Path, ...] = ()
        self._end = finalize(self, _end, self._processes, self._pipes, self.folder)
        try:
            for rank in range(size):
                self._start(rank, device)
            for _ in self._hear(stop, lambda message: isinstance(message, Joined)):
                pass
        except OSError as error:
            self.close()
            raise CrewDied(f"the cards' processes cannot be started ({error.strerror or error})") from None
        except BaseException:
            self.close()
            raise

    @property
    def is_alive(self) -> bool:
        return self._end.alive and all(process.poll() is None for process in self._processes)

    def perform(self, cue: Cue, stop: StopCheck) -> Iterator[FromRank | bytes]:
        """Make a clip; yields what the first tells of it, and its frames, until it is done. Left before that, the clip
        is ended.

        Raises Shortage or another TroupeError as one of them raised it, CrewDied, Stopped, or RuntimeError for a fault
        of Troupe's own. All of them but Stopped end the crew, and Stopped may.
        """
        self._written = cue.options.written
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # it is gone: `_hear` sees that
                pipe.send(cue)
        yield from self._hear(stop, lambda message: isinstance(message, Wrapped | StoodDown))

    def close(self) -> None:
        """End the processes; at most some seconds later none is left, nor anything half-written."""
        pid = self._processes[0].pid if self._processes else None
        self._end()
        for target in self._written:
            atomic.sweep(target, pid)

    # -- hearing -------------------------------------------------------------------------------

    def _hear(self, stop: StopCheck, is_last: Callable[[FromRank], bool]) -> Iterator[FromRank | bytes]:
        """Yield what the first says until all have said their last."""
        last: dict[int, FromRank] = {}
        halted: float | None = None
        try:
            while len(last) < self.size:
                for rank, message in self._news(_TICK):
                    if message is None or isinstance(message, Raised | Broke):
                        self._fail(rank, message)
                    if not isinstance(message, bytes) and is_last(message):
                        last[rank] = message
                    if rank == 0:
                        yield message
                if halted is None and stop():
                    halted = time.monotonic()
                    self._halt()
                if halted is not None and time.monotonic() - halted > _GRACE:
                    raise Stopped  # in the middle of something long: the model is loaded anew for the next clip
        except BaseException:
            if len(last) < self.size and not self._wound_down(last, is_last, halted or time.monotonic()):
                self.close()
            raise
        wrapped = [each for each in last.values() if isinstance(each, Wrapped)]
        if any(isinstance(each, StoodDown) for each in last.values()):
            raise Stopped
        if wrapped:
            self.held = last[0].held[0], sum(each.held[1] for each in wrapped)  # type: ignore[union-attr]  # all wrapped

    def _news(self, seconds: float, without: Container[int] = ()) -> Iterator[tuple[int, FromRank | bytes | None]]:
        """Yield one message of each that has something to say, waiting so long for the first; None: it has ended. Those
        `without` which it is are not listened to."""
        for pipe in wait([pipe for rank, pipe in enumerate(self._pipes) if rank not in without], seconds):
            rank = self._pipes.index(pipe)  # type: ignore[arg-type]  # we gave it these
            try:
                yield rank, _read(self._pipes[rank])
            except (EOFError, OSError):
                yield rank, None

    def _halt(self) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(Halt())

    def _wound_down(
        self, last: dict[int, FromRank], is_last: Callable[[FromRank], bool], since: float
    ) -> bool:  # fmt: skip
        """Let a clip that nobody waits for any more come to its end; return whether it did, and the crew can go on."""
        if not self.is_alive or isinstance(sys.exception(), TroupeError | RuntimeError):
            return False
        self._halt()
        with contextlib.suppress(Exception):  # what was interrupted while it was read cannot be understood
            while len(last) < self.size and time.monotonic() - since <= _GRACE:
                for rank, message in self._news(_TICK):
                    if message is None or isinstance(message, Raised | Broke):
                        return False
                    if not isinstance(message, bytes) and is_last(message):
                        last[rank] = message
        return len(last) == self.size

    # -- failing ---------------------------------------------------------------------------------

    def _fail(self, rank: int, first: Raised | Broke | None) -> NoReturn:
        """Raise what has happened. Where one fails, the others do, too: they are heard for a moment, and what explains
        the rest is told: memory that ran out, or what can be mended, or a process that is gone."""
        heard: dict[int, Raised | Broke | None] = {rank: first}
        deadline = time.monotonic() + _NEWS
        while not isinstance(first, Raised) and len(heard) < self.size and time.monotonic() < deadline:
            for i, message in self._news(_TICK, without=heard):
                if message is None or isinstance(message, Raised | Broke):
                    heard[i] = message
        errors = [each.error for each in heard.values() if isinstance(each, Raised)]
        for error in sorted(errors, key=lambda error: not isinstance(error, Shortage)):
            raise error
        for i in (i for i, message in heard.items() if message is None):
            raise CrewDied(*_death(i, self.size, self._status(i), self._last_words()))
        traces = [each.trace for each in heard.values() if isinstance(each, Broke)]
        raise RuntimeError(f"in the process of card {rank + 1} of {self.size}:\n{traces[0]}")

    def _status(self, rank: int) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._processes[rank].wait(_FAREWELL)
        return self._processes[rank].poll()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.folder / "ranks.log").read_text(encoding="utf-8", errors="replace").split("\n")
            return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
        return ""

    # -- starting --------------------------------------------------------------------------------

    def _start(self, rank: int, device: str) -> None:
        ours, theirs = Pipe()
        self._pipes.append(ours)
        command = command_of(
            "engine.a2.parallel.rank", str(theirs.fileno()), str(rank), str(self.size), device, str(self.folder)
        )  # fmt: skip
        with theirs, _log(self.folder) as log:
            self._processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(self.size),
                    pass_fds=[theirs.fileno()], start_new_session=True,  # the terminal's Ctrl-C is for us
                )
            )  # fmt: skip


def _read(pipe: Connection) -> FromRank | bytes:
    """Read a message; frames come as bytes, after an empty one."""
    import pickle

    data = pipe.recv_bytes()
    if not data:
        return pipe.recv_bytes()
    message: FromRank = pickle.loads(data)
    return message


def _death(rank: int, size: int, status: int | None, words: str) -> tuple[str, str]:
    """Say what has become of a process by its exit status (-n: ended by signal n) and its last words, and what to
    do."""
    again = "Generate it again; a run that is kept goes on from its last step"
    name = f"the process of card {rank + 1} of {size}"
    if status == -signal.SIGKILL:
        return (
            f"{name} was ended by the system, most likely for want of memory, and so the others were",
            f"Make the clip smaller or shorter, or use fewer cards. {again}.",
        )
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return f"{name} crashed ({signal.Signals(-status).name}), and so the others were ended", f"{again}."
    said = f": {words}" if words else ""
    return f"{name} ended unexpectedly (exit status {status}{said}), and so the others were", f"{again}."


def _environment(size: int) -> dict[str, str]:
    """Build their environment: they share the processors, and talk over the loopback only."""
    share = max(1, (os.cpu_count() or 1) // size)
    loopback = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), "lo") if sys.platform == "linux" else {}
    return {"OMP_NUM_THREADS": str(share), **environment(), **loopback}


@contextlib.contextmanager
def _log(folder: Path) -> Iterator[int | None]:
    """Open what their libraries print into; None, which is our own stderr, for who looks for a fault."""
    if os.environ.get("TROUPE_DEBUG"):
        yield None
        return
    with (folder / "ranks.log").open("ab") as file:
        yield file.fileno()


def _end(processes: list[subprocess.Popen[bytes]], pipes: list[Connection], folder: Path) -> None:
    """End processes: they do by themselves where their pipe ends, and by force where they hang."""
    for pipe in pipes:
        pipe.close()
    deadline = time.monotonic() + _FAREWELL
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    for process in processes:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait(_FAREWELL)
    shutil.rmtree(folder, ignore_errors=True)
