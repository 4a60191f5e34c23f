"""The draft's results: where everybody stands, and the frames of the clip."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np
from PIL import Image

from engine.draft.direct import direct
from engine.draft.prepare import measure_cast, paint_studio, place_cast, prepare, stack
from engine.errors import Stopped
from engine.scene.cast import Member
from engine.scene.scene import Placement, Scene


def arrange(scene: Scene, members: Sequence[Member]) -> dict[int, Placement]:
    """Place the cast: cast index to placement, explicit ones unchanged, the background left out."""
    return block(scene, members)[0]


def block(scene: Scene, members: Sequence[Member]) -> tuple[dict[int, Placement], list[int]]:
    """Place the cast as `arrange` does, and return also the stacking order: cast indices from back to front."""
    plan, shapes = direct(scene), measure_cast(members)
    placements = place_cast(scene, plan, shapes)
    return placements, stack(scene, plan, shapes, placements)


def empty_stage(scene: Scene, members: Sequence[Member]) -> Image.Image:
    """Paint the studio that the draft uses where the scene has no background, at the video's size (RGB)."""
    return paint_studio(scene, members, measure_cast(members))


def frames(scene: Scene, members: Sequence[Member], stop: Callable[[], bool] | None = None) -> Generator[np.ndarray]:
    """Yield the draft's frames: exactly `scene.video.frames` arrays (height, width, 3) uint8 RGB.

    The same scene and pictures give the same frames, bit for bit on the same machine. `stop` is asked before every
    frame and between the steps of preparation. Raises Stopped.
    """
    show = prepare(scene, members, _asker(stop))
    for i in range(scene.video.frames):
        _asker(stop)()
        yield show.frame(i / scene.video.fps)


def _asker(stop: Callable[[], bool] | None) -> Callable[[], None]:
    def ask() -> None:
        if stop is not None and stop():
            raise Stopped()

    return ask
