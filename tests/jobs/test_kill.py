"""Troupe is killed outright (SIGKILL; TerminateProcess on Windows) and started again: nothing is lost, nothing is made
twice, and the frames are those of a run that nobody disturbed. The long round is tests/bench/kill.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import kill, kill_server


def test_killed_at_random_moments_no_draft_is_lost_or_made_twice(tmp_path: Path):
    kill.main(tmp_path / "calm", 3, "draft")
    tally = kill.work_off(tmp_path / "wild", 3, "draft", kills=3, seed=7)
    assert tally.kills >= 1
    assert kill.faults(tmp_path / "wild", tally, 3) == []
    assert kill.frames_by_seed(tmp_path / "wild") == kill.frames_by_seed(tmp_path / "calm")


def test_a_killed_run_of_the_model_resumes_from_its_last_step_to_the_same_frames(tmp_path: Path):
    pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
    kill.main(tmp_path / "calm", 1, "a2")
    tally = kill.work_off(tmp_path / "wild", 1, "a2", kills=1, moment="at sampling 5")
    assert tally.kills == 1
    assert kill.faults(tmp_path / "wild", tally, 1) == []
    assert tally.steps[0] == 0
    assert tally.steps[1] >= 5  # not from the start again
    assert kill.frames_by_seed(tmp_path / "wild") == kill.frames_by_seed(tmp_path / "calm")


def test_engine_and_server_are_killed_and_no_draft_is_lost_or_made_twice(tmp_path: Path):
    kill.main(tmp_path / "calm", 2, "draft")
    targets = [kill_server.ENGINE, kill_server.SERVER, kill_server.BOTH]
    tally = kill_server.work_off(tmp_path / "wild", 2, "draft", targets, seed=5)
    assert tally.of == {"engine": 1, "server": 1, "both": 1}
    assert kill.faults(tmp_path / "wild", tally, 2) == []
    assert kill.frames_by_seed(tmp_path / "wild") == kill.frames_by_seed(tmp_path / "calm")
