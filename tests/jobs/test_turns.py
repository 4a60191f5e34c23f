"""Turns in the queue: nobody waits for all of another's clips, and whoever owns the machine always has room."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.jobs.queue import JobQueue, QueueFull
from app.jobs.turns import Asker, place_in_line
from engine.door.render import RenderRequest, Result
from engine.errors import Stopped
from engine.scene.scene_file import scene_from_data

LONG = 120.0  # seconds


class Room:
    """A board whose first clip goes on for ever, and who asks it."""

    def __init__(self, outputs: Path, **limits: int) -> None:
        self.board, self.number = JobQueue(outputs, self._render, **limits), 0
        self.begun = threading.Event()

    def _render(self, request: Any, on_progress: Any, stop: Any) -> Result:
        self.begun.set()
        while not stop():
            threading.Event().wait(0.01)
        raise Stopped

    def ask(self, who: str, is_owner: bool = False) -> str:
        self.number += 1
        self.board.asker = lambda: Asker(who, is_owner)
        job_id, folder = self.board.new_folder("clip")
        (folder / "cup.png").write_bytes(b"a picture")
        cast = [{"role": "object", "name": f"{who}{self.number}", "image": "cup.png"}]
        scene = scene_from_data({"cast": cast, "prompt": "a cup"})
        self.board.submit(job_id, folder, f"desk-{who}", RenderRequest(scene, folder, folder / "clip.mp4"))
        return job_id


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    found = Room(tmp_path, per_desk=99, in_all=5)
    yield found
    found.board.close(LONG)


def test_a_clip_goes_behind_one_of_each_for_every_one_that_its_visitor_has():
    def placed(line: str, running: str, who: str) -> str:
        at = place_in_line(list(line), list(running), who, str.lower)
        return line[:at] + who + line[at:]

    assert placed("", "", "b") == "b"
    assert placed("aaa", "", "a") == "aaaa"
    assert placed("aaa", "", "b") == "abaa"
    assert placed("aaa", "a", "b") == "baaa"
    assert placed("baaa", "a", "c") == "bcaaa"
    assert placed("abaa", "", "b") == "ababa"
    assert placed("aab", "", "b") == "aabb"  # never before one's own, however they were moved
    assert placed("abc", "", "d") == "abcd"


def test_visitors_take_turns_and_nobody_elses_order_changes(room):
    mias = [room.ask("mia") for _ in range(4)]
    assert room.begun.wait(LONG)
    tom = room.ask("tom")
    assert [snap.id for snap in room.board.queue()] == [mias[0], tom, *mias[1:]]
    room.board.stop(mias[0], wait=LONG)
    room.board.resume(mias[0])  # as a clip of whoever asks now: Tom, whose second it is
    assert [snap.id for snap in room.board.queue()] == [tom, mias[1], mias[2], mias[0], mias[3]]


def test_the_owner_has_room_where_guests_have_none(room):
    for _ in range(5):
        room.ask("mia")
    with pytest.raises(QueueFull, match="5 clips are waiting"):
        room.ask("tom")
    owners = [room.ask("owner", is_owner=True) for _ in range(3)]
    assert {snap.id for snap in room.board.queue()} > set(owners)


def test_on_a_machine_of_ones_own_clips_wait_as_they_were_asked_for(room):
    jobs = [room.ask("", is_owner=True) for _ in range(8)]
    assert [snap.id for snap in room.board.queue()] == jobs
