"""Many clients at once on this machine: is every accepted clip made, is every refusal explained, does the page answer?

    python tests/bench/load.py [--clients 50] [--clips 2]

Starts Troupe by `launch.py`; clients of Gradio's own kind upload a picture, ask for a draft and poll it, all at once.
Meanwhile the page is asked for five times a second, as before with nobody else there. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import httpx
import psutil

from tests.places import a_place
from tests.served import hero, served

_PAUSE = 0.2  # seconds between two looks at the page
_LONGEST = 420.0  # seconds for all clients together


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--clips", type=int, default=2, help="that each client wants (default: %(default)s)")
    parser.add_argument("--clients-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clients_of:
        if hasattr(os, "nice"):
            os.nice(10)  # the clients of a real server compute elsewhere
        print(json.dumps(crowd(options.clients_of, options.clients, options.clips)))
        return 0
    with a_place() as folder, served(folder / "outputs") as troupe:
        probe(troupe.url, lambda: False, 10)  # warm
        idle = probe(troupe.url, lambda: False, 60)
        command = [sys.executable, __file__, "--clients-of", troupe.url, "--clients", str(options.clients)]
        clients = subprocess.Popen([*command, "--clips", str(options.clips)], stdout=subprocess.PIPE, text=True)
        try:
            loaded = probe(troupe.url, lambda: clients.poll() is not None)
        finally:
            clients.kill()
        seen = json.loads(clients.stdout.read().splitlines()[-1])
        clients.stdout.close()
        server = psutil.Process(troupe.process.pid)
        cpu = [server.cpu_times(), *(each.cpu_times() for each in server.children(recursive=True))]
    result = {
        "bench": "load", "clients": options.clients, **seen, "page_looks": len(loaded),
        "page_ms_p50": [_ms(statistics.median(idle)), _ms(statistics.median(loaded))],
        "page_ms_p95_idle": _ms(p95(idle)), "page_ms_p95_load": _ms(p95(loaded)),
        "ratio_p95": round(p95(loaded) / p95(idle), 1), "page_ms_worst": _ms(max(loaded)),
        "cpu_seconds_server_engine": [round(each.user + each.system, 1) for each in cpu],
    }  # fmt: skip
    print(json.dumps(result))
    whole = seen["accepted"] == seen["done"] and not seen["unexplained"]
    return 0 if whole and seen["done"] == options.clients * options.clips else 1


def probe(url: str, is_over: object, most: int = 10**6) -> list[float]:
    """Ask for the page again and again; the seconds that each answer took."""
    took: list[float] = []
    with httpx.Client(base_url=url, timeout=60) as http:
        while len(took) < most and not is_over():
            begun = time.perf_counter()
            http.get("/").raise_for_status()
            took.append(time.perf_counter() - begun)
            time.sleep(_PAUSE)
    return took


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


# ---------------------------------------------------------------------------
# The clients


def crowd(url: str, count: int, clips: int) -> dict:
    """Let `count` clients make `clips` each, all at once; what they met."""
    met, lock, begun = Counter(), threading.Lock(), time.monotonic()
    refusals: Counter = Counter()
    unexplained: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        picture = hero(Path(folder, "hero.png"))

        def tell(what: str, words: str = "") -> None:
            with lock:
                met[what] += 1
                if what == "refused":
                    refusals[words[:90]] += 1
                if what == "unexplained":
                    unexplained.append(words[:200])

        threads = [
            threading.Thread(target=client, args=(url, number, clips, picture, tell), daemon=True)
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(1.0, _LONGEST - (time.monotonic() - begun)))
        unended = sum(thread.is_alive() for thread in threads)
    return {
        "accepted": met["accepted"], "done": met["done"], "polls": met["polls"], "refused": met["refused"],
        "refusals": dict(refusals.most_common(5)), "unexplained": unexplained[:5], "clients_unended": unended,
        "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def client(url: str, number: int, clips: int, picture: Path, tell: object) -> None:
    """One client: whatever is refused, it asks for again a little later."""
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    dice = random.Random(number)
    try:
        own = Client(url, verbose=False, httpx_kwargs={"timeout": 60})
        made = 0
        while made < clips:
            try:
                given = {"seconds": 1.0, "seed": 100 * number + made, "format": "1:1", "api_name": "/generate"}
                job = own.predict("The hero waves.", [handle_file(str(picture))], [], **given)["job"]
            except AppError as error:
                words = str(error)
                tell("refused" if words.rstrip().endswith(".") and "went wrong" not in words else "unexplained", words)
                time.sleep(1 + 2 * dice.random())
                continue
            tell("accepted")
            while True:
                state = own.predict(job, api_name="/job")
                tell("polls")
                if state["state"] not in ("waiting", "running"):
                    break
                time.sleep(0.5 + dice.random())
            tell("done" if state["state"] == "done" else "unexplained", f"{state['state']}: {state['error']}")
            made += 1
    except Exception as error:
        tell("unexplained", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
