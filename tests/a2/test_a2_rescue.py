"""Memory that runs out, in every stage: the clip goes on in a safer way, or ends with a message and what is done."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformerBlock
from safetensors.torch import load_file

from engine.a2 import conditioning, decoding, loading, recipe, rescue
from engine.a2.plan.course import COMPONENTS
from engine.a2.recipe import Callbacks, weights_of
from engine.door import command
from engine.door.render import Progress, RenderRequest, render
from engine.errors import EngineUnavailable, Stopped
from engine.memory.model_cache import ModelCache
from engine.memory.shortage import Shortage
from engine.process.client import EngineDied, EngineProcess
from engine.scene.scene_file import scene_to_json
from tests.tiny import GOLDEN, OPTIONS, TRIO, a_scene, copy_of_tiny, golden, members_of

SAYS = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
WIDE = {"width": 384, "height": 64, "frames": 9}  # 48 latent pixels: more than the smallest tile
BATCHED = replace(OPTIONS, batched_guidance=True)


@pytest.fixture(scope="module")
def cache() -> ModelCache:
    return ModelCache()


@pytest.fixture
def on_card(monkeypatch) -> None:
    """As if the weights could wait elsewhere: where it computes is all that a card has to do with it."""
    monkeypatch.setattr(rescue, "_on_card", lambda _: True)


@pytest.fixture
def hungry(monkeypatch) -> Callable[..., list[int]]:
    """`hungry(owner, name, satisfied)`: the function runs out of memory until `satisfied` by its arguments. Hands back
    the calls that failed."""

    def starve(owner: object, name: str, satisfied: Callable[..., bool]) -> list[int]:
        plain, failed = getattr(owner, name), []

        @functools.wraps(plain)  # hooks look at the signature
        def starving(*args: object, **more: object) -> object:
            if not satisfied(*args, **more):
                failed.append(1)
                raise torch.OutOfMemoryError(SAYS)
            return plain(*args, **more)

        monkeypatch.setattr(owner, name, starving)
        return failed

    return starve


class Seen:
    """A watch that keeps what it is told."""

    def __init__(self, stop: Callable[[], bool] | None = None) -> None:
        self.told: list[tuple] = []
        self.steps: list[int] = []
        self.watch = Callbacks(lambda *how: self.told.append(how), lambda step: self.steps.append(step.step), stop)


def shoot(cache, scene, options=OPTIONS, seen=None):
    shot = rescue.shoot(scene, members_of(scene), options, (seen or Seen()).watch, cache)
    return shot, list(shot.frames)


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------------------
# Stage by stage


def test_loading_goes_on_with_blocks_that_stream(cache, on_card, hungry):
    scene = a_scene(TRIO)
    whole, frames = shoot(cache, scene)
    cache.release()
    failed = hungry(loading, "load_plain", lambda *_: bool(failed))
    shot, shown = shoot(cache, scene)
    assert torch.equal(shot.latents, whole.latents)
    assert same(shown, frames)
    assert shot.notices[-1].startswith("Memory ran out while loading the model (2.00 GB more were needed")
    assert "blocks brought one by one" in shot.notices[-1]


def test_after_a_fallback_to_turns_nothing_stays_that_has_had_its_turn(on_card, hungry):
    """They were together before; there was no room for that."""
    cache, scene = ModelCache(), a_scene(TRIO)
    whole, _ = shoot(ModelCache(), scene)
    failed = starve_blocks(hungry, 1, lambda _: bool(failed))
    held = []
    decode = recipe.decode

    def seen(*how):
        model = cache.fetch(recipe.weights_of(OPTIONS), pytest.fail)
        held.append([name for name in COMPONENTS if getattr(model, name) is not None])
        return decode(*how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "decode", seen)
        shot, _ = shoot(cache, scene)
    assert "one by one" in shot.notices[-1]
    assert held == [["vae", "transformer"]]
    assert torch.equal(shot.latents, whole.latents)


def test_the_prompt_is_read_while_the_transformer_steps_aside(cache, on_card, hungry):
    scene, options = a_scene(TRIO, prompt="Somebody new."), replace(OPTIONS, offload="blocks", resident_blocks=2)
    whole, _ = shoot(ModelCache(), scene)
    shoot(cache, a_scene(TRIO), options)  # the transformer is there now
    failed = hungry(conditioning, "encode_text", lambda model, _: model.streams["transformer"].parked)
    shot, _ = shoot(cache, scene, options)
    assert len(failed) == 1
    assert "while reading the prompt" in shot.notices[-1]
    assert "out of the way" in shot.notices[-1]
    assert torch.equal(shot.latents, whole.latents)


def test_pictures_are_encoded_in_tiles(cache, hungry):
    scene = a_scene(TRIO)
    tiled, _ = shoot(cache, scene, replace(OPTIONS, encode_tiled=True))
    hungry(conditioning, "encode_spatial", lambda *args: args[-1])
    shot, _ = shoot(ModelCache(), scene)  # nothing is encoded there yet
    assert torch.equal(shot.latents, tiled.latents)
    assert shot.notices[-1].endswith("went on with the pictures encoded in tiles.")


def starve_blocks(hungry, after: int, satisfied: Callable[[torch.Tensor], bool] = lambda _: False) -> list[int]:
    """A block runs out of memory from its call `after` on, unless satisfied by its hidden states."""
    calls = []
    return hungry(
        WanTransformerBlock, "forward", lambda _, x, *__, **___: calls.append(1) or len(calls) <= after or satisfied(x)
    )


def test_guidance_goes_on_one_half_after_the_other_from_the_same_step(cache, hungry, tmp_path):
    scene, seen = a_scene(TRIO), Seen()
    alike, _ = shoot(cache, scene)
    failed = starve_blocks(hungry, 4, lambda x: len(x) == 1)  # of three: in the middle of the second step
    shot, _ = shoot(cache, scene, replace(BATCHED, state=tmp_path / "run.safetensors"), seen)
    assert len(failed) == 1
    assert seen.steps == [1, 2, 3]
    assert torch.allclose(shot.latents, alike.latents, atol=1e-4)
    assert "at step 2" in shot.notices[-1]
    remark = "memory ran out; now with the two halves of the guidance one after the other"
    assert ("sampling", 1, 3, remark) in seen.told
    assert torch.equal(load_file(tmp_path / "run.safetensors")["latents"], shot.latents)


@pytest.mark.parametrize(
    "before", [OPTIONS, replace(OPTIONS, offload="blocks", resident_blocks=2)], ids=["all loaded", "some resident"]
)
def test_more_streaming_gives_the_same_latents_bit_for_bit(cache, on_card, hungry, before):
    scene, seen = a_scene(TRIO), Seen()
    whole, frames = shoot(cache, scene, before)
    failed = starve_blocks(hungry, 8, lambda _: bool(failed))
    shot, shown = shoot(ModelCache(), scene, before, seen)  # blocks that stream already keep the forward they found
    assert seen.steps == [1, 2, 3]
    assert torch.equal(shot.latents, whole.latents)
    assert same(shown, frames)
    assert "one by one" in shot.notices[-1] or "no block" in shot.notices[-1]


def test_a_step_cache_goes_on_after_a_rung(hungry):
    scene = a_scene(TRIO, sampling={"steps": 8, "guidance": 3.0, "seed": 5})
    seen = Seen()
    starve_blocks(hungry, 13, lambda x: len(x) == 1)
    shot, _ = shoot(ModelCache(), scene, replace(BATCHED, step_cache=True), seen)  # hooks leave the forward they found
    assert seen.steps == list(range(1, 9))
    assert torch.isfinite(shot.latents).all()


@pytest.mark.parametrize("after", [0, 1])
def test_decoding_goes_on_in_tiles_and_no_frame_comes_twice(cache, hungry, after):
    scene, calls = a_scene(TRIO, WIDE), []
    whole, plain = shoot(cache, scene)
    _, small = shoot(cache, scene, replace(OPTIONS, tile=44))
    hungry(decoding, "_enlarge", lambda _, __, tiles, *___: calls.append(1) or len(calls) <= after or len(tiles) > 1)
    seen = Seen()
    shot, shown = shoot(cache, scene, OPTIONS, seen)
    assert torch.equal(shot.latents, whole.latents)
    given = 1 if after else 0  # the first latent is one frame
    assert same(shown[:given], plain[:given])
    assert same(shown[given:], small[given:])
    assert shot.notices[-1].endswith("went on with tiles of 352 pixels.")
    assert seen.steps == [1, 2, 3]


def test_before_the_last_attempt_at_decoding_the_model_is_let_go(cache, hungry):
    scene = a_scene(TRIO)
    _, frames = shoot(cache, scene)
    model = cache.fetch(weights_of(OPTIONS), pytest.fail)
    failed = hungry(decoding, "_enlarge", lambda *_: model.transformer is None and model.text_encoder is None)
    shot, shown = shoot(cache, scene)
    assert len(failed) == 1
    assert same(shown, frames)
    assert "out of the way" in shot.notices[-1]
    assert torch.equal(shoot(cache, scene)[0].latents, shot.latents)  # and is loaded anew


# ---------------------------------------------------------------------------
# Where nothing helps


def test_after_three_rungs_the_message_tells_all_and_the_steps_are_kept(cache, on_card, hungry, tmp_path, monkeypatch):
    scene, state = a_scene(TRIO, WIDE), tmp_path / "run.safetensors"
    options, seen = replace(BATCHED, state=state), Seen()
    monkeypatch.setattr("engine.a2.plan.fallbacks._CHUNKS", (100, 50))
    whole, _ = shoot(cache, scene, BATCHED)
    calls: list[int] = []  # two a block: attention is what whole blocks and those in pieces share
    failed = hungry(WanAttention, "forward", lambda *_, **__: calls.append(1) or len(calls) <= 8)
    with pytest.raises(EngineUnavailable) as told:
        shoot(cache, scene, options, seen)
    assert len(failed) == 4
    assert seen.steps == [1]
    assert not isinstance(told.value, Shortage)
    for part in ("at step 2", "2.00 GB more", "one after the other; then 100 tokens", "one by one and 50 tokens"):
        assert part in told.value.problem
    for part in ("smaller or shorter", "1 steps are kept"):
        assert part in told.value.remedy
    monkeypatch.undo()
    again = Seen()
    shot, _ = shoot(cache, scene, options, again)
    assert again.steps == [2, 3]
    assert torch.equal(shot.latents, whole.latents)


def test_a_run_is_as_it_was_where_the_scheduler_itself_runs_out(cache, hungry):
    from diffusers import UniPCMultistepScheduler

    scene = a_scene(TRIO, sampling={"steps": 4, "guidance": 3.0, "seed": 5})
    whole, _ = shoot(cache, scene, BATCHED)
    calls = []
    hungry(UniPCMultistepScheduler, "multistep_uni_p_bh_update", lambda *_, **__: calls.append(1) or len(calls) != 3)
    shot, _ = shoot(cache, scene, BATCHED)
    assert torch.allclose(shot.latents, whole.latents, atol=1e-4)
    assert len(calls) == 5


def test_stop_is_no_shortage(cache, hungry):
    with pytest.raises(Stopped):
        shoot(cache, a_scene(TRIO), seen=Seen(stop=lambda: True))


# ---------------------------------------------------------------------------
# Denoised latents are on disk before decoding starts


@pytest.fixture
def request_for(tmp_path) -> Callable[..., RenderRequest]:
    scene, _, _ = golden("two_references")
    video = scene.video.model_copy(update={"width": 64, "height": 64, "frames": 13, "trim_head": 4})
    sampling = scene.sampling.model_copy(update={"steps": 3})
    small = scene.model_copy(update={"video": video, "sampling": sampling})

    def request(**options: object) -> RenderRequest:
        return RenderRequest(small, GOLDEN, tmp_path / "out.mp4", poster=False, options=replace(OPTIONS, **options))

    return request


def steps_of(told: list[Progress]) -> list[int]:
    return [progress.step for progress in told if progress.stage == "sampling"]


def test_where_decoding_fails_for_good_the_command_line_s_next_run_only_decodes(request_for, tmp_path, capsys, hungry):
    request, state, first = request_for(), tmp_path / "run.safetensors", tmp_path / "first.safetensors"
    scene = tmp_path / "scene.json"
    cast = tuple(each.model_copy(update={"image": str(GOLDEN / each.image)}) for each in request.scene.cast)
    scene.write_text(scene_to_json(request.scene.model_copy(update={"cast": cast})), encoding="utf-8")
    flags = ["--model", OPTIONS.model, "--device", "cpu", "--precision", "fp32", "--state", state]
    arguments = [str(part) for part in (scene, "-o", tmp_path / "out.mp4", *flags)]
    failed = hungry(decoding, "_enlarge", lambda *_: len(failed) >= 2)
    assert command.main([*arguments, "--save-latents", str(first)]) == 1
    said = capsys.readouterr().err
    assert "while decoding" in said
    assert "only decoding is left" in said
    assert not (tmp_path / "out.mp4").exists()
    told: list[Progress] = []
    render(request_for(state=state, save_latents=tmp_path / "second.safetensors"), told.append)
    assert steps_of(told) == [3]
    assert torch.equal(load_file(first)["latents"], load_file(tmp_path / "second.safetensors")["latents"])


KILLED_WHILE_DECODING = """
import os, sys
from pathlib import Path
from engine.a2 import decoding
from engine.process import worker
enlarge, here = decoding._enlarge, Path(sys.argv[1])
def killed(*how):
    if not here.exists():
        here.touch()
        os.kill(os.getpid(), 9)
    return enlarge(*how)
decoding._enlarge = killed
sys.exit(worker.main([]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_a_job_killed_while_decoding_only_decodes_the_next_time(request_for, tmp_path):
    engine = EngineProcess([sys.executable, "-c", KILLED_WHILE_DECODING, str(tmp_path / "happened")])
    try:
        request, told = request_for(state=tmp_path / "run.safetensors"), []
        with pytest.raises(EngineDied, match="want of memory"):
            engine.render(request)
        assert sorted(os.listdir(tmp_path)) == ["happened", "run.safetensors"]
        result = engine.render(request, told.append)
    finally:
        engine.close(0.2)
    assert steps_of(told) == [3]
    assert result.frames == 9


# ---------------------------------------------------------------------------
# Faults of files


@pytest.mark.parametrize("fault", ["missing", "cut"])
def test_a_shard_s_fault_is_named_and_the_job_s_steps_survive(request_for, tmp_path, fault):
    model, state = copy_of_tiny(tmp_path), tmp_path / "run.safetensors"
    request, told = request_for(model=str(model), state=state), []
    with pytest.raises(Stopped):
        render(request, told.append, lambda: steps_of(told)[-1:] == [2])
    kept = state.read_bytes()
    shard = next((model / "transformer").glob("*.safetensors"))
    whole = shard.read_bytes()
    if fault == "missing":
        shard.unlink()
    else:
        shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EngineUnavailable, match="transformer"):
        render(request)
    assert state.read_bytes() == kept
    shard.write_bytes(whole)
    told.clear()
    render(request, told.append)
    assert steps_of(told) == [2, 3]
