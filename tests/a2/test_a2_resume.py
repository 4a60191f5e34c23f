"""A run that was stopped, cut off or killed, taken up again where it was left: the same latents, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from safetensors.torch import load_file, save_file

from engine.a2 import state
from engine.a2.recipe import Callbacks, shoot
from engine.a2.sampling import Guidance, begin, sample
from engine.errors import EngineUnavailable, Stopped
from engine.scene.scene import Sampling
from tests.tiny import GOLDEN, OPTIONS, TINY, TRIO, a_scene, conditioned, golden, latents_of, members_of, tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint():
    return tiny()


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
    watch = Callbacks(lambda name, *_: told.append(name), stop=lambda: told[-1:] == [stage])

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

    def stop_at_three(step):
        calls.append(step.step)
        if step.step == 3:
            raise KeyboardInterrupt

    options = replace(OPTIONS, scheduler=scheduler, state=kept)
    with pytest.raises(KeyboardInterrupt):
        shoot(scene, members_of(scene), options, Callbacks(on_step=stop_at_three), checkpoint)
    assert os.listdir(tmp_path) == ["run.safetensors"]
    shot = shoot(scene, members_of(scene), options, Callbacks(on_step=lambda step: calls.append(step.step)), tiny())
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
    shot = shoot(scene, members_of(scene), options, Callbacks(lambda stage, *_: told.append(stage)), checkpoint)
    assert "conditioning" in told
    assert torch.equal(shot.latents, latents_of(checkpoint, scene))


def test_a_state_that_cannot_be_written_leaves_the_one_before(checkpoint, tmp_path, monkeypatch):
    scene, kept = a_scene(TRIO), tmp_path / "run.safetensors"
    ready = conditioned(checkpoint, scene)
    run = begin(ready, scene.sampling, "unipc", CPU)
    state.save_run(kept, run, ready, ("unipc", "fp32"), "x")
    before = kept.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state.os, "replace", full)
    with pytest.raises(EngineUnavailable, match=r"cannot be written.*No space"):
        state.save_run(kept, run, ready, ("unipc", "fp32"), "x")
    assert kept.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_a_state_loads_into_a_scheduler_of_the_same_history(checkpoint, tmp_path):
    scene, kept = a_scene(TRIO), tmp_path / "run.safetensors"
    ready = conditioned(checkpoint, scene)
    run = begin(ready, Sampling(steps=4), "unipc", CPU)
    with pytest.raises(Stopped):
        sample(checkpoint.transformer, ready, run, Guidance(1.0), stop=StopAfter(8))
    state.save_run(kept, run, ready, ("unipc", "fp32"), "x")
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
        "import sys; from engine.a2 import recipe; keep = recipe.save_run\n"
        "def kept(*how):\n    keep(*how)\n    if how[1].step == 2:\n"
        "        print('kept', flush=True)\n        sys.stdin.read()\n"  # and waits there for its end
        "recipe.save_run = kept; from engine.door.command import main; sys.exit(main(sys.argv[1:]))"
    )
    flags = ["--model", TINY, "--device", "cpu", "--precision", "fp32", "--state", kept, "--save-latents", latents]
    arguments = list(map(str, [GOLDEN / "two_references.json", "-o", tmp_path / "out.mp4", *flags]))
    starting = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(starting, cwd=repo, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline().strip() == b"kept"
        finally:
            process.kill()
    assert sorted(os.listdir(tmp_path)) == ["run.safetensors"]
    command = [sys.executable, "launch.py", "render", *arguments]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    scene, members, _ = golden("two_references")
    assert torch.equal(load_file(latents)["latents"], shoot(scene, members, OPTIONS).latents)
