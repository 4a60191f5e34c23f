"""Troupe as a person starts it, by `launch.py`, in a process of its own. Not a test file: tests and benches use it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
_PATIENCE = 300.0  # seconds until the page is open


@dataclass
class Served:
    """Where it is, its process, and all that it has said so far."""

    url: str
    process: subprocess.Popen
    said: list[str] = field(default_factory=list)


@contextmanager
def served(
    outputs: Path | None,
    *flags: str,
    port: int = 0,
    project: Path = ROOT,
    through: Sequence[str] = (),
    **environment: str | None,
) -> Iterator[Served]:
    """Start it and wait until the page is open; it is ended with the block. Without `outputs` it takes its own, with a
    `port` below 0 it looks for one by itself. `through`: a script and its arguments that starts it in turn. A variable
    of the environment that is None is left out."""
    number = ["--port", str(port or free_port())] if port >= 0 else []
    where = ["--outputs", str(outputs)] if outputs is not None else []
    command = [sys.executable, str(project / "launch.py"), "--no-browser", *number, *where, *flags]
    if through:
        command = [sys.executable, *through, *command]
    wanted = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        encoding="utf-8", errors="replace", env={name: value for name, value in wanted.items() if value is not None},
    )  # fmt: skip
    found, is_open = Served("", process), threading.Event()

    def listen() -> None:
        for line in process.stdout:
            found.said.append(line.rstrip("\n"))
            if match := re.match(r"Troupe is open at (\S+)", line):
                found.url = match[1]
                is_open.set()
        is_open.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        if not is_open.wait(_PATIENCE) or not found.url:
            raise AssertionError("the page did not open:\n" + "\n".join(found.said))
        yield found
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        listener.join(60)
        process.stdout.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def kept_port() -> Iterator[int]:
    """A free port that a server can listen on inside the block, and that nobody else is given until then."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        if not sys.platform.startswith("linux"):  # elsewhere only one may have it, or anybody
            holder.close()
        yield port


def hero(path: Path) -> Path:
    """A small picture that is its own cut-out."""
    picture = Image.new("RGBA", (120, 240), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rounded_rectangle((30, 10, 90, 230), 30, fill=(200, 60, 90, 255))
    picture.save(path)
    return path
