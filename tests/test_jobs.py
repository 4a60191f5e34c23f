"""Jobs: they run in the order they came, outlive who asked, stop when told, and never take the worker with them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.jobs.board import DONE, FAILED, STOPPED, WAITING, JobBoard, QueueFull
from engine.door import Progress, RenderRequest, Result
from engine.errors import Stopped, VideoError
from engine.scene import scene_from_data

SCENE = scene_from_data({"version": 1, "cast": [{"role": "object", "image": "cup.png"}], "prompt": "a cup"})


@dataclass
class Gate:
    """An engine that goes on only when the test lets it."""

    go: threading.Event
    started: threading.Event
    fault: Exception | None = None

    def render(self, request, on_progress=None, stop=None):
        self.started.set()
        for step in range(1, 11):
            while not self.go.wait(0.01):
                if stop():
                    raise Stopped
            on_progress(Progress("frames", step, 10, 0.1 * step, 0.1))
        if self.fault:
            raise self.fault
        request.out.write_bytes(b"clip")
        return Result(request.out, None, 81, 1.5, "draft", ())


@pytest.fixture
def gate():
    return Gate(threading.Event(), threading.Event())


@pytest.fixture
def board(tmp_path: Path, gate: Gate):
    return JobBoard(tmp_path, gate.render, per_desk=3, in_all=4)


def send(board: JobBoard, desk: str = "a"):
    job_id, folder = board.new_folder("clip")
    return board.submit(job_id, folder, desk, RenderRequest(SCENE, folder, folder / "clip_42.mp4"))


def test_a_job_ends_with_its_clip_and_its_seed(board, gate):
    job = send(board)
    gate.go.set()
    assert job.ended.wait(5)
    snap = board.snapshot(job.id)
    assert (snap.state, snap.share, snap.seed) == (DONE, 1.0, 42)
    assert snap.clip.read_bytes() == b"clip"


def test_jobs_wait_for_each_other_and_say_how_many_are_ahead(board, gate):
    first, second, third = send(board), send(board), send(board)
    assert gate.started.wait(5)
    assert board.snapshot(second.id).ahead == 1
    assert board.snapshot(third.id).ahead == 2
    assert board.snapshot(third.id).state == WAITING
    gate.go.set()
    assert third.ended.wait(5)
    assert [board.snapshot(job.id).state for job in (first, second, third)] == [DONE] * 3


def test_stop_acts_within_half_a_second_and_the_next_job_runs(board, gate):
    first, second = send(board), send(board)
    assert gate.started.wait(5)
    board.stop(first.id, wait=0.5)
    assert board.snapshot(first.id).state == STOPPED
    assert not first.folder.exists()  # nothing partial is kept
    gate.go.set()
    assert second.ended.wait(5)
    assert board.snapshot(second.id).state == DONE


def test_a_waiting_job_can_be_stopped_before_it_ever_starts(board, gate):
    first, second = send(board), send(board)
    assert gate.started.wait(5)
    board.stop(second.id)
    assert board.snapshot(second.id).state == STOPPED
    gate.go.set()
    assert first.ended.wait(5)
    assert board.snapshot(first.id).state == DONE


@pytest.mark.parametrize(
    ("fault", "said"),
    [(VideoError("the disk is full", "Free some space."), "the disk is full. Free some space."),
     (ZeroDivisionError("a bug"), "Something went wrong inside Troupe")],
)  # fmt: skip
def test_a_failed_job_says_why_and_the_worker_goes_on(board, gate, fault, said):
    gate.fault = fault
    gate.go.set()
    job = send(board)
    assert job.ended.wait(5)
    snap = board.snapshot(job.id)
    assert snap.state == FAILED
    assert snap.error.startswith(said)
    assert "a bug" not in snap.error
    gate.fault = None
    after = send(board)
    assert after.ended.wait(5)
    assert board.snapshot(after.id).state == DONE


def test_a_full_queue_refuses_with_a_reason_and_takes_jobs_again_later(board, gate):
    mine = [send(board, "a") for _ in range(3)]
    with pytest.raises(QueueFull, match="3 of your clips"):
        send(board, "a")
    send(board, "b")
    with pytest.raises(QueueFull, match="4 clips are waiting"):
        send(board, "c")
    gate.go.set()
    assert mine[-1].ended.wait(5)
    deadline = time.monotonic() + 5
    while board.snapshot(mine[-1].id).active and time.monotonic() < deadline:
        time.sleep(0.01)
    assert send(board, "a").ended.wait(5)


def test_a_finished_clip_is_found_after_a_restart_and_a_cut_off_one_says_so(board, gate, tmp_path):
    gate.go.set()
    job = send(board)
    assert job.ended.wait(5)
    lost_id, _ = board.new_folder("lost")
    fresh = JobBoard(tmp_path, gate.render)
    assert fresh.snapshot(job.id).state == DONE
    assert fresh.snapshot(job.id).clip == board.snapshot(job.id).clip
    assert fresh.snapshot(lost_id).state == FAILED
    assert "Generate again" in fresh.snapshot(lost_id).error


@pytest.mark.parametrize("guess", [None, 7, "", "../x", "*", "0" * 31, "a" * 32])
def test_a_made_up_job_id_finds_nothing(board, guess):
    assert board.snapshot(guess) is None
    board.stop(guess)
