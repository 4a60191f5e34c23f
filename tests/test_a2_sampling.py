"""From noise to latents: the same whichever way it is gone, and taken up again where it was left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from safetensors.torch import load_file, save_file

from engine.a2 import state
from engine.a2.conditioning import condition
from engine.a2.preview import fit_colours, preview
from engine.a2.recipe import Watch, shoot
from engine.a2.references import gather_references
from engine.a2.sampling import Guidance, begin, sample
from engine.errors import EngineUnavailable, Stopped
from engine.scene import Sampling
from tests.a2 import GOLDEN, OPTIONS, TINY, a_picture, a_scene, golden, members_of, tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint():
    return tiny()


def conditioned(checkpoint, scene, members=None):
    return condition(checkpoint, scene, gather_references(scene, members or members_of(scene)))


def latents_of(checkpoint, scene, **options) -> torch.Tensor:
    return shoot(scene, members_of(scene), replace(OPTIONS, **options), loaded=checkpoint).latents


TRIO = (("character", "Mia"), ("object", "cup"), ("background", "stage"))


# ---------------------------------------------------------------------------
# Whatever the scene


@pytest.mark.parametrize(
    "cast",
    [TRIO[:1], TRIO[1:2], TRIO[2:], TRIO[1:], (*TRIO, ("character", "Ann"), ("character", "Bo"), ("object", "hat"))],
)
def test_any_cast_makes_a_clip_with_its_references_in_the_mask(checkpoint, cast):
    scene = a_scene(cast)
    ready = conditioned(checkpoint, scene)
    count = min(len(cast), 3)
    assert ready.condition.shape == (1, 20, 3, 8, 8)
    assert ready.condition[:, :4, :count].min() == 1
    assert not ready.condition[:, :4, count:].any()
    assert ready.image_embeds.shape[1] == count * 5
    assert torch.isfinite(latents_of(checkpoint, scene)).all()


@pytest.mark.parametrize(
    "fields",
    [
        {"video": {"width": 80, "height": 112, "frames": 5, "trim_head": 0}},
        {"video": {"width": 112, "height": 64, "frames": 33, "trim_head": 12}},
        {"sampling": {"steps": 1, "guidance": 3.0}},
        {"sampling": {"steps": 2, "guidance": 1.0, "flow_shift": 3.0}},
        {"sampling": {"steps": 2, "guidance": 0.0}},
        {"prompt": "", "negative_prompt": ""},
        {"prompt": "many words " * 350},
    ],
)
def test_sizes_lengths_guidance_and_prompts_are_followed(checkpoint, fields):
    scene = a_scene(TRIO[:1], **fields)
    shot = shoot(scene, members_of(scene), OPTIONS, loaded=checkpoint)
    video = scene.video
    assert shot.latents.shape == (1, 16, (video.frames - 1) // 4 + 1, video.height // 8, video.width // 8)
    assert shot.latents.dtype == torch.float32
    assert torch.isfinite(shot.latents).all()
    frames = list(shot.frames)
    assert len(frames) == shot.count == video.frames - video.trim_head
    assert {(frame.shape, frame.dtype) for frame in frames} == {((video.height, video.width, 3), np.dtype(np.uint8))}
    assert bool(shot.notices) == (len(scene.prompt) > 3000)


def test_an_own_cut_out_stands_on_white_and_is_not_the_photo_as_it_is(checkpoint):
    scene = a_scene(TRIO[:1])
    cut_out = conditioned(checkpoint, scene)
    photo = a_picture(0, "character").convert("RGB")  # black where it was see-through
    uncut = conditioned(checkpoint, scene, (replace(members_of(scene)[0], picture=photo),))
    assert (cut_out.condition - uncut.condition).abs().max() > 0.1


def test_seed_and_steps_matter_and_nothing_else_is_random(checkpoint):
    scene = a_scene(TRIO)
    first = latents_of(checkpoint, scene)
    assert torch.equal(first, latents_of(checkpoint, scene))
    other = a_scene(TRIO, sampling={**scene.sampling.model_dump(), "seed": 6})
    assert (first - latents_of(checkpoint, other)).abs().max() > 0.1


def test_guidance_gives_the_same_batched_or_in_turn(checkpoint):
    scene = a_scene(TRIO)
    apart = latents_of(checkpoint, scene) - latents_of(checkpoint, scene, batched_guidance=True)
    assert apart.abs().max() < 1e-4


def test_without_guidance_the_negative_prompt_is_not_even_read(checkpoint):
    sampling = {"steps": 2, "guidance": 1.0, "seed": 5}
    one, other = (a_scene(TRIO, sampling=sampling, negative_prompt=text) for text in ("", "blue"))
    assert conditioned(checkpoint, one).negative_embeds is None
    assert torch.equal(latents_of(checkpoint, one), latents_of(checkpoint, other))


def test_a_prompt_is_encoded_once(checkpoint, monkeypatch):
    scene = a_scene(TRIO, prompt="A prompt that no other test has.")
    first = conditioned(checkpoint, scene).prompt_embeds
    monkeypatch.setattr(checkpoint.text_encoder, "forward", lambda *_, **__: pytest.fail("encoded again"))
    assert torch.equal(conditioned(checkpoint, scene).prompt_embeds, first)


def test_nothing_is_left_of_the_padding_after_the_prompt(checkpoint):
    embeds = conditioned(checkpoint, a_scene(TRIO, prompt="Mia")).prompt_embeds
    used = embeds[0].abs().sum(dim=1) > 0
    count = int(used.sum())
    assert 0 < count < 512
    assert used[:count].all()


def test_another_scheduler_can_be_chosen(checkpoint):
    scene = a_scene(TRIO)
    latents = latents_of(checkpoint, scene, scheduler="euler")
    assert torch.isfinite(latents).all()
    assert (latents - latents_of(checkpoint, scene)).abs().max() > 1e-3


def test_bf16_keeps_latents_in_float32_and_close(checkpoint):
    scene = a_scene(TRIO)
    latents = latents_of(tiny("bf16"), scene)
    assert latents.dtype == torch.float32
    assert 0 < (latents - latents_of(checkpoint, scene)).abs().mean() < 0.05


# ---------------------------------------------------------------------------
# Stop and go on


class StopAfter:
    """Says stop once it has been asked so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
@pytest.mark.parametrize("batched", [False, True])
def test_a_run_stopped_between_any_two_blocks_ends_on_the_same_latents(checkpoint, scheduler, batched):
    scene = a_scene(TRIO, sampling={"steps": 4, "guidance": 3.0, "seed": 5})
    ready, guidance = conditioned(checkpoint, scene), Guidance(3.0, batched)
    whole = sample(checkpoint.transformer, ready, begin(ready, scene.sampling, scheduler, CPU), guidance)
    run, stops = begin(ready, scene.sampling, scheduler, CPU), 0
    while run.step < 4:
        blocks = len(checkpoint.transformer.blocks) * (1 if batched else 2)
        try:
            sample(checkpoint.transformer, ready, run, guidance, stop=StopAfter(blocks + 1 + stops % 2))
        except Stopped:
            stops += 1
    assert stops == 3
    assert torch.equal(run.latents, whole)


def test_stop_is_heard_at_the_next_block_and_leaves_no_hooks(checkpoint):
    scene = a_scene(TRIO)
    ready = conditioned(checkpoint, scene)
    asked = []
    run = begin(ready, scene.sampling, "unipc", CPU)
    with pytest.raises(Stopped):
        sample(checkpoint.transformer, ready, run, Guidance(3.0), stop=lambda: asked.append(1) or len(asked) == 2)
    assert len(asked) == 2
    assert not any(block._forward_pre_hooks for block in checkpoint.transformer.blocks)


@pytest.mark.parametrize("stage", ["conditioning", "sampling", "decoding"])
def test_stop_is_heard_in_every_stage(checkpoint, stage):
    scene, told = a_scene(TRIO), []
    watch = Watch(lambda name, *_: told.append(name), stop=lambda: told[-1:] == [stage])

    def whole() -> None:
        shot = shoot(scene, members_of(scene), OPTIONS, watch, checkpoint)
        told.append("decoding")
        list(shot.frames)

    with pytest.raises(Stopped):
        whole()
    assert told[-1] == stage


@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
def test_a_state_on_disk_goes_on_to_the_same_latents(checkpoint, tmp_path, scheduler):
    scene = a_scene(TRIO, sampling={"steps": 5, "guidance": 3.0, "seed": 5})
    whole = latents_of(checkpoint, scene, scheduler=scheduler)
    kept, calls = tmp_path / "run.safetensors", []

    def stop_at_three(step, _):
        calls.append(step.step)
        if step.step == 3:
            raise KeyboardInterrupt

    options = replace(OPTIONS, scheduler=scheduler, state=kept)
    with pytest.raises(KeyboardInterrupt):
        shoot(scene, members_of(scene), options, Watch(on_step=stop_at_three), checkpoint)
    assert os.listdir(tmp_path) == ["run.safetensors"]
    shot = shoot(scene, members_of(scene), options, Watch(on_step=lambda step, _: calls.append(step.step)), tiny())
    assert calls == [1, 2, 3, 4, 5]
    assert torch.equal(shot.latents, whole)


@pytest.mark.parametrize("spoil", ["cut", "other seed", "other cast", "not ours"])
def test_a_state_that_is_damaged_or_another_s_is_not_used(checkpoint, tmp_path, spoil):
    scene = a_scene(TRIO)
    kept, told = tmp_path / "run.safetensors", []
    options = replace(OPTIONS, state=kept)
    shoot(scene, members_of(scene), options, loaded=checkpoint)
    if spoil == "cut":
        kept.write_bytes(kept.read_bytes()[:-50])
    elif spoil == "not ours":
        save_file({"latents": torch.zeros(3)}, kept)
    elif spoil == "other seed":
        scene = a_scene(TRIO, sampling={**scene.sampling.model_dump(), "seed": 9})
    else:
        scene = a_scene(TRIO[:2])
    shot = shoot(scene, members_of(scene), options, Watch(lambda stage, *_: told.append(stage)), checkpoint)
    assert "conditioning" in told
    assert torch.equal(shot.latents, latents_of(checkpoint, scene))


def test_a_state_that_cannot_be_written_leaves_the_one_before(checkpoint, tmp_path, monkeypatch):
    scene, kept = a_scene(TRIO), tmp_path / "run.safetensors"
    ready = conditioned(checkpoint, scene)
    run = begin(ready, scene.sampling, "unipc", CPU)
    state.save_run(kept, run, ready, "unipc", "x")
    before = kept.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state.os, "replace", full)
    with pytest.raises(EngineUnavailable, match=r"cannot be written.*No space"):
        state.save_run(kept, run, ready, "unipc", "x")
    assert kept.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_a_state_loads_into_a_scheduler_of_the_same_history(checkpoint, tmp_path):
    scene, kept = a_scene(TRIO), tmp_path / "run.safetensors"
    ready = conditioned(checkpoint, scene)
    run = begin(ready, Sampling(steps=4), "unipc", CPU)
    with pytest.raises(Stopped):
        sample(checkpoint.transformer, ready, run, Guidance(1.0), stop=StopAfter(8))
    state.save_run(kept, run, ready, "unipc", "x")
    again, _ = state.load_run(kept, Sampling(steps=4), "unipc", "x", CPU)
    assert again.step == run.step == 2
    for name, value in vars(run.scheduler).items():
        kept_value = vars(again.scheduler)[name]
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, kept_value), name
        elif isinstance(value, list):
            assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
                       for a, b in zip(value, kept_value, strict=True)), name  # fmt: skip
        else:
            assert value == kept_value, name


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_render_killed_between_steps_goes_on_from_its_state(repo: Path, tmp_path: Path):
    kept, latents = tmp_path / "run.safetensors", tmp_path / "latents.safetensors"
    code = (
        "import sys, time; from engine.a2 import recipe; keep = recipe.save_run\n"
        "def slow(*how):\n    keep(*how); time.sleep(30 if how[1].step == 2 else 0)\n"
        "recipe.save_run = slow; from engine.command import main; sys.exit(main(sys.argv[1:]))"
    )
    flags = ["--model", TINY, "--device", "cpu", "--precision", "fp32", "--state", kept, "--save-latents", latents]
    arguments = list(map(str, [GOLDEN / "two_references.json", "-o", tmp_path / "out.mp4", *flags]))
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=repo, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while _step(kept) != "2" and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert sorted(os.listdir(tmp_path)) == ["run.safetensors"]
    command = [sys.executable, "launch.py", "render", *arguments]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    scene, members, _ = golden("two_references")
    assert torch.equal(load_file(latents)["latents"], shoot(scene, members, OPTIONS).latents)


def _step(path: Path) -> str:
    """What step a state is at."""
    import json

    from safetensors import safe_open

    if not path.exists():
        return ""
    with safe_open(str(path), "pt") as file:
        return str(json.loads(file.metadata()["troupe"])["step"])


# ---------------------------------------------------------------------------
# What is told on the way


def test_every_step_tells_its_number_latents_and_time(checkpoint):
    scene, steps, told = a_scene(TRIO), [], []
    watch = Watch(lambda *how: told.append(how[:3]), lambda step, _: steps.append(step))
    shot = shoot(scene, members_of(scene), OPTIONS, watch, checkpoint)
    assert [(step.step, step.of) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert all(step.seconds > 0 for step in steps)
    assert torch.equal(steps[-1].latents, shot.latents)
    assert [how for how in told if how[0] == "sampling"] == [("sampling", step, 3) for step in range(4)]


def test_what_the_model_has_in_mind_becomes_what_it_ends_on(checkpoint):
    scene, steps = a_scene(TRIO, sampling={"steps": 8, "guidance": 1.0, "seed": 5}), []
    shot = shoot(scene, members_of(scene), OPTIONS, Watch(on_step=lambda step, _: steps.append(step)), checkpoint)
    errors = [float((step.clean - shot.latents).abs().mean()) for step in steps]
    noise = [float((step.latents - shot.latents).abs().mean()) for step in steps]
    assert errors[-1] < 0.05
    assert errors[2] < noise[2]


def test_a_preview_shows_colours_as_they_are():
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(16, 3, generator=rng)
    colours = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3)).astype(np.uint8)
    latents = torch.einsum("nhwk,ck->cnhw", torch.from_numpy(colours).float() / 127.5 - 1, mixing) + 0.3
    from PIL import Image

    pictures = [Image.fromarray(frame).resize((72, 48), Image.Resampling.NEAREST) for frame in colours]
    shown = preview(latents[None], fit_colours(latents, pictures), count=2)
    for picture, frame in zip(shown, colours, strict=True):
        assert picture.size == (9, 6)
        assert np.abs(np.asarray(picture).astype(int) - frame).mean() < 12


def test_a_preview_is_of_the_middle_and_never_fails_on_plain_references(checkpoint):
    scene = a_scene(TRIO[2:])
    ready = conditioned(checkpoint, scene)
    assert torch.isfinite(ready.colours).all()
    assert len(preview(ready.noise, ready.colours)) == 1
    assert len(preview(ready.noise, ready.colours, count=99)) == 3
    latents = torch.zeros(1, 16, 5, 2, 2)
    latents[:, :, 2] = 1
    colours = torch.zeros(17, 3)
    colours[0] = 1
    assert preview(latents, colours)[0].getpixel((0, 0)) == (255, 255, 255)
