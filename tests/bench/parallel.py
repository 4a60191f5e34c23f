"""One clip by one, two and four processes on this machine's processor, and what it costs them to agree.

    python tests/bench/parallel.py [WIDTH HEIGHT FRAMES]

Prints one JSON line. `clips`: for each number of processes how they share the clip, the seconds until the first step,
of a step (the median), and of decoding, and the memory of all of them (MB); in turns, the better of two, of a second
clip. `agree`: the microseconds of asking all whether to stop, waiting for the answer and not waiting for it.

The model is the tiny one of the tests: its sums are so small that talking weighs more than it ever would on a card, and
the processors are the same few for all. So this says what is lost to talking, and nothing about cards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the tests do: threads that turn in circles take the processor

STEPS = 6
ROUNDS = 500  # of asking


def one_clip(cards: int, video: dict[str, int]) -> dict[str, Any]:
    """Make the clip twice with so many processes, and measure the second one."""
    from engine.a2 import rescue
    from engine.a2.parallel import show
    from engine.a2.recipe import Callbacks
    from engine.memory.host import own_bytes
    from engine.memory.model_cache import ModelCache
    from engine.scene.engine import RunContext
    from tests.tiny import OPTIONS, TRIO, a_scene, members_of

    scene = a_scene(TRIO, video=video, sampling={"steps": STEPS, "guidance": 3.0, "seed": 5})
    cache, options = ModelCache(), replace(OPTIONS, cards=cards)
    begun = time.perf_counter()
    met = how = None
    for _ in range(2):
        at: list[float] = []

        def tell(stage: str, step: int, of: int, detail: str = "", at: list[float] = at) -> None:
            if stage == "sampling":
                at.append(time.perf_counter())

        if cards == 1:
            shot = rescue.shoot(scene, members_of(scene), options, Callbacks(tell), cache)
        else:
            shot = show.shoot(scene, members_of(scene), RunContext(options, tell, None, cache))
        met = met or at[0] - begun
        decoding = time.perf_counter()
        list(shot.frames)
        decoding = time.perf_counter() - decoding
        how = shot.notices[0] if cards > 1 else "one process"
    memory = own_bytes() if cards == 1 else cache.held[1]
    cache.release()
    steps = [after - before for before, after in pairwise(at)]
    return {
        "how": how, "until_first_step": round(met or 0, 1), "step": round(median(steps), 3),
        "decoding": round(decoding, 2), "memory_mb": memory >> 20,
    }  # fmt: skip


def agree(rank: int, size: int, place: str) -> None:
    """Be one process that asks; the first prints the microseconds of both ways."""
    from engine.a2.parallel.agree import Agreement
    from engine.a2.parallel.company import Meeting

    agreement = Agreement(Meeting(rank, size, "cpu", place).talk)
    took = []
    for ask in (agreement.any, agreement.any_before):
        begun = time.perf_counter()
        for _ in range(ROUNDS):
            ask(False)
            if ask == agreement.any_before:
                time.sleep(0.002)  # a block
        took.append(1e6 * (time.perf_counter() - begun) / ROUNDS)
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        time.sleep(0.002)
    slept = 1e6 * (time.perf_counter() - begun) / ROUNDS
    if rank == 0:
        print(json.dumps({"waiting": round(took[0]), "not_waiting": round(took[1] - slept)}))
    sys.stdout.flush()
    agreement.any(False)
    os._exit(0)


def asked(size: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        commands = [[sys.executable, __file__, "agree", str(i), str(size), f"{folder}/meeting"] for i in range(size)]
        ranks = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in commands]
        said = [each.communicate()[0] for each in ranks]
    return json.loads(said[0].splitlines()[-1])


def main(argv: list[str]) -> None:
    width, height, frames = map(int, argv or (320, 192, 17))
    video = {"width": width, "height": height, "frames": frames, "trim_head": 0}
    clips: dict[int, dict[str, Any]] = {}
    for _ in range(2):
        for cards in (1, 2, 4):
            command = [sys.executable, __file__, "clip", str(cards), json.dumps(video)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            if cards not in clips or found["step"] < clips[cards]["step"]:
                clips[cards] = found
    print(json.dumps({"clip": video, "clips": clips, "agree": {size: asked(size) for size in (2, 4)}}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["clip"]:
        print(json.dumps(one_clip(int(sys.argv[2]), json.loads(sys.argv[3]))))
    elif sys.argv[1:2] == ["agree"]:
        agree(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        main(sys.argv[1:])
