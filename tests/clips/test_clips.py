"""The Clips tab's handlers: every action, for the owner and for guests; saving, opening, housekeeping, file routes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from gradio.context import LocalContext
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.clips.exports import DAY, Exports
from app.clips.housekeeping import DESK_ASLEEP, CleanUp, size_of, told
from app.clips.media import media_route, state_route
from app.create.progress import progress_html
from app.jobs.status import DONE, PAUSED, STOPPED, WAITING
from app.machine.settings import Choices, OwnerSettings
from engine.errors import TroupeError
from engine.media.export import KINDS
from engine.media.video import read_scene, write_video
from engine.scene.scene import Video
from engine.words import gigabytes
from tests.clips_room import QUERY, Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "outputs")
    yield room
    room.close()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "outputs", shared=True)
    yield room
    LocalContext.request.set(None)
    room.close()


@pytest.fixture
def hero(tiny_cast: Path) -> Path:
    return tiny_cast / "hero.png"


# ---------------------------------------------------------------------------
# The gallery


def test_a_clip_shows_what_it_was_made_of(room, hero):
    desk = room.desk(hero, "Mia waves at the sea.", seed=41)
    job = room.clip(desk)
    (clip,) = room.clips(desk)
    facts = dict(clip["facts"])
    assert (clip["id"], clip["prompt"], clip["playable"], clip["poster"]) == (job, "Mia waves at the sea.", True, True)
    assert facts["Seed"] == "41"
    assert facts["Engine"] == "Draft"
    assert facts["Clip"].startswith("832 × 480, 1.1 s")
    assert facts["Took"]
    assert facts["When"].startswith(room.jobs.snapshot(job).created[:10])


def test_search_engine_and_favourites_narrow_the_gallery_and_more_is_shown_when_asked(room, hero):
    desk = room.desk(hero, "Mia waves at the sea.")
    sea = room.clip(desk)
    desk.put("prompt", "Mia sleeps on the moon.")
    moon = room.clip(desk)
    room.act(desk, "star", sea)
    assert [clip["id"] for clip in room.clips(desk, "MOON mia", "all", False, 24)] == [moon]
    assert [clip["id"] for clip in room.clips(desk, "", "all", True, 24)] == [sea]
    assert room.clips(desk, "", "a2", False, 24) == []
    shown = room.gallery.show(desk.id, "", "all", False, 1)
    assert [clip["id"] for clip in shown[room.parts.grid]["clips"]] == [moon]
    assert shown[room.parts.more]["visible"] is True
    assert room.gallery.show_more(desk.id, "", "all", False, 1)[room.parts.more]["visible"] is False
    room.act(desk, "star", sea)
    assert room.clips(desk, "", "all", True, 24) == []


def test_what_a_stranger_sends_in_place_of_a_query_harms_nothing(room, hero):
    desk = room.desk(hero)
    room.clip(desk)
    for query in [(None, None, None, None), ([], {}, "yes", -1), ("x" * 10_000, "a3", 1, 10**9)]:
        room.gallery.show(desk.id, *query)
        room.gallery.tick(desk.id, *query, {"jobs": [None, 3], "newest": []})
        room.gallery.tick(desk.id, *query, "nothing")


def test_delete_moves_to_the_trash_and_undo_brings_back(room, hero):
    desk = room.desk(hero)
    job = room.clip(desk)
    shown = room.act(desk, "delete", job)[room.parts.grid]
    assert shown["clips"] == []
    assert shown["undo"]["id"] == job
    assert [snap.id for snap in room.jobs.in_trash()] == [job]
    shown = room.act(desk, "restore", job)[room.parts.grid]
    assert [clip["id"] for clip in shown["clips"]] == [job]
    assert shown["undo"] is None


def test_a_clip_that_ended_since_is_seen_at_the_next_look(room, hero):
    desk = room.desk(hero)
    before = room.gallery.queue(desk.id)[room.parts.queue]
    assert room.parts.grid not in room.gallery.tick(desk.id, *QUERY, before)
    room.clip(desk)
    assert room.parts.grid in room.gallery.tick(desk.id, *QUERY, before)


def test_nobody_looks_at_the_queue_faster_than_once_a_second_nor_from_another_tab(room, hero):
    desk = room.desk(hero)
    idle = room.gallery.queue(desk.id)[room.parts.timer]
    room.running(desk)
    busy = room.gallery.queue(desk.id)[room.parts.timer]
    assert 1.0 <= busy.value < idle.value
    assert busy.active
    assert idle.active
    assert not room.gallery.leave()[room.parts.timer].active


def test_again_with_another_seed_makes_the_same_scene_anew(room, hero):
    desk = room.desk(hero, seed=5)
    first = room.clip(desk)
    room.act(desk, "vary", first)
    room.until(lambda: len(room.clips(desk)) == 2)
    new, old = (read_scene(room.jobs.snapshot(clip["id"]).clip) for clip in room.clips(desk))
    assert old.sampling.seed == 5 != new.sampling.seed
    assert new.model_copy(update={"sampling": old.sampling}).prompt == old.prompt


# ---------------------------------------------------------------------------
# The queue


def test_every_row_of_the_queue_does_what_its_buttons_say(room, hero):
    desk = room.desk(hero)
    first = room.running(desk)
    for _ in range(3):
        room.act(desk, "twice", first)
    a, b, c = (row["id"] for row in room.rows(desk)[1:])

    def order() -> list[str]:
        return [row["id"] for row in room.rows(desk)[1:]]

    room.act(desk, "up", c)
    assert order() == [a, c, b]
    room.act(desk, "down", a)
    assert order() == [c, a, b]
    room.act(desk, "next", b)
    assert order() == [b, c, a]
    room.act(desk, "hold", c)
    assert room.jobs.snapshot(c).state == PAUSED
    room.act(desk, "resume", c)
    assert room.jobs.snapshot(c).state == WAITING
    room.act(desk, "remove", a)
    assert order() == [b, c]
    room.act(desk, "stop", first)
    room.until(lambda: room.jobs.snapshot(first).state == STOPPED)


def test_a_paused_queue_is_said_where_a_clip_waits_for_it_and_goes_on_when_told(room, hero):
    desk = room.desk(hero)
    first = room.running(desk)
    room.act(desk, "twice", first)
    waiting = room.rows(desk)[1]["id"]
    room.act(desk, "pause")
    assert room.gallery.queue(desk.id)[room.parts.queue]["paused"]
    assert "paused" in progress_html(room.jobs.snapshot(waiting))
    room.gate.open.set()
    room.until(lambda: room.jobs.snapshot(first).state == DONE)
    assert room.jobs.snapshot(waiting).state == WAITING
    room.act(desk, "go")
    room.until(lambda: room.jobs.snapshot(waiting).state == DONE)


def test_a_waiting_clip_is_edited_on_the_desk_and_keeps_its_place(room, hero):
    desk = room.desk(hero)
    first = room.running(desk)
    room.act(desk, "twice", first)
    waiting = room.rows(desk)[1]["id"]
    desk.put("prompt", "Something else.")
    shown = room.act(desk, "edit", waiting)
    assert shown[room.parts.rooms].selected == "create"
    assert desk.sheet.prompt == "Mia waves."
    assert desk.sheet.edits == waiting
    assert room.jobs.snapshot(waiting).state == PAUSED


def test_a_clip_that_was_cut_off_waits_in_the_queue_after_a_restart_and_goes_on(tmp_path, hero):
    room = Room(tmp_path / "outputs")
    desk = room.desk(hero)
    job = room.running(desk)
    room.close()
    room = Room(tmp_path / "outputs")
    try:
        (row,) = room.rows(desk)
        assert (row["id"], row["state"]) == (job, WAITING)
        room.jobs.start()
        room.until(lambda: room.jobs.snapshot(job).state == DONE)
        assert room.rows(desk) == []
    finally:
        room.close()


def test_time_goes_on_between_two_words_of_the_engine(room, hero):
    desk = room.desk(hero)
    job = room.running(desk)
    before = room.jobs.snapshot(job)
    room.until(lambda: room.jobs.snapshot(job).elapsed >= before.elapsed + 0.1)
    after = room.jobs.snapshot(job)
    assert (after.stage, after.step) == (before.stage, before.step)
    if before.remaining is not None:
        assert after.remaining <= before.remaining


# ---------------------------------------------------------------------------
# Opening a scene


def test_open_as_scene_brings_everything_back_and_can_be_undone(room, hero, tiny_cast):
    desk = room.desk(hero, seed=99)
    desk.add("background", tiny_cast / "place.png", "sea")
    desk.place(desk.cards[0].id, {"x": 0.3, "y": 0.9, "scale": 0.5, "flip": True})
    desk.put("format", "9:16")
    desk.put("camera", "orbit")
    job = room.clip(desk)
    other = room.desks.new()
    other.add("object", tiny_cast / "cup.png", "cup")
    other.put("prompt", "A cup.")
    shown = room.act(other, "open", job)
    assert shown[room.parts.rooms].selected == "create"
    mia, sea = other.cards
    assert (mia.name, mia.role, mia.placement["flip"], sea.name) == ("Mia", "character", True, "sea")
    sheet = other.sheet
    assert (sheet.prompt, sheet.seed, sheet.format, sheet.camera) == ("Mia waves.", 99, "9:16", "orbit")
    assert sheet.fresh_seed  # the next clip has this seed
    other.undo_last()
    assert [card.name for card in other.cards] == ["cup"]
    assert other.sheet.prompt == "A cup."


@pytest.mark.parametrize("seconds", [1.0, 2.0, 5.4, 11.9, 12.0])
def test_a_clip_that_is_opened_gets_as_many_frames_again_and_fits_the_page(room, hero, seconds):
    from app.create.views import video_of

    desk = room.desk(hero)
    desk.put("seconds", seconds)
    room.gate.open.clear()
    job = room.running(desk)
    wanted = video_of(desk)["frames"]
    room.act(desk, "open", job)
    assert video_of(desk)["frames"] == wanted
    assert desk.sheet.seconds <= 12.0


def test_the_model_is_offered_for_a_draft_where_it_can_run(room, hero):
    pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

    def offered() -> list[str]:
        return [clip["promote"] for clip in room.clips(desk)]

    desk = room.desk(hero)
    room.clip(desk)
    assert offered() == [""]
    room.settings.put(model=str(Path(__file__).resolve().parents[1] / "fixtures" / "a2_tiny"))
    assert offered() == ["Video model"]


def test_promote_lays_out_the_same_scene_and_seed_for_the_model(room, hero):
    desk = room.desk(hero, seed=1234)
    job = room.clip(desk)
    desk.clear()
    room.act(desk, "promote", job)
    assert (desk.sheet.engine, desk.sheet.seed, desk.sheet.fresh_seed) == ("a2", 1234, True)
    assert [card.name for card in desk.cards] == ["Mia"]
    assert desk.sheet.prompt == "Mia waves."


def brought(room: Room, clip: Path, name: str = "clip.mp4") -> str:
    """An uploaded file."""
    folder = room.outputs / "uploads" / ("a" * 64)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(clip.read_bytes())
    return str(folder / name)


def test_an_mp4_of_troupes_opens_as_its_scene_with_the_cast(room, hero):
    clip = room.jobs.snapshot(room.clip(room.desk(hero, seed=31))).clip
    stranger = room.desks.new()
    shown = room.gallery.bring(stranger.id, brought(room, clip))
    assert shown[room.parts.rooms].selected == "create"
    assert [card.name for card in stranger.cards] == ["Mia"]
    assert stranger.sheet.seed == 31
    assert list((room.outputs / "uploads").glob("tmp*")) == []


def test_a_foreign_or_damaged_mp4_is_refused_and_the_desk_stays(room, hero, tmp_path, moving_square):
    desk = room.desk(hero)
    clip = room.jobs.snapshot(room.clip(desk)).clip
    foreign, damaged = tmp_path / "foreign.mp4", tmp_path / "damaged.mp4"
    write_video(moving_square(), foreign, Video(width=96, height=64, frames=10))
    data = bytearray(clip.read_bytes())
    data[data.rfind(b"PK\x05\x06")] = 0
    damaged.write_bytes(data)
    text = tmp_path / "text.mp4"
    text.write_text("I am not a clip")
    for path, words in ((foreign, "no scene of Troupe's"), (damaged, "damaged"), (text, "text.mp4 is not a clip")):
        with pytest.raises(TroupeError, match=words) as refused:
            room.gallery.bring(desk.id, brought(room, path, path.name))
        assert str(room.outputs) not in str(refused.value)
    with pytest.raises(TroupeError, match="not an uploaded file"):
        room.gallery.bring(desk.id, str(clip))
    assert [card.name for card in desk.cards] == ["Mia"]
    assert desk.sheet.prompt == "Mia waves."
    assert desk.undo is None


# ---------------------------------------------------------------------------
# Saving as another kind of file


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_clip_is_saved_as_every_kind_and_the_route_serves_it(room, hero, kind):
    desk = room.desk(hero)
    job = room.clip(desk)
    saved = room.act(desk, "export", job, kind)[room.parts.grid]["saved"]
    assert saved["state"] == "ready"
    assert saved["words"].startswith("mia-waves_7.")
    with client(room) as http:
        answer = http.get(f"/clips/{job}/{kind}")
    assert answer.status_code == 200
    assert len(answer.content) > 100
    assert "attachment" in answer.headers["content-disposition"]


def test_saving_can_be_stopped_and_leaves_nothing_behind(room, hero, monkeypatch):
    desk = room.desk(hero)
    snap = room.jobs.snapshot(room.clip(desk))
    steps = room.exports.make(snap, "frames")
    monkeypatch.setattr("app.clips.exports.export", slow_export)
    assert next(steps)["state"] == "busy"
    room.act(desk, "unexport", snap.id, "frames")
    assert [step["state"] for step in steps][-1] == "stopped"
    assert list((room.outputs / "exports").rglob("*.*")) == []


def slow_export(clip, out, kind, on_frame, stop):
    from engine.errors import Stopped

    on_frame(1, 4)
    while not stop():
        time.sleep(0.01)
    raise Stopped


def test_saving_that_fails_says_why(room, hero, monkeypatch):
    desk = room.desk(hero)
    job = room.clip(desk)

    def full(*_):
        raise TroupeError("The disk is full", "Free some space.")

    monkeypatch.setattr("app.clips.exports.export", full)
    saved = room.act(desk, "export", job, "gif")[room.parts.grid]["saved"]
    assert (saved["state"], saved["words"]) == ("failed", "The disk is full. Free some space.")
    for job_id, kind in ((job, "exe"), ("f" * 32, "gif"), (None, None)):
        assert room.act(desk, "export", job_id, kind)[room.parts.grid]["saved"]["state"] == "failed"


def test_exports_of_yesterday_go(tmp_path):
    exports = Exports(tmp_path)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "old", (time.time() - 2 * DAY,) * 2)
    exports.sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


# ---------------------------------------------------------------------------
# The file routes


def client(room: Room, may_see=lambda request, job: True) -> TestClient:
    folder = room.outputs / "exports"
    return TestClient(Starlette(routes=[state_route(room.jobs, may_see), media_route(room.jobs, folder, may_see)]))


def test_the_clip_is_served_in_parts_and_to_head(room, hero):
    job = room.clip(room.desk(hero))
    data = room.jobs.snapshot(job).clip.read_bytes()
    with client(room) as http:
        assert http.get(f"/clips/{job}/clip").content == data
        part = http.get(f"/clips/{job}/clip", headers={"range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, data[10:20])
        assert http.get(f"/clips/{job}/clip", headers={"range": f"bytes={len(data)}-"}).status_code == 416
        head = http.head(f"/clips/{job}/clip")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(data)))
        assert http.get(f"/clips/{job}/poster").headers["content-type"] == "image/jpeg"
        assert http.get(f"/clips/{job}/poster").headers["x-content-type-options"] == "nosniff"


def test_unknown_clips_kinds_and_paths_and_other_peoples_are_all_not_there(room, hero):
    job = room.clip(room.desk(hero))
    paths = [f"/clips/{'f' * 32}/clip", f"/clips/{job}/webm", f"/clips/{job}/scene.json", f"/clips/{job}/job.json",
             f"/clips/{job}/..%2f..%2fjobs.sqlite", f"/clips/..%2f{job}/clip", f"/clips/{job.upper()}/clip",
             f"/clips/{job}/clip%00", "/clips/%2e%2e/clip", f"/clips/{job[:-1]}/clip",
             f"/clips/{'f' * 32}/state"]  # fmt: skip
    with client(room) as http:
        for path in paths:
            assert http.get(path).status_code == 404, path
        assert http.post(f"/clips/{job}/clip").status_code == 405
    with client(room, lambda request, job: False) as http:
        for what in ("clip", "poster", "download", "state", *KINDS):
            answer = http.get(f"/clips/{job}/{what}")
            assert (answer.status_code, answer.text) == (404, "There is no such file.")


def test_a_hidden_tab_is_told_when_its_clip_has_ended(room, hero, monkeypatch):
    monkeypatch.setattr("app.clips.media._LOOK", 0.02)
    desk = room.desk(hero)
    job = room.running(desk)
    with client(room) as http:
        monkeypatch.setattr("app.clips.media._HELD", 0.1)
        assert http.get(f"/clips/{job}/state?seen=0").json() == {"state": "running", "percent": 0}  # after a while
        assert http.get(f"/clips/{job}/state?seen=90").json()["percent"] == 0  # at once: it has begun again
        assert http.get(f"/clips/{job}/state?seen=-1;drop").json()["state"] == "running"
        monkeypatch.setattr("app.clips.media._HELD", 1000.0)
        room.gate.open.set()
        seen, states = 0, []
        while not states or states[-1] == "running":
            said = http.get(f"/clips/{job}/state?seen={seen}").json()
            seen, states = said["percent"], [*states, said["state"]]
        assert states[-1] == DONE


# ---------------------------------------------------------------------------
# Guests


ACTIONS = ["star", "delete", "remove", "restore", "resume", "twice", "vary", "next", "up", "down", "hold", "stop",
           "export", "unexport", "open", "promote", "edit", "pause", "go"]  # fmt: skip


def test_a_guest_sees_their_own_clips_and_the_owner_sees_all(shared, hero):
    shared.be("mia")
    mia = shared.desk(hero)
    hers = shared.clip(mia)
    shared.be("tom")
    tom = shared.desk(hero)
    his = shared.clip(tom)
    assert [clip["id"] for clip in shared.clips(tom)] == [his]
    with pytest.raises(TroupeError, match="lost its desk"):
        shared.clips(mia)
    shared.be("owner")
    assert {clip["id"] for clip in shared.clips(shared.desks.new())} == {hers, his}
    assert shared.gallery.queue(shared.desks.new().id)[shared.parts.queue]["owner"]


def test_no_action_of_a_guest_touches_anothers_clips(shared, hero):
    shared.be("mia")
    mia = shared.desk(hero)
    done, running = shared.clip(mia), shared.running(mia)
    shared.act(mia, "twice", running)
    waiting = shared.rows(mia)[-1]["id"]
    before = [shared.jobs.snapshot(job) for job in (done, waiting)]
    shared.be("tom")
    tom, said = shared.desk(hero, "Tom looks."), set()
    for job in (done, running, waiting):
        for action in ACTIONS:
            try:
                shown = shared.act(tom, action, job, "gif")
            except TroupeError as refused:
                said.add(refused.problem)
                continue
            assert shown[shared.parts.grid]["clips"] == []
            assert shown.get(shared.parts.queue, {"jobs": []})["jobs"] == []
            assert shown[shared.parts.grid].get("saved", {"state": "failed"})["state"] == "failed"
    assert said == {"There is no such clip"}
    assert [shared.jobs.snapshot(job) for job in (done, waiting)] == before
    assert shared.jobs.snapshot(running).active
    assert not shared.jobs.paused
    assert len(shared.jobs.queue()) == 2
    assert shared.jobs.in_trash() == []
    assert tom.sheet.prompt == "Tom looks."
    assert [card.name for card in tom.cards] == ["Mia"]
    assert not (shared.outputs / "exports").exists()


def test_a_guest_has_so_many_clips_under_way_whichever_way_they_are_started(shared, hero):
    shared.be("mia")
    mia = shared.desk(hero)
    done = shared.clip(mia)
    shared.gate.open.clear()
    for _ in range(shared.guard.limits.jobs):
        shared.act(mia, "vary", done)
    for action in ("vary", "twice"):
        with pytest.raises(TroupeError, match="being made already"):
            shared.act(mia, action, done)
    last = shared.rows(mia)[-1]["id"]
    shared.act(mia, "next", last)  # it has its place already
    shared.act(mia, "remove", last)
    shared.act(mia, "vary", done)


# ---------------------------------------------------------------------------
# Housekeeping


def age(room: Room, job: str, days: float) -> None:
    """Make a clip as old as that."""
    created = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")
    room.jobs._store.change(job, created=created)


def test_nothing_goes_by_itself(room, hero):
    job = room.clip(room.desk(hero))
    age(room, job, 4000)
    assert room.settings.get() == Choices()
    assert not room.keeping.plan()
    assert told(room.keeping.plan()) == "Nothing would go now."
    assert not room.keeping.at_start()
    assert room.jobs.in_trash() == []


def test_old_clips_are_named_before_they_go_and_favourites_stay(room, hero):
    desk = room.desk(hero)
    old, loved, new = room.clip(desk), room.clip(desk), room.clip(desk)
    age(room, old, 40)
    age(room, loved, 40)
    room.act(desk, "star", loved)
    room.settings.put(clips_days=30)
    plan = room.keeping.plan()
    size = size_of(room.jobs.scene_file(old).parent)
    assert plan.clips == ((old, size),)
    assert size > 10_000
    assert told(plan) == f"1 clip, {gigabytes(size)}, would go to the trash."
    assert {clip["id"] for clip in room.clips(desk)} == {old, loved, new}  # telling moves nothing
    assert room.keeping.at_start() == CleanUp()  # nor does a start, unless it was switched on
    assert told(room.keeping.run(), done=True).startswith("1 clip")
    assert {clip["id"] for clip in room.clips(desk)} == {loved, new}
    room.act(desk, "restore", old)
    room.settings.put(tidy_at_start=True)
    assert room.keeping.at_start() == CleanUp()  # nor one that made a new list of jobs, as this room's has
    room.jobs.is_new = False
    assert [job for job, _ in room.keeping.at_start().clips] == [old]


def test_the_oldest_go_until_the_rest_fits_and_never_more(room, hero):
    desk = room.desk(hero)
    jobs = [room.clip(desk) for _ in range(4)]
    room.act(desk, "star", jobs[0])
    sizes = [size_of(room.jobs.scene_file(job).parent) for job in jobs]
    room.settings.put(clips_gb=(sizes[0] + sizes[3] + sizes[2] // 2) / 10**9)
    assert [job for job, _ in room.keeping.plan().clips] == jobs[1:3]
    room.keeping.run()
    assert not room.keeping.plan().clips
    assert {clip["id"] for clip in room.clips(desk)} == {jobs[0], jobs[3]}


def test_the_trash_is_emptied_after_a_week_and_not_before(room, hero):
    desk = room.desk(hero)
    old, new = room.clip(desk), room.clip(desk)
    for job in (old, new):
        room.act(desk, "delete", job)
    week = (datetime.now(UTC) - timedelta(days=8)).isoformat(timespec="milliseconds")
    room.jobs._store.change(old, trashed=week)
    assert [job for job, _ in room.keeping.plan().old_clips] == [old]
    done = room.keeping.run()
    assert [job for job, _ in done.old_clips] == [old]
    assert "for good" in told(done, done=True)
    assert room.jobs.snapshot(old) is None
    assert [snap.id for snap in room.jobs.in_trash()] == [new]


def test_desks_asleep_go_to_the_trash_and_come_back_when_asked_for(tmp_path, hero):
    first = Room(tmp_path / "outputs")
    forgotten, lately, called = first.desk(hero), first.desk(hero), first.desks.new(passing=True)
    first.close()
    for desk, days in ((forgotten, 91), (lately, 2), (called, 2)):
        os.utime(desk.folder, (time.time() - days * DAY,) * 2)
    room = Room(tmp_path / "outputs")
    try:
        assert {folder.name for folder in room.keeping.plan().desks} == {forgotten.id, called.id}
        assert "2 desks" in told(room.keeping.run(), done=True)
        assert [path.name for path in room.desks.folder.iterdir()] == [lately.id]
        assert room.keeping.plan() == CleanUp()  # the trash keeps them for a week
        assert [card.name for card in room.desks.get(forgotten.id).cards] == ["Mia"]
        os.utime(room.desks.trash / called.id, (time.time() - 8 * DAY,) * 2)
        assert not (room.desks.trash / forgotten.id).exists()
    finally:
        room.close()


def test_a_desk_that_is_open_or_has_a_clip_under_way_is_left_alone(room, hero):
    desk = room.desk(hero)
    room.running(desk)
    os.utime(desk.folder, (time.time() - 2 * DESK_ASLEEP,) * 2)
    assert room.keeping.plan().desks == ()  # open in this process
    room.desks._open.clear()
    assert room.keeping.plan().desks == ()  # its clip is being made
    room.gate.open.set()
    room.until(lambda: not room.jobs.queue())
    assert [folder.name for folder in room.keeping.plan().desks] == [desk.id]


def test_what_an_earlier_run_left_of_uploads_goes_at_the_start(room, monkeypatch):
    uploads = room.outputs / "uploads"
    (uploads / ("b" * 64)).mkdir()
    (uploads / ("b" * 64) / "photo.png").write_bytes(b"x")
    room.keeping.at_start()
    assert (uploads / ("b" * 64)).exists()
    monkeypatch.setattr("app.clips.housekeeping.time.time", lambda now=time.time: now() + 2 * DAY)
    room.keeping.at_start()
    assert not (uploads / ("b" * 64)).exists()
    assert uploads.exists()


def test_a_choice_that_makes_no_sense_counts_as_none(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"clips_days": True, "clips_gb": "much", "tidy_at_start": 1, "model": "mine", "x": 1}))
    assert OwnerSettings(file).get() == Choices(model="mine")
    file.write_text(json.dumps({"clips_days": -3, "clips_gb": 2, "tidy_at_start": True}))
    assert OwnerSettings(file).get() == Choices(clips_gb=2, tidy_at_start=True)
    assert OwnerSettings(file).put(clips_days=9) == OwnerSettings(file).get()


def test_all_that_takes_room_is_counted(room, hero):
    room.clip(room.desk(hero))
    Image.new("RGB", (64, 64)).save(room.outputs / "uploads" / "x.png")
    usage = dict(room.keeping.usage())
    assert usage["Clips"] == size_of(room.outputs / "clips") > 0
    assert usage["Desks"] > 0
    assert usage["Uploads and cache"] > 0
    assert usage["Trash"] == 0
