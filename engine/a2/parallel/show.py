"""A clip made by several cards, as the engine sees it: the same as engine/a2/rescue.py for one.

Where memory runs out on one card, all of them end: the others wait for it in the middle of an exchange, from which only
their end brings them back. So it is here, and not in them, that the next fallback is taken, once and for all of them.
A new crew goes on from the last step, which is kept for that in any case.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from engine.a2 import rescue
from engine.a2.compute import choose_compute
from engine.a2.files import locate
from engine.a2.geometry import size_of
from engine.a2.options import A2Options, as_run
from engine.a2.parallel.crew import Crew
from engine.a2.parallel.messages import Cue, FromRank, Heard, Rolling, Wrapped
from engine.a2.plan.degrees import Degrees, degrees_of
from engine.a2.plan.fallbacks import Way
from engine.a2.plan.shapes import read_shapes
from engine.a2.recipe import Callbacks
from engine.errors import EngineUnavailable
from engine.memory.model_cache import ModelCache
from engine.memory.shortage import Shortage
from engine.scene.cast import Member
from engine.scene.engine import Footage, RunContext
from engine.scene.scene import Scene


def check_cards(options: A2Options) -> None:
    """Raise EngineUnavailable where so many cards cannot work together here."""
    asked = options.cards or 1
    if asked < 2:
        return
    if os.name == "nt":
        raise EngineUnavailable(
            f"--cards {asked}: several cards work together on Linux only, NVIDIA's library for it is not made for "
            "Windows",
            "Leave --cards out.",
        )
    if options.device and options.device not in ("cpu", "cuda"):
        raise EngineUnavailable(
            f"--cards {asked} with --device {options.device}, which is one card",
            "Leave --device out; CUDA_VISIBLE_DEVICES chooses among the cards.",
        )
    if options.device == "cpu":
        return
    import torch

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen < asked:
        raise EngineUnavailable(
            f"--cards {asked}: PyTorch sees {seen or 'no'} CUDA device{'s' * (seen != 1)} here",
            f"Use --cards {seen}." if seen > 1 else "Leave --cards out.",
        )


def shoot(scene: Scene, members: Sequence[Member], context: RunContext) -> Footage:
    """Make a clip with the cards that the options ask for, as far as they can work together on it, and with up to three
    fallbacks where memory runs out. The notices tell of both.

    Raises EngineUnavailable, which says what was tried; or Stopped.
    """
    options: A2Options = context.options
    shapes = read_shapes(locate(options.model, options.family))
    degrees = degrees_of(size_of(as_run(scene, options), shapes.spec), options, shapes)
    if degrees.cards == 1:
        alone = replace(context, options=replace(options, cards=None))
        callbacks = Callbacks(context.tell, stop=context.stop)
        shot = rescue.shoot(scene, members, alone.options, callbacks, context.cache)
        return Footage(shot.frames, shot.count, "decoding", [f"{degrees.why}.", *shot.notices])
    show = _Show(scene, members, context, degrees)
    try:
        show.roll(0)
    except BaseException:
        show.close()
        raise
    count = scene.video.frames - scene.video.trim_head
    return Footage(show.frames(count), count, "decoding", show.notices)


class _Show:
    """One clip on its way. The run is kept on the disk even where nobody asked for it: for the next fallback."""

    def __init__(self, scene: Scene, members: Sequence[Member], context: RunContext, degrees: Degrees) -> None:
        self._scene, self._members, self._context, self._degrees = scene, members, context, degrees
        self._folder = contextlib.ExitStack()
        options: A2Options = rescue.spelled_out(scene, context.options)
        if degrees.groups > 1:  # the passes are not together
            options = replace(options, batched_guidance=False)
        if options.state is None:
            folder = self._folder.enter_context(tempfile.TemporaryDirectory(prefix="troupe-run-"))
            options = replace(options, state=Path(folder) / "run.safetensors")
        self._asked = options
        on_card = choose_compute(options).device.type != "cpu"
        self._kind = "cuda" if on_card else "cpu"
        callbacks = Callbacks(context.tell, stop=context.stop)
        self._descent = rescue.Descent(Way(options, size_of(scene, options.spec), on_card), callbacks)
        self._going: Iterator[FromRank | bytes] = iter(())
        self.notices = self._descent.notices

    def roll(self, given: int) -> None:
        """Make the clip up to its frames, of which the first `given` are there; with fallbacks."""
        while True:
            try:
                self._going = self._crew().perform(self._cue(given), self._stop)
                for message in self._going:
                    if isinstance(message, Heard):
                        self._context.tell(message.stage, message.step, message.of, message.detail)
                    elif isinstance(message, Rolling):
                        return
            except Shortage as error:
                self._step_down(error, max(0, error.step - 1), self._scene.sampling.steps)
            except BaseException:
                self._let_go_of_the_dead()
                raise

    def frames(self, count: int) -> Generator[np.ndarray]:
        """Yield all frames once, (H, W, 3) uint8; with fallbacks."""
        video, given = self._scene.video, 0
        try:
            while True:
                try:
                    for message in self._going:
                        if isinstance(message, bytes):
                            given += 1
                            yield np.frombuffer(message, np.uint8).reshape(video.height, video.width, 3)
                        elif isinstance(message, Wrapped):
                            self.notices[:0] = [f"{self._degrees.why[:1].upper()}{self._degrees.why[1:]}."]
                            self.notices.extend(message.notices)
                    return
                except Shortage as error:
                    self._step_down(error, given, count)
                self.roll(given)
        finally:
            self.close()

    def close(self) -> None:
        """End the clip, if it is not done; the crew stays for the next one, if it can."""
        if isinstance(self._going, Generator):
            self._going.close()
        self._let_go_of_the_dead()
        self._folder.close()

    def _cue(self, given: int) -> Cue:
        way = self._descent.way
        return Cue(
            self._scene, self._members, self._asked, way.options, self._degrees, way.alone, self._descent.remark, given,
            self._crew().host,
        )  # fmt: skip

    def _crew(self) -> Crew:
        """Return the crew of the clip before, if it is as large, or a new one."""
        size, cache = self._degrees.cards, self._context.cache
        start = partial(self._start, size)
        crew: Crew = cache.fetch(("crew", size, self._kind), start)
        if not crew.is_alive:
            cache.release()
            crew = cache.fetch(("crew", size, self._kind), start)
        return crew

    def _start(self, size: int) -> Crew:
        self._context.tell("loading", 0, 1, f"{size} processes")
        return Crew(size, self._kind, self._stop)

    def _stop(self) -> bool:
        return self._context.stop is not None and self._context.stop()

    def _step_down(self, shortage: Shortage, done: int, of: int) -> None:
        self._context.cache.release()
        self._descent.step_down(shortage.alone(), done, of)

    def _let_go_of_the_dead(self) -> None:
        cache: ModelCache = self._context.cache
        kept = cache.kept
        if isinstance(kept, Crew) and not kept.is_alive:
            cache.release()
