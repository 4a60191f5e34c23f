"""Whether anything is lost when Troupe is killed, over many rounds.

    python tests/bench/kill.py [--rounds 20] [--engine draft|a2] [--server] [--seed N]

The job board with the engine inside it; with `--server` the whole served page, whose engine process, server or both
are killed. Prints one JSON line: how often it was killed and in which stages, and every fault found: jobs lost, made
twice, other frames than an undisturbed run's, files left behind. Of the a2 engine: at which steps the runs began, or
how many went on from saved steps (`went_on`).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests import kill, kill_server
from tests.places import a_place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="how often to kill (default: %(default)s)")
    parser.add_argument("--engine", choices=("draft", "a2"), default="draft")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="for the moments")
    parser.add_argument("--server", action="store_true", help="the served page with its engine process")
    options = parser.parse_args()
    begun, count = time.monotonic(), min(30, max(3, options.rounds))
    with a_place() as folder:
        calm, wild = Path(folder, "calm"), Path(folder, "wild")
        kill.work_off(calm, count, options.engine)
        if options.server:
            dice = random.Random(options.seed)
            whom = [kill_server.ENGINE, kill_server.SERVER, kill_server.BOTH]
            targets = [whom[number % 3] for number in range(options.rounds)]
            dice.shuffle(targets)
            tally = kill_server.work_off(wild, count, options.engine, targets, options.seed)
            more = {"of": dict(tally.of), "went_on": kill_server.runs_kept(wild)}
        else:
            tally = kill.work_off(wild, count, options.engine, options.rounds, options.seed)
            more = {"first_steps": tally.steps}
        found = kill.faults(wild, tally, count)
        same = kill.frames_by_seed(wild) == kill.frames_by_seed(calm)
    print(
        json.dumps(
            {"bench": "kill", "engine": options.engine, "seed": options.seed, "jobs": count, "kills": tally.kills,
             "where": dict(tally.where), "lives": tally.lives, **more, "faults": found, "same_frames": same,
             "seconds": round(time.monotonic() - begun, 1)}
        )
    )  # fmt: skip
    return 0 if same and not found else 1


if __name__ == "__main__":
    sys.exit(main())
