"""One of the processes that make a clip together: `python -m engine.a2.parallel.rank PIPE RANK SIZE DEVICE FOLDER`.

It is started and told by a crew (crew.py). It ends where its pipe does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import shutil
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from engine.a2 import recipe
from engine.a2.options import A2Options
from engine.a2.parallel.company import Company, Meeting
from engine.a2.parallel.messages import (
    Broke,
    Cue,
    FromRank,
    Halt,
    Heard,
    Joined,
    Raised,
    Rolling,
    StoodDown,
    Wrapped,
)
from engine.errors import Stopped, TroupeError
from engine.memory import card, host
from engine.memory.model_cache import ModelCache
from engine.memory.shortage import Shortage


class Rank:
    """Makes its part of one clip after the other. `device` is "cuda" or "cpu"; `folder` is where they
    meet."""

    def __init__(self, pipe: Connection, rank: int, size: int, device: str, folder: Path) -> None:
        self.leads, self._device = rank == 0, f"cuda:{rank}" if device == "cuda" else device
        self._pipe, self._rank, self._size, self._kind, self._folder = pipe, rank, size, device, folder
        self._cues: queue.SimpleQueue[Cue] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._cache = ModelCache()

    def run(self) -> None:
        """Meet the others, and make clips without end."""
        threading.Thread(target=self._listen, name="troupe-rank-listen", daemon=True).start()
        if self._kind == "cuda":
            import torch

            torch.cuda.set_device(self._rank)
        meeting = Meeting(self._rank, self._size, self._kind, str(self._folder / "meeting"))
        self._say(Joined())
        while True:
            self._say(self._perform(self._cues.get(), meeting))

    def _perform(self, cue: Cue, meeting: Meeting) -> FromRank:
        """Make a clip; return how it ended."""
        try:
            company = Company(meeting, cue.degrees, self._stop.is_set, cue.host, self._tell_of_others)
            return Wrapped(self._make(cue, company), (card.own_bytes(), host.own_bytes()))
        except Stopped:
            return StoodDown()
        except Shortage as error:
            return Raised(error.alone())
        except TroupeError as error:
            return Raised(error)
        except BaseException as error:
            return Broke("".join(traceback.format_exception(error)))

    def _make(self, cue: Cue, company: Company) -> tuple[str, ...]:
        """Make a clip with the others; return what the person should know."""
        options = self._own(cue.options)
        callbacks = recipe.Callbacks(
            lambda *told: self._say(Heard(*told)), stop=self._stop.is_set, ensemble=company
        ) if self.leads else recipe.Callbacks(stop=self._stop.is_set, ensemble=company)  # fmt: skip
        attempt = recipe.Attempt(self._own(cue.asked), alone=cue.alone, remark=cue.remark)
        checkpoint = self._cache.fetch(recipe.weights_of(options), partial(recipe.load, options))
        shot = recipe.shoot(cue.scene, cue.members, options, callbacks, checkpoint, attempt)
        shot.frames.close()
        if self.leads:
            self._say(Rolling())
        skip = cue.scene.video.trim_head + cue.given
        frames = recipe.frames(checkpoint, shot.latents, options, skip, callbacks, cue.alone)
        for frame in frames:
            if self.leads:
                self._pipe.send_bytes(b"")
                self._pipe.send_bytes(frame.tobytes())
        return tuple(shot.notices)

    def _tell_of_others(self) -> None:
        if self.leads:
            self._say(Heard("loading", 0, 1, "the other cards"))

    def _own(self, options: A2Options) -> A2Options:
        """Return the options for this process: its card, and what is kept on the disk is written by the first only."""
        own = replace(options, device=self._device)
        return own if self.leads else replace(own, preview=None, save_latents=None)

    def _say(self, message: FromRank) -> None:
        self._pipe.send_bytes(pickle.dumps(message))

    def _listen(self) -> None:
        try:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    heard = self._pipe.recv()
                    if isinstance(heard, Halt):
                        self._stop.set()
                    else:
                        self._stop.clear()
                        self._cues.put(heard)
        finally:  # nobody waits for us any more, whatever the others and the card are doing
            shutil.rmtree(self._folder, ignore_errors=True)  # nor is anybody left to remove it, perhaps
            os._exit(1)


def main(argv: Sequence[str]) -> None:
    """Be one process of a crew."""
    pipe, rank, size, device, folder = argv
    Rank(Connection(int(pipe)), int(rank), int(size), device, Path(folder)).run()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)  # without the libraries' exit handlers: a driver may hang in them
