"""The model in the engine's process: kept between jobs, let go when asked, and a killed run goes on where it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from safetensors.torch import load_file

from engine.a2 import recipe
from engine.a2.options import A2Options, of_the_model
from engine.door.render import Progress, RenderRequest, render
from engine.errors import EngineUnavailable, Stopped
from engine.memory.model_cache import ModelCache
from engine.process.client import EngineDied, EngineProcess
from engine.scene.scene_file import load_scene, scene_from_data
from tests.tiny import GOLDEN, OPTIONS, TINY, copy_of_tiny

# A real worker that is killed after a run's second step is kept, once.
KILLED_ONCE = """
import os, signal, sys
from pathlib import Path
from engine.a2 import recipe
from engine.process import worker
keep, here = recipe.save_run, Path(sys.argv[1])
def kept(path, run, *more):
    keep(path, run, *more)
    if run.step == 2 and not here.exists():
        here.touch()
        os.kill(os.getpid(), 9)
recipe.save_run = kept
sys.exit(worker.main([]))
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    """One process for several tests: what it keeps from the one before is let go."""
    engine = EngineProcess(grace=120.0)
    yield engine
    engine.close(0.2)


@pytest.fixture
def engines() -> Iterator[Callable[..., EngineProcess]]:
    made: list[EngineProcess] = []

    def make(*args: object) -> EngineProcess:
        made.append(EngineProcess(*args))
        return made[-1]

    yield make
    for engine in made:
        engine.close(0.2)


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., RenderRequest]:
    """`request_for(steps, **options)`: a clip of so many steps on the tiny checkpoint."""
    scene = load_scene(GOLDEN / "two_references.json").model_dump(exclude_none=True)
    video = {"width": 64, "height": 64, "frames": 13, "trim_head": 4}

    def request(steps: int = 3, **options: object) -> RenderRequest:
        small = scene_from_data({**scene, "sampling": {"steps": steps, "guidance": 2.0}, "video": video})
        return RenderRequest(small, GOLDEN, tmp_path / "out.mp4", poster=False, options=replace(OPTIONS, **options))

    return request


def stages(engine: EngineProcess, request: RenderRequest) -> list[str]:
    told: list[Progress] = []
    engine.render(request, told.append)
    return list(dict.fromkeys(progress.stage for progress in told))


def test_a_model_stays_loaded_and_gives_the_same_latents(engine, request_for, tmp_path):
    engine.release()
    here, first, second = (tmp_path / f"{name}.safetensors" for name in ("here", "first", "second"))
    render(request_for(save_latents=here))
    whole = ["cast", "loading", "conditioning", "sampling", "decoding"]
    assert stages(engine, request_for(save_latents=first)) == whole
    assert stages(engine, request_for(save_latents=second)) == [stage for stage in whole if stage != "loading"]
    for latents in (first, second):
        assert torch.equal(load_file(latents)["latents"], load_file(here)["latents"])


def test_ten_clips_in_a_row_load_the_model_once(engine, request_for, monkeypatch):
    engine.release()
    loads = ["loading" in stages(engine, request_for(steps=1 + clip % 3)) for clip in range(10)]
    assert loads == [True] + 9 * [False]


def test_streamed_or_not_a_model_is_not_read_again(engine, request_for):
    """How its blocks are kept is arranged anew between two clips; only what was used and dropped is read again."""
    engine.release()
    told: list[Progress] = []
    engine.render(request_for(), told.append)
    for how in ({"offload": "blocks", "resident_blocks": 2}, {"offload": "blocks", "host": "mapped"}, {}):
        told.clear()
        engine.render(request_for(steps=2, **how), told.append)
        assert "transformer" not in {each.detail for each in told if each.stage == "loading"}, how


def test_what_the_process_holds_is_known_while_it_works_and_after(engine, request_for):
    assert engine.holds()[0] == 0  # no card here
    engine.render(request_for())
    engine.render(request_for())  # what it said last is read before the next job's first word
    assert engine.holds()[1] > 50_000_000
    assert EngineProcess().holds() == (0, 0)


def test_a_stopped_job_keeps_the_model_and_release_lets_it_go(engine, request_for):
    told: list[Progress] = []
    engine.release()
    with pytest.raises(Stopped):
        # so many steps that it is not done before the word has come
        engine.render(request_for(200), told.append, lambda: any(p.stage == "sampling" for p in told))
    assert "loading" not in stages(engine, request_for())
    engine.release()
    assert "loading" in stages(engine, request_for())


def test_other_options_load_the_model_anew(engine, request_for):
    stages(engine, request_for())
    assert "loading" in stages(engine, request_for(precision="bf16"))
    assert "loading" not in stages(engine, request_for(precision="bf16", scheduler="euler"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_a_run_killed_in_the_engine_s_process_goes_on_to_the_same_latents(engines, request_for, tmp_path):
    engine = engines([sys.executable, "-c", KILLED_ONCE, str(tmp_path / "happened")])
    whole, latents, state = (tmp_path / f"{name}.safetensors" for name in ("whole", "latents", "run"))
    render(request_for(save_latents=whole))
    (tmp_path / "out.mp4").unlink()
    with pytest.raises(EngineDied, match="want of memory"):
        engine.render(request_for(save_latents=latents, state=state))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["happened", "run.safetensors", "whole.safetensors"]
    told: list[Progress] = []
    engine.render(request_for(save_latents=latents, state=state), told.append)
    assert [p.step for p in told if p.stage == "sampling"] == [2, 3]
    assert torch.equal(load_file(latents)["latents"], load_file(whole)["latents"])


def test_an_error_about_the_model_comes_back_as_one(engine, request_for, tmp_path):
    with pytest.raises(EngineUnavailable, match="nowhere is not there"):
        engine.render(request_for(model=str(tmp_path / "nowhere")))


# ---------------------------------------------------------------------------
# The cache


def test_the_cache_holds_one_model_and_lets_it_go_before_the_next_is_loaded():
    cache, events = ModelCache(), []

    class Model:
        def __init__(self, name: str) -> None:
            events.append(f"{name} loaded")
            self.name = name

        def __del__(self) -> None:
            events.append(f"{self.name} gone")

    for key in ("a", "a", "b"):
        cache.fetch(key, lambda key=key: Model(key))
    cache.release()
    cache.release()
    assert events == ["a loaded", "a gone", "b loaded", "b gone"]


def test_a_load_that_fails_leaves_an_empty_cache():
    cache = ModelCache()
    with pytest.raises(ZeroDivisionError):
        cache.fetch("a", lambda: 1 / 0)
    assert cache.fetch("a", lambda: "loaded") == "loaded"


def test_what_a_model_is_loaded_from_includes_its_files(tmp_path):
    copy = copy_of_tiny(tmp_path)
    options = replace(OPTIONS, model=str(copy))
    before = recipe.weights_of(options)
    assert before == recipe.weights_of(replace(options, state=tmp_path / "x", preview=tmp_path / "y"))
    weights = next(copy.glob("vae/*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b" ")
    assert before != recipe.weights_of(options)
    assert of_the_model(A2Options(model=str(TINY))) != of_the_model(OPTIONS)
