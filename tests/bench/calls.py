"""What calls and clips leave in the server's memory: many calls of /job, then drafts by clients that ask once and again
how far they are.

    python tests/bench/calls.py [--calls 1000] [--drafts 300] [--clients 8]

Prints one JSON line: the server's resident memory in MB before and after the calls; that of the server and of the
engine's process after the first tenth of the drafts (by then every thread and cache is there) and at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import httpx
import psutil

from tests.places import a_place
from tests.served import hero, served

API = "gradio_api/"
_PATIENCE = 600.0  # seconds for one clip


def call(http: httpx.Client, name: str, *data: object) -> object:
    """What a named endpoint answers."""
    event = http.post(f"{API}call/{name}", json={"data": list(data)}).json()["event_id"]
    return json.loads(http.get(f"{API}call/{name}/{event}").text.rpartition("data: ")[2])


def resident(process: int) -> tuple[float, float]:
    """Resident memory in MB: the server's, and that of the processes that it has started."""
    server = psutil.Process(process)
    engine = sum(each.memory_info().rss for each in server.children(recursive=True))
    return round(server.memory_info().rss / 1e6, 1), round(engine / 1e6, 1)


def settled(process: int) -> float:
    """The server's memory once it has warmed up: the cut-out model is loaded a moment after the page is open."""
    seen = [resident(process)[0]]
    while len(seen) < 6 or max(seen[-5:]) - min(seen[-5:]) > 1:
        time.sleep(1)
        seen.append(resident(process)[0])
    return seen[-1]


class Drafts:
    """Clients that make drafts, one after another each, until `count` are done; the memory after each."""

    def __init__(self, url: str, picture: Path, count: int, server: int) -> None:
        self._url, self._picture, self._left, self._server = url, picture, count, server
        self._lock = threading.Lock()
        self.memory: list[tuple[float, float]] = []
        self.done = 0

    def work(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120, trust_env=False) as http:
            while self._take():
                with self._picture.open("rb") as file:
                    (path,) = http.post(f"{API}upload", files={"files": ("hero.png", file)}).json()
                scene = ["The hero waves.", [{"path": path}], [], None, ["hero"], "16:9", 1.0, 7, "draft"]
                (started,) = call(http, "generate", *scene)
                deadline = time.monotonic() + _PATIENCE
                while (state := call(http, "job", started["job"])[0]["state"]) in ("waiting", "running"):
                    if time.monotonic() > deadline:
                        raise SystemExit("a clip does not end")
                    time.sleep(0.2)
                with self._lock:
                    self.done += state == "done"
                    self.memory.append(resident(self._server))

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--drafts", type=int, default=300)
    parser.add_argument("--clients", type=int, default=8)
    wanted = parser.parse_args()
    with a_place() as place, served(place / "outputs") as found:
        server = found.process.pid
        with httpx.Client(base_url=found.url, timeout=120, trust_env=False) as http:
            for _ in range(20):  # what the first of anything brings with it
                call(http, "job", "0" * 32)
            before = settled(server)
            for _ in range(wanted.calls):
                call(http, "job", "0" * 32)
            after, _ = resident(server)
        drafts = Drafts(found.url, hero(place / "hero.png"), wanted.drafts, server)
        threads = [threading.Thread(target=drafts.work) for _ in range(wanted.clients)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - began
    few, all_ = drafts.memory[len(drafts.memory) // 10], drafts.memory[-1]
    print(json.dumps({
        "bench": "calls", "calls": wanted.calls, "before": before, "after": after, "grown": round(after - before, 1),
        "drafts": wanted.drafts, "done": drafts.done, "seconds": round(seconds, 1), "first": drafts.memory[0],
        "few": few, "all": all_, "server_ratio": round(all_[0] / few[0], 3), "engine_ratio": round(all_[1] / few[1], 3),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
