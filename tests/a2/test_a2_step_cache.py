"""The step cache: what it may skip, what it never skips, and that a run goes on with it as if nothing had happened."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from safetensors import safe_open

from engine.a2 import step_cache
from engine.a2.recipe import Callbacks, shoot
from engine.a2.sampling import Guidance, begin, sample
from engine.errors import Stopped
from tests.tiny import OPTIONS, TRIO, a_scene, conditioned, latents_of, members_of, tiny

CPU = torch.device("cpu")
STEPS = 12


@pytest.fixture(scope="module")
def checkpoint():
    return tiny()


@pytest.fixture(scope="module")
def scene():
    return a_scene(TRIO, sampling={"steps": STEPS, "guidance": 3.0, "seed": 5})


@pytest.fixture(autouse=True)
def threshold(monkeypatch):
    """Random weights change more from step to step than trained ones: here some passes are reused, and some are not."""
    monkeypatch.setattr(step_cache, "THRESHOLD", 0.3)


def whole_passes(checkpoint, latents_from) -> tuple[list[int], torch.Tensor]:
    """How often each block really ran, and what came of it."""
    counts = [0] * len(checkpoint.transformer.blocks)

    def count(index: int):
        def hear(*_: object) -> None:
            counts[index] += 1

        return hear

    hooks = [block.ffn.register_forward_pre_hook(count(i)) for i, block in enumerate(checkpoint.transformer.blocks)]
    try:
        return counts, latents_from()
    finally:
        for hook in hooks:
            hook.remove()


def run_once(checkpoint, scene, guidance: Guidance, step_cache: bool = True) -> torch.Tensor:
    ready = conditioned(checkpoint, scene)
    run = begin(ready, scene.sampling, "unipc", CPU, step_cache)
    return sample(checkpoint.transformer, ready, run, guidance)


@pytest.mark.parametrize("guidance", [Guidance(3.0), Guidance(3.0, batched=True), Guidance(1.0)])
def test_passes_are_reused_and_the_picture_stays_close(checkpoint, scene, guidance):
    plain = run_once(checkpoint, scene, guidance, step_cache=False)
    counts, latents = whole_passes(checkpoint, lambda: run_once(checkpoint, scene, guidance))
    passes = STEPS * (2 if guidance.scale > 1 and not guidance.batched else 1)
    assert counts[0] == passes
    assert counts[1] == counts[2] < passes
    assert not torch.equal(latents, plain)
    assert torch.nn.functional.cosine_similarity(latents.flatten(), plain.flatten(), dim=0) > 0.95


def test_the_two_halves_of_the_guidance_are_not_mixed_up(checkpoint, scene):
    """With the same text in both, guidance changes nothing, whatever is reused."""
    same = a_scene(TRIO, sampling=scene.sampling.model_dump(), negative_prompt=scene.prompt)
    guided, plain = (run_once(checkpoint, same, Guidance(scale)) for scale in (3.0, 1.0))
    assert torch.equal(guided, plain)


def test_the_first_steps_and_the_last_are_always_whole(checkpoint, scene, monkeypatch):
    monkeypatch.setattr(step_cache, "THRESHOLD", 1e9)
    counts, _ = whole_passes(checkpoint, lambda: run_once(checkpoint, scene, Guidance(1.0)))
    assert counts[1] == 3 + 1 + 1  # a fifth of twelve; the first that may be cached; the last


def test_a_threshold_that_nothing_meets_changes_nothing(checkpoint, scene, monkeypatch):
    monkeypatch.setattr(step_cache, "THRESHOLD", 0.0)
    plain = run_once(checkpoint, scene, Guidance(3.0), step_cache=False)
    assert torch.equal(run_once(checkpoint, scene, Guidance(3.0)), plain)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_so_few_steps_that_none_may_be_reused_work_as_well(checkpoint, steps):
    scene = a_scene(TRIO, sampling={"steps": steps, "guidance": 3.0, "seed": 5})
    plain = run_once(checkpoint, scene, Guidance(3.0), step_cache=False)
    assert torch.equal(run_once(checkpoint, scene, Guidance(3.0)), plain)


def test_the_model_is_left_without_hooks(checkpoint, scene):
    before = latents_of(checkpoint, scene)
    run_once(checkpoint, scene, Guidance(3.0))
    assert not checkpoint.transformer.is_cache_enabled
    assert torch.equal(latents_of(checkpoint, scene), before)


# ---------------------------------------------------------------------------
# Going on


@pytest.mark.parametrize("batched", [False, True])
def test_a_run_stopped_at_any_block_ends_on_the_same_latents(checkpoint, scene, batched):
    ready, guidance = conditioned(checkpoint, scene), Guidance(3.0, batched)
    whole_run = begin(ready, scene.sampling, "unipc", CPU, True)
    whole = sample(checkpoint.transformer, ready, whole_run, guidance)
    assert whole_run.cache.reused > 0
    run, stops = begin(ready, scene.sampling, "unipc", CPU, True), 0
    for patience in [*range(5, 40, 3), 10**9]:
        left = [patience]

        def stop(left=left) -> bool:
            left[0] -= 1
            return left[0] < 0

        try:
            sample(checkpoint.transformer, ready, run, guidance, stop=stop)
        except Stopped:
            stops += 1
    assert stops > 3
    assert run.step == STEPS
    assert torch.equal(run.latents, whole)
    assert run.cache.reused == whole_run.cache.reused


@pytest.mark.parametrize("after", range(1, STEPS))
def test_a_state_on_disk_goes_on_to_the_same_latents(checkpoint, scene, tmp_path, after):
    options = replace(OPTIONS, step_cache=True, state=tmp_path / "run.safetensors")
    whole = shoot(scene, members_of(scene), replace(options, state=None), loaded=checkpoint)

    def cut(step) -> None:
        if step.step == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shoot(scene, members_of(scene), options, Callbacks(on_step=cut), checkpoint)
    shot = shoot(scene, members_of(scene), options, loaded=checkpoint)
    assert torch.equal(shot.latents, whole.latents)
    assert shot.notices == whole.notices


def test_a_state_does_not_grow_with_the_model_s_width(checkpoint, scene, tmp_path):
    """Latents are kept, not hidden states."""
    kept = tmp_path / "run.safetensors"
    shoot(scene, members_of(scene), replace(OPTIONS, step_cache=True, state=kept), loaded=checkpoint)
    with safe_open(str(kept), "pt") as file:
        cached = {name: file.get_slice(name).get_shape() for name in file.keys() if name.startswith("cache")}  # noqa: SIM118
    assert cached
    assert all(shape == [1, 16, 3, 8, 8] for shape in cached.values())


@pytest.mark.parametrize("first", [False, True])
def test_a_kept_run_goes_on_only_with_the_cache_it_began_with(checkpoint, scene, tmp_path, first):
    options, told = replace(OPTIONS, state=tmp_path / "run.safetensors"), []
    shoot(scene, members_of(scene), replace(options, step_cache=first), loaded=checkpoint)
    watch = Callbacks(lambda stage, *_: told.append(stage))
    shoot(scene, members_of(scene), replace(options, step_cache=not first), watch, checkpoint)
    assert "conditioning" in told


def test_a_shot_tells_how_much_was_reused(checkpoint, scene):
    shot = shoot(scene, members_of(scene), replace(OPTIONS, step_cache=True), loaded=checkpoint)
    (notice,) = shot.notices
    assert "passes were reused" in notice
    assert "Changes the picture" in notice
    assert int(notice.split()[2]) > 0
