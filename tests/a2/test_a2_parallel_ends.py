"""Several processes that make one clip, and what ends it: a stop, one that is gone, memory that runs out in one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
psutil = pytest.importorskip("psutil", reason="it comes with the a2 engine's libraries")
if sys.platform == "win32":
    pytest.skip("several cards do not work together on Windows", allow_module_level=True)

from safetensors.numpy import load_file

from engine.a2.parallel import crew
from engine.a2.parallel.crew import Crew
from engine.a2.parallel.show import check_cards
from engine.a2.parallel.show import shoot as show
from engine.door.render import RenderRequest, render
from engine.errors import EngineUnavailable, Stopped
from engine.memory.model_cache import ModelCache
from engine.process.client import EngineDied, EngineProcess
from engine.scene.engine import RunContext
from engine.scene.scene_file import load_scene, scene_from_data
from tests.crews import HUNGRY, ONE_PROCESS, all_gone, alone, furthest, ranks_below, together
from tests.places import REPO
from tests.tiny import GOLDEN, OPTIONS, TINY, TRIO, a_scene, change_json, members_of
from tests.waits import LONG, until

TWO = replace(OPTIONS, cards=2)
SOON = 30.0  # seconds in which all have ended


@pytest.fixture(scope="module")
def pair() -> Iterator[ModelCache]:
    """Two processes, which stay for several tests."""
    cache = ModelCache()
    yield cache
    cache.release()


@pytest.fixture
def own() -> Iterator[ModelCache]:
    """For processes that are ended."""
    cache = ModelCache()
    yield cache
    cache.release()


# ---------------------------------------------------------------------------
# Stopped, gone, short of memory


def test_a_stop_in_the_middle_of_a_step_leaves_a_run_that_goes_on(pair, tmp_path):
    scene = a_scene(TRIO, sampling={"steps": 40, "guidance": 3.0, "seed": 5})
    options, told = replace(TWO, state=tmp_path / "run.safetensors"), []
    with pytest.raises(Stopped):
        together(pair, scene, members_of(scene), options, tmp_path, tell=lambda *how: told.append(how),
                 stop=lambda: ("sampling", 2) in [how[:2] for how in told])  # fmt: skip
    kept = pair.kept
    assert kept.is_alive
    assert max(how[1] for how in told if how[0] == "sampling") < 40
    told.clear()
    latents, _, _ = together(
        pair, scene, members_of(scene), options, tmp_path, tell=lambda *how: told.append(how)
    )  # fmt: skip
    assert next(how[1] for how in told if how[0] == "sampling") >= 2
    assert pair.kept is kept
    assert np.abs(latents - alone(scene, members_of(scene), OPTIONS)[0]).max() <= ONE_PROCESS


def test_a_clip_that_is_left_while_it_is_decoded_does_not_spoil_the_next(pair, tmp_path):
    scene = a_scene(TRIO)
    footage = show(scene, members_of(scene), RunContext(TWO, lambda *_: None, None, pair))
    next(footage.frames)
    footage.frames.close()
    latents, _, _ = together(pair, scene, members_of(scene), TWO, tmp_path)
    assert np.abs(latents - alone(scene, members_of(scene), OPTIONS)[0]).max() <= ONE_PROCESS


def test_memory_that_runs_out_in_one_is_a_shortage_of_all(own, tmp_path, monkeypatch):
    monkeypatch.setenv(HUNGRY, str(tmp_path / "happened"))
    monkeypatch.setattr(
        crew, "command_of", lambda _, *arguments: [sys.executable, "-m", "tests.crews", *arguments]
    )  # fmt: skip
    scene = a_scene(TRIO, video={"width": 640, "height": 64}, sampling={"steps": 2, "guidance": 3.0, "seed": 5})
    latents, frames, notices = together(own, scene, members_of(scene), TWO, tmp_path)
    assert any("Memory ran out while decoding" in each and "tiles of 576 pixels" in each for each in notices)
    ours, shown, _ = alone(scene, members_of(scene), OPTIONS)
    assert np.abs(latents - ours).max() <= ONE_PROCESS
    assert furthest(frames, shown) <= 1


def on_the_command_line(folder: Path, *flags: object) -> subprocess.Popen[str]:
    scene = folder / "scene"
    shutil.copytree(GOLDEN, scene)
    change_json(scene / "two_references.json", sampling={"steps": 60, "guidance": 2.0, "seed": 7})
    command = [
        sys.executable, REPO / "launch.py", "render", scene / "two_references.json", "-o", folder / "out.mp4",
        "--model", TINY, "--device", "cpu", "--precision", "fp32", "--cards", "2", *flags,
    ]  # fmt: skip
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)


def test_a_killed_process_ends_all_with_one_line_and_the_run_goes_on(tmp_path):
    state = tmp_path / "run.safetensors"
    troupe = on_the_command_line(tmp_path, "--state", state)
    try:
        until(lambda: state.exists() or troupe.poll() is not None, "a step")
        crew = ranks_below(troupe.pid)
        crew[1].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        _, said = troupe.communicate(timeout=LONG)
        assert time.monotonic() - killed < SOON
    finally:
        troupe.kill()
        troupe.wait()
    assert troupe.returncode == 1
    lines = [line for line in said.splitlines() if line.startswith("troupe")]
    assert len(lines) == 1
    assert "the process of card 2 of 2 was ended by the system" in lines[0]
    assert "Traceback" not in said
    until(lambda: all_gone(crew), "their end")
    assert sorted(os.listdir(tmp_path)) == ["run.safetensors", "scene"]
    request = RenderRequest(scene_of(tmp_path), tmp_path / "scene", tmp_path / "out.mp4", poster=False,
                            options=replace(OPTIONS, state=state, save_latents=tmp_path / "went_on"))  # fmt: skip
    told = []
    render(request, told.append)
    assert next(each.step for each in told if each.stage == "sampling") > 0
    whole = replace(request, options=replace(OPTIONS, save_latents=tmp_path / "whole"))
    render(whole)
    went_on, one = (load_file(tmp_path / name)["latents"] for name in ("went_on", "whole"))
    assert np.abs(went_on - one).max() <= ONE_PROCESS


def scene_of(folder: Path):
    scene = load_scene(folder / "scene" / "two_references.json").model_dump(exclude_none=True)
    return scene_from_data({**scene, "engine": "a2"})


def test_ctrl_c_ends_all_of_them(tmp_path):
    troupe = on_the_command_line(tmp_path, "--state", tmp_path / "run.safetensors")
    try:
        until(lambda: (tmp_path / "run.safetensors").exists() or troupe.poll() is not None, "a step")
        crew = ranks_below(troupe.pid)
        assert len(crew) == 2
        troupe.send_signal(signal.SIGINT)
        _, said = troupe.communicate(timeout=LONG)
    finally:
        troupe.kill()
        troupe.wait()
    assert troupe.returncode == 130
    assert said.splitlines()[-1].startswith("troupe: Stopped.")
    assert "goes on there" in said
    until(lambda: all_gone(crew), "their end")
    assert not (tmp_path / "out.mp4").exists()


def test_the_page_s_engine_makes_clips_with_them_and_none_outlives_it(tmp_path):
    scene = a_scene(TRIO[:1], sampling={"steps": 2, "guidance": 3.0, "seed": 5})
    scene = scene_from_data(scene.model_dump(exclude_none=True) | {
        "cast": [{"role": "character", "image": "character.png", "cutout": "none"}]})  # fmt: skip
    request = RenderRequest(scene, GOLDEN, tmp_path / "out.mp4", poster=False,
                            options=replace(TWO, state=tmp_path / "run.safetensors"))  # fmt: skip
    engine = EngineProcess(grace=LONG)
    try:
        assert engine.render(request).frames == 9
        crew = ranks_below(os.getpid())
        crew = [each for each in crew if each.ppid() == engine._child.pid]
        assert len(crew) == 2
        assert engine.render(request).frames == 9
        assert [each.pid for each in ranks_below(engine._child.pid)] == [each.pid for each in crew]
        until(lambda: engine.holds()[1] > sum(each.memory_info().rss for each in crew) / 4, "what they hold")
        long = replace(request, scene=scene.model_copy(update={
            "sampling": scene.sampling.model_copy(update={"steps": 200})}))  # fmt: skip

        def kill(progress) -> None:
            if (progress.stage, progress.step) == ("sampling", 1):
                os.kill(engine._child.pid, signal.SIGKILL)

        with pytest.raises(EngineDied):
            engine.render(long, kill)
        until(lambda: all_gone(crew), "their end", SOON)
    finally:
        engine.close(0.2)


# ---------------------------------------------------------------------------
# What cannot be


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (replace(TWO, device="cuda:1"), "which is one card"),
        (replace(TWO, device=""), "sees no CUDA devices"),
    ],
)
def test_cards_that_are_not_there_are_refused(options, says):
    if torch.cuda.is_available():
        pytest.skip("there are cards here")
    with pytest.raises(EngineUnavailable, match=says):
        check_cards(options)


def test_a_crew_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(crew, "command_of", lambda *_: [sys.executable, "-c", "raise SystemExit('no such thing')"])
    with pytest.raises(EngineUnavailable, match="no such thing"):
        Crew(2, "cpu", lambda: False)
