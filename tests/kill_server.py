"""Kill the served Troupe again and again: its engine's process, the server, or both. Not a test file: tests and a bench
use it.

    python -m tests.kill_server OUTPUTS COUNT ENGINE

is the victim: the whole server, page and engine process included. It sees to it that COUNT jobs are in the store, lets
go on what was cut off or failed because the engine was killed, and says on every line what just happened.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import kill
from tests.kill import ROOT, say

ENGINE, SERVER, BOTH = "engine", "server", "both"
_PATIENCE = 300.0  # seconds without a word from the victim
_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows SIGTERM is TerminateProcess


@dataclass
class Tally(kill.Tally):
    """`of` counts what was killed: engine, server or both."""

    of: Counter = field(default_factory=Counter)


def work_off(outputs: Path, count: int, engine: str, targets: Sequence[str], seed: int = 0) -> Tally:
    """Let the victim work until all jobs are done; on the way each of `targets` is killed in turn, at random moments.
    What is left when the jobs are done too early is killed in vain: in the idle server."""
    tally, dice, left = Tally(), random.Random(seed), list(targets)
    while _live([str(outputs), str(count), engine], tally, dice, left):
        pass
    return tally


def _live(arguments: list[str], tally: Tally, dice: random.Random, left: list[str]) -> bool:
    """One life of the server; whether there has to be another one."""
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.kill_server", *arguments], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    tally.lives += 1
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(victim, lines), daemon=True)
    listener.start()
    try:
        pids: dict[str, int] = {SERVER: victim.pid}
        last, stage, due = "start", *_moment(dice, arguments[2])
        while True:
            line = lines.get(timeout=_PATIENCE)
            if line is None:
                raise AssertionError(f"the server ended with {victim.wait()} although nobody killed it")
            what, _, rest = line.partition(" ")
            if what == "accepted":
                tally.told.add(rest)
            elif what == "engine":
                pids[ENGINE] = int(rest)
            elif what == "at":
                last = rest.split(" ")[0]
            elif what == "finished" and not left:
                victim.stdin.close()  # it ends in peace
                if victim.wait(_PATIENCE) != kill.FINISHED:
                    raise AssertionError(f"the server ended with {victim.returncode}")
                return False
            due -= line.startswith(f"at {stage}" if stage else "")
            if left and (due < 0 or what == "finished") and (ENGINE in pids or left[0] == SERVER):
                time.sleep(dice.random() * (0.02 if stage else 0.15))
                target, tally.kills = left.pop(0), tally.kills + 1
                stage, due = _moment(dice, arguments[2])
                tally.of[target] += 1
                tally.where[last if what != "finished" else "idle"] += 1
                for name in (SERVER, ENGINE) if target == BOTH else (target,):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pids.pop(name), _SIGKILL)
                if target != ENGINE:
                    return True
    finally:
        victim.kill()
        victim.wait()
        listener.join(60)
        for pipe in (victim.stdin, victim.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def _listen(victim: subprocess.Popen, lines: queue.SimpleQueue) -> None:
    for line in victim.stdout:
        lines.put(line.strip())
    lines.put(None)


def _moment(dice: random.Random, engine: str) -> tuple[str, int]:
    """When to kill: so many lines from now; of the model mostly in the middle of its steps, which pass in a blink."""
    if engine == "a2" and dice.random() < 0.7:
        return "sampling", dice.randint(0, 4)
    return "", dice.randint(1, 9)


def runs_kept(outputs: Path) -> int:
    """How many runs went on from the steps of an earlier one."""
    return sum(log.read_text(encoding="utf-8").count(" goes on: ") for log in outputs.glob("clips/*/job.log"))


# ---------------------------------------------------------------------------
# The victim


def main(outputs: Path, count: int, engine: str) -> int:
    from app.jobs.queue import FAILED, INTERRUPTED
    from app.server import launch, open_house
    from tests.served import free_port

    house = open_house(outputs)
    blocks = launch(outputs, house, server_name="127.0.0.1", server_port=free_port(), inbrowser=False)
    over, board = threading.Event(), house.jobs
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    try:
        taken = {job.seed for job in [*board.queue(), *board.history(limit=count)]}
        for seed in range(count):
            if seed not in taken:
                say(f"accepted {kill.submit(board, seed, engine, owner=f'desk {seed}')}")
        seen = ""
        while not over.is_set():
            jobs = board.queue()
            for job in board.history(limit=count):
                if job.state == INTERRUPTED or (job.state == FAILED and "the engine" in job.error):
                    board.resume(job.id)
            at = " ".join(f"{job.stage or 'begin'} {job.step}" for job in jobs if job.state == "running")
            child = house.engine._child
            if not jobs and child is not None and not child.is_alive():  # killed in vain: the next one is warm, too
                house.engine.start()
                child = house.engine._child
            alive = child is not None and child.is_alive()
            now = f"at {at.strip() or 'queue'}\n" + (f"engine {child.pid}" if alive else "")
            if now != seen:
                seen = now
                say(now.strip())
            if not jobs and not board.queue():
                say("finished")
                time.sleep(0.5)
            time.sleep(0.02)
    finally:
        blocks.close(verbose=False)
        house.close()
    return kill.FINISHED


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
