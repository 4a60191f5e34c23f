"""A Troupe that is its owner's alone: what other pages, programs and people of the same machine can do with it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from PIL import Image

from app.guard.access import Terms, decide
from app.guard.connections import MOST, PATIENCE, Connections
from app.guard.guard import Guard
from app.guard.middleware import GuardMiddleware
from app.guard.process import quiet_libtiff, raise_handles
from tests.guests import API, LONG, picture
from tests.live import Live, serving
from tests.served import served
from tests.waits import until


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("home") / "outputs") as found:
        yield found


def get(live: Live, path: str = "config", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(f"{live.url}{path}", headers=named, timeout=LONG)


# ---------------------------------------------------------------------------
# Other pages in the same browser


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_a_page_of_another_port_of_this_machine_is_another_sites(live, site):
    assert get(live, sec_fetch_site=site, sec_fetch_mode="cors").status_code == 403
    sent = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    assert httpx.post(f"{live.url}{API}queue/join", json={}, headers=sent, timeout=LONG).status_code == 403


def test_where_a_browser_does_not_say_from_where_it_asks_its_origin_does(live):
    """As it does not at a plain address of the network."""
    for origin in ("http://evil.example", "null", live.url.rstrip("/").replace(str(live.blocks.server_port), "8130")):
        upload = {"files": ("a.png", b"x")}
        answer = httpx.post(f"{live.url}{API}upload", files=upload, headers={"origin": origin}, timeout=LONG)
        assert answer.status_code == 403, origin
    assert get(live, origin=live.url.rstrip("/")).status_code == 200


def test_who_leaves_in_the_middle_of_an_upload_leaves_no_trace_on_the_console(live, caplog):
    head = (
        f"POST /{API}upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        'Content-Length: 5000000\r\n\r\n--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    with caplog.at_level("ERROR"):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", live.blocks.server_port)) as line:
                line.sendall(head.encode() + b"x" * 100_000)
                time.sleep(0.2)
        uploads = live.outputs / "uploads"
        deadline = time.monotonic() + 120
        while list(uploads.glob("tmp*")) and time.monotonic() < deadline:  # what had come of it is thrown away
            time.sleep(0.1)
        assert get(live).status_code == 200
    assert [record for record in caplog.records if record.exc_info] == []


def test_the_page_itself_a_link_to_it_and_a_program_come_in(live):
    assert get(live, sec_fetch_site="same-origin", sec_fetch_mode="cors").status_code == 200
    assert get(live, "", sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document").is_success
    assert get(live).status_code == 200


@pytest.mark.parametrize("dest", ["iframe", "frame", "embed", "object"])
def test_troupe_opens_in_no_other_sites_page(live, dest):
    framed = get(live, "", sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest=dest)
    assert framed.status_code == 403
    headers = get(live, "").headers
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]


def test_on_a_space_the_page_stands_in_a_frame_of_its_host(tmp_path):
    access = decide(Terms(), {}, {"SPACE_ID": "me/troupe"})
    sent: list[dict] = []

    async def page(scope: dict, receive: object, send: Callable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: dict) -> None:
        sent.append(message)

    frame = {"sec-fetch-dest": "iframe", "sec-fetch-mode": "navigate", "sec-fetch-site": "cross-site"}
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "client": ("10.0.0.1", 0),
             "headers": [(name.encode(), value.encode()) for name, value in frame.items()]}  # fmt: skip
    asyncio.run(GuardMiddleware(page, Guard(access, tmp_path))(scope, None, send))
    assert sent[0]["status"] == 200
    assert b"x-frame-options" not in dict(sent[0]["headers"])


@pytest.mark.parametrize(
    "name", ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "via", "x-real-ip"]
)
def test_what_comes_through_a_proxy_is_told_how_to_be_let_in(live, name):
    said = httpx.get(live.url, headers={name: "203.0.113.7"}, timeout=LONG)
    assert (said.status_code, "--host or --share" in said.text) == (403, True)


# ---------------------------------------------------------------------------
# Other people on the same machine


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights in another way")
def test_what_is_made_is_for_nobody_else_on_this_machine(tmp_path):
    before = os.umask(0o022)
    try:
        with serving(tmp_path / "outputs") as live:
            (path,) = httpx.post(f"{live.url}{API}upload", files={"files": ("a.png", picture())}, timeout=LONG).json()
            call = f"{live.url}{API}call/generate"
            data = ["The hero waves.", [{"path": path}], [], None, None, "16:9", 1.0, 7, "draft"]
            event = httpx.post(call, json={"data": data}, timeout=LONG).json()["event_id"]
            assert '"job"' in httpx.get(f"{call}/{event}", timeout=LONG).text
            until(lambda: list(live.outputs.glob("clips/*/[!.]*.mp4")))
        made = [tmp_path / "outputs", *(tmp_path / "outputs").rglob("*")]
        assert len(made) > 10
        assert [each for each in made if stat.S_IMODE(each.lstat().st_mode) & 0o077] == []
        assert os.umask(0o022) == 0o022  # as it was before
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without a word to it")
def test_sigterm_ends_it_with_its_farewell(tmp_path):
    with served(tmp_path / "outputs") as troupe:
        troupe.process.send_signal(signal.SIGTERM)
        assert troupe.process.wait(LONG) == 0
        until(lambda: any(line.startswith("Stopped. Your clips are in") for line in troupe.said))


# ---------------------------------------------------------------------------
# Connections


def test_idle_connections_keep_nobody_out_and_are_not_held_for_long(live):
    lobby = live.blocks.server.config.http_protocol_class.lobby
    port = int(live.url.rstrip("/").rpartition(":")[2])
    held = []
    try:
        for _ in range(2 * MOST):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=LONG))
            held[-1].sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        assert get(live).status_code == 200
        until(lambda: 0 < len(lobby._waiting) <= MOST)
        lobby._patience = 0.5
        until(lambda: not lobby._waiting)
        held[-1].settimeout(LONG)
        with contextlib.suppress(ConnectionError):  # which is an end as well
            assert held[-1].recv(1) == b""
    finally:
        lobby._patience = PATIENCE
        for each in held:
            each.close()


def test_a_connection_that_is_used_is_left_alone(live):
    lobby = live.blocks.server.config.http_protocol_class.lobby
    lobby._patience = 0.5
    try:
        with (
            httpx.Client(base_url=live.url, timeout=LONG) as page,
            page.stream("GET", f"{API}heartbeat/long") as beats,
        ):
            next(beats.iter_bytes())
            time.sleep(3)
            assert page.get("config").status_code == 200
            assert next(iter(live.blocks.server.server_state.connections)).cycle is not None
    finally:
        lobby._patience = PATIENCE


def test_the_one_that_has_waited_longest_goes_first():
    class Connection:
        cycle = None

        def __init__(self) -> None:
            self.transport, self.aborted = self, False

        def is_closing(self) -> bool:
            return self.aborted

        def abort(self) -> None:
            self.aborted = True

    lobby, connections = Connections(most=3), [Connection() for _ in range(5)]
    lobby._is_looking = True  # no loop runs here
    for each in connections:
        lobby.look_at(each)
    assert [each.aborted for each in connections] == [True, True, False, False, False]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_server_has_as_many_handles_as_it_may_have():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        raise_handles()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == (hard if hard != resource.RLIM_INFINITY else 10_240)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_line_a_minute_is_enough_about_connections(live, capfd):
    import logging

    port = int(live.url.rstrip("/").rpartition(":")[2])
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), timeout=LONG) as line:
            line.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            line.recv(1000)
    for _ in range(20):
        try:
            raise OSError(24, "Too many open files")
        except OSError:
            logging.getLogger("asyncio").exception("socket.accept() out of system resource\nsocket: x")
    console = "".join(capfd.readouterr())
    assert console.count("Too many connections") <= 1
    assert len(console.splitlines()) <= 2
    assert "Traceback" not in console


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere Pillow may use another libtiff")
def test_broken_pictures_say_nothing_on_the_console_by_themselves(capfd):
    data = io.BytesIO()
    Image.effect_noise((64, 64), 30).save(data, "TIFF", compression="tiff_lzw")
    broken = data.getvalue()[:100] + b"\xff" * 40 + data.getvalue()[140:]
    quiet_libtiff()
    for _ in range(3):
        with contextlib.suppress(OSError), Image.open(io.BytesIO(broken)) as picture:
            picture.load()
    assert "".join(capfd.readouterr()) == ""
