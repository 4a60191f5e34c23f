"""What the tests of several cards share. Not a test file.

python -m tests.crews ...        a process of a crew whose memory runs out once, where TROUPE_TEST_HUNGRY says so
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from engine.a2 import decoding, recipe
from engine.a2.options import A2Options
from engine.a2.parallel import rank, show
from engine.memory.model_cache import ModelCache
from engine.scene.cast import Member
from engine.scene.engine import RunContext
from engine.scene.scene import Scene

ONE_PROCESS = 1e-4  # how far latents may be from those of one process, which has more threads; with as many: not at all
HUNGRY = "TROUPE_TEST_HUNGRY"  # a file: memory runs out in the second process while it decodes, until the file is there


def together(
    cache: ModelCache, scene: Scene, members: Sequence[Member], options: A2Options, folder: Path, **context: object
) -> tuple[np.ndarray, list[np.ndarray], Sequence[str]]:
    """Make a clip with the cards that the options ask for; return its latents, frames and notices."""
    from safetensors.numpy import load_file

    kept = folder / "latents.safetensors"
    how = {"tell": lambda *_: None, "stop": None, **context}
    footage = show.shoot(scene, members, RunContext(replace(options, save_latents=kept), cache=cache, **how))
    frames = list(footage.frames)
    assert len(frames) == footage.count
    return load_file(kept)["latents"], frames, footage.notices


def alone(scene, members, options) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """Make a clip in this process; return its latents, frames and notices."""
    shot = recipe.shoot(scene, members, replace(options, cards=None))
    return shot.latents.numpy(), list(shot.frames), list(shot.notices)


def furthest(one: list[np.ndarray], other: list[np.ndarray]) -> int:
    return int(np.abs(np.stack(one).astype(int) - np.stack(other)).max())


def ranks_below(pid: int) -> list[psutil.Process]:
    """The processes of a crew that a process has started, in the order of their ranks."""
    found = []
    for each in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = each.cmdline()
            if "engine.a2.parallel.rank" in command:
                found.append((int(command[-4]), each.pid, each))
    return [each for _, _, each in sorted(found, key=lambda one: one[:2])]


def all_gone(processes: Sequence[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


def main() -> None:
    """Be a process of a crew; the second one has no memory for its tile, once."""
    enlarge, here = decoding._enlarge_tile, Path(os.environ[HUNGRY])

    def hungry(*how):
        if sys.argv[2] == "1" and not here.exists():
            here.touch()
            raise MemoryError
        return enlarge(*how)

    decoding._enlarge_tile = hungry
    rank.main(sys.argv[1:])


if __name__ == "__main__":
    main()
