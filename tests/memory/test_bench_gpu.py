"""The bench for a card runs as far as it can without one, and says that there was none."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
pytest.importorskip("optimum.quanto", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")


def test_the_small_setting_measures_every_way_and_says_that_no_card_was_used(repo):
    command = [sys.executable, "tests/bench/gpu.py", "--small", "--steps", "1", "--caps", "6"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["small"] is True
    assert told["device"] == "cpu"
    assert "no card was used" in told["note"]
    assert set(told["results"]) == {"a2", "v3", "1.3b"}
    for lines in told["results"].values():
        for way in ("int8", "int8+w8a8", "fp8+w8a8"):
            resident, streamed = lines[f"{way}, native"]
            assert (resident["resident_blocks"], resident["copied_gb_a_step"]) == (3, 0)
            assert streamed["resident_blocks"] == 0
            assert streamed["of_resident"] > 0
        assert all("seconds_a_step" in line for line in lines["group_offload"])
