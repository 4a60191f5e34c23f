"""The draft's two questions: where would everybody stand, and what does the clip look like?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from engine.cast import Member
from engine.draft.direct import direct
from engine.draft.prepare import measure_cast, place_cast, prepare
from engine.errors import Stopped
from engine.scene import Placement, Scene

NOTE = (
    "This is a draft: an animated storyboard that Troupe composed from the cut-outs, the prompt and the layout. "
    "No video model was used."
)


def arrange(scene: Scene, members: Sequence[Member]) -> dict[int, Placement]:
    """Where the draft puts each of the cast: cast index to placement, explicit ones unchanged, the background left
    out."""
    return place_cast(scene, direct(scene), measure_cast(members))


def frames(scene: Scene, members: Sequence[Member], stop: Callable[[], bool] | None = None) -> Iterator[np.ndarray]:
    """The draft's frames: exactly `scene.video.frames` arrays (height, width, 3) uint8 RGB.

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
