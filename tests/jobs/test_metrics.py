"""A metric that only the table of metrics knows is measured, kept with the job, and shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.scene.metrics import METRICS
from tests.clips_room import Room

MODULE = "tests.jobs.length"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "length", MODULE)


@pytest.fixture
def room(tmp_path: Path, known: None) -> Iterator[Room]:
    found = Room(tmp_path / "outputs")
    found.be("owner")
    yield found
    found.close()


@pytest.fixture
def photo(tiny_cast: Path) -> Path:
    return tiny_cast / "hero.png"


def facts_of(clip: dict) -> dict[str, str]:
    return dict(clip["facts"])


def test_a_metric_is_kept_with_the_job_and_shown_in_the_gallery(room, photo):
    desk = room.desk(photo)
    job = room.clip(desk)
    assert room.jobs.snapshot(job).metrics == {"length": 17.0}
    (clip,) = room.clips(desk)
    assert facts_of(clip)["Length"] == "17 frames"


def test_it_outlives_the_store_and_the_version_that_had_it(room, photo, tmp_path, monkeypatch):
    job = room.clip(room.desk(photo))
    folder = room.jobs.scene_file(job).parent
    assert json.loads((folder / "job.json").read_text())["metrics"] == {"length": 17.0}
    room.close()
    for file in (tmp_path / "outputs").glob("jobs.sqlite*"):
        file.unlink()
    monkeypatch.delitem(METRICS, "length")
    again = Room(tmp_path / "outputs")
    try:
        again.be("owner")
        (clip,) = again.clips(again.desk(photo))
        assert facts_of(clip)["length"] == "17"
    finally:
        again.close()


@pytest.mark.parametrize(
    ("prompt", "notices"),
    [("Mia sleeps.", []), ("Mia explodes.", ["Length was not measured: it cannot be counted. Use fingers."]),
     ("Mia vanishes.", []), ("Mia stumbles.", ["Length was not measured: something went wrong inside Troupe."])],
)  # fmt: skip
def test_what_cannot_be_measured_is_no_reason_to_lose_a_clip(room, photo, prompt, notices):
    job = room.clip(room.desk(photo, prompt))
    snap = room.jobs.snapshot(job)
    assert (snap.state, snap.metrics) == ("done", {})
    assert [each for each in snap.notices if "measured" in each] == notices


ODD_METRICS = (
    "[1]", '{"length": "long"}', '{"length": null}', "3", '{"a": Infinity}', '{"a": 1' + 400 * "0" + "}",
    '{"\\ud800": 1}',
)  # fmt: skip
ODD_PAPERS = (
    {"owner": "\ud800"}, {"options": {"engine": [1]}}, {"options": {"cache": float("nan")}},
    {"options": {"engine": {}}},
)  # fmt: skip


def test_odd_metrics_in_a_folder_are_left_out(room, photo):
    folder = room.jobs.scene_file(room.clip(room.desk(photo))).parent
    room.close()
    shown = {written: taken_in(room, photo, folder, metrics=json.loads(written)) for written in ODD_METRICS}
    assert shown == dict.fromkeys(ODD_METRICS, 1)


def test_one_odd_job_does_not_keep_the_others_from_being_taken_in(room, photo):
    desk = room.desk(photo)
    first, _ = room.clip(desk), room.clip(desk)
    folder = room.jobs.scene_file(first).parent
    room.close()
    shown = {str(odd): (taken_in(room, photo, folder, **odd), folder.is_dir()) for odd in ODD_PAPERS}
    assert {odd: seen for odd, seen in shown.items() if seen not in ((1, True), (2, True))} == {}


def taken_in(room: Room, photo: Path, folder: Path, **changed: object) -> int:
    """How many clips the next start shows, without the store, and with that in the folder's job.json."""
    as_it_was = (folder / "job.json").read_text()
    for file in room.outputs.glob("jobs.sqlite*"):
        file.unlink()
    (folder / "job.json").write_text(json.dumps(json.loads(as_it_was) | changed))
    try:
        again = Room(room.outputs)
        try:
            again.be("owner")
            return len(again.clips(again.desk(photo)))
        finally:
            again.close()
            (folder / "job.json").write_text(as_it_was)
    except Exception as error:
        error.add_note(f"with {changed} in job.json")
        raise
