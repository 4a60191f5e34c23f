"""What a plan chooses reaches the run, together with everything else that may be on, and the picture stays the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from engine.a2.recipe import load, shoot
from tests.tiny import OPTIONS, TRIO, a_scene, members_of

SCENE = a_scene(TRIO, video={"width": 96, "height": 64, "frames": 9, "trim_head": 0})


def shot(**options: object):
    return shoot(SCENE, members_of(SCENE), replace(OPTIONS, **options))


@pytest.fixture(scope="module")
def whole():
    return shot().latents


def test_pieces_of_tokens_end_on_the_same_latents(whole):
    assert torch.allclose(shot(chunk=5).latents, whole, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("resident", [0, 1])
def test_blocks_that_stream_compute_in_pieces_bit_for_bit(precision, resident, tmp_path):
    how = {"precision": precision, "chunk": 5, "cache": tmp_path}
    still = shot(**how)
    streaming = shot(**how, offload="blocks", resident_blocks=resident)
    assert torch.equal(still.latents, streaming.latents)


def test_pieces_and_streaming_leave_a_model_as_it_was(tmp_path):
    options = replace(OPTIONS, offload="blocks", resident_blocks=0)
    checkpoint = load(options)
    before = shoot(SCENE, members_of(SCENE), options, loaded=checkpoint).latents
    shoot(SCENE, members_of(SCENE), replace(options, chunk=5), loaded=checkpoint)
    after = shoot(SCENE, members_of(SCENE), options, loaded=checkpoint).latents
    checkpoint.close()
    assert torch.equal(before, after)


def test_a_step_cache_reuses_steps_of_streaming_pieces(whole):
    scene = a_scene(TRIO, sampling={"steps": 12, "guidance": 1.0, "seed": 5})
    options = replace(OPTIONS, step_cache=True)
    plain = shoot(scene, members_of(scene), options)
    streamed = shoot(scene, members_of(scene), replace(options, offload="blocks", chunk=5))
    assert torch.allclose(plain.latents, streamed.latents, atol=1e-3)
    assert any("passes were reused" in notice for notice in streamed.notices)


def test_tiles_give_the_same_frames_within_a_level():
    one, tiled = (list(shot(tile=tile).frames) for tile in (0, 40))
    for frame, other in zip(one, tiled, strict=True):
        assert np.abs(frame.astype(int) - other).max() <= 1


def test_an_encoder_in_tiles_is_said():
    assert any("encoded in tiles" in notice for notice in shot(encode_tiled=True).notices)
    assert shot().notices == ()
