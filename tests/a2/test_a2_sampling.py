"""From noise to latents, whatever the scene; and what is told on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")


import itertools
from pathlib import Path

from engine.a2.options import Lora
from engine.a2.preview import fit_colours, preview
from engine.a2.recipe import Callbacks, _suspects, shoot
from engine.a2.sampling import NotFinite
from engine.errors import EngineUnavailable
from tests.tiny import OPTIONS, TRIO, a_picture, a_scene, conditioned, latents_of, members_of, tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint():
    return tiny()


# ---------------------------------------------------------------------------
# Numbers that are none


@pytest.mark.parametrize("when", [1, 2])
def test_numbers_that_are_none_end_the_run_at_once_and_what_is_kept_is_sound(checkpoint, tmp_path, monkeypatch, when):
    made, real = [], checkpoint.transformer.forward

    def forward(*args, **more):
        made.append(1)
        flow, *rest = real(*args, **more)
        return (torch.full_like(flow, float("nan")) if len(made) > 2 * (when - 1) else flow, *rest)

    scene, state = a_scene(TRIO[:1]), tmp_path / "state.safetensors"
    monkeypatch.setattr(checkpoint.transformer, "forward", forward)
    with pytest.raises(EngineUnavailable, match=f"at step {when} the model's numbers"):
        latents_of(checkpoint, scene, state=state)
    assert len(made) == 2 * when  # of three steps, two passes each
    monkeypatch.undo()
    assert state.exists() == (when > 1)
    assert torch.equal(latents_of(checkpoint, scene, state=state), latents_of(checkpoint, scene))


def test_what_was_asked_for_and_may_be_the_cause_is_named():
    options = replace(OPTIONS, loras=(Lora(Path("styles/ink.safetensors")),), attention="sage", precision="int8")
    said = NotFinite(3, _suspects(options)).remedy
    assert said.startswith("Leave out the LoRA ink.safetensors and the sage attention and the int8 precision, and")


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
# What is told on the way


def test_every_step_tells_its_number_latents_and_time(checkpoint):
    scene, steps, told = a_scene(TRIO), [], []
    watch = Callbacks(lambda *how: told.append(how[:3]), steps.append)
    shot = shoot(scene, members_of(scene), OPTIONS, watch, checkpoint)
    assert [(step.step, step.of) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert all(step.seconds > 0 for step in steps)
    assert torch.equal(steps[-1].latents, shot.latents)
    assert [how for how in told if how[0] == "sampling"] == [("sampling", step, 3) for step in range(4)]


def test_what_the_model_has_in_mind_becomes_what_it_ends_on(checkpoint):
    scene, steps = a_scene(TRIO, sampling={"steps": 8, "guidance": 1.0, "seed": 5}), []
    shot = shoot(scene, members_of(scene), OPTIONS, Callbacks(on_step=steps.append), checkpoint)
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


def test_a_run_keeps_a_moving_picture_of_the_whole_clip(checkpoint, tmp_path):
    from PIL import Image

    scene, file = a_scene(TRIO), tmp_path / "preview.webp"
    latents = latents_of(checkpoint, scene, preview=file)
    with Image.open(file) as picture:
        assert (picture.format, picture.n_frames) == ("WEBP", latents.shape[2])
        assert picture.size == (latents.shape[4], latents.shape[3])
    assert [each.name for each in tmp_path.iterdir()] == ["preview.webp"]
    assert torch.equal(latents, latents_of(checkpoint, scene))


def test_previews_never_take_more_than_a_hundredth_of_the_time(tmp_path, monkeypatch):
    from engine.a2 import preview as previews

    now, made = [0.0], []
    monkeypatch.setattr(previews.time, "monotonic", lambda: now[0])

    def takes_half_a_second(latents, colours, count):
        made.append(now[0])
        now[0] += 0.5
        return preview(latents, colours, count)

    monkeypatch.setattr(previews, "preview", takes_half_a_second)
    live = previews.LivePreview(tmp_path / "preview.webp", torch.zeros(17, 3))
    for _ in range(100):
        now[0] += 7.0
        live.after_step(torch.zeros(1, 16, 3, 2, 2))
    assert made[0] == 7.0  # at once, then seldom
    assert all(later - earlier >= 49 for earlier, later in itertools.pairwise(made))
    assert 0.5 * len(made) <= 0.01 * now[0] + 0.5


def test_a_preview_that_cannot_be_written_costs_nothing_else(checkpoint, tmp_path):
    (tmp_path / "file").touch()
    latents_of(checkpoint, a_scene(TRIO), preview=tmp_path / "file" / "preview.webp")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
