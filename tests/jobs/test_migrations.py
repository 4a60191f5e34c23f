"""The store learns: files of every earlier version open with all that was in them, and one that cannot be brought along
stays as it was."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest

from app.jobs import migrations
from app.jobs.queue import DONE, FAILED, PAUSED, STOPPED, WAITING, JobQueue
from app.jobs.records import JobRecord, row_of
from app.jobs.status import OVER, QUEUED
from app.jobs.store import JobRow, JobStore, StoreError, now, open_store
from engine.a2.options import A2Options, Lora
from engine.door.render import RenderRequest
from engine.scene.scene_file import scene_from_data
from tests.waits import LONG

ROOT = Path(__file__).resolve().parents[2]
OLD = sorted((ROOT / "tests" / "fixtures").glob("store_v*"))
SCENE = scene_from_data({"cast": [{"role": "object", "image": "cup.png"}], "prompt": "a cup",
                         "video": {"width": 96, "height": 64, "frames": 5}})  # fmt: skip
NEXT = len(migrations.MIGRATIONS) + 1
COPY = f"jobs.before-v{NEXT}.sqlite"


def row(number: int) -> JobRow:
    return row_of(JobRecord(f"{number:032x}", "desk", {}, now()), Path(f"folder_{number}"), SCENE)


def connected(path: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))


def told(path: Path) -> list[dict[str, object]]:
    """All jobs of a file, column by column, as SQLite has them."""
    with connected(path) as db:
        db.row_factory = sqlite3.Row
        return [dict(each) for each in db.execute("SELECT * FROM jobs ORDER BY number")]


def version(path: Path) -> int:
    with connected(path) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


def word_of(folder: str) -> str:
    return folder.split("_")[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture(params=OLD, ids=lambda folder: folder.name)
def old(request, tmp_path: Path) -> Path:
    """The outputs of an earlier version, to write in."""
    return shutil.copytree(request.param, tmp_path / "old")


@pytest.fixture
def today(path: Path) -> Path:
    """A file of today's version with two jobs in it, closed."""
    store = JobStore(path)
    store.add(row(1))
    store.add(replace(row(2), state=DONE, seconds=2.0))
    store.close()
    return path


@pytest.fixture
def learn(monkeypatch):
    """`learn(function, …)`: the migrations of a Troupe to come."""

    def learned(*more: migrations.Migration) -> None:
        monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, *more])

    return learned


def sharpness(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE jobs ADD COLUMN sharpness REAL NOT NULL DEFAULT 0.5")


# -- what earlier versions wrote ------------------------------------------------


def test_an_old_file_s_jobs_say_what_they_said_and_of_what_is_new_the_default(old):
    file = old / "jobs.sqlite"
    before = told(file)
    store = JobStore(file)
    rows = [store.get(each["id"]) for each in before]
    store.close()
    assert len(rows) == 10
    for was, found in zip(before, rows, strict=True):
        for field in fields(JobRow):
            expected = was.get(field.name, field.default)
            assert expected is not MISSING, f"{field.name} needs a default"
            assert getattr(found, field.name) == expected
    assert version(file) == len(migrations.MIGRATIONS)


def test_an_old_file_and_a_new_one_have_the_same_tables(old, path):
    shapes = []
    for file in (old / "jobs.sqlite", path):
        JobStore(file).close()
        with connected(file) as db:
            names = db.execute("SELECT type, name, tbl_name FROM sqlite_schema ORDER BY name").fetchall()
            columns = {name: db.execute(f"PRAGMA table_info({name})").fetchall() for name in ("jobs", "settings")}
            shapes.append((names, columns, db.execute("PRAGMA index_info(jobs_by_state)").fetchall()))
    assert shapes[0] == shapes[1]


def test_the_migrations_make_the_columns_that_the_code_has_and_no_others(path):
    JobStore(path).close()
    with connected(path) as db:
        columns = {each[1] for each in db.execute("PRAGMA table_info(jobs)")}
    assert columns == {"number", *(field.name for field in fields(JobRow))}


def test_an_old_board_s_queue_history_favourites_and_trash_are_as_they_were(old):
    board = JobQueue(old, None, in_all=99)
    try:
        assert (board.notice, board.is_new, board.paused) == ("", False, True)
        queue = [(word_of(board.scene_file(snap.id).parent.name), snap.state) for snap in board.queue()]
        assert queue == [("first", WAITING), ("waiting", WAITING), ("paused", PAUSED), ("lora", WAITING)]
        history = {word_of(board.scene_file(snap.id).parent.name): snap for snap in board.history()}
        assert {word: snap.state for word, snap in history.items()} == {
            "stopped": STOPPED, "filmed": DONE, "fails": FAILED, "favourite": DONE, "done": DONE,
        }  # fmt: skip
        assert list(history) == ["stopped", "filmed", "fails", "favourite", "done"]  # the newest first
        assert [snap.id for snap in board.history(favourites=True)] == [history["favourite"].id]
        assert history["fails"].error == "the graphics card has no room. Choose a smaller size."
        done = history["done"]
        assert (done.notices, done.elapsed, done.owner) == (("The cup is small.",), 1.5, "desk of done")
        assert (done.clip.read_bytes(), done.poster.name) == (b"clip of a cup, done", "done_7.jpg")
        assert history["stopped"].resumable
        (thrown,) = board.in_trash()
        board.restore(thrown.id)
        assert board.snapshot(thrown.id).clip.read_bytes() == b"clip of a cup, trashed"
        assert not board.in_trash()
    finally:
        board.close(LONG)


def test_an_old_job_is_made_with_the_options_it_was_given(old):
    made: list[RenderRequest] = []

    def render(request: RenderRequest, on_progress, stop):
        made.append(request)
        raise NotImplementedError

    board = JobQueue(old, render, in_all=99)
    try:
        job = next(snap.id for snap in board.queue() if snap.prompt == "a cup with lora")
        assert board.snapshot(job).plan == {"precision": "bf16", "offload": "blocks"}
        handle = board.resume(job)
        board.run_next(job)
        for snap in board.queue():
            if snap.id != job and snap.state == WAITING:
                board.hold(snap.id)
        board.resume_queue()
        assert handle.ended.wait(LONG)
    finally:
        board.close(LONG)
    (request,) = made
    loras = (Lora(Path("loras/film.safetensors"), 0.8),)
    wanted = A2Options(
        offload="blocks", resident_blocks=3, batched_guidance=False, loras=loras, step_cache=True, attention="native"
    )
    assert replace(request.options, state=None, preview=None) == wanted
    assert (request.scene.prompt, request.scene.sampling.seed, request.out.name) == ("a cup with lora", 7, "lora_7.mp4")


# -- a newer version ---------------------------------------------------------------


@pytest.mark.parametrize("where", ["in the file", "in the file, and a log beside it", "in the log only"])
def test_a_newer_store_is_refused_and_left_alone_byte_for_byte(today, tmp_path, where):
    with connected(today) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA user_version = 99")
        if where != "in the log only":
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if where != "in the file":
            db.execute("INSERT INTO settings VALUES ('paused', 'true')")
        killed = tmp_path / "killed"  # as a kill would leave it
        killed.mkdir()
        for file in (today, today.with_name("jobs.sqlite-wal")):
            if file.stat().st_size:
                shutil.copy(file, killed)
    before = {file.name: file.read_bytes() for file in killed.iterdir()}
    assert ("jobs.sqlite-wal" in before) == (where != "in the file")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"newer Troupe\. Update this one, or name another folder"):
            open_store(killed / "jobs.sqlite", has_outputs=True)
        after = {file.name: file.read_bytes() for file in killed.iterdir()}
        after.pop("jobs.sqlite-shm", None)  # SQLite's index of the log, which it makes anew
        assert after == before
    with connected(killed / "jobs.sqlite") as db:  # the newer one finds all of it
        assert db.execute("SELECT count(*) FROM settings").fetchone() == (int(where != "in the file"),)


# -- learning a column -----------------------------------------------------------------

LEARNS = """
import json, sys
from dataclasses import replace
from pathlib import Path
from app.jobs.queue import DONE, JobQueue
from app.jobs.store import JobStore

outputs = Path(sys.argv[1])
board = JobQueue(outputs, None)
ids = [snap.id for snap in (*board.queue(), *board.history(), *board.in_trash())]
store = board._store
found = [store.get(job).sharpness for job in ids]
store.change(ids[0], sharpness=0.75)
store.add(replace(store.get(ids[0]), id="f" * 32, sharpness=0.25))
board.close()
store = JobStore(outputs / "jobs.sqlite")
again = [store.get(job).sharpness for job in (*ids, "f" * 32)]
print(json.dumps([found, again]))
"""


def edited(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_a_new_column_costs_a_field_and_a_migration(old, tmp_path):
    scratch = tmp_path / "scratch"
    for room in ("app", "engine"):
        shutil.copytree(ROOT / room, scratch / room, ignore=shutil.ignore_patterns("__pycache__"))
    edited(scratch / "app/jobs/store.py", "\n    gone: int = 0\n", "\n    gone: int = 0\n    sharpness: float = 0.5\n")
    step = '    db.execute("ALTER TABLE jobs ADD COLUMN sharpness REAL NOT NULL DEFAULT 0.5")'
    listed = "MIGRATIONS: list[Migration] = [\n"
    edited(
        scratch / "app/jobs/migrations.py",
        listed,
        f"def sharpness(db: sqlite3.Connection) -> None:\n{step}\n\n\n{listed}",
    )
    edited(scratch / "app/jobs/migrations.py", "\n]\n", "\n    sharpness,\n]\n")

    before, was = told(old / "jobs.sqlite"), version(old / "jobs.sqlite")
    command = [sys.executable, "-c", LEARNS, str(old)]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == 0, done.stderr
    found, again = json.loads(done.stdout)
    assert found == [0.5] * 10
    assert again == [0.75, *[0.5] * 9, 0.25]
    assert version(old / "jobs.sqlite") == NEXT
    assert (told(old / COPY), version(old / COPY)) == (before, was)
    with pytest.raises(StoreError, match="newer Troupe"):  # today's code
        JobStore(old / "jobs.sqlite")
    shutil.copy(old / COPY, old / "jobs.sqlite")  # as a person goes back who does not like the new version
    board = JobQueue(old, None)
    assert len((*board.queue(), *board.history(), *board.in_trash())) == 10
    board.close(LONG)


def test_a_new_store_has_a_place_for_every_state(path):
    store = JobStore(path)
    for number, state in enumerate((*QUEUED, *OVER)):
        store.add(replace(row(number), state=state))
        assert store.get(row(number).id).state == state
    store.close()


def test_every_column_can_be_set_by_its_name_and_no_other(today):
    store = JobStore(today)
    whole = store.get(row(1).id)
    for field in fields(JobRow):
        store.change(whole.id, **{field.name: getattr(whole, field.name)})
    for name in ("sharpnes", "'words'", "words = words, seed"):
        with pytest.raises(TypeError, match="JobRow has no"):
            store.change(whole.id, **{name: "x", "prompt": "another"})
    assert store.get(whole.id) == whole
    store.close()


# -- the copy aside ---------------------------------------------------------------------


def test_the_copy_has_what_only_the_log_had(today, tmp_path, learn):
    store = JobStore(today)
    store.add(row(3))
    killed = tmp_path / "killed"
    killed.mkdir()
    shutil.copy(today, killed)
    shutil.copy(f"{today}-wal", killed)
    store.close()
    learn(sharpness)
    (killed / COPY).write_bytes(b"of an earlier attempt")
    JobStore(killed / "jobs.sqlite").close()
    assert sorted(file.name for file in killed.iterdir()) == [COPY, "jobs.sqlite"]
    assert [each["id"] for each in told(killed / COPY)] == [row(number).id for number in (1, 2, 3)]
    assert (version(killed / COPY), version(killed / "jobs.sqlite")) == (NEXT - 1, NEXT)


def test_a_file_that_needs_no_migration_or_has_no_jobs_is_not_copied(today, path, tmp_path, learn):
    JobStore(today).close()
    empty = tmp_path / "empty"
    empty.mkdir()
    JobStore(empty / "jobs.sqlite").close()
    learn(sharpness)
    JobStore(empty / "jobs.sqlite").close()
    assert version(empty / "jobs.sqlite") == NEXT
    assert [file.name for file in (*today.parent.glob("*.sqlite"), *empty.iterdir())] == ["jobs.sqlite"] * 2


def test_where_no_copy_can_be_made_nothing_is_changed(today, learn):
    before = today.read_bytes()
    (today.parent / COPY).mkdir()
    learn(sharpness)
    with pytest.raises(StoreError, match=r"cannot be copied aside.*start Troupe again\. The list is as it was"):
        open_store(today, has_outputs=True)
    assert today.read_bytes() == before
    assert sorted(file.name for file in today.parent.iterdir()) == [COPY, "jobs.sqlite"]


# -- migrations that fail -------------------------------------------------------------


def raises(db: sqlite3.Connection) -> None:
    sharpness(db)
    raise ZeroDivisionError("by zero")


def bad_sql(db: sqlite3.Connection) -> None:
    sharpness(db)
    db.execute("UPDATE jobs SET sharpnes = 1")


def commits(db: sqlite3.Connection) -> None:
    sharpness(db)
    db.commit()


def runs_a_script(db: sqlite3.Connection) -> None:
    sharpness(db)
    db.executescript("UPDATE jobs SET sharpness = 1;")


def second_fails(db: sqlite3.Connection) -> None:
    db.execute("UPDATE jobs SET prompt = 'lost'")
    raise KeyError("prompt")


FAULTS: list[list[Callable[[sqlite3.Connection], None]]] = [
    [raises], [bad_sql], [commits], [runs_a_script], [sharpness, second_fails],
]  # fmt: skip


@pytest.mark.parametrize("faulty", FAULTS, ids=lambda steps: steps[-1].__name__)
def test_a_migration_that_fails_leaves_the_file_as_it_was(today, learn, monkeypatch, faulty):
    before, jobs = today.read_bytes(), told(today)
    learn(*faulty)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"cannot be updated.*It is as it was.*Troupe that you had before"):
            open_store(today, has_outputs=True)
        assert today.read_bytes() == before
    last = NEXT + len(faulty) - 1
    assert sorted(file.name for file in today.parent.iterdir()) == [f"jobs.before-v{last}.sqlite", "jobs.sqlite"]
    assert told(today.parent / f"jobs.before-v{last}.sqlite") == jobs
    monkeypatch.undo()
    store = JobStore(today)  # the Troupe that one had before
    assert [store.get(each["id"]).prompt for each in jobs] == ["a cup", "a cup"]
    store.close()


def test_a_file_with_tables_of_another_program_is_set_aside(path):
    with connected(path) as db:
        db.execute("CREATE TABLE jobs (title TEXT)")
        db.execute("INSERT INTO jobs VALUES ('gardener')")
    store, notice = open_store(path, has_outputs=True)
    store.close()
    (aside,) = path.parent.glob("jobs.damaged-*.sqlite")
    assert aside.name in notice
    with connected(aside) as db:
        assert db.execute("SELECT title FROM jobs").fetchall() == [("gardener",)]


KILLED = """
import sqlite3, sys
from pathlib import Path
from app.jobs import migrations
from app.jobs.store import JobStore

def halfway(db):
    db.execute("ALTER TABLE jobs ADD COLUMN sharpness REAL NOT NULL DEFAULT 0.5")
    db.execute("UPDATE jobs SET prompt = 'lost', words = printf('%.*c', 200000, 'x')")  # more than the cache holds
    print("halfway", flush=True)
    sys.stdin.readline()
    db.execute("UPDATE jobs SET sharpness = 1")

migrations.MIGRATIONS.append(halfway)
sqlite3.connect = lambda *a, _connect=sqlite3.connect, **k: small(_connect(*a, **k))

def small(db):
    db.execute("PRAGMA cache_size = 5")
    db.execute("PRAGMA cache_spill = 1")
    return db

JobStore(Path(sys.argv[1]))
print("not killed", flush=True)
"""


def test_a_kill_between_two_statements_leaves_a_file_that_the_old_code_opens(old):
    file = old / "jobs.sqlite"
    before = told(file)
    command = [sys.executable, "-c", KILLED, str(file)]
    victim = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with victim:
        assert victim.stdout.readline() == "halfway\n"
        victim.kill()
        assert victim.communicate(timeout=LONG)[0] == ""
    assert file.with_name("jobs.sqlite-wal").stat().st_size > 1_000_000  # the half had reached the disk
    store, notice = open_store(file, has_outputs=True)
    assert notice == ""
    assert [store.get(each["id"]).prompt for each in before] == [each["prompt"] for each in before]
    store.close()
    assert [each | was for each, was in zip(told(file), before, strict=True)] == told(file)
    assert version(file) == len(migrations.MIGRATIONS)  # this code's: what was killed is a later one
    assert told(old / COPY) == before
    board = JobQueue(old, None)
    assert len((*board.queue(), *board.history(), *board.in_trash())) == 10
    board.close(LONG)
