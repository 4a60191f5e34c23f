"""Kill Troupe's job board again and again, and look at what is left. Not a test file: tests and a bench use it.

    python -m tests.kill OUTPUTS COUNT ENGINE

is the victim: it sees to it that COUNT jobs are in the store, resumes what was interrupted, works all of it off and
says on every line what just happened. After each it waits for a line: whoever wants to kill it at one cannot be too
late, however busy the machine is.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
FINISHED = 0
_PATIENCE = 240.0  # seconds for one life of the victim; it needs a few


@dataclass
class Tally:
    """What was seen over all lives: `told` are the jobs that were accepted; `steps` the first sampling step of every
    run of the model, `where` the stages in which it was killed."""

    kills: int = 0
    lives: int = 0
    told: set[str] = field(default_factory=set)
    steps: list[int] = field(default_factory=list)
    where: Counter = field(default_factory=Counter)


def work_off(outputs: Path, count: int, engine: str, kills: int = 0, seed: int = 0, moment: str = "") -> Tally:
    """Let the victim work until all jobs are done; it is killed up to `kills` times on the way, at random moments, or
    when it says the line `moment`."""
    tally, dice = Tally(), random.Random(seed)
    while True:
        end = None
        if tally.kills < kills:
            end = (lambda line: line == moment) if moment else _after(dice.randint(0, 60))
        tally.lives += 1
        if _live([str(outputs), str(count), engine], end, None if moment else dice, tally):
            return tally


def _after(lines: int) -> Callable[[str], bool]:
    """So many lines later."""

    def due(_: str) -> bool:
        nonlocal lines
        lines -= 1
        return lines < 0

    return due


def _live(arguments: list[str], end: Callable[[str], bool] | None, later: random.Random | None, tally: Tally) -> bool:
    """One life; it is killed at the line for which `end` says so, or up to a few lines `later`. Returns whether it came
    to its end."""
    command = [sys.executable, "-m", "tests.kill", *arguments]
    victim = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(_PATIENCE, victim.kill)
    watchdog.start()
    try:
        last, killed = "start", False
        for line in victim.stdout:
            what, _, rest = line.strip().partition(" ")
            last = rest.split(" ")[0] if what == "at" else what
            if what == "accepted":
                tally.told.add(rest)
            elif what == "first-step":
                tally.steps.append(int(rest))
            if end is not None and end(line.strip()):
                if later is not None:
                    _let_go_on(victim, later.randint(0, 3))
                    time.sleep(later.random() * 0.03)
                victim.kill()
                killed = True
                break
            _let_go_on(victim)
        status = victim.wait()
        if killed and status != FINISHED:
            tally.kills += 1
            tally.where[last] += 1
        elif status != FINISHED:
            raise AssertionError(f"the victim ended with {status} although nobody killed it")
        return status == FINISHED
    finally:
        watchdog.cancel()
        victim.kill()
        victim.wait()
        for pipe in (victim.stdin, victim.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def _let_go_on(victim: subprocess.Popen, lines: int = 1) -> None:
    with contextlib.suppress(OSError):  # it has ended
        victim.stdin.write("\n" * lines)
        victim.stdin.flush()


def faults(outputs: Path, tally: Tally, count: int) -> list[str]:
    """What is wrong with the outputs after all jobs were worked off; empty where nothing is."""
    from app.jobs.queue import DONE, JobQueue

    board = JobQueue(outputs, None)
    try:
        jobs = board.history(limit=1000)
    finally:
        board.close()
    found = [f"{job.id} is {job.state}: {_last_line(outputs, job.id)}" for job in jobs if job.state != DONE]
    found += [f"{lost} was promised and is lost" for lost in tally.told - {job.id for job in jobs}]
    found += [f"{len(jobs)} jobs instead of {count}"] if len(jobs) != count else []
    for job in jobs:
        times = (job.clip.parent / "job.log").read_text(encoding="utf-8").count(" done\n") if job.clip else 1
        found += [f"{job.id} was made {times} times"] if times > 1 else []
    folders = list((outputs / "clips").iterdir())
    known = {job.clip.parent for job in jobs if job.clip}
    found += [f"{folder.name} belongs to no job" for folder in folders if folder not in known]
    for job in jobs:
        if job.clip:
            expected = {"hero.png", "place.png", "scene.json", "job.json", "job.log", "preview.webp", job.clip.name}
            found += [f"{path.name} was left" for path in job.clip.parent.iterdir()
                      if path.name not in expected | {job.clip.with_suffix(".jpg").name}]  # fmt: skip
    return found


def _last_line(outputs: Path, job: str) -> str:
    logs = list(outputs.glob(f"clips/*_{job}/job.log"))
    return (logs[0].read_text(encoding="utf-8").splitlines() or [""])[-1] if logs else "no log"


def frames_by_seed(outputs: Path) -> dict[int, str]:
    """For every clip the digest of its frames."""
    from app.jobs.queue import JobQueue
    from engine.media.video import read_frames

    board = JobQueue(outputs, None)
    try:
        jobs = board.history(limit=1000)
    finally:
        board.close()
    digests = {}
    for job in (job for job in jobs if job.clip):
        digest = hashlib.sha256()
        for frame in read_frames(job.clip):
            digest.update(np.ascontiguousarray(frame).tobytes())
        digests[job.seed] = digest.hexdigest()
    return digests


# ---------------------------------------------------------------------------
# The victim


def main(outputs: Path, count: int, engine: str, heard: Callable[[], object] = lambda: None) -> int:
    """Work the jobs off; after every line it is waited until it was `heard`."""
    from app.jobs.queue import INTERRUPTED, JobQueue
    from engine.door import render as door

    speaking = threading.Lock()  # the first job begins while the next one is still taken in

    def tell_all(line):
        with speaking:
            say(line)
            heard()

    def render(request, on_progress=None, stop=None):
        seen = set()

        def tell(progress):
            if progress.stage == "sampling" and "sampling" not in seen:
                tell_all(f"first-step {progress.step}")
            seen.add(progress.stage)
            tell_all(f"at {progress.stage} {progress.step}")
            on_progress(progress)

        return door.render(request, tell, stop)

    board = JobQueue(outputs, render, per_desk=count, in_all=count)
    try:
        jobs = [*board.queue(), *board.history(limit=count)]
        for job in jobs:
            if job.state == INTERRUPTED:
                tell_all(f"resume {job.id}")
                board.resume(job.id)
        taken = {job.seed for job in jobs}
        for seed in range(count):
            if seed not in taken:
                tell_all(f"accepted {submit(board, seed, engine)}")
        board.start()
        while board.queue():
            time.sleep(0.02)
    finally:
        board.close()
    return FINISHED


def submit(board, seed: int, engine: str, owner: str = "desk") -> str:
    from engine.a2.options import A2Options
    from engine.door.render import RenderRequest
    from engine.scene.scene_file import scene_from_data

    video = {"width": 64, "height": 64, "frames": 9, "trim_head": 0} if engine == "a2" else {
        "width": 192, "height": 128, "frames": 30, "fps": 10}  # fmt: skip
    scene = scene_from_data(
        {"engine": engine, "prompt": "Mia waves.", "video": video, "sampling": {"steps": 8, "seed": seed},
         "cast": [{"role": "character", "name": "Mia", "image": "hero.png"},
                  {"role": "background", "image": "place.png"}]}
    )  # fmt: skip
    job_id, folder = board.new_folder("clip")
    try:
        hero = Image.new("RGBA", (120, 160), (0, 0, 0, 0))
        ImageDraw.Draw(hero).ellipse((30, 20, 90, 150), fill=(200, 60, 60 + seed, 255))
        hero.save(folder / "hero.png")
        Image.new("RGB", (96, 64), (60, 90, 140)).save(folder / "place.png")
        tiny = A2Options(model=str(ROOT / "tests" / "fixtures" / "a2_tiny"), device="cpu", precision="fp32")
        request = RenderRequest(scene, folder, folder / f"clip_{seed}.mp4", confined=True, options=tiny)
        board.submit(job_id, folder, owner, request)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return job_id


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.stdin.buffer.readline))
