"""A model hub for the tests: as much of the protocol as a download needs; it counts what it sends, and misbehaves."""

from __future__ import annotations

import hashlib
import json
import re
import select
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TINY = Path(__file__).parent / "fixtures" / "a2_tiny"
MODEL = "someone/tiny-a2"
COMMIT = "c0ffee" + "0" * 34
EXTRAS = {
    "README.md": b"# A model\n",
    "assets/demo.mp4": b"\0" * 50_000,
    "transformer/diffusion_pytorch_model.bin": b"\1" * 40_000,
    "vae/diffusion_pytorch_model.fp16.safetensors": b"\2" * 30_000,
}  # what the engine does not need


class FakeHub:
    """One repository, and `others` by name and path. `sent` counts the bytes of each file that went out; `asked` the
    requests, with their headers.

    `cut` maps a path to the body sizes after which its connections are cut, one each; `gate` is an event for which all
    that follows the first `before_gate` bytes of a large file waits, on whichever connection; `spoil` maps a path to
    how often its bytes come wrong; `refuse` is a (status, X-Error-Code) for everything.
    """

    def __init__(self) -> None:
        self.files = {
            path.relative_to(TINY).as_posix(): path.read_bytes() for path in sorted(TINY.rglob("*")) if path.is_file()
        } | EXTRAS
        self.others: dict[str, dict[str, bytes]] = {}
        self.sent: Counter[str] = Counter()
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.cut: dict[str, list[int]] = {}
        self.spoil: Counter[str] = Counter()
        self.busy = 0  # answers of 503 before the first good one
        self.gate: threading.Event | None = None
        self.before_gate = 130_000  # three files are larger: fewer than come at once
        self.refuse: tuple[int, str] | None = None
        self.ranges = True
        self.url = ""
        self.lock = threading.Lock()  # of what several answers change

    @property
    def needed(self) -> dict[str, bytes]:
        """The files that the engine reads."""
        extra = {*EXTRAS, "model_index.json", "scheduler/scheduler_config.json"}
        return {path: data for path, data in self.files.items() if path not in extra}

    @property
    def bytes(self) -> int:
        """What a whole download takes."""
        return sum(map(len, self.needed.values()))

    def of(self, model: str) -> dict[str, bytes] | None:
        """The files of a repository."""
        return self.files if model == MODEL else self.others.get(model)

    def info(self, model: str = MODEL) -> dict[str, Any]:
        siblings = []
        for path, data in (self.of(model) or {}).items():
            entry: dict[str, Any] = {"rfilename": path, "size": len(data)}
            entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if path.endswith(("safetensors", "mp4", "bin")):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        return {"id": model, "modelId": model, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}


_LISTING = re.compile(rf"/api/models/([^/]+/[^/]+)/revision/(?:main|{COMMIT})")
_RESOLVE = re.compile(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)")
_CDN = re.compile(r"/cdn/([^/]+/[^/]+)/(.+)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((path, dict(self.headers)))
        if hub.refuse:
            self._answer(hub.refuse[0], b"", {"X-Error-Code": hub.refuse[1]})
        elif (asked := _LISTING.fullmatch(path)) and hub.of(asked[1]) is not None:
            self._answer(200, json.dumps(hub.info(asked[1])).encode(), {"Content-Type": "application/json"})
        elif (asked := _RESOLVE.fullmatch(path)) and (files := hub.of(asked[1])) is not None:
            self._file(files, asked[2], f"{hub.url}/cdn/{asked[1]}/{asked[2]}")
        elif asked := _CDN.fullmatch(path):
            self._file(hub.of(asked[1]) or {}, asked[2], "")
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _file(self, files: dict[str, bytes], path: str, elsewhere: str) -> None:
        hub = self.hub
        data = files.get(path)
        if data is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        with hub.lock:
            is_busy = hub.busy > 0
            hub.busy -= is_busy
        if is_busy:
            self._answer(503, b"", {})
            return
        if elsewhere and path.endswith("safetensors"):  # as the real one sends large files to another host
            self._answer(302, b"", {"Location": elsewhere, "X-Repo-Commit": COMMIT})
            return
        start = 0
        if hub.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if hub.spoil[path]:
            hub.spoil[path] -= 1
            data = bytes(len(data))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        stop = len(data)
        if hub.cut.get(path):
            stop = min(stop, start + hub.cut[path].pop(0))
        held_back = max(0, hub.before_gate - start) if len(data) > hub.before_gate else stop
        self._send(path, data[start:stop], held_back)
        if stop < len(data):
            self.close_connection = True

    def _send(self, path: str, body: bytes, before_gate: int) -> None:
        hub = self.hub
        first = body[:before_gate] if hub.gate else body
        for piece in (first, body[len(first) :]):
            if not piece:
                continue
            if piece is not first and hub.gate:
                hub.gate.wait(600)
                if self._has_hung_up():
                    self.close_connection = True
                    return
            with hub.lock:  # before they have it: who has the last byte may ask at once how many were sent
                hub.sent[path] += len(piece)
            try:
                self.wfile.write(piece)
            except OSError:  # they have hung up
                with hub.lock:
                    hub.sent[path] -= len(piece)
                self.close_connection = True
                return

    def _has_hung_up(self) -> bool:
        """A write would tell only the second time."""
        try:
            says, _, _ = select.select([self.connection], [], [], 0)
            return bool(says) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *whose: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # who is killed hangs up in the middle
            super().handle_error(*whose)


@contextmanager
def serving_hub() -> Iterator[FakeHub]:
    """A hub on a free port of this machine, until the block ends."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        if hub.gate:
            hub.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
