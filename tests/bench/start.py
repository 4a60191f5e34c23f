"""How long until the page answers: `python launch.py` (second start) against a bare Gradio hello-world.

Both run in the same environment and take turns. Prints one JSON line; the goal is a ratio of at most 1.3.

    python tests/bench/start.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
HELLO = """
import os, sys
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
import gradio
gradio.Interface(lambda name: f"Hello {name}", "text", "text").launch(server_port=int(sys.argv[1]), quiet=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    # From the Python below .venv, as a person starts it: the way into .venv is a part of the start.
    outer = sys.executable if os.name == "nt" else getattr(sys, "_base_executable", sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        page = [outer, str(REPO / "launch.py"), "--no-browser", "--outputs", folder, "--port"]
        hello = [sys.executable, "-c", HELLO]
        seconds_until_page(page, folder), seconds_until_page(hello, folder)  # files into the cache, stamp written
        pairs = [(seconds_until_page(page, folder), seconds_until_page(hello, folder)) for _ in range(repeats)]
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(json.dumps({
        "bench": "start", "launch_s": round(ours, 2), "hello_world_s": round(bare, 2), "ratio": round(ours / bare, 2),
        "ratio_of_the_fastest": round(min(a for a, _ in pairs) / min(b for _, b in pairs), 2),
        "goal_ratio": 1.3, "repeats": repeats, "pairs_s": [[round(a, 2), round(b, 2)] for a, b in pairs],
        "python": sys.version.split()[0], "cores": os.cpu_count(),
    }))  # fmt: skip


def seconds_until_page(command: list[str], folder: str) -> float:
    """From the process's start to the first HTTP 200."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    with open(Path(folder) / "log", "w+", encoding="utf-8") as log:
        process = subprocess.Popen([*command, str(port)], stdout=log, stderr=log, cwd=folder, env=environment)
        try:
            while not answers(port):
                if process.poll() is not None or time.perf_counter() - start > 120:
                    log.seek(0)
                    raise SystemExit(f"the page did not come up: {log.read()[-800:]}")
                time.sleep(0.01)
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
