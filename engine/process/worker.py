"""The engine in a process of its own: `python -m engine.process.worker` reads orders from stdin and answers on stdout.

One job at a time; the model stays loaded between jobs until other options come, it is told to free it, or there was no
job for a while. It ends when it is told to, and when whoever started it is gone (the pipe ends). A job that is still
running is then asked to stop, and ended by force where it does not.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import platform
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO

from engine.door.render import render
from engine.errors import EngineUnavailable, Stopped, TroupeError
from engine.memory import card, host
from engine.memory.model_cache import ModelCache
from engine.memory.shortage import is_poisoned
from engine.process.messages import (
    Alive,
    ChannelError,
    Done,
    FromEngine,
    Halted,
    Hello,
    Ready,
    Release,
    Released,
    RenderOrder,
    StopOrder,
    ToEngine,
    Told,
    failure,
    line_of,
    read,
    version_fault,
)
from engine.surroundings import settle

IDLE = 15 * 60.0  # seconds without a job after which the model's memory is freed
_BEAT = 2.0  # seconds between two signs of life
_GRACE = 5.0  # seconds that a job has to stop once nobody waits for it any more


def perform(order: RenderOrder, say: Callable[[FromEngine], None], stop: Callable[[], bool], cache: ModelCache) -> bool:
    """Do one job and send what happens. Its end is sent in any case, and before the model's memory is freed, which may
    fail, too. Returns whether this process can do another job; where not, it has to end, and the next job goes to a new
    one."""
    spoilt = sound = True
    try:
        answer: FromEngine = Done(
            order.job, render(order.request, lambda progress: say(Told(order.job, progress)), stop, cache)
        )
        spoilt = False
    except Stopped:
        answer, spoilt = Halted(order.job), False
    except BaseException as error:  # a library may even call sys.exit
        spoilt = isinstance(error, EngineUnavailable) or not isinstance(error, TroupeError)
        sound = not is_poisoned(error)
        answer = failure(order.job, error)
    say(answer)
    if spoilt and sound:  # what ran out of memory, or broke in the middle, should not meet the next job
        try:
            cache.release()
        except Exception as error:  # ends this process only: the next job gets a new one
            print(f"troupe: the model cannot be let go: {error}", file=sys.stderr, flush=True)
            return False
    return sound


class Worker:
    """Takes orders from `inbox` until its end or Quit, and answers into `outbox`."""

    def __init__(self, inbox: BinaryIO, outbox: BinaryIO, idle: float = IDLE) -> None:
        self._inbox, self._outbox, self._idle = inbox, outbox, idle
        self._orders: queue.SimpleQueue[RenderOrder | Release | None] = queue.SimpleQueue()
        self._speaking = threading.Lock()
        self._unwanted: set[int] = set()  # the jobs that are to stop
        self._busy, self._leaving, self._left = threading.Event(), threading.Event(), threading.Event()
        self._cache = ModelCache()

    def run(self) -> None:
        """Work until the inbox ends, Quit comes, or a job makes the process unusable. The calling thread does the jobs:
        some libraries insist on the main thread."""
        for target in (self._listen, self._beat):
            threading.Thread(target=target, name=f"troupe{target.__name__}", daemon=True).start()
        self._say(Ready(os.getpid(), platform.python_version()))
        _warm_up()
        while (order := self._next()) is not None:
            if isinstance(order, Release):
                self._cache.release()
                self._say(Released())
                self._say(self._alive())
            else:
                sound = perform(order, self._say, partial(self._is_unwanted, order.job), self._cache)
                self._busy.clear()
                self._unwanted.discard(order.job)
                if not sound:
                    break
                self._say(self._alive())
        self._left.set()

    def _next(self) -> RenderOrder | Release | None:
        while True:
            try:
                return self._orders.get(timeout=self._idle)
            except queue.Empty:
                self._cache.release()
                self._say(self._alive())

    def _is_unwanted(self, job: int) -> bool:
        return job in self._unwanted or self._leaving.is_set()

    def _say(self, message: FromEngine) -> None:
        with self._speaking, contextlib.suppress(OSError, ValueError):  # nobody listens: `_listen` hears of it, too
            self._outbox.write(line_of(message))
            self._outbox.flush()

    def _listen(self) -> None:
        try:
            for line in self._inbox:
                if not self._hear(read(line, ToEngine)):
                    break
        except (ChannelError, OSError) as error:
            print(f"troupe: the engine ends: {error}", file=sys.stderr, flush=True)
        self._leaving.set()
        self._orders.put(None)
        if not self._left.wait(_GRACE):
            _end_by_force()

    def _hear(self, message: ToEngine) -> bool:
        """Handle a message; return whether to go on listening. Raises ChannelError where the versions differ."""
        if isinstance(message, Hello):
            if fault := version_fault(message):
                raise ChannelError(fault)
        elif isinstance(message, StopOrder):
            self._unwanted.add(message.job)
        elif isinstance(message, RenderOrder | Release):
            if isinstance(message, RenderOrder):
                self._busy.set()
            self._orders.put(message)
        else:  # Quit
            return False
        return True

    def _beat(self) -> None:
        """Send Alive during a job. It runs in another thread than the job, so that it is silent only where the whole
        interpreter stands still."""
        while not self._left.wait(_BEAT):
            if self._busy.is_set():
                self._say(self._alive())

    def _alive(self) -> Alive:
        """Say that this process lives, and what it and those that it has started hold: whoever plans the next clip
        counts that as free. A sign of life comes whatever a driver says to the question."""
        try:
            of_cards, of_host = self._cache.held
            return Alive(card.own_bytes() + of_cards, host.own_bytes() + of_host)
        except Exception:
            return Alive()


def main(argv: Sequence[str]) -> int:
    """Run a worker over this process's stdin and stdout."""
    settle()
    parser = argparse.ArgumentParser(
        prog="python -m engine.process.worker", description="Make clips for another process."
    )
    parser.add_argument("--idle", type=float, default=IDLE, help="seconds without a job until the model is let go")
    idle = parser.parse_args(argv).idle
    inbox, outbox = _take_the_pipes()
    _volunteer()
    faulthandler.enable()  # a crash in native code leaves its stack in the log
    Worker(inbox, outbox, idle).run()
    return 0


def _take_the_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the messages alone: what a library prints from now on goes to stderr, and programs that
    are started inherit neither."""
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return inbox, outbox


def _volunteer() -> None:
    """Tell Linux to end this process first where memory runs out, and not the server that can start it anew."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")


def _warm_up() -> None:
    """Import what every draft needs, while no job waits. What cannot be imported raises in the first job."""
    with contextlib.suppress(Exception):
        from engine import cutout  # noqa: F401
        from engine.draft import render as draft  # noqa: F401
        from engine.media import ffmpeg, images, video  # noqa: F401


def _end_by_force() -> None:
    """Kill this process and the ffmpeg that it may have started."""
    if os.name != "nt" and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without the libraries' exit handlers: a driver may hang in them
