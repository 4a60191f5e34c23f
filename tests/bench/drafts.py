"""Whether memory stays flat over many drafts, in the server and in the engine's process.

    python tests/bench/drafts.py [--jobs 200]

Starts Troupe by `launch.py` and makes one draft after another over its API. Prints one JSON line: resident memory after
a tenth of the jobs and after all of them, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import psutil

from tests.places import a_place
from tests.served import hero, served


def main() -> int:
    from gradio_client import Client, handle_file

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=200)
    jobs = parser.parse_args().jobs
    begun, seen = time.monotonic(), {}
    with a_place() as folder, served(folder / "outputs") as troupe:
        picture, client = hero(Path(folder, "hero.png")), Client(troupe.url, verbose=False)
        for number in range(1, jobs + 1):
            given = {"seconds": 1.0, "seed": number, "format": "1:1", "api_name": "/generate"}
            job = client.predict("The hero waves.", [handle_file(str(picture))], [], **given)["job"]
            while (state := client.predict(job, api_name="/job"))["state"] in ("waiting", "running"):
                time.sleep(0.1)
            assert state["state"] == "done", state
            if number in (jobs // 10, jobs // 2, jobs):
                time.sleep(2)  # what is freed after an answer has been freed
                seen[number] = memory(troupe.process.pid)
        few, all_ = seen[jobs // 10], seen[jobs]
    print(
        json.dumps(
            {"bench": "drafts", "jobs": jobs, "mb": seen, "server_ratio": round(all_["server"] / few["server"], 3),
             "engine_ratio": round(all_["engine"] / few["engine"], 3),
             "seconds": round(time.monotonic() - begun, 1)}
        )
    )  # fmt: skip
    return 0


def memory(process: int) -> dict[str, float]:
    """Resident memory in MB of the server and of the processes that it has started."""
    server = psutil.Process(process)
    engine = sum(each.memory_info().rss for each in server.children(recursive=True))
    return {"server": round(server.memory_info().rss / 1e6, 1), "engine": round(engine / 1e6, 1)}


if __name__ == "__main__":
    sys.exit(main())
