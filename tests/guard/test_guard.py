"""Who may see what: two visitors of a shared server, each trying what is the other's, and what is no picture at all."""

from __future__ import annotations

import html
import json
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.utils import encode_file_path
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.guard import access as access_module
from app.guard.access import LONGEST, SAFETY, Access, Terms, decide, is_shared, new_password, spoken
from app.guard.expiry import close_tunnels, end_in_time
from app.guard.guard import Guard
from app.guard.limits import Limits, Line, Rates, UploadLimits
from app.guard.ownership import Ownership
from app.guard.redact import ALIAS, Redaction
from app.guard.throttle import FREE, Throttle
from app.guard.visitors import OWNER, Visitor
from engine.errors import SceneError, TroupeError
from engine.scene.scene_file import scene_from_data
from tests.guests import API, LONG, PASSWORD, Guest, picture
from tests.live import Live, chromium, serving

DESK = re.compile(r"[0-9a-f]{32}")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that asks for a password: the same guard stands before a public link."""
    terms = Terms((f"guest:{PASSWORD}", f"tom:{PASSWORD}"))
    with serving(tmp_path_factory.mktemp("home") / "outputs", terms=terms) as found:
        endless = replace(Limits(), requests_at_once=10**6, requests_per_second_in_all=10**6)
        found.guard.rates = Rates(endless)
        yield found


@pytest.fixture
def guests(live: Live) -> Iterator[tuple[Guest, Guest]]:
    mia, tom = Guest(live), Guest(live, "tom")
    yield mia, tom
    mia.http.close()
    tom.http.close()


@pytest.fixture
def plain(live: Live) -> Iterator[httpx.Client]:
    """A stranger who has not logged in."""
    with httpx.Client(base_url=live.url, timeout=LONG) as http:
        yield http


def bomb(side: int) -> bytes:
    """A PNG of side x side pixels in a few kilobytes: its header is honest, its pixels are all the same."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(4096), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# ---------------------------------------------------------------------------
# The door


@pytest.mark.parametrize(
    "path", ["config", f"{API}info", f"{API}queue/data?session_hash=a", f"{API}heartbeat/a", f"{API}openapi.json",
             f"{API}file=x", f"{API}upload_progress?upload_id=x", f"{API}theme.css", "assets/x.js"],
)  # fmt: skip
def test_nothing_is_read_without_the_password(plain, path):
    assert plain.get(path).status_code == 401


@pytest.mark.parametrize("path", ["queue/join", "upload", "call/generate", "cancel", "reset", "component_server"])
def test_nothing_is_done_without_the_password(plain, path):
    assert plain.post(f"{API}{path}", json={"data": []}).status_code == 401


def test_a_stranger_is_asked_for_the_password_and_told_when_it_is_wrong(live, plain):
    live.guard.throttle = Throttle()
    asked = plain.get("/", headers={"accept": "text/html"})
    assert (asked.status_code, 'type="password"' in asked.text) == (401, True)
    wrong = plain.post("/login", data={"password": "guess"}, headers={"accept": "text/html"})
    assert (wrong.status_code, "not the password" in wrong.text) == (401, True)
    assert plain.get("config").status_code == 401


def test_sixty_tries_are_soon_refused_and_the_right_password_counts_after_the_wait(live, plain):
    now = [0.0]
    live.guard.throttle = Throttle(lambda: now[0])
    try:
        said = [plain.post("/login", data={"username": "guest", "password": f"guess {n}"}) for n in range(60)]
        assert [each.status_code for each in said] == [401] * FREE + [429] * (60 - FREE)
        assert "Try again in" in said[-1].json()["detail"]
        wait = int(said[-1].headers["retry-after"])
        right = {"username": "guest", "password": PASSWORD}
        assert plain.post("/login", data=right).status_code == 429
        now[0] += wait + 1
        assert plain.post("/login", data=right).json() == {"success": True}
        assert plain.get("config").status_code == 200
    finally:
        live.guard.throttle = Throttle()


def test_no_address_waits_longer_than_a_minute_and_none_for_another():
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    for number in range(200):
        throttle.wrong(f"10.0.0.{number}")
    assert throttle.wait("192.168.0.9") == 0
    for _ in range(100):
        throttle.wrong("10.0.0.1")
    assert 0 < throttle.wait("10.0.0.1") <= 60


def test_the_owners_link_makes_the_owner_and_a_wrong_one_does_not(live, plain):
    live.guard.throttle = Throttle()
    assert plain.get("/?owner=" + "x" * 32).status_code == 401
    opened = plain.get(f"/?owner={live.guard.access.owner_key}")
    assert (opened.status_code, opened.headers["location"]) == (303, "./")
    assert plain.get("config").status_code == 200
    assert live.guard.access.owner_key not in plain.get("/").text


def test_cookies_cannot_be_read_by_scripts_nor_sent_by_other_sites(plain):
    cookies = plain.get("/").headers.get_list("set-cookie")
    assert cookies
    assert all("HttpOnly" in cookie and "SameSite=Lax" in cookie for cookie in cookies)


def test_another_sites_page_is_nobody(guests):
    mia, _ = guests
    assert mia.http.get("config").status_code == 200
    for site in ("cross-site", "same-site"):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": "cors"}
        assert mia.http.get("config", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "path", [f"{API}deep_link?session_hash=a", f"{API}proxy=http://127.0.0.1", f"{API}file/etc/passwd",
             "monitoring", f"{API}stream/a/b/1/playlist.m3u8", f"{API}custom_component/a/client/component/x",
             f"{API}runs", f"{API}token", f"{API}user", "docs", "openapi.json", f"{API}mcp/", f"{API}dev/reload"],
)  # fmt: skip
def test_what_the_page_does_not_need_is_not_there(guests, path):
    assert guests[0].http.get(path).status_code == 404


# ---------------------------------------------------------------------------
# One visitor, and another


def test_neither_uploads_nor_clips_can_be_fetched_by_another_visitor(guests):
    mia, tom = guests
    upload = mia.picture()
    clip = mia.clip(mia.generate(upload))["path"]
    for path in (upload, clip):
        assert mia.http.get(f"{API}file={path}").status_code == 200
        assert tom.http.get(f"{API}file={path}").status_code == 404
        folder, _, name = path.rpartition("/")
        for spelled in (f"{folder}/../{folder.rpartition('/')[2]}/{name}", f"{folder}//{name}", path.upper()):
            assert tom.http.get(f"{API}file={spelled}").status_code == 404
    with httpx.Client(base_url=tom.live.url, timeout=LONG) as nobody:
        assert nobody.get(f"{API}file={upload}").status_code == 401


def test_another_visitors_upload_cannot_be_used_in_a_call(guests):
    mia, tom = guests
    upload = mia.picture("secret.png")
    said = tom.call("generate", "x", [{"path": upload}], [], None, None, "16:9", 1.0, 1, "draft")
    assert "not a file of yours" in said
    real = str(mia.live.outputs / "uploads") + upload.removeprefix(ALIAS)
    assert "not a file of yours" in tom.call("generate", real, [], [])
    for told in ({"path": upload}, {"path": real}, {"action": "upload", "role": "object", "path": [{"path": upload}]}):
        assert tom.join("page_edit", "cd" * 16, "", session="tom-1", told=told).status_code == 403


def test_the_same_picture_uploaded_by_two_is_each_ones_own(guests):
    mia, tom = guests
    same = picture(3)
    ours = mia.upload(("mine.png", same)).json()[0]
    theirs = tom.upload(("theirs.png", same)).json()[0]
    assert tom.http.get(f"{API}file={theirs}").status_code == 200
    assert tom.http.get(f"{API}file={ours}").status_code == 404


def test_a_job_of_another_visitor_can_neither_be_seen_nor_stopped(guests):
    mia, tom = guests
    job = mia.generate(mia.picture(), seconds=60.0)
    assert "no such job" in tom.call("job", job)
    assert "unknown" in tom.call("stop", job)
    assert any(state in mia.call("job", job) for state in ("waiting", "running"))
    mia.call("stop", job)


def test_a_desk_of_another_visitor_is_not_opened(guests):
    mia, tom = guests
    opened = mia.event("page_open", None, session="mia-desk")
    (desk,) = {path.name for path in mia.live.outputs.glob("desks/*") if path.name in opened}
    mia.event("page_write_prompt", desk, "A secret of Mia's.", session="mia-desk-2")
    assert "A secret of Mia's." in mia.event("page_open", desk, session="mia-desk-3")
    seen = tom.event("page_open", desk, session="tom-desk")
    assert "secret" not in seen
    assert desk not in seen
    assert "lost its desk" in tom.event("page_clear", desk, "", session="tom-desk-2")
    assert "A secret of Mia's." in mia.event("page_open", desk, session="mia-desk-4")


def test_sessions_events_and_uploads_on_the_way_are_ones_own(guests):
    mia, tom = guests
    mia.join("page_open_tray", "ab" * 16, session="shared-name")
    mia.join("page_open_tray", "ab" * 16, session="shared?name")
    for path in ("queue/data?session_hash=shared-name", "heartbeat/shared-name", "heartbeat/shared%3Fname"):
        assert tom.http.get(API + path).status_code == 403
    assert tom.join("page_open_tray", "ab" * 16, session="shared-name").status_code == 403
    body = {"session_hash": "shared-name", "event_id": "x", "fn_index": 1}
    assert tom.http.post(f"{API}cancel", json=body).status_code == 403
    event = mia.http.post(f"{API}call/job", json={"data": ["f" * 32]}).json()["event_id"]
    assert tom.http.get(f"{API}call/job/{event}").status_code == 403
    assert "no such job" in mia.http.get(f"{API}call/job/{event}").text
    mia.http.post(f"{API}upload?upload_id=watched", files={"files": ("a.png", picture())})
    assert tom.http.get(f"{API}upload_progress?upload_id=watched").status_code == 403


def test_who_keeps_no_cookie_still_gets_a_clip_and_no_one_elses(tmp_path, monkeypatch):
    monkeypatch.setattr("gradio.networking.setup_tunnel", lambda **_: "http://link.invalid")
    with serving(tmp_path / "outputs", terms=Terms(no_password=True), share=True) as live:
        stranger = partial(httpx.request, timeout=LONG)
        (upload,) = stranger("POST", f"{live.url}{API}upload", files={"files": ("a.png", picture())}).json()
        assert stranger("GET", f"{live.url}{API}file={upload}").status_code == 200
        with httpx.Client(base_url=live.url, timeout=LONG) as browser:
            browser.get("/")
            assert browser.get(f"{API}file={upload}").status_code == 404
            (own,) = browser.post(f"{API}upload", files={"files": ("b.png", picture())}).json()
            assert browser.get(f"{API}file={own}").status_code == 200
        assert stranger("GET", f"{live.url}{API}file={own}").status_code == 404


def test_what_belongs_to_whom_survives_a_restart_and_a_torn_line(tmp_path):
    (tmp_path / "uploads" / ("a" * 64)).mkdir(parents=True)
    path = tmp_path / "uploads" / ("a" * 64) / "x.png"
    path.write_bytes(b"x")
    before = Ownership(tmp_path / "paper", tmp_path / "uploads")
    before.give_file(str(path), "mia")
    assert before.claim("desk:1", "mia")
    with open(tmp_path / "paper", "a") as paper:
        paper.write('["job:1", "mi')
    after = Ownership(tmp_path / "paper", tmp_path / "uploads")
    assert (after.has_file(str(path), "mia"), after.has_file(str(path), "tom")) == (True, False)
    assert not after.claim("desk:1", "tom")
    assert after.claim("job:1", "tom")


# ---------------------------------------------------------------------------
# What is uploaded, and how much


@pytest.mark.parametrize(
    ("name", "data"),
    [("page.html", b"<script>alert(1)</script>"), ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
     ("photo.png", b"<html>"), ("notes.txt", b"hello"), ("empty.png", b""), ("huge.png", bomb(16_000)),
     ("tool.exe", b"MZ\0\0"), ("paper.pdf", b"%PDF-1.7\n")],
)  # fmt: skip
def test_what_is_no_picture_is_refused_and_not_kept(guests, name, data):
    mia, _ = guests
    before = {path for path in mia.live.outputs.glob("uploads/*/*") if path.name == name}
    said = mia.upload((name, data))
    assert said.status_code == 415
    assert name in said.text
    assert "Traceback" not in said.text
    assert {path for path in mia.live.outputs.glob("uploads/*/*") if path.name == name} == before


def test_one_bad_file_does_not_take_the_others_with_it(guests):
    mia, _ = guests
    good, bad = mia.upload(("good.png", picture()), ("bad.html", b"<script>")).json()
    assert mia.http.get(f"{API}file={good}").status_code == 200
    assert mia.http.get(f"{API}file={bad}").content == b""
    said = mia.call("generate", "x", [{"path": good}, {"path": bad}], [], None, None, "16:9", 1.0, 1, "draft")
    assert "bad.html is empty" in said


def test_a_thousand_files_are_refused_and_the_server_goes_on(guests):
    mia, _ = guests
    kept = mia.picture("kept.png")
    before = len(list(mia.live.outputs.glob("uploads/*/*")))
    said = mia.upload(*[(f"{number}.png", b"x%d" % number) for number in range(1000)])
    assert (said.status_code, "too many" in said.text) == (413, True)
    assert len(list(mia.live.outputs.glob("uploads/*/*"))) == before
    assert mia.http.get(f"{API}file={kept}").status_code == 200


def test_an_upload_that_does_not_say_its_size_is_refused(guests):
    mia, _ = guests

    def chunks() -> Iterator[bytes]:
        yield b"--x\r\n"

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert mia.http.post(f"{API}upload", content=chunks(), headers=headers).status_code == 411


def test_uploads_end_where_a_visitors_share_or_everybodys_is_used_up(tmp_path):
    now = [0.0]
    limits = Limits(files=3, upload_bytes=100, upload_bytes_in_all=150, free_disk=0)
    uploads = UploadLimits(limits, tmp_path, lambda: now[0])
    with uploads.coming("mia", 90) as taken:
        taken(2)
    for size, files, said in ((1, 2, "too many"), (20, 1, "too large")):
        with pytest.raises(TroupeError, match=said):
            uploads.check("mia", size, files)
    with pytest.raises(TroupeError, match="tomorrow"):
        uploads.check("tom", 70)
    now[0] = 90_000.0
    uploads.check("mia", 90, 3)
    with pytest.raises(TroupeError, match="disk"):
        UploadLimits(replace(limits, free_disk=10**18), tmp_path).check("mia", 1)


def test_what_is_on_its_way_counts_and_what_was_refused_does_not(tmp_path):
    uploads = UploadLimits(Limits(files=3, upload_bytes=100, upload_bytes_in_all=150, free_disk=0), tmp_path)
    with uploads.coming("mia", 60):
        with pytest.raises(TroupeError, match="too large"), uploads.coming("mia", 60):
            pass
        with pytest.raises(TroupeError, match="tomorrow"), uploads.coming("tom", 95):
            pass
        with uploads.coming("mia", 20) as taken, pytest.raises(TroupeError, match="too many"):
            taken(3)  # one is on its way
    uploads.check("mia", 100, 3)


def test_a_visitor_has_so_many_clips_under_way_over_all_desks(guests):
    mia, tom = guests
    upload, jobs = mia.picture(), []
    for _ in range(Limits().jobs):
        jobs.append(mia.generate(upload, seconds=60.0))
    said = mia.call("generate", "x", [{"path": upload}], [], None, None, "16:9", 60.0, 1, "draft")
    assert "clips are being made already" in said
    jobs.append(tom.generate(tom.picture(), seconds=1.0))  # another has room
    for job in jobs:
        (mia if job in jobs[:-1] else tom).call("stop", job)


def test_two_calls_at_once_do_not_share_the_last_place():
    line, inside, go = Line(1), threading.Event(), threading.Event()

    def first() -> None:
        with line.turn("mia", lambda job: True) as joined:
            inside.set()
            go.wait(LONG)
            joined("job")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(LONG)
    with pytest.raises(TroupeError, match="1 of your clips"), line.turn("mia", lambda job: True):
        pass
    go.set()
    thread.join(LONG)
    with line.turn("mia", lambda job: False):
        pass


def test_a_flood_of_requests_is_slowed_and_an_honest_page_is_not():
    now = [0.0]
    rates = Rates(Limits(), lambda: now[0])
    assert sum(rates.take("mia") for _ in range(1000)) == Limits().requests_at_once
    assert rates.take("tom")
    now[0] = 60.0
    for _ in range(600):  # ten a second for a minute
        now[0] += 0.1
        assert rates.take("mia")
    assert sum(rates.enter("mia") for _ in range(1000)) == Limits().open
    rates.leave("mia")
    assert rates.enter("mia")


# ---------------------------------------------------------------------------
# Nothing of this machine


def test_no_folder_of_this_machine_is_in_anything_a_guest_reads(guests):
    mia, _ = guests
    home = str(mia.live.outputs.parent)
    repo = str(Path(__file__).resolve().parents[2])
    upload = mia.upload(("hero.png", picture())).text
    job = mia.generate(json.loads(upload)[0])
    mia.clip(job)
    seen = [upload, mia.call("job", job), mia.event("page_open", None, session="looks")]
    seen += [mia.http.get(path).text for path in ("/", "config", f"{API}info", f"{API}openapi.json")]
    seen += [mia.http.get(f"{API}file={path}").text for path in ("/etc/passwd", "../launch.py", f"{ALIAS}/x")]
    seen += [
        mia.call("generate", "x", [{"path": "/etc/passwd"}], [], None, None, "16:9", 1.0, 1, "draft"),
        mia.call("job", "nothing"),
    ]
    plain = [home, repo, encode_file_path(home), encode_file_path(repo)]
    shown = [*plain, *map(html.escape, plain)]
    for text in seen:
        assert [each for each in shown if each in text or json.dumps(each)[1:-1] in text] == []
        assert "Traceback" not in text


def test_config_and_api_name_the_three_endpoints_and_no_settings(guests):
    info = guests[0].http.get(f"{API}info").json()
    assert set(info["named_endpoints"]) == {"/generate", "/job", "/stop"}
    assert not info["unnamed_endpoints"]
    assert PASSWORD not in guests[0].http.get("config").text


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../launch.py", "..%2f..%2flaunch.py", "%00", "a%00b", "C:\\Windows\\win.ini",
             "\\\\host\\share\\x", "http://127.0.0.1/", "https://example.org/x.png", f"{ALIAS}/../desks", f"{ALIAS}",
             f"{ALIAS}/%2e%2e/belongings.jsonl", "header.js", ".", "", "~/.ssh/id_rsa"],
)  # fmt: skip
def test_the_file_route_leads_nowhere_else(guests, path):
    assert guests[0].http.get(f"{API}file={path}").status_code in (403, 404)


def test_the_veil_hides_folders_however_they_are_spelled_and_names_uploads_both_ways(tmp_path):
    home = tmp_path / "a böse folder, Mia's & #1 100 %"
    redaction = Redaction(home / "outputs" / "uploads", [home / "outputs", home])
    path = str(home / "outputs" / "uploads" / ("a" * 64) / "x.png")
    assert redaction.reveal(redaction.hide(path)) == path
    for spelled in (str(home), encode_file_path(str(home)), html.escape(str(home))):
        assert redaction.is_needed(json.dumps({"said": f"<p>{spelled}/x"}).encode())
        assert redaction.is_needed(json.dumps(f"<p>{spelled}/x", ensure_ascii=False).encode())
        assert redaction.hide(f"<p>{spelled}/x") == "<p>…/x"
    for text in ("troupe-uploads", ALIAS, f"{ALIAS}x", "The prompt."):
        assert redaction.reveal(text) == text


# ---------------------------------------------------------------------------
# On what terms


@pytest.mark.parametrize(
    ("settings", "environ", "shared"),
    [({}, {}, False), ({"server_name": "127.0.0.1"}, {}, False), ({"server_name": "localhost"}, {}, False),
     ({"server_name": "::1"}, {}, False), ({"server_name": "0.0.0.0"}, {}, True), ({"share": True}, {}, True),
     ({"server_name": "192.168.1.4"}, {}, True), ({}, {"SPACE_ID": "me/troupe"}, True),
     ({"server_name": None}, {"GRADIO_SERVER_NAME": "0.0.0.0"}, True)],
)  # fmt: skip
def test_strangers_are_expected_when_others_can_reach_the_page(settings, environ, shared):
    assert is_shared(settings, environ) is shared
    assert decide(Terms(), settings, environ).shared is shared


def test_a_shared_server_gets_a_password_that_is_not_the_last_one():
    passwords = {decide(Terms(), {"share": True}, {}).accounts[0][1] for _ in range(20)}
    assert len(passwords) == 20
    assert all(re.fullmatch(r"([a-z]{4}-){3}[a-z]{4}", each) for each in passwords)
    assert len(new_password()) == 19


def test_a_password_is_asked_where_the_terms_say_so():
    public = {"share": True}
    assert decide(Terms(("a:b", "c:d:e")), public, {}).accounts == (("a", "b"), ("c", "d:e"))
    assert decide(Terms(no_password=True), public, {}).accounts == ()
    assert decide(Terms(("a:b",)), {}, {}).shared
    space = {"SPACE_ID": "me/troupe"}
    assert decide(Terms(), {}, space).accounts == ()
    assert decide(Terms(), {}, space | {"TROUPE_AUTH": "a:b"}).accounts == (("a", "b"),)


@pytest.mark.parametrize(
    "terms", [Terms(("nameonly",)), Terms((":x",)), Terms(("x:",)), Terms(("a:b",), no_password=True), Terms(hours=0),
              Terms(hours=LONGEST + 1), Terms(hours=float("nan"))],
)  # fmt: skip
def test_terms_that_cannot_be_are_said(terms):
    with pytest.raises(TroupeError, match="--"):
        decide(terms, {"share": True}, {})


def test_an_account_admits_only_its_own_pair():
    found = Access(True, (("mia", "one"), ("tom", "two")), "key")
    assert (found.account("mia", "one"), found.account("tom", "two")) == (0, 1)
    assert found.account("mia", "two") is None
    assert found.account("", "one") is None
    assert Access(True, (("", "word"),)).account("anyone", "word") == 0
    assert Access(True, ()).account("", "") is None
    assert not Access(True).is_owner("")


def test_the_console_says_how_guests_come_in_and_until_when():
    access = decide(Terms(hours=5), {"share": True}, {})
    said = "\n".join(spoken(access, "http://127.0.0.1:7860/", "https://x.invalid"))
    assert access.accounts[0][1] in said
    assert access.owner_key in said
    assert "5 hours" in said
    assert spoken(access_module.LOCAL, "http://127.0.0.1:7860/", None) == []
    assert "review" in SAFETY


def test_sharing_with_the_model_there_says_what_its_licence_asks(monkeypatch, capsys):
    from app import server

    for there in (True, False):
        monkeypatch.setattr(server, "_has_model", lambda there=there: there)
        server._say_hello(decide(Terms(), {"share": True}, {}), "http://127.0.0.1/", None)
        assert (SAFETY in capsys.readouterr().out) is there


def test_on_a_machine_of_ones_own_everybody_is_the_owner_and_no_password_is_asked(tmp_path):
    with serving(tmp_path / "outputs") as live:
        assert httpx.get(f"{live.url}config", timeout=LONG).status_code == 200
        assert live.guard.visitor(None) == OWNER
        for headers in (
            {"host": "evil.example"},
            {"host": "[evil"},
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
        ):
            assert httpx.get(f"{live.url}config", headers=headers, timeout=LONG).status_code == 403
        for host in ("localhost:7860", "[::1]:7860", "127.0.0.1"):
            assert httpx.get(f"{live.url}config", headers={"host": host}, timeout=LONG).status_code == 200


def test_on_a_shared_server_who_comes_past_no_door_is_nobody(live):
    assert live.guard.visitor(None) == Visitor("")
    assert not live.guard.is_owner()


def test_presets_of_ones_own_are_for_the_owner(live, guests, plain):
    folder = live.outputs / "presets" / "own"
    mia, _ = guests
    plain.get(f"/?owner={live.guard.access.owner_key}")
    owner = Guest.__new__(Guest)
    owner.live, owner.http = live, plain
    opened = owner.event("page_open", None, session="owner-desk")
    desk = next(path.name for path in live.outputs.glob("desks/*") if path.name in opened)
    owner.event("page_write_prompt", desk, "A preset of the owner's.", session="owner-2")
    assert "Ours alone" in owner.event("page_save_preset", desk, "Ours alone", session="owner-3")
    assert "Ours alone" in owner.event("page_open", desk, session="owner-4")
    assert "Ours alone" not in mia.event("page_open", None, session="mia-presets")
    assert not folder.exists() or folder.is_dir()


# ---------------------------------------------------------------------------
# A link that ends


def test_a_link_ends_at_its_time_and_the_owner_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gradio.networking.setup_tunnel", lambda **_: "http://link.invalid")
    monkeypatch.setattr("app.server.end_in_time", lambda *_: None)  # it would speak up in the middle of a later test
    with serving(tmp_path / "outputs", terms=Terms(("g:word",), hours=1), share=True) as live:
        guest = httpx.Client(base_url=live.url, timeout=LONG)
        guest.post("/login", data={"username": "g", "password": "word"})
        assert guest.get("config").status_code == 200
        live.guard.ends_at = time.time() - 1
        assert guest.get("config").status_code == 410
        assert "ended" in guest.get("/", headers={"accept": "text/html"}).text
        assert guest.post("/login", data={"username": "g", "password": "word"}).status_code == 410
        with httpx.Client(base_url=live.url, timeout=LONG) as owner:
            owner.get(f"/?owner={live.guard.access.owner_key}")
            assert owner.get("config").status_code == 200
        guest.close()


def test_at_the_end_the_tunnel_is_closed_and_the_console_says_so(tmp_path, monkeypatch, capsys):
    now = [0.0]
    guard = Guard(Access(True, hours=2.0), tmp_path, clock=lambda: now[0])
    closed: list[int] = []

    class Tunnel:
        local_port = 7861

        def kill(self) -> None:
            closed.append(self.local_port)

    other = Tunnel()
    other.local_port = 7999
    tunnels = [Tunnel(), other]
    monkeypatch.setattr("gradio.tunneling.CURRENT_TUNNELS", tunnels)
    thread = end_in_time(guard, lambda: close_tunnels(7861), look=0.01)
    assert thread
    assert thread.is_alive()
    assert not guard.has_ended
    now[0] = 7201.0
    thread.join(LONG)
    assert (closed, tunnels) == ([7861], [other])
    assert "has ended after 2 hours" in capsys.readouterr().out
    assert end_in_time(Guard(Access(True), tmp_path), lambda: None) is None


# ---------------------------------------------------------------------------
# Anything at all


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["path", ALIAS]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FEW = settings(
    max_examples=25, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
# Hypothesis sees Python's own `random` move while it makes up data: that is the server, in its thread, at an event.
SERVER_AT_WORK = pytest.mark.filterwarnings("ignore:Do not use the .random. module inside strategies")
CALLS = ["queue/join", "call/generate", "call/job", "cancel", "reset", "component_server"]


def is_clear(said: httpx.Response) -> bool:
    return said.status_code < 500 and "Traceback" not in said.text and 'File "' not in said.text


@pytest.fixture(scope="module")
def fuzzer(live: Live) -> Iterator[Guest]:
    guest = Guest(live)
    yield guest
    guest.http.close()


@SERVER_AT_WORK
@pytest.mark.parametrize("path", CALLS)
@FEW
@given(raw=st.binary(max_size=60) | JSON.map(lambda data: json.dumps(data).encode()))
def test_whatever_is_sent_is_answered_clearly(fuzzer, path, raw):
    assert is_clear(fuzzer.http.post(API + path, content=raw, headers={"content-type": "application/json"}))


@SERVER_AT_WORK
@pytest.mark.parametrize("path", CALLS)
@FEW
@given(data=JSON, fn_index=st.integers() | st.none() | st.text(max_size=3), session=st.text(max_size=5))
def test_calls_that_look_nearly_right_are_answered_clearly(fuzzer, path, data, fn_index, session):
    body = {"data": data, "fn_index": fn_index, "session_hash": f"fuzz-{session}", "event_data": data}
    raw = json.dumps(body).encode()
    assert is_clear(fuzzer.http.post(API + path, content=raw, headers={"content-type": "application/json"}))


@SERVER_AT_WORK
@FEW
@given(odd=st.lists(JSON, min_size=1, max_size=8))
def test_odd_inputs_of_the_public_endpoint_get_a_line_not_a_trace(fuzzer, odd):
    said = fuzzer.http.post(f"{API}call/generate", content=json.dumps({"data": odd}).encode(),
                            headers={"content-type": "application/json"})  # fmt: skip
    assert is_clear(said)
    if said.is_success:
        stream = fuzzer.http.get(f"{API}call/generate/{said.json()['event_id']}")
        assert is_clear(stream)
        assert "event: error" in stream.text


def test_nested_deeper_than_anybody_needs_is_no_call(fuzzer):
    for raw in (b"[" * 100_000, b'{"data":' * 100_000, b'{"data":[' + b"1," * 3_000_000 + b"1]}"):
        said = fuzzer.http.post(f"{API}queue/join", content=raw, headers={"content-type": "application/json"})
        assert said.status_code in (400, 413)


def test_a_drawing_cannot_ask_for_more_layers_than_there_are(fuzzer):
    fields = {"component_id": "1", "session_hash": "fuzz-draw", "fn_name": "accept_blobs", "type": "layer", "id": "d"}
    for index in ("1_000_000_000", "-5", "21", "x"):
        said = fuzzer.http.post(
            f"{API}component_server", data=fields | {"index": index}, files={"file": ("l.png", picture())}
        )
        assert said.status_code == 400


@SERVER_AT_WORK
@settings(FEW, max_examples=150)
@given(
    changed=st.dictionaries(
        st.sampled_from(["cast", "prompt", "video", "sampling", "engine", "version", "direction", "?"]),
        JSON,
        max_size=3,
    )
)
def test_a_scene_of_anything_is_a_scene_or_an_error_that_can_be_read(changed):
    scene, said = {"cast": [{"role": "character", "image": "a.png"}], "prompt": "x"} | changed, ""
    try:
        scene_from_data(scene)
    except SceneError as error:
        said = str(error)
    assert "\n" not in said


# ---------------------------------------------------------------------------
# With real clients


def test_gradios_client_logs_in_and_gets_its_clip(live, tmp_path):
    client = Client(live.url, verbose=False, auth=("guest", PASSWORD), download_files=str(tmp_path))
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/generate", "/job", "/stop"}
    client.close()


def test_a_guest_in_a_browser_logs_in_makes_a_clip_and_finds_it_after_a_reload(live):
    live.guard.throttle = Throttle()
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.goto(live.url)
        page.get_by_label("Name").fill("guest")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Open").click()
        page.get_by_text("That is not the password.").wait_for()
        page.get_by_label("Name").fill("guest")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Open").click()
        page.locator(".tr-preset").first.click()
        page.locator("#tr-generate:not([disabled])").click()
        page.locator("#tr-video video").wait_for(state="attached")
        size = "() => { const v = document.querySelector('#tr-video video'); return v && v.videoWidth }"
        page.wait_for_function(size)
        page.reload()
        page.wait_for_function(size)
        stranger = browser.new_context().new_page()
        stranger.set_default_timeout(300_000)
        answer = stranger.goto(live.url + page.locator("#tr-video video").get_attribute("src"))
        assert answer
        assert answer.status == 401
