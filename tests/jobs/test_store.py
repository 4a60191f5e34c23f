"""The job store: what it takes in is on the disk, what is damaged is set aside and made anew, and nothing is refused
without a word."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app.jobs.queue import DONE, INTERRUPTED, WAITING, JobQueue
from app.jobs.records import JobRecord, row_of
from app.jobs.store import Damaged, JobRow, JobStore, StoreError, now, open_store
from engine.door.render import RenderRequest
from engine.media.video import write_video
from engine.scene.scene_file import scene_from_data, scene_to_json

SCENE = scene_from_data({"cast": [{"role": "object", "image": "cup.png"}], "prompt": "a cup",
                         "video": {"width": 96, "height": 64, "frames": 5}})  # fmt: skip


def row(number: int) -> JobRow:
    return row_of(JobRecord(f"{number:032x}", "desk", {}, now()), Path(f"folder_{number}"), SCENE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def store(path: Path):
    opened = JobStore(path)
    yield opened
    opened.close()


def test_what_was_taken_in_can_be_read_by_others_at_once(store, path):
    store.add(row(1))
    store.change(row(1).id, state=DONE, seconds=2.0)
    other = sqlite3.connect(path)
    assert other.execute("SELECT state, seconds FROM jobs").fetchall() == [("done", 2.0)]
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: a power cut takes nothing back


def test_changes_that_belong_together_happen_together_or_not_at_all(store):
    store.add(row(1))

    def fail_halfway() -> None:
        with store.changing():
            store.change(row(1).id, state=DONE)
            store.add(row(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert store.get(row(1).id).state == WAITING
    assert store.get(row(2).id) is None


def test_many_threads_may_write_and_read_at_once(store):
    faults = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 10):
                store.add(row(number))
                store.change(row(number).id, step=number)
                assert store.get(row(number).id).step == number
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len({each.position for each in store.line()}) == len(store.line()) == 40


def test_a_row_comes_back_as_it_went_in(store):
    whole = replace(row(1), seed=2**63 - 1, prompt="Élan 猫 \0 🎭", remaining=None, position=3)
    store.add(whole)
    assert store.get(whole.id) == whole


def test_the_pace_is_the_median_of_what_was_finished(store):
    assert store.pace("draft") is None
    for number, seconds in enumerate((1.0, 2.0, 90.0)):
        store.add(replace(row(number), state=DONE, seconds=seconds, units=10.0))
    assert store.pace("draft") == pytest.approx(0.2)
    assert store.pace("a2") is None


def test_a_newer_store_is_refused_in_words_and_left_alone(path):
    JobStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer Troupe"):
        open_store(path, has_outputs=True)
    assert [each.name for each in path.parent.iterdir()] == ["jobs.sqlite"]


def test_a_folder_in_the_store_s_place_is_said(path):
    path.mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        JobStore(path)


# -- damage ---------------------------------------------------------------------


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


def header(path: Path) -> None:
    path.write_bytes(b"\0" * 64 + path.read_bytes()[64:])


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("Dear diary, this is no database. " * 500, encoding="utf-8")


def odd_state(path: Path) -> None:
    data = path.read_bytes()  # the first page is the schema
    path.write_bytes(data[:4096] + data[4096:].replace(b"interrupted", b"interrUpted"))


def not_utf8(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"a cup", b"a \xff\xfep"))


def no_table(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("DROP TABLE jobs")
    db.commit()
    db.close()


DAMAGES = [overwritten, header, truncated, emptied, text, odd_state, not_utf8, no_table]


@pytest.fixture
def outputs(tmp_path: Path, moving_square) -> Path:
    """A finished clip, one that was caught in the middle, and one that waits."""
    board = JobQueue(tmp_path, None)
    board.pause_queue()
    for name in ("done", "half", "waits"):
        job_id, folder = board.new_folder(name)
        (folder / "cup.png").write_bytes(b"a picture")
        request = RenderRequest(SCENE, folder, folder / f"{name}.mp4", embed_scene=False, quality="best")
        board.submit(job_id, folder, f"owner of {name}", request)
        if name == "done":
            write_video(moving_square(5), folder / "done.mp4", SCENE.video)
            board._store.change(job_id, state=DONE, clip="done.mp4")
        elif name == "half":
            (folder / ".half.00000000-1-00000000.part").write_bytes(b"half a clip")
            board._store.change(job_id, state=INTERRUPTED)
    board.close()
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_set_aside_and_made_anew_from_the_outputs(outputs, damage):
    damage(outputs / "jobs.sqlite")
    spoilt = (outputs / "jobs.sqlite").read_bytes()
    board = JobQueue(outputs, None)
    try:
        aside = list(outputs.glob("jobs.damaged-*.sqlite"))
        assert [each.read_bytes() for each in aside] == [spoilt]
        assert aside[0].name in board.notice
        states = {snap.owner: (snap.state, snap.prompt) for snap in board.history()}
        assert states == {"owner of done": (DONE, "a cup"), "owner of half": (INTERRUPTED, "a cup"),
                          "owner of waits": (INTERRUPTED, "a cup")}  # fmt: skip
        done = next(snap for snap in board.history() if snap.state == DONE)
        assert (done.clip.name, done.poster.name) == ("done.mp4", "done.jpg")
        assert not list(outputs.glob("clips/*/.*"))
        assert [job.request.embed_scene for job in [board.duplicate(done.id)]] == [False]
    finally:
        board.close()
    board = JobQueue(outputs, None)  # once is enough
    assert board.notice == ""
    board.close()


@pytest.mark.parametrize("how", ["damaged", "deleted", "no column"])
def test_favourites_and_the_trash_outlive_the_list(outputs, how):
    board = JobQueue(outputs, None)
    done, half = (next(s for s in board.history() if s.state == state) for state in (DONE, INTERRUPTED))
    board.set_favourite(done.id, True)
    board.trash(half.id)
    board.close()
    if how == "damaged":
        text(outputs / "jobs.sqlite")
    elif how == "deleted":
        (outputs / "jobs.sqlite").unlink()
    else:
        with contextlib.closing(sqlite3.connect(outputs / "jobs.sqlite")) as db:
            db.execute("ALTER TABLE jobs DROP COLUMN gone")
            db.commit()
    board = JobQueue(outputs, None)
    assert board.is_new
    assert [(snap.id, snap.favourite) for snap in board.history() if snap.state == DONE] == [(done.id, True)]
    assert [snap.id for snap in board.in_trash()] == [half.id]
    board.restore(half.id)
    board.set_favourite(done.id, False)
    board.close()
    (outputs / "jobs.sqlite").unlink()
    board = JobQueue(outputs, None)
    assert not board.in_trash()
    assert not any(snap.favourite for snap in board.history())
    board.close()


def test_a_list_without_its_settings_is_made_anew(outputs):
    with contextlib.closing(sqlite3.connect(outputs / "jobs.sqlite")) as db:
        db.execute("DROP TABLE settings")
        db.commit()
    board = JobQueue(outputs, None)
    assert board.is_new
    assert len(board.history()) == 3
    board.close()


def test_a_second_damage_on_the_same_day_gets_a_name_of_its_own(outputs):
    for count in (1, 2, 3):
        text(outputs / "jobs.sqlite")
        JobQueue(outputs, None).close()
        assert len(list(outputs.glob("jobs.damaged-*.sqlite"))) == count


def test_clips_of_a_version_without_a_store_are_taken_in(outputs):
    (outputs / "jobs.sqlite").unlink()
    for papers in outputs.glob("clips/*/job.json"):
        papers.unlink()
    board = JobQueue(outputs, None)
    assert board.notice == ""
    assert sorted(snap.state for snap in board.history()) == [DONE, INTERRUPTED, INTERRUPTED]
    board.close()


def test_a_folder_that_was_never_accepted_is_no_job_and_goes(outputs):
    board = JobQueue(outputs, None)
    _, never = board.new_folder("never")
    (never / "cup.png").write_bytes(b"a picture")
    (never / "scene.json").write_text(scene_to_json(SCENE), encoding="utf-8")
    foreign = never.with_name("2020-01-01_000000_mine_" + "f" * 32)  # not of our making: it is left alone
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    board.close()
    board = JobQueue(outputs, None)
    assert len(board.history()) + len(board.queue()) == 3
    assert not never.exists()
    assert (foreign / "notes.txt").exists()
    board.close()


def test_damage_that_shows_while_it_is_open_is_said_in_words(outputs):
    board = JobQueue(outputs, None)
    board._store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    board._store._db.execute("PRAGMA cache_size = 0")
    overwritten(outputs / "jobs.sqlite")
    board._store._db.execute("PRAGMA shrink_memory")
    with pytest.raises(StoreError, match=r"damaged.*Start Troupe again"):
        board.history()
    board.close()


def test_a_write_ahead_log_that_was_cut_off_loses_at_most_its_last_words(path):
    store = JobStore(path)
    store.add(row(1))
    log = path.with_name("jobs.sqlite-wal")
    kept = path.read_bytes(), log.read_bytes()
    store.close()
    path.write_bytes(kept[0])
    log.write_bytes(kept[1][:-100])
    try:
        again, notice = open_store(path, has_outputs=True)
    except Damaged:
        pytest.fail("a log that is cut off is no damage")
    assert notice == ""
    again.close()


class NotMapped(sqlite3.Connection):
    """A file on a network disk: nothing on it can be mapped into memory, as the index of SQLite's log wants to be."""

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        mode = "" if statement.startswith("PRAGMA") else super().execute("PRAGMA locking_mode").fetchone()[0]
        if mode == "normal":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMMAP
            raise error
        return super().execute(statement, *values)


def test_a_network_disk_is_a_disk(path, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=NotMapped))
    for number in (1, 2):
        store = JobStore(path)
        store.add(row(number))
        assert not path.with_name("jobs.sqlite-shm").exists()
        if number == 1:
            store.close()
    for file in tmp_path.glob("jobs.sqlite*"):  # as a power cut would leave it
        (tmp_path / "later").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "later" / file.name)
    store.close()
    monkeypatch.undo()
    later = JobStore(tmp_path / "later" / "jobs.sqlite")
    assert [each.id for each in later.line()] == [row(1).id, row(2).id]
    later.close()
