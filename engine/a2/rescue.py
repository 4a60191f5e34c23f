"""A clip in spite of memory that runs out: it goes on from its last step with the next of plan/fallbacks.py."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from engine.a2 import recipe
from engine.a2.checkpoint import Checkpoint
from engine.a2.compute import choose_compute
from engine.a2.geometry import size_of
from engine.a2.options import A2Options, as_run
from engine.a2.phases import PHASES, PhaseName
from engine.a2.plan.fallbacks import RUNGS, Way, next_way
from engine.a2.plan.fast import abilities_here, as_fast
from engine.a2.plan.shapes import default_shapes
from engine.errors import EngineUnavailable
from engine.memory.model_cache import ModelCache
from engine.memory.shortage import Shortage, give_back
from engine.scene.cast import Member
from engine.scene.scene import Scene

if TYPE_CHECKING:
    import numpy as np


def shoot(
    scene: Scene, members: Sequence[Member], options: A2Options, callbacks: recipe.Callbacks, cache: ModelCache
) -> recipe.Shot:
    """Run recipe.shoot with a model from the cache, and with up to three fallbacks where memory runs out, also while
    the frames are read. The notices tell of each.

    Raises EngineUnavailable, which says what was tried; or Stopped.
    """
    options = spelled_out(scene, options)
    way = Way(options, size_of(scene, options.spec), _on_card(options))
    descent, attempt = Descent(way, callbacks), recipe.Attempt(options)
    while True:
        now, attempt.alone, attempt.remark = descent.way.options, descent.way.alone, descent.remark
        try:
            checkpoint = cache.fetch(recipe.weights_of(now), partial(recipe.load, now))
            shot = recipe.shoot(scene, members, now, callbacks, checkpoint, attempt)
            break
        except Shortage as error:
            shortage = error.alone()
        run = attempt.begun[0] if attempt.begun is not None else None
        if run is not None and run.cache is not None:
            run.cache.whole.clear()  # passes may be computed in another way from now on
        descent.step_down(shortage, *((run.step, run.steps) if run is not None else (0, 1)))
    descent.notices[:0] = shot.notices
    frames = _frames(descent, checkpoint, shot, scene.video.trim_head)
    return replace(shot, frames=frames, notices=descent.notices)


def spelled_out(scene: Scene, options: A2Options) -> A2Options:
    """Return the options with what Fast turns on here."""
    if not options.fast:
        return options
    clip = size_of(as_run(scene, options), options.spec)
    return as_fast(options, clip, abilities_here(choose_compute(options)), default_shapes(options.model))


def _frames(descent: Descent, checkpoint: Checkpoint, shot: recipe.Shot, head: int) -> Generator[np.ndarray]:
    """Yield all frames once. Another attempt decodes from the beginning, as the VAE has to, and skips what was
    yielded."""
    given = 0
    while True:
        options, alone = descent.way.options, descent.way.alone
        try:
            frames = recipe.frames(checkpoint, shot.latents, options, head + given, descent.callbacks, alone)
            with contextlib.closing(frames):
                for frame in frames:
                    given += 1
                    yield frame
            return
        except Shortage as error:
            shortage = error.alone()
        descent.step_down(shortage, given, shot.count)


class Descent:
    """The settings now, and the fallbacks that were taken before."""

    def __init__(self, way: Way, callbacks: recipe.Callbacks) -> None:
        self.way, self.callbacks = way, callbacks
        self.notices: list[str] = []
        self._tried: list[str] = []

    @property
    def remark(self) -> str:
        return f"memory ran out; now with {self._tried[-1]}" if self._tried else ""

    def step_down(self, shortage: Shortage, done: int, of: int) -> None:
        """Take the next fallback, and tell the person. Raises EngineUnavailable where there is none."""
        give_back()
        phase = cast("PhaseName", shortage.phase)
        found = next_way(self.way, phase, RUNGS - len(self._tried))
        if found is None:
            raise self._end(shortage)
        self.way, words = found
        self._tried.append(words)
        self.notices.append(f"Memory ran out {shortage.where} ({shortage.need}): went on with {words}.")
        self.callbacks.tell(PHASES[phase].stage, done, of, self.remark)

    def _end(self, shortage: Shortage) -> EngineUnavailable:
        problem, options = shortage.problem, self.way.options
        if self._tried:
            problem += f", also after going on with {'; then '.join(self._tried)}"
        remedy = "Make the clip smaller or shorter, or close other programs"
        if options.precision not in ("int8", "fp8"):
            remedy += ", or use --precision int8"
        if options.state is not None and shortage.phase == "decoding":
            remedy += ". All steps are done and kept: only decoding is left"
        elif options.state is not None and shortage.step > 1:
            remedy += f". {shortage.step - 1} steps are kept"
        return EngineUnavailable(problem, f"{remedy}.")


def _on_card(options: A2Options) -> bool:
    return choose_compute(options).device.type != "cpu"
