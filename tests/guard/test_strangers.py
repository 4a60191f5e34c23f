"""What strangers and guests try on a shared Troupe, and that its owner and the other guests do not notice."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pytest
from starlette.requests import Request

from app.guard.access import Access, Terms
from app.guard.address import asked_from
from app.guard.key import visitors_key
from app.guard.limits import Limits, Rates
from app.guard.throttle import FREE, Throttle
from app.guard.visitors import COOKIE, Passes
from engine.errors import TroupeError
from tests.guests import API, LONG, PASSWORD, Guest, Owner, picture
from tests.live import Live, serving
from tests.waits import until


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with two accounts, and all limits as they are."""
    terms = Terms((f"guest:{PASSWORD}", f"tom:{PASSWORD}"))
    with serving(tmp_path_factory.mktemp("home") / "outputs", terms=terms) as found:
        yield found


@pytest.fixture(autouse=True)
def fresh(live: Live) -> None:
    """Nobody has asked for anything yet."""
    live.guard.throttle, live.guard.rates = Throttle(), Rates(live.guard.limits)


@pytest.fixture
def come(live: Live) -> Iterator[Callable[..., Guest]]:
    """`come("tom")`: a guest who has logged in; `come()`: the owner."""
    with ExitStack() as leaving:

        def coming(name: str = "") -> Guest:
            found = Guest(live, name) if name else Owner(live)
            leaving.callback(found.http.close)
            return found

        yield coming


def request_with(peer: tuple[str, int] = ("127.0.0.1", 5), **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "client": peer, "method": "GET", "path": "/"})


# ---------------------------------------------------------------------------
# Logging in


def test_no_number_of_wrong_passwords_shuts_the_owner_or_another_guest_out(live):
    with httpx.Client(base_url=live.url, timeout=LONG) as stranger:
        for number in range(60):
            stranger.post("/login", data={"password": "x"}, headers={"x-forwarded-for": f"203.0.113.{number}"})
        for _ in range(20):
            stranger.post("/login", data={"password": "x"})
            assert stranger.get("/?owner=wrong").status_code == 401
    with httpx.Client(base_url=live.url, timeout=LONG) as owner:
        assert owner.get(f"/?owner={live.guard.access.owner_key}").status_code == 303
        assert owner.get("config").status_code == 200
    with httpx.Client(base_url=live.url, timeout=LONG) as guest:
        right = {"username": "guest", "password": PASSWORD}
        assert guest.post("/login", data=right, headers={"x-forwarded-for": "198.51.100.7"}).status_code == 200


def test_who_was_let_in_once_is_not_kept_out_by_others_behind_the_same_address(live, come):
    mia = come("guest")
    with httpx.Client(base_url=live.url, timeout=LONG) as neighbour:
        for _ in range(FREE + 3):
            wrong = neighbour.post("/login", data={"username": "guest", "password": "x"})
        assert wrong.status_code == 429
    assert mia.http.post("/login", data={"username": "guest", "password": PASSWORD}).status_code == 200


def test_guesses_that_come_at_once_are_counted_one_by_one(live):
    def guess(number: int) -> int:
        return httpx.post(
            f"{live.url}login", data={"username": "guest", "password": f"{number}"}, timeout=LONG
        ).status_code

    with ThreadPoolExecutor(20) as pool:
        said = Counter(pool.map(guess, range(60)))
    assert FREE <= said[401] < FREE + 5  # after the first waits, of seconds, there are a few more
    assert said[401] + said[429] == 60


def test_log_ins_are_limited_and_push_nobodys_pass_out(live, come):
    owner = come()
    right = {"username": "guest", "password": PASSWORD}
    with httpx.Client(base_url=live.url, timeout=LONG) as guest:
        said = Counter(guest.post("/login", data=right).status_code for _ in range(60))
    assert said[429] > 20
    assert owner.http.get("config").status_code == 200
    passes = Passes(Access(True, (("mia", "x"),)), b"key")
    first = passes.issue(None)
    for _ in range(6_000):
        passes.issue(0)
    visitor, is_in = passes.recognise(request_with(cookie=f"{passes.cookie}={first}"), False, "192.0.2.1")
    assert (visitor.is_owner, is_in) == (True, True)


def test_a_pass_is_nothing_that_can_be_made_up():
    passes, others = (Passes(Access(True, (("mia", "x"),)), b"key") for _ in range(2))
    guests = passes.issue(0)
    for cookie in (others.issue(None), guests.replace("0.", "owner.", 1), f"owner.{'0' * 32}.{'0' * 64}", "owner", ""):
        visitor, is_in = passes.recognise(request_with(cookie=f"{passes.cookie}={cookie}"), False, "192.0.2.1")
        assert (visitor.is_owner, is_in) == (False, False)
    assert passes.recognise(request_with(cookie=f"{passes.cookie}={guests}"), False, "192.0.2.1")[1]


# ---------------------------------------------------------------------------
# Who somebody is


def test_only_cookies_that_this_server_has_issued_are_visitors(tmp_path):
    access, key = Access(True), visitors_key(tmp_path / "key")
    passes = Passes(access, key, is_known=lambda visitor: False)
    (issued,) = passes.cookies(request_with())
    held = issued.partition(";")[0]
    mia, _ = passes.recognise(request_with(cookie=held), False, "192.0.2.1")
    assert mia.id
    assert passes.cookies(request_with(cookie=held)) == []
    for made_up in ("a" * 32, f"{'a' * 32}.{'b' * 64}", held.partition("=")[2][:-1] + "x"):
        request = request_with(cookie=f"{COOKIE}={made_up}")
        assert passes.recognise(request, False, "192.0.2.1")[0].id == ""
        assert passes.cookies(request)
    after = Passes(access, visitors_key(tmp_path / "key"))  # the server was started again
    assert after.recognise(request_with(cookie=held), False, "192.0.2.1")[0] == mia
    if os.name != "nt":
        assert (tmp_path / "key").stat().st_mode & 0o077 == 0


def test_a_cookie_from_before_they_were_signed_keeps_its_belongings():
    unsigned = request_with(cookie=f"{COOKIE}={'a' * 32}")
    found = Passes(Access(True), b"key", is_known=lambda visitor: True)
    mia, _ = found.recognise(unsigned, False, "192.0.2.1")
    assert mia.id
    (renewed,) = found.cookies(unsigned)
    signed = request_with(cookie=renewed.partition(";")[0])
    assert Passes(Access(True), b"key").recognise(signed, False, "192.0.2.1")[0].id == mia.id


@pytest.mark.parametrize(
    ("peer", "said", "link", "found"),
    [(("192.0.2.1", 5), "203.0.113.9", True, "192.0.2.1"), (("127.0.0.1", 5), "", True, "127.0.0.1"),
     (("127.0.0.1", 5), "8.8.8.8, 9.9.9.9", False, "9.9.9.9"), (("127.0.0.1", 5), "8.8.8.8, 9.9.9.9, 10.0.0.4", True,
     "9.9.9.9"), (("10.0.0.4", 0), "8.8.8.8, 9.9.9.9, 10.0.0.4", True, "9.9.9.9"),
     (("192.168.1.5", 0), "8.8.8.8, 192.168.1.5", False, "192.168.1.5"),
     (("127.0.0.1", 5), "10.0.0.4", True, "10.0.0.4"), (("127.0.0.1", 5), "made up, <b>", True, "127.0.0.1"),
     (("2001:db8:1:2:3::4", 5), "", False, "2001:db8:1:2::"), (("::ffff:192.0.2.1", 5), "", False, "192.0.2.1")],
)  # fmt: skip
def test_an_address_is_what_the_nearest_proxy_says_and_not_what_the_guest_does(peer, said, link, found):
    headers = {"x_forwarded_for": said} if said else {}
    assert asked_from(request_with(peer, **headers), through_link=link) == found


def test_on_a_space_everybody_comes_through_its_proxy_and_is_told_apart_all_the_same():
    request = request_with(("10.20.1.2", 80), x_forwarded_for="8.8.8.8, 9.9.9.9, 10.20.7.7")
    assert asked_from(request, on_space=True) == "9.9.9.9"
    assert asked_from(request) == "10.20.1.2"


def test_fourteen_cookies_of_one_person_have_one_share_and_the_owner_has_room(live, come):
    mia, tom, owner = come("guest"), come("tom"), come()
    passes = {name: value for name, value in mia.http.cookies.items() if "pass" in name}
    jobs: list[tuple[Guest, str]] = []
    said = ""
    live.house.jobs.pause_queue()  # or one may be done before the next is asked for
    for _ in range(14):
        again = Guest.__new__(Guest)
        again.live, again.http = live, httpx.Client(base_url=live.url, timeout=LONG, cookies=passes)
        again.http.get("/")
        upload = again.picture()
        said = again.call("generate", "x", [{"path": upload}], [], None, None, "16:9", 60.0, 1, "draft")
        if '"job"' in said:
            jobs.append((again, re.search(r"[0-9a-f]{32}", said)[0]))
        else:
            again.http.close()
    try:
        assert len(jobs) == Limits().jobs
        assert "clips are being made already" in said
        for other in (tom, owner):
            job = other.generate(other.picture(), seconds=1.0)
            other.call("stop", job)
    finally:
        for guest, job in jobs:
            guest.call("stop", job)
            guest.http.close()
        live.house.jobs.resume_queue()


def test_a_flood_of_pages_is_slowed_for_strangers_and_guests_and_the_owner_goes_on(live, come):
    owner, mia = come(), come("guest")
    with httpx.Client(base_url=live.url, timeout=LONG) as stranger:
        assert {401, 429} == {stranger.get("/").status_code for _ in range(100)}
    assert mia.http.get("config").status_code == 200  # whose share is another one
    assert 429 in {mia.http.get("config").status_code for _ in range(100)}
    assert owner.http.get("config").status_code == 200


def test_one_guests_events_leave_room_in_the_queue_for_everybody_else(live, come, monkeypatch):
    mia, tom, owner = come("guest"), come("tom"), come()
    go, job = threading.Event(), mia.generate(mia.picture())
    from app.jobs.history import History

    plain = History.snapshot

    def slow(self: History, job_id: object) -> object:
        go.wait(LONG)
        return plain(self, job_id)

    monkeypatch.setattr(History, "snapshot", slow)
    try:
        said = Counter(mia.http.post(f"{API}call/job", json={"data": [job]}).status_code for _ in range(100))
        assert said == {200: Limits().events, 429: 100 - Limits().events}
        for other in (tom, owner):
            assert other.http.post(f"{API}call/job", json={"data": [job]}).status_code == 200
    finally:
        go.set()
    queue = live.blocks._queue
    until(lambda: not queue.event_ids_to_events)
    assert mia.http.post(f"{API}call/job", json={"data": [job]}).status_code == 200


# ---------------------------------------------------------------------------
# What is sent


@pytest.mark.parametrize("length", ["10", "0", "007", "10, 10", None])
def test_an_upload_in_chunks_is_refused_whatever_length_it_claims(live, come, length):
    mia = come("guest")
    cookies = "; ".join(f"{name}={value}" for name, value in mia.http.cookies.items())
    claim = "" if length is None else f"Content-Length: {length}\r\n"
    head = (f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookies}\r\nConnection: close\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n{claim}\r\n")  # fmt: skip
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + picture() + b"\r\n--x--\r\n"
    )
    with connected(live) as line:
        line.sendall(head.encode() + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        assert b" 411 " in line.recv(200) or length == "10, 10"


def test_what_an_upload_announces_counts_from_its_first_byte(live, come):
    mia = come("guest")
    cookies = "; ".join(f"{name}={value}" for name, value in mia.http.cookies.items())
    half = Limits().upload_bytes * 6 // 10
    head = (f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookies}\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {half}\r\n\r\n--x\r\n")  # fmt: skip
    with connected(live) as first:
        first.sendall(head.encode())
        until(lambda: live.guard.uploads._coming)
        with connected(live) as second:
            second.sendall(head.encode())
            assert b" 413 " in second.recv(200)
    until(lambda: not live.guard.uploads._coming)
    assert mia.upload(("a.png", picture())).status_code == 200


def connected(live: Live) -> socket.socket:
    port = int(live.url.rstrip("/").rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=LONG)


def test_drawings_are_small_few_and_gone_with_their_session(live, come):
    mia = come("guest")
    editor = next(each for each in live.blocks.blocks.values() if hasattr(each, "blob_storage"))

    def draw(name: str, size: int = 1000, session: str = "draws") -> int:
        fields = {"component_id": str(editor._id), "session_hash": session, "fn_name": "accept_blobs", "type": "layer",
                  "index": "0", "id": name}  # fmt: skip
        return mia.http.post(f"{API}component_server", data=fields, files={"file": ("a", b"x" * size)}).status_code

    assert draw("large", 5_000_000) == 413
    assert [draw(name) for name in ("one", "two", "three")] == [200] * 3
    assert set(editor.blob_storage) == {"two", "three"}
    assert [draw(f"big-{n}", 3_900_000, f"s{n}") for n in range(10)] == [200] * 10
    assert sum(name.startswith("big") for name in editor.blob_storage) <= Limits().drawing_bytes // 3_900_000
    with mia.http.stream("GET", f"{API}heartbeat/s9") as beating:
        next(beating.iter_bytes())
    until(lambda: "big-9" not in editor.blob_storage)
    from app.guard.drawings import SECONDS

    live.guard.drawings._clock = lambda: time.monotonic() + SECONDS
    live.guard.drawings.sweep()
    live.guard.drawings._clock = time.monotonic
    assert not editor.blob_storage


def test_calls_on_their_way_hold_little_memory_and_not_for_long(live):
    rates, size = Rates(Limits()), 3_000_000
    assert sum(rates.hold("mia", size) for _ in range(100)) == Limits().bodies_bytes // size
    assert rates.hold("tom", size)
    rates.let_go("mia", size)
    assert rates.hold("mia", size)


# ---------------------------------------------------------------------------
# What is left behind


def test_a_call_leaves_no_desk_and_one_that_cannot_be_does_nothing_first(live, come):
    mia = come("guest")
    upload = mia.picture()
    before = set(live.outputs.glob("desks/*"))
    said = mia.call("generate", "x", [{"path": upload}] * 17, [], None, None, "16:9", 1.0, 1, "draft")
    assert "room for a cast of 16" in said
    mia.clip(mia.generate(upload))
    assert set(live.outputs.glob("desks/*")) == before


def test_of_what_is_not_there_nothing_is_written_down(live, come):
    mia, tom, paper = come("guest"), come("tom"), live.outputs / "belongings.jsonl"
    mia.event("page_open", None, session="look")
    before = paper.read_text() if paper.exists() else ""
    for number in range(5):
        assert "no such job" in mia.call("job", f"{number:032x}")
        assert "process_completed" in mia.event("page_look", f"{number:032x}", session=f"lost-{number}")
        assert "lost its desk" in tom.event("page_look", f"{number:032x}", session=f"toms-{number}")
        assert mia.http.get(f"clips/{number:032x}/clip").status_code == 404
    assert (paper.read_text() if paper.exists() else "") == before


def test_a_desk_of_a_guest_is_theirs_from_its_first_word_on(live, come):
    mia, tom, desk = come("guest"), come("tom"), "5e" * 16
    mia.event("page_write_prompt", desk, "A secret.", session="hers")
    assert "lost its desk" in tom.event("page_clear", desk, "", session="his")
    assert "A secret." in mia.event("page_open", desk, session="hers-2")
    assert f'"desk:{desk}"' in (live.outputs / "belongings.jsonl").read_text()


def test_a_guest_has_so_much_of_the_disk_and_the_last_of_it_is_the_owners(live, come, monkeypatch):
    mia, tom, owner = come("guest"), come("tom"), come()
    uploads = {each: each.picture() for each in (mia, tom, owner)}
    mia.clip(mia.generate(uploads[mia]))
    quota = live.guard._quota
    monkeypatch.setattr(quota, "_limits", replace(quota._limits, disk_bytes=1))
    assert "are yours" in mia.call("generate", "x", [{"path": uploads[mia]}], [], None, None, "16:9", 1.0, 1, "draft")
    assert mia.upload(("more.png", picture())).status_code == 413
    owner.clip(owner.generate(uploads[owner]))
    monkeypatch.setattr(quota, "_limits", replace(quota._limits, disk_bytes=10**12, free_disk=10**18))
    assert "nearly full" in tom.call("generate", "x", [{"path": uploads[tom]}], [], None, None, "16:9", 1.0, 1, "draft")
    with pytest.raises(TroupeError, match="nearly full"), live.guard.exporting():  # for whom no door has vouched
        pass
    owner.clip(owner.generate(uploads[owner]))


def test_pages_make_only_so_many_desks_a_day(live, come, monkeypatch):
    mia, owner = come("guest"), come()
    monkeypatch.setattr(live.guard._desks, "_most", 2)
    live.guard._desks._done.clear()
    said = [mia.event("page_open", None, session=f"desk-{number}") for number in range(3)]
    assert ["Too many pages" in each for each in said] == [False, False, True]
    assert "Too many pages" not in owner.event("page_open", None, session="owners")


# ---------------------------------------------------------------------------
# What the console and the log say


def test_badly_typed_calls_leave_no_traceback_and_no_long_value(live, come, capfd):
    mia = come("guest")
    mia.live.guard.rates = Rates(replace(Limits(), requests_at_once=10**6, requests_per_second_in_all=10**6))
    odd = [None, "x" * 100_000, [], {"path": None}, {"a": [1] * 1000}, "\ud800", 10**300, True]
    for each in mia.http.get("config").json()["dependencies"]:
        for number in range(3):
            count = len(each["inputs"]) - (number == 0)
            data = [odd[(number + index) % len(odd)] for index in range(max(0, count))]
            session = f"odd-{each['id']}-{number}"
            body = json.dumps({"data": data, "fn_index": each["id"], "session_hash": session})
            said = mia.http.post(f"{API}queue/join", content=body, headers={"content-type": "application/json"})
            if said.is_success:
                told = mia.http.get(f"{API}queue/data", params={"session_hash": session}).text
                assert "process_completed" in told
    console = "".join(capfd.readouterr())
    assert "Traceback" not in console
    assert len(console) < 5_000


def test_half_a_letter_in_a_search_finds_nothing_and_breaks_nothing(live, come, capfd):
    mia = come("guest")
    opened = mia.event("page_open", None, session="half")
    desk = next(path.name for path in live.outputs.glob("desks/*") if path.name in opened)
    number = next(each["id"] for each in mia.http.get("config").json()["dependencies"]
                  if each["api_name"] == "page_clips_show")  # fmt: skip
    body = json.dumps({"data": [desk, "\ud800", "all", False, 24], "fn_index": number, "session_hash": "half-2"})
    mia.http.post(f"{API}queue/join", content=body, headers={"content-type": "application/json"})
    assert '"success":true' in mia.http.get(f"{API}queue/data", params={"session_hash": "half-2"}).text
    assert "Traceback" not in "".join(capfd.readouterr())


def test_events_that_nobody_was_given_are_not_there_and_say_nothing_on_the_console(live, come, capfd):
    mia = come("guest")
    for number in range(5):
        assert mia.http.get(f"{API}call/job/{number:032x}").status_code == 404
        told = mia.http.get(f"{API}queue/data", params={"session_hash": f"nobody-{number}"})
        assert (told.status_code, "session_not_found" in told.text) == (200, True)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_what_strangers_ask_for_makes_no_line_of_its_own_in_the_log(live, come):
    mia = come("guest")
    forged = "%0a2026-01-01 00:00:00,000 CRITICAL troupe.guard: forged%1b[31m" + "y" * 210
    mia.http.get(f"{API}heartbeat/{forged}")
    log = live.outputs / "logs" / "troupe.log"
    until(lambda: "forged" in log.read_text())
    assert "\x1b" not in log.read_text()
    assert not [line for line in log.read_text().splitlines() if line.startswith("2026-01-01 00:00:00,000 CRITICAL")]


# ---------------------------------------------------------------------------
# What is the owner's alone


def test_a_guest_fetches_nothing_onto_this_machine_and_is_told_why(live, come, monkeypatch):
    mia, owner = come("guest"), come()
    monkeypatch.setattr("engine.cutout.is_here", lambda quality: quality == "fast")
    started: list[str] = []
    stopped: list[str] = []
    monkeypatch.setattr("app.create.fetching.Fetching.start", lambda self, quality: started.append(quality))
    monkeypatch.setattr("app.create.fetching.Fetching.stop", lambda self: stopped.append(""))
    said = {}
    for name, each in (("guest", mia), ("owner", owner)):
        opened = each.event("page_open", None, session=f"{name}-q")
        desk = next(path.name for path in live.outputs.glob("desks/*") if path.name in opened)
        said[name] = each.event("page_choose_quality", desk, "best", session=f"{name}-q2")
        each.event("page_choose_quality", desk, "fast", session=f"{name}-q3")
    assert "only its owner can fetch it" in said["guest"]
    assert (started, stopped) == (["best"], [""])


def test_what_happened_to_the_list_of_jobs_is_for_the_owner_to_know(tmp_path):
    outputs = tmp_path / "outputs"
    (outputs / "clips" / "x").mkdir(parents=True)
    (outputs / "jobs.sqlite").write_bytes(b"not a store at all")
    with serving(outputs, terms=Terms((f"guest:{PASSWORD}",))) as live:
        mia, owner = Guest(live), Owner(live)
        assert "was damaged" not in mia.event("page_open", None, session="m")
        assert "was damaged" in owner.event("page_open", None, session="o")
        mia.http.close()
        owner.http.close()


# ---------------------------------------------------------------------------
# The link's end


def test_at_the_links_end_streams_that_are_open_end_too(tmp_path, monkeypatch):
    monkeypatch.setattr("gradio.networking.setup_tunnel", lambda **_: "http://link.invalid")
    with serving(tmp_path / "outputs", terms=Terms((f"guest:{PASSWORD}",), hours=1), share=True) as live:
        mia, owner = Guest(live), Owner(live)
        ended = threading.Event()

        def beat() -> None:
            with mia.http.stream("GET", f"{API}heartbeat/hers") as stream:
                for _ in stream.iter_bytes():
                    pass
            ended.set()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        until(lambda: live.guard.streams._open)
        assert not ended.wait(0.2)
        live.guard.ends_at = time.time() - 1
        live.guard.streams.end_all()
        assert ended.wait(10)  # Gradio's next heartbeat is 15 seconds away
        assert owner.http.get("config").status_code == 200
        mia.http.close()
        owner.http.close()


def test_a_link_that_could_not_be_made_ends_nobodys_time(tmp_path, monkeypatch):
    def fails(**_: object) -> str:
        raise RuntimeError("no network")

    monkeypatch.setattr("gradio.networking.setup_tunnel", fails)
    with serving(tmp_path / "outputs", terms=Terms((f"guest:{PASSWORD}",), hours=1), share=True) as live:
        live.guard._clock = lambda: time.time() + 7_200
        mia = Guest(live)
        assert mia.http.get("config").status_code == 200
        mia.http.close()


def test_the_log_in_page_is_shown_in_nobodys_frame(live):
    headers = {"sec-fetch-dest": "iframe", "sec-fetch-mode": "navigate", "sec-fetch-site": "cross-site"}
    assert httpx.get(live.url, headers=headers, timeout=LONG).status_code == 403


# ---------------------------------------------------------------------------
# What is shown


def test_a_name_turns_nobodys_reading_direction(live, come):
    mia = come("guest")
    turned = "\u202egnp.exe\u2066\u200f"
    opened = mia.event("page_open", None, session="bidi")
    desk = next(path.name for path in live.outputs.glob("desks/*") if path.name in opened)
    (upload,) = mia.upload((f"{turned}.png", picture())).json()
    told = {"action": "upload", "role": "character", "path": upload, "name": f"{turned}.png", "value": "1"}
    assert "process_completed" in mia.event("page_edit", desk, "", session="bidi-2", told=told)
    name = json.loads((live.outputs / "desks" / desk / "desk.json").read_text())["cards"][0]["name"]
    assert name
    assert not set(name) & set(turned) - set("gnp.exe")
