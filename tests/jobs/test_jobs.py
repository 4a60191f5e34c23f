"""Jobs: they run in their order, outlive who asked and the server too, stop when told, and never take the worker with
them."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.jobs import log
from app.jobs.lock import check_free
from app.jobs.queue import DONE, FAILED, INTERRUPTED, PAUSED, RUNNING, STOPPED, WAITING, JobQueue, QueueFull
from app.jobs.records import STATE, request_of
from app.server import open_house
from engine.a2.options import A2Options
from engine.door.render import Progress, RenderRequest, Result
from engine.errors import DiskFull, Stopped, TroupeError, VideoError
from engine.process.client import EngineClosed, EngineDied
from engine.scene.scene import Scene
from engine.scene.scene_file import load_scene, scene_from_data
from tests.waits import LONG, until


@dataclass
class Gate:
    """An engine that goes on only when the test lets it; `made` is what it was given."""

    go: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None
    made: list[RenderRequest] = field(default_factory=list)

    def render(self, request, on_progress=None, stop=None):
        self.made.append(request)
        on_progress(Progress("frames", 1, 10, 0.1, 0.9))
        self.started.set()
        while not self.go.wait(0.01):
            if stop():
                raise Stopped
        if self.fault:
            raise self.fault
        request.out.write_bytes(b"clip")
        return Result(request.out, None, 81, 1.5, "draft", ("mind this",))


def scene(seed: int = 42, **fields: object) -> Scene:
    cast = [{"role": "object", "name": "Cup", "image": "cup.png"}]
    return scene_from_data({"cast": cast, "prompt": "a cup", "sampling": {"seed": seed}, **fields})


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def open_board(tmp_path: Path, gate: Gate):
    """`open_board(...)`: a board over the test's folder; the one before is closed, as its process would have ended."""
    boards: list[JobQueue] = []

    def opened(**limits: int) -> JobQueue:
        for board in boards:
            board.close(LONG)
        boards[:] = [JobQueue(tmp_path, gate.render, **({"per_desk": 8, "in_all": 9} | limits))]
        return boards[0]

    yield opened
    for board in boards:
        board.close(LONG)


@pytest.fixture
def board(open_board):
    return open_board()


def send(board: JobQueue, desk: str = "a", made_of: Scene | None = None, **more):
    job_id, folder = board.new_folder("clip")
    (folder / "cup.png").write_bytes(b"a picture")
    return board.submit(job_id, folder, desk, RenderRequest(made_of or scene(), folder, folder / "clip_42.mp4"), **more)


def line(board: JobQueue) -> list[str]:
    return [snap.id for snap in board.queue() if snap.state != RUNNING]


# -- one job after another ------------------------------------------------------


def test_a_job_ends_with_its_clip_its_seed_and_what_to_know(board, gate):
    job = send(board)
    gate.go.set()
    assert job.ended.wait(LONG)
    snap = board.snapshot(job.id)
    assert (snap.state, snap.share, snap.seed, snap.notices) == (DONE, 1.0, 42, ("mind this",))
    assert snap.clip.read_bytes() == b"clip"
    assert (snap.engine, snap.prompt, snap.title, snap.owner, snap.elapsed) == ("draft", "a cup", "a cup", "a", 1.5)


def test_progress_is_seen_while_it_runs(board, gate):
    job = send(board)
    assert gate.started.wait(LONG)
    snap = board.snapshot(job.id)
    assert (snap.state, snap.stage, snap.step, snap.of, snap.share) == (RUNNING, "frames", 1, 10, 0.1)
    assert snap.remaining <= 0.9  # as it said, less what has passed since
    assert snap.active


def test_jobs_run_one_after_another_and_say_how_many_are_ahead(board, gate):
    first, second, third = send(board), send(board), send(board)
    assert gate.started.wait(LONG)
    assert [board.snapshot(job.id).ahead for job in (second, third)] == [1, 2]
    assert board.snapshot(third.id).state == WAITING
    gate.go.set()
    assert third.ended.wait(LONG)
    assert [board.snapshot(job.id).state for job in (first, second, third)] == [DONE] * 3
    assert [request.root for request in gate.made] == [first.folder, second.folder, third.folder]


def test_a_stopped_job_keeps_its_scene_and_can_be_run_again(board, gate):
    first, second = send(board), send(board)
    assert gate.started.wait(LONG)
    board.stop(first.id, wait=LONG)
    snap = board.snapshot(first.id)
    assert (snap.state, snap.resumable, snap.clip) == (STOPPED, True, None)
    assert load_scene(first.folder / "scene.json") == scene()
    gate.go.set()
    assert second.ended.wait(LONG)
    again = board.resume(first.id)
    assert again.ended.wait(LONG)
    assert board.snapshot(first.id).state == DONE


def test_a_waiting_job_can_be_stopped_before_it_ever_starts(board, gate):
    first, second = send(board), send(board)
    assert gate.started.wait(LONG)
    board.stop(second.id)
    assert board.snapshot(second.id).state == STOPPED
    gate.go.set()
    assert first.ended.wait(LONG)
    assert len(gate.made) == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [(VideoError("the clip cannot be written", "Try again."), "the clip cannot be written. Try again."),
     (ZeroDivisionError("a bug"), "Something went wrong inside Troupe")],
)  # fmt: skip
def test_a_failed_job_says_why_and_the_worker_goes_on(board, gate, fault, said):
    gate.fault = fault
    gate.go.set()
    job = send(board)
    assert job.ended.wait(LONG)
    snap = board.snapshot(job.id)
    assert (snap.state, snap.resumable) == (FAILED, True)
    assert snap.error.startswith(said)
    assert "a bug" not in snap.error
    gate.fault = None
    after = send(board)
    assert after.ended.wait(LONG)
    assert board.snapshot(after.id).state == DONE


def test_a_full_queue_refuses_with_a_reason_and_takes_jobs_again_later(open_board, gate):
    board = open_board(per_desk=3, in_all=4)
    mine = [send(board, "a") for _ in range(3)]
    with pytest.raises(QueueFull, match="3 of your clips"):
        send(board, "a")
    send(board, "b")
    with pytest.raises(QueueFull, match="4 clips are waiting"):
        send(board, "c")
    gate.go.set()
    assert mine[-1].ended.wait(LONG)
    assert send(board, "a").ended.wait(LONG)


@pytest.mark.parametrize("guess", [None, 7, "", "../x", "*", "0" * 31, "a" * 32])
def test_a_made_up_job_id_finds_nothing(board, guess):
    assert board.snapshot(guess) is None
    board.stop(guess)
    with pytest.raises(TroupeError, match="no such clip"):
        board.resume(guess)


def test_what_a_request_says_reaches_the_engine_whole(board, gate):
    made_of = scene(engine="a2", video={"frames": 13})
    job_id, folder = board.new_folder("clip")
    a2 = A2Options(model="somewhere", device="cpu", precision="fp32", scheduler="euler")
    asked = RenderRequest(
        made_of, folder, folder / "x.mp4", quality="best", embed_scene=False, confined=True, poster=False, options=a2
    )
    gate.go.set()
    assert board.submit(job_id, folder, "a", asked).ended.wait(LONG)
    given = gate.made[0]
    assert (given.scene, given.root, given.out, given.quality) == (made_of, folder, folder / "x.mp4", "best")
    assert (given.embed_scene, given.confined, given.poster) == (False, True, False)
    assert (given.options.model, given.options.scheduler) == ("somewhere", "euler")
    assert (given.options.state, given.options.preview) == (folder / "run.safetensors", folder / "preview.webp")


# -- the queue's order ------------------------------------------------------------


@pytest.fixture
def waiting(board, gate):
    """Three jobs in line behind a running one."""
    send(board)
    assert gate.started.wait(LONG)
    return [send(board).id for _ in range(3)]


def test_jobs_change_places(board, gate, waiting):
    a, b, c = waiting
    board.move_up(c)
    assert line(board) == [a, c, b]
    board.move_down(a)
    assert line(board) == [c, a, b]
    board.move(b, 0)
    assert line(board) == [b, c, a]
    board.move(b, 99)
    assert line(board) == [c, a, b]
    board.run_next(b)
    assert line(board) == [b, c, a]
    gate.go.set()
    until(lambda: not board.queue())
    assert [request.root.name[-32:] for request in gate.made[1:]] == [b, c, a]


def test_a_job_that_begins_is_never_missing_from_the_queue(board, gate, monkeypatch):
    board.pause_queue()
    job, here, rows = send(board), threading.current_thread(), board._store._rows

    def dawdle(*query):
        found = rows(*query)
        if threading.current_thread() is here and not gate.started.is_set():
            board.resume_queue()  # it begins right after the first look at the store
            assert gate.started.wait(LONG)
        return found

    monkeypatch.setattr(board._store, "_rows", dawdle)
    assert [snap.id for snap in board.queue()] == [job.id]


def test_a_job_that_begins_while_it_is_put_first_is_no_error(board, gate, waiting, monkeypatch):
    reorder = board._reorder

    def dawdle(job_id, owner, target):
        reorder(job_id, owner, target)
        gate.go.set()  # the running one ends: the next one may begin
        for _ in range(20):
            if board.snapshot(job_id).state == RUNNING:
                break
            time.sleep(0.02)

    monkeypatch.setattr(board, "_reorder", dawdle)
    board.run_next(waiting[2])
    until(lambda: not board.queue())
    assert gate.made[1].root.name.endswith(waiting[2])


def test_somebody_elses_jobs_keep_their_places_and_cannot_be_touched(board, waiting):
    a, b, c = waiting
    stranger = send(board, "stranger").id
    board.run_next(stranger, owner="stranger")
    assert line(board) == [a, b, c, stranger]
    for act in (board.move_up, board.trash, board.resume, board.duplicate, board.run_next, board.scene_file):
        with pytest.raises(TroupeError, match="no such clip"):
            act(a, owner="stranger")
    board.stop(a, owner="stranger")
    assert board.snapshot(a).state == WAITING
    assert [snap.id for snap in board.queue("stranger")] == [stranger]


def test_a_held_job_keeps_its_place_while_the_others_go_on(board, gate, waiting):
    a, b, c = waiting
    board.hold(a)
    assert (board.snapshot(a).state, board.snapshot(b).ahead) == (PAUSED, 1)
    gate.go.set()
    until(lambda: board.snapshot(c).state == DONE)
    assert board.snapshot(a).state == PAUSED
    board.resume(a)
    until(lambda: board.snapshot(a).state == DONE)


def test_a_paused_queue_starts_nothing_until_it_goes_on(open_board, gate):
    board = open_board()
    board.pause_queue()
    job = send(board)
    board = open_board()  # that it is paused outlives a restart, too
    board.start()
    assert board.paused
    assert not gate.started.wait(0.2)
    gate.go.set()
    board.resume_queue()
    until(lambda: board.snapshot(job.id).state == DONE)


def test_a_duplicate_is_the_same_scene_with_the_seed_that_is_asked_for(board, gate, waiting):
    twin = board.duplicate(waiting[0], seed=7)
    assert twin.request.scene.sampling.seed == 7
    assert load_scene(twin.folder / "scene.json") == scene(seed=7)
    assert (twin.folder / "cup.png").read_bytes() == b"a picture"
    assert line(board) == [*waiting, twin.id]


def test_an_edited_job_keeps_its_place(board, gate, waiting):
    a, b, c = waiting
    edited = send(board, made_of=scene(prompt="two cups"), instead_of=b)
    assert line(board) == [a, edited.id, c]
    assert [snap.id for snap in board.in_trash()] == [b]
    running = next(snap.id for snap in board.queue() if snap.state == RUNNING)
    with pytest.raises(TroupeError, match="being made now"):
        send(board, instead_of=running)


# -- the past -----------------------------------------------------------------------


def test_history_is_searched_filtered_and_turned_over(board, gate):
    gate.go.set()
    jobs = [send(board, desk, scene(prompt=f"Élan number {i}")) for i, desk in enumerate("aabb")]
    assert jobs[-1].ended.wait(LONG)
    ids = [job.id for job in reversed(jobs)]
    assert [snap.id for snap in board.history()] == ids
    assert [snap.id for snap in board.history(limit=2, offset=1)] == ids[1:3]
    assert [snap.id for snap in board.history("a")] == ids[2:]
    assert [snap.id for snap in board.history(search="2 ÉLAN cup")] == [jobs[2].id]
    assert board.history(search="%") == board.history(engine="a2") == []
    board.set_favourite(jobs[1].id, True)
    assert [snap.id for snap in board.history(favourites=True)] == [jobs[1].id]


def test_the_trash_gives_back_until_it_is_emptied(board, gate):
    gate.go.set()
    job = send(board)
    assert job.ended.wait(LONG)
    board.trash(job.id)
    assert board.history() == []
    assert not job.folder.exists()
    assert board.in_trash()[0].clip.read_bytes() == b"clip"
    assert board.purge_trash(older_than=3600) == 0
    board.restore(job.id)
    assert board.history()[0].clip == job.folder / "clip_42.mp4"
    board.trash(job.id)
    until(lambda: board.purge_trash(older_than=0) == 1)
    assert board.snapshot(job.id) is None
    assert not list((job.folder.parents[1] / "trash").iterdir())


def test_the_running_job_is_stopped_before_it_goes_to_the_trash(board, gate):
    job = send(board)
    assert gate.started.wait(LONG)
    board.trash(job.id)
    assert board.queue() == []
    assert board.in_trash()[0].state == STOPPED


def test_what_is_left_is_guessed_from_this_machines_past(board, gate):
    job = send(board)
    assert gate.started.wait(LONG)
    assert board.snapshot(job.id).left is None  # nothing is known yet
    gate.go.set()
    assert job.ended.wait(LONG)
    gate.go.clear()
    send(board)
    longer = send(board, made_of=scene(video={"frames": 162}))
    assert board.snapshot(longer.id).left == pytest.approx(3.0)  # 1.5 s for 81 frames


@pytest.mark.parametrize("kept", [False, True])
def test_an_engine_that_died_fails_the_job_with_its_message_and_the_job_goes_on_from_its_steps(board, gate, kept):
    gate.fault = EngineDied("the system ended the engine", "Make the clip smaller.")
    job = send(board)
    assert gate.started.wait(LONG)
    if kept:
        (job.folder / STATE).write_bytes(b"steps")
    gate.go.set()
    assert job.ended.wait(LONG)
    snap = board.snapshot(job.id)
    assert (snap.state, snap.resumable, snap.steps_kept) == (FAILED, True, kept)
    assert snap.error.startswith("the system ended the engine. Make the clip smaller.")
    assert ("steps so far are kept" in snap.error) == kept
    assert len(gate.made) == (3 if kept else 1)  # where something is kept it has gone on by itself, twice
    gate.fault = None
    assert board.resume(job.id).ended.wait(LONG)
    assert board.snapshot(job.id).state == DONE


def test_a_job_that_is_run_again_the_moment_it_failed_has_a_handle_of_its_own(board, gate, monkeypatch):
    failed, again = threading.Event(), threading.Event()
    change = board._store.change

    def dawdle(job_id, **values):
        change(job_id, **values)
        if values.get("state") == FAILED:
            failed.set()
            again.wait(0.3)

    monkeypatch.setattr(board._store, "change", dawdle)
    gate.fault = VideoError("the clip cannot be written", "Try again.")
    job = send(board)
    assert gate.started.wait(LONG)
    gate.go.set()
    assert failed.wait(LONG)
    gate.fault = None
    second = board.resume(job.id)
    again.set()
    assert second is not job
    assert job.ended.wait(LONG)
    assert second.ended.wait(LONG)
    assert board.snapshot(job.id).state == DONE


def test_an_engine_that_was_closed_interrupts_its_job(board, gate):
    gate.fault = EngineClosed("Troupe was closed before the clip was finished", "Generate it again.")
    gate.go.set()
    job = send(board)
    assert job.ended.wait(LONG)
    snap = board.snapshot(job.id)
    assert (snap.state, snap.resumable) == (INTERRUPTED, True)
    assert "closed before" in snap.error


# -- a log for every job ----------------------------------------------------------


def log_of(job) -> str:
    return (job.folder / log.NAME).read_text(encoding="utf-8")


def test_a_job_s_log_says_what_was_asked_how_long_it_took_and_nothing_that_was_written(board, gate):
    gate.go.set()
    job = send(board, made_of=scene(prompt="a secret wedding"))
    assert job.ended.wait(LONG)
    said = log_of(job)
    for part in ("begins: Troupe", "draft, seed 42, 832x480", "1 object", "note: mind this", "done"):
        assert part in said
    assert re.search(r" frames: \d+\.\d s\n", said)
    assert "secret" not in said
    assert "Cup" not in said


def test_a_failed_job_s_log_has_the_traceback_and_the_next_run_is_added(board, gate):
    gate.fault = ZeroDivisionError("a bug")
    gate.fault.add_note("from the engine's process")
    gate.go.set()
    job = send(board)
    assert job.ended.wait(LONG)
    assert "ZeroDivisionError: a bug\nfrom the engine's process" in log_of(job)
    assert "in render" in log_of(job)
    found = log.last_failure(job.folder.parent)
    assert "begins" in found[0]
    assert "from the engine's process" in found
    gate.fault = None
    assert board.resume(job.id).ended.wait(LONG)
    assert log_of(job).count("begins") == 2
    assert log.last_failure(job.folder.parent) == []  # it went well in the end


def test_a_job_s_log_never_grows_without_end(tmp_path):
    for number in range(400):
        kept = log.JobLog(tmp_path)
        kept.end("failed", f"the {number}th time", ValueError("x" * 2000))
        kept.close()
    files = list(tmp_path.iterdir())
    assert sum(file.stat().st_size for file in files) < 250_000
    assert "the 399th time" in (tmp_path / log.NAME).read_text(encoding="utf-8")


def test_a_job_s_log_that_cannot_be_written_stops_nobody(board, gate, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.jobs.log.logging.handlers.RotatingFileHandler._open", refuse)
    gate.go.set()
    job = send(board)
    assert job.ended.wait(LONG)
    assert board.snapshot(job.id).state == DONE


# -- closed, killed, and started again ---------------------------------------------


def test_the_queue_and_the_past_outlive_a_restart(open_board, gate):
    board = open_board()
    gate.go.set()
    done = send(board)
    assert done.ended.wait(LONG)
    gate.go.clear()
    gate.started.clear()
    caught, waits = send(board), send(board)
    assert gate.started.wait(LONG)
    board = open_board()
    assert board.snapshot(done.id).clip.read_bytes() == b"clip"
    assert [(snap.id, snap.state) for snap in board.queue()] == [(caught.id, WAITING), (waits.id, WAITING)]
    gate.go.set()
    board.start()
    until(lambda: board.snapshot(waits.id).state == DONE)
    assert board.snapshot(caught.id).state == DONE


def test_a_job_that_was_killed_goes_on_first_by_itself_but_not_for_ever(open_board, gate):
    board = open_board()
    board.pause_queue()
    caught, waits = send(board), send(board)
    for _ in range(2):
        _as_if_killed(board, caught.id)
        board = open_board()
        assert [(snap.id, snap.state) for snap in board.queue()] == [(caught.id, WAITING), (waits.id, WAITING)]
    _as_if_killed(board, caught.id)
    board = open_board()
    snap = board.snapshot(caught.id)
    assert (snap.state, snap.resumable) == (INTERRUPTED, True)
    board.resume(caught.id)  # whoever asks for it starts a new count
    _as_if_killed(board, caught.id)
    assert open_board().snapshot(caught.id).state == WAITING


def _as_if_killed(board: JobQueue, job_id: str, **columns: object) -> None:
    """The store as a kill leaves it."""
    db = sqlite3.connect(board._store.path)
    db.execute(
        f"UPDATE jobs SET state = 'running' {''.join(f', {name} = ?' for name in columns)} WHERE id = ?",
        (*columns.values(), job_id),
    )
    db.commit()
    db.close()


def test_a_job_killed_between_its_clip_and_the_word_of_it_is_not_made_again(open_board, gate, moving_square):
    from engine.media.video import write_video

    board = open_board()
    board.pause_queue()
    job = send(board)
    video = scene(video={"width": 96, "height": 64, "frames": 5}).video
    write_video(moving_square(5), job.folder / "clip_42.mp4", video)
    (job.folder / ".clip_42.0-1-2.part").write_bytes(b"half")
    _as_if_killed(board, job.id)
    board = open_board()
    snap = board.snapshot(job.id)
    assert (snap.state, snap.clip.name, snap.poster.name) == (DONE, "clip_42.mp4", "clip_42.jpg")
    assert not list(job.folder.glob(".*"))


def test_a_clip_that_cannot_be_read_is_no_clip(open_board):
    board = open_board()
    board.pause_queue()
    job = send(board)
    (job.folder / "clip_42.mp4").write_bytes(b"")  # as a power cut may leave it
    _as_if_killed(board, job.id)
    snap = open_board().snapshot(job.id)
    assert (snap.state, snap.clip) == (WAITING, None)


def test_a_clock_that_was_set_back_changes_no_order(board, gate, monkeypatch):
    send(board)
    assert gate.started.wait(LONG)
    a = send(board)
    monkeypatch.setattr("app.jobs.queue.now", lambda: "1999-01-01T00:00:00+00:00")
    monkeypatch.setattr("app.jobs.runner.now", lambda: "1999-01-01T00:00:00+00:00")
    b = send(board)
    assert line(board) == [a.id, b.id]
    gate.go.set()
    assert b.ended.wait(LONG)
    assert [snap.id for snap in board.history()][:2] == [b.id, a.id]


def test_a_folder_that_somebody_removed_takes_its_job_along(open_board, gate):
    import shutil

    board = open_board()
    gate.go.set()
    kept, gone = send(board), send(board)
    assert gone.ended.wait(LONG)
    gone_folder = gone.folder.with_name("elsewhere")
    shutil.move(gone.folder, gone_folder)
    snap = board.snapshot(gone.id)
    assert (snap.state, snap.clip) == (FAILED, None)
    board = open_board()
    assert [snap.id for snap in board.history()] == [kept.id]
    shutil.move(gone_folder, gone.folder)
    assert len(open_board().history()) == 2


def test_a_move_to_the_trash_that_was_cut_off_is_finished_at_the_next_start(open_board, gate, monkeypatch):
    board = open_board()
    gate.go.set()
    job = send(board)
    assert job.ended.wait(LONG)
    with monkeypatch.context() as patch:
        patch.setattr("app.jobs.folders.os.rename", lambda *_: (_ for _ in ()).throw(PermissionError(13, "in use")))
        board.trash(job.id)
    assert board.in_trash()[0].clip.exists()
    board = open_board()
    assert not job.folder.exists()
    assert board.in_trash()[0].clip.exists()


def test_a_request_of_another_version_still_opens(board):
    board.pause_queue()
    job = send(board)
    row = board._store.get(job.id)
    from dataclasses import replace

    odd = replace(row, options='{"out": "../../x.mp4", "unheard_of": 1, "a2": {"warp": 9}}')
    assert request_of(odd, job.folder).out == job.folder / "x.mp4"


# -- disks and neighbours -------------------------------------------------------------


def test_a_clip_that_finds_the_disk_full_waits_for_room_and_is_made_then(board, gate, monkeypatch):
    free = [1000]
    usage = lambda _: type("Usage", (), {"total": 10**12, "free": free[0]})  # noqa: E731
    monkeypatch.setattr("shutil.disk_usage", usage)
    gate.fault = DiskFull("The disk is full", "Free some space.")
    gate.go.set()
    job, after = send(board), send(board)
    until(lambda: "The disk is full" in board.trouble)
    until(lambda: board.snapshot(job.id).state == WAITING)
    assert "disk is full" in board.snapshot(after.id).error
    assert line(board) == [job.id, after.id]
    assert len(gate.made) == 1
    gate.fault = None
    free[0] = 10**9
    until(lambda: board.snapshot(after.id).state == DONE)
    assert board.snapshot(job.id).state == DONE
    assert board.trouble == ""


def test_a_store_that_finds_the_disk_full_says_so_and_loses_nothing(open_board, gate):
    board = open_board(per_desk=99, in_all=99)
    job = send(board)
    assert gate.started.wait(LONG)
    db = board._store._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    accepted = {job.id}

    def fill() -> None:
        for _ in range(50):  # a page holds a few
            accepted.add(send(board, made_of=scene(prompt="x" * 4000)).id)

    with pytest.raises(TroupeError, match=r"disk is full.*Free some space"):
        fill()
    gate.go.set()
    db.execute("PRAGMA max_page_count = 1000000")
    until(lambda: not board.queue())
    assert {snap.id for snap in board.history() if snap.state == DONE} == accepted


def test_what_a_job_became_is_told_once_the_disk_has_taken_it(board, gate):
    job = send(board)
    assert gate.started.wait(LONG)
    board._store._db.execute("PRAGMA query_only = ON")  # as a disk that has become read-only
    gate.go.set()
    until(lambda: board.trouble)
    assert "Nothing can be written" in board.snapshot(job.id).error
    assert (board.snapshot(job.id).state, job.ended.is_set()) == (RUNNING, False)
    with pytest.raises(TroupeError, match="Nothing can be written"):
        send(board)
    board._store._db.execute("PRAGMA query_only = OFF")
    assert job.ended.wait(LONG)
    assert board.snapshot(job.id).state == DONE


def test_a_folder_that_cannot_be_written_is_said(tmp_path, modes_count):
    (tmp_path / "outputs").mkdir(mode=0o555)
    with pytest.raises(TroupeError, match="cannot be written"):
        JobQueue(tmp_path / "outputs", None)


def test_a_folder_below_one_that_may_not_be_entered_is_said(tmp_path, modes_count):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    check_free(locked / "outputs")  # nobody else is known to have it
    with pytest.raises(TroupeError, match="cannot be written"):
        open_house(locked / "outputs")


def test_a_linked_folder_whose_disk_is_away_is_named(tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "clips").symlink_to(tmp_path / "disk")
    with pytest.raises(TroupeError, match=r"clips is a link to .*disk, which is not there\. Connect its disk"):
        open_house(tmp_path / "outputs")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(TroupeError, match="a link that leads to itself"):
        open_house(tmp_path / "round")


def test_the_second_copy_on_a_folder_says_where_the_first_is(board, tmp_path):
    board.lock.tell("http://127.0.0.1:7860/")
    with pytest.raises(TroupeError, match=r"already open on .* at http://127\.0\.0\.1:7860/\. Use that one"):
        JobQueue(tmp_path, None)
    board.close()
    JobQueue(tmp_path, None).close()


def test_a_second_start_on_the_same_folder_is_one_line_and_a_killed_first_frees_it(repo, tmp_path):
    outputs = tmp_path / "outputs"
    hold = (
        "import sys, time; from pathlib import Path; from app.jobs.lock import FolderLock;"
        "FolderLock(Path(sys.argv[1])).tell('http://here/'); print('held', flush=True); time.sleep(600)"
    )
    first = subprocess.Popen([sys.executable, "-c", hold, str(outputs)], cwd=repo, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        start = ("import sys; from pathlib import Path; from app.start import serve_on_free_port as serve\n"
                 "from app.guard.access import Terms\n"
                 "try:\n    serve(None, None, share=False, browser=False, outputs=Path(sys.argv[1]), terms=Terms())\n"
                 "except Exception as error:\n    sys.exit(f'troupe: {error}')")  # fmt: skip
        second = subprocess.run(
            [sys.executable, "-c", start, str(outputs)], cwd=repo, capture_output=True, text=True, timeout=120
        )
        assert second.returncode == 1
        said = (second.stdout + second.stderr).splitlines()
        assert len(said) == 1
        assert "already open on" in said[0]
        assert "http://here/" in said[0]
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    JobQueue(outputs, None).close()


def test_many_finished_jobs_are_not_kept_in_memory(open_board, gate):
    board = open_board(per_desk=300, in_all=300)
    gate.go.set()
    jobs = [send(board).id for _ in range(40)]
    until(lambda: board._worker._jobs == {})
    assert {snap.id for snap in board.history(limit=100)} == set(jobs)
