"""What the VAE makes of the references is kept for the next seed; and the VAE in bf16, where that is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from engine.a2 import conditioning
from engine.a2.conditioning import encode_spatial
from engine.a2.plan.footprint import KEPT_REFERENCES
from engine.a2.recipe import shoot
from engine.a2.references import gather_references
from engine.memory.model_cache import ModelCache
from tests.tiny import OPTIONS, TRIO, a_scene, conditioned, latents_of, members_of, tiny


@pytest.fixture
def checkpoint():
    return tiny()


@pytest.fixture
def encoded(monkeypatch):
    """How often the VAE encoded pictures."""
    calls = []
    monkeypatch.setattr(conditioning, "encode_spatial", lambda *how: calls.append(1) or encode_spatial(*how))
    return calls


def seeded(seed: int, cast=TRIO, video: dict | None = None):
    return a_scene(cast, video, sampling={"steps": 2, "guidance": 3.0, "seed": seed})


def frames_of(checkpoint, scene, **options: object) -> np.ndarray:
    shot = shoot(scene, members_of(scene), replace(OPTIONS, **options), loaded=checkpoint)
    return np.stack(list(shot.frames)).astype(int)


# -- kept for another seed -----------------------------------------------------------------


def test_a_variation_with_another_seed_encodes_nothing_and_is_the_same_to_the_bit(checkpoint, encoded):
    first, again = (conditioned(checkpoint, seeded(seed)) for seed in (5, 6))
    assert len(encoded) == 1
    for seed, kept in ((5, first), (6, again)):
        fresh = conditioned(tiny(), seeded(seed))
        names = [name for name, value in vars(fresh).items() if value is not None]
        assert all(torch.equal(getattr(kept, name), getattr(fresh, name)) for name in names)
    assert not torch.equal(first.condition, again.condition)


def test_the_posterior_is_sampled_as_the_library_samples_it(checkpoint):
    """The noise is the first draw of the seed's generator, the posterior's sample the second."""
    scene = seeded(5)
    pictures = [canvas.spatial for canvas in gather_references(scene, members_of(scene))]
    clip, generator = torch.zeros(1, 3, 9, 64, 64), torch.Generator().manual_seed(5)
    for index, picture in enumerate(pictures):
        first = 4 * (index - 1) + 1 if index else 0
        clip[0, :, first : 4 * index + 1] = conditioning.to_pixels(picture)[:, None]
    torch.randn(1, 16, 3, 8, 8, generator=generator)
    with torch.no_grad():
        latents = checkpoint.vae.encode(clip).latent_dist.sample(generator=generator)
    mean, std = conditioning.latent_statistics(checkpoint.vae)
    found = conditioned(checkpoint, scene)
    assert torch.equal(found.condition[:, 4:], (latents - mean) / std)
    assert torch.equal(found.generator, generator.get_state())


@pytest.mark.parametrize("other", [
    {"cast": TRIO[1:]}, {"video": {"frames": 13}}, {"video": {"width": 80}},
], ids=str)  # fmt: skip
def test_another_cast_size_or_length_is_encoded_anew(checkpoint, encoded, other):
    conditioned(checkpoint, seeded(5))
    conditioned(checkpoint, seeded(5, **other))
    assert len(encoded) == 2


@pytest.mark.parametrize("how", [{"encode_tiled": True}, {"vae_precision": "bf16"}], ids=str)
def test_another_way_of_encoding_is_encoded_anew(checkpoint, encoded, how):
    latents_of(checkpoint, seeded(5))
    latents_of(checkpoint, seeded(5), **how)
    assert len(encoded) == 2


def test_only_so_many_are_kept_and_the_newest_stay(checkpoint, encoded):
    for frames in range(9, 9 + 4 * (KEPT_REFERENCES + 1), 4):
        conditioned(checkpoint, seeded(5, video={"frames": frames}))
    assert len(checkpoint.encoded) == KEPT_REFERENCES
    conditioned(checkpoint, seeded(6, video={"frames": frames}))
    assert len(encoded) == KEPT_REFERENCES + 1
    conditioned(checkpoint, seeded(6, video={"frames": 9}))
    assert len(encoded) == KEPT_REFERENCES + 2


# -- in bf16 ---------------------------------------------------------------------------------


def test_the_vae_in_bf16_is_near_and_says_that_it_changes_pixels(checkpoint):
    scene = seeded(5)
    exact = frames_of(checkpoint, scene)
    shot = shoot(scene, members_of(scene), replace(OPTIONS, vae_precision="bf16"), loaded=checkpoint)
    near = np.stack(list(shot.frames)).astype(int)
    assert checkpoint.vae.dtype == torch.bfloat16
    assert any("VAE in bf16" in notice for notice in shot.notices)
    assert np.abs(near - exact).mean() < 3
    assert not np.array_equal(near, exact)


@pytest.mark.parametrize("tile", [0, 40])
def test_afterwards_it_is_exact_again(checkpoint, tile):
    scene = seeded(5, video={"width": 384})
    exact = frames_of(checkpoint, scene, tile=tile)
    frames_of(checkpoint, scene, tile=tile, vae_precision="bf16")
    assert np.array_equal(frames_of(checkpoint, scene, tile=tile), exact)
    assert checkpoint.vae.dtype == torch.float32


def test_one_loaded_model_serves_both(checkpoint):
    from engine.a2 import recipe

    cache = ModelCache()
    loads = []
    for how in (None, "bf16", "fp32"):
        options = replace(OPTIONS, vae_precision=how)
        cache.fetch(recipe.weights_of(options), lambda: loads.append(1) or checkpoint)
    assert len(loads) == 1
