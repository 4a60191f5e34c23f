"""From latents to frames: streamed and tiled, and still the picture that one pass over everything gives."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from diffusers import AutoencoderKLWan

from engine.a2.conditioning import latent_statistics
from engine.a2.decoding import _ramps, decode
from engine.a2.geometry import Tiling, spans, tiling_for
from engine.errors import Stopped
from tests.tiny import TINY


@pytest.fixture(scope="module")
def vae():
    return AutoencoderKLWan.from_pretrained(TINY / "vae").eval().requires_grad_(False)


def some_latents(frames: int, height: int, width: int) -> torch.Tensor:
    """Smooth ones, as a finished run's are."""
    small = torch.randn(
        1, 16, frames, max(2, height // 4), max(2, width // 4), generator=torch.Generator().manual_seed(3)
    )
    return torch.nn.functional.interpolate(small, (frames, height, width), mode="trilinear", align_corners=True)


def at_once(vae, latents: torch.Tensor) -> np.ndarray:
    """The library's own decoding of the whole clip."""
    mean, std = latent_statistics(vae)
    with torch.no_grad():
        video = vae.decode(latents * std + mean).sample[0]
    return ((video / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()


def streamed(vae, latents: torch.Tensor, tiling: Tiling | None = None) -> np.ndarray:
    return np.stack(list(decode(vae, latents, tiling)))


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other)


@pytest.mark.parametrize("frames", [1, 2, 6])
def test_streamed_in_time_it_is_the_same_video(vae, frames):
    latents = some_latents(frames, 8, 12)
    assert difference(streamed(vae, latents), at_once(vae, latents)).max() <= 1


def test_frames_come_while_the_rest_is_still_latent(vae):
    latents = some_latents(6, 8, 8)
    asked = []
    frames = decode(vae, latents, stop=lambda: bool(asked.append(1)))
    next(frames)
    assert len(asked) == 1
    for _ in range(4):
        next(frames)
    assert len(asked) == 2


def test_two_clips_can_be_decoded_at_once(vae):
    latents = some_latents(3, 8, 8)
    one, other = decode(vae, latents), decode(vae, latents.flip(3))
    first, second = zip(*zip(one, other, strict=True), strict=True)
    assert np.array_equal(np.stack(first), streamed(vae, latents))
    assert np.array_equal(np.stack(second), streamed(vae, latents.flip(3)))


def test_stop_is_heard_within_a_frame(vae):
    asked = []
    frames = decode(vae, some_latents(2, 24, 24), Tiling(12, 4), lambda: asked.append(1) or len(asked) == 3)
    with pytest.raises(Stopped):
        list(frames)
    assert len(asked) == 3


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (40, 40)])
def test_tiled_it_is_the_same_picture_within_a_tolerance(vae, shape):
    latents = some_latents(2, *shape)
    apart = difference(streamed(vae, latents, Tiling(28, 18)), streamed(vae, latents))
    assert apart.mean() < 0.001
    assert apart.max() <= 1


def test_a_tile_that_holds_everything_changes_nothing(vae):
    latents = some_latents(2, 8, 12)
    assert np.array_equal(streamed(vae, latents, Tiling(12, 4)), streamed(vae, latents))


@pytest.mark.parametrize("length", [5, 16, 17, 40, 68, 135, 240])
@pytest.mark.parametrize("tiling", [Tiling(), Tiling(16, 4), Tiling(8, 6)])
def test_tiles_cover_everything_overlap_enough_and_their_weights_add_up_to_one(length, tiling):
    found = spans(length, tiling)
    assert found[0].start == 0
    assert found[-1].stop == length
    assert {span.stop - span.start for span in found} == {found[0].stop}
    assert found[0].stop <= max(tiling.tile, 1)
    for one, other in pairwise(found):
        assert one.stop - other.start >= tiling.overlap
    total = np.zeros(8 * length)
    for span, weight in zip(found, _ramps(found, length), strict=True):
        assert weight.min() >= 0
        total[8 * span.start : 8 * span.stop] += weight
    assert np.allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("width", "height", "tiled"), [(832, 480, False), (480, 832, False), (960, 544, False), (1280, 720, True)]
)
def test_only_large_frames_are_tiled(width, height, tiled):
    assert (tiling_for(height // 8, width // 8) is not None) == tiled


def test_the_head_is_trimmed_from_the_frames_and_not_from_the_latents(tmp_path: Path):
    from dataclasses import replace

    from safetensors.torch import load_file

    from engine.a2.recipe import shoot
    from tests.tiny import OPTIONS, golden

    scene, members, theirs = golden("two_references")
    trimmed = scene.model_copy(update={"video": scene.video.model_copy(update={"trim_head": 5})})
    shot = shoot(trimmed, members, replace(OPTIONS, save_latents=tmp_path / "latents.safetensors"))
    frames = np.stack(list(shot.frames))
    assert len(frames) == shot.count == 8
    assert difference(frames, theirs["video"][5:]).max() <= 1
    assert load_file(tmp_path / "latents.safetensors")["latents"].shape == theirs["latents"].shape
