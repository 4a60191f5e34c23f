"""The engines behind the door: each can say early that it cannot do a scene, and shoot it.

An engine knows nothing of files, metadata and remaining time. Its libraries are imported when it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.a2.options import A2Options
from engine.memory.model_cache import Garage
from engine.scene.cast import Member
from engine.scene.scene import Scene

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Clip:
    """What an engine hands back: `count` frames, (H, W, 3) uint8 RGB each, made as they are read; `stage`, what making
    them is called; `note`, what the clip says about how it was made; `notices` for the person, complete when the frames
    have been read."""

    frames: Generator[np.ndarray]
    count: int
    stage: str
    note: str = ""
    notices: Sequence[str] = ()


@dataclass(frozen=True)
class Watch:
    """What an engine is told beside the scene: `tell(stage, step, of, detail)` hears how far it is; `stop` is asked
    often and ends the work with Stopped; `garage` keeps a loaded model for the next clip."""

    a2: A2Options
    tell: Callable[..., None]
    stop: Callable[[], bool] | None
    garage: Garage


@dataclass(frozen=True)
class Engine:
    """`available` raises where the engine cannot run on this machine, `check` where it cannot make this scene: both
    before the work, not after it."""

    available: Callable[[A2Options], None]
    check: Callable[[Scene, A2Options], None]
    shoot: Callable[[Scene, Sequence[Member], Watch], Clip]


def _shoot_draft(scene: Scene, members: Sequence[Member], watch: Watch) -> Clip:
    from engine import draft

    return Clip(draft.frames(scene, members, watch.stop), scene.video.frames, "frames", draft.NOTE)


def _a2_available(options: A2Options) -> None:
    from engine.a2.files import find_checkpoint, read_checkpoint
    from engine.a2.options import check_installed

    check_installed()
    read_checkpoint(find_checkpoint(options.model))


def _check_a2(scene: Scene, options: A2Options) -> None:
    from engine.a2.adapters import check_loras
    from engine.a2.attention import check_attention
    from engine.a2.compute import choose_compute
    from engine.a2.files import find_checkpoint, read_checkpoint
    from engine.a2.options import check_scene, check_speed
    from engine.a2.state import check_target

    check_scene(scene)
    check_speed(options)
    for path in filter(None, (options.save_latents, options.state)):
        check_target(path)
    check_attention(options.attention, choose_compute(options), options.precision)
    if options.loras:
        check_loras(options.loras, read_checkpoint(find_checkpoint(options.model))["transformer"])


def _shoot_a2(scene: Scene, members: Sequence[Member], watch: Watch) -> Clip:
    from engine.a2 import recipe, rescue

    shot = rescue.shoot(scene, members, watch.a2, recipe.Watch(watch.tell, stop=watch.stop), watch.garage)
    return Clip(shot.frames, shot.count, "decoding", notices=shot.notices)


ENGINES: Mapping[str, Engine] = {
    "draft": Engine(lambda _: None, lambda *_: None, _shoot_draft),
    "a2": Engine(_a2_available, _check_a2, _shoot_a2),
}
