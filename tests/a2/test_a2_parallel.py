"""Several processes that make one clip: the same as one makes, whatever they share. They compute on the processor
here, and talk by gloo."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
psutil = pytest.importorskip("psutil", reason="it comes with the a2 engine's libraries")
if sys.platform == "win32":
    pytest.skip("several cards do not work together on Windows", allow_module_level=True)


from engine.a2.chunking import parts
from engine.a2.parallel.context import unread_of
from engine.memory.model_cache import ModelCache
from engine.scene.scene_file import scene_from_data
from tests.crews import ONE_PROCESS, alone, furthest, ranks_below, together
from tests.tiny import FIXTURES, OPTIONS, TINY, TRIO, a_scene, change_json, golden, members_of

V3 = replace(OPTIONS, model=str(FIXTURES / "v3_tiny"), family="v3-r2v")
TWO, FOUR = replace(OPTIONS, cards=2), replace(OPTIONS, cards=4)
LATENTS = 1e-3  # how far from the authors' code


@pytest.fixture(scope="module")
def quantised(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("quantised")


@pytest.fixture(scope="module")
def pair() -> Iterator[ModelCache]:
    """Two processes, which stay for several tests."""
    cache = ModelCache()
    yield cache
    cache.release()


@pytest.fixture(scope="module")
def four() -> Iterator[ModelCache]:
    cache = ModelCache()
    yield cache
    cache.release()


# ---------------------------------------------------------------------------
# The same as one


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("three_references", TWO, "passes on 2 cards"),
        ("v3_three_references", replace(V3, cards=2), "its tokens over 2 cards"),  # a pass a step, references behind
        ("v3_one_reference", replace(V3, cards=2), "its tokens over 2 cards"),  # three passes a step
    ],
)
def test_two_make_what_the_authors_code_makes(pair, tmp_path, name, options, says):
    scene, members, theirs = golden(name)
    latents, frames, notices = together(pair, scene, members, options, tmp_path)
    assert says in notices[0]
    assert np.abs(latents - theirs["latents"]).max() <= LATENTS
    ours, shown, _ = alone(scene, members, options)
    assert np.abs(latents - ours).max() <= ONE_PROCESS
    assert furthest(frames, shown) <= 1


def test_four_make_what_the_authors_code_makes(four, tmp_path):
    scene, members, theirs = golden("three_references")
    latents, frames, notices = together(four, scene, members, FOUR, tmp_path)
    assert "passes on 2 groups and the tokens of each over 2 cards" in notices[0]
    assert np.abs(latents - theirs["latents"]).max() <= LATENTS
    assert furthest(frames, list(theirs["video"])) <= 1


@pytest.mark.parametrize("offload", ["none", "blocks"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_in_8_bits_and_streamed_two_equal_one_bit_for_bit(pair, tmp_path, quantised, guidance, offload):
    """Without guidance they share the tokens, with it the passes."""
    pytest.importorskip("optimum.quanto")
    scene = a_scene(TRIO, sampling={"steps": 3, "guidance": guidance, "seed": 5})
    options = replace(TWO, precision="int8", offload=offload, resident_blocks=1 if offload == "blocks" else None,
                      cache=quantised)  # fmt: skip
    latents, _, _ = together(pair, scene, members_of(scene), options, tmp_path)
    assert np.array_equal(latents, alone(scene, members_of(scene), options)[0])


def test_in_8_bits_and_streamed_four_equal_one_bit_for_bit(four, tmp_path, quantised):
    pytest.importorskip("optimum.quanto")
    scene = a_scene(TRIO)
    options = replace(FOUR, precision="int8", offload="blocks", cache=quantised, step_cache=True)
    latents, _, _ = together(four, scene, members_of(scene), options, tmp_path)
    assert np.array_equal(latents, alone(scene, members_of(scene), options)[0])


def test_four_share_the_tokens_of_a_model_with_so_many_heads(four, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(TINY, model)
    change_json(model / "transformer" / "config.json", num_attention_heads=4, attention_head_dim=12)
    scene = a_scene(TRIO, sampling={"steps": 3, "guidance": 1.0, "seed": 5})
    options = replace(FOUR, model=str(model))
    latents, _, notices = together(four, scene, members_of(scene), options, tmp_path)
    assert "its tokens over 4 cards" in notices[0]
    assert np.abs(latents - alone(scene, members_of(scene), options)[0]).max() <= ONE_PROCESS


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_step_cache_comes_to_the_same_decisions(pair, tmp_path, guidance):
    scene = a_scene(TRIO, sampling={"steps": 30, "guidance": guidance, "seed": 5})
    options = replace(TWO, step_cache=True)
    latents, _, notices = together(pair, scene, members_of(scene), options, tmp_path)
    ours, _, said = alone(scene, members_of(scene), options)
    reused = [notice for notice in notices if notice.startswith("Step cache")]
    assert reused == [notice for notice in said if notice.startswith("Step cache")] != []
    assert np.abs(latents - ours).max() <= ONE_PROCESS


@pytest.mark.parametrize("chunk", [0, 16])
def test_references_that_do_not_read_the_prompt_stay_so_in_parts(pair, tmp_path, chunk):
    """They are the last of the tokens: in one process's part and not in the other's, or in both."""
    scene, members, _ = golden("v3_three_references")
    options = replace(V3, family="refalign", cards=2, chunk=chunk)
    latents, _, notices = together(pair, scene, members, options, tmp_path)
    assert "its tokens over 2 cards" in notices[0]
    ours, _, _ = alone(scene, members, options)
    assert np.abs(latents - ours).max() <= ONE_PROCESS
    reading, _, _ = alone(scene, members, replace(V3, scheduler="euler"))
    assert np.abs(latents - reading).max() > ONE_PROCESS


def test_a_pass_too_many_is_waited_for(pair, tmp_path):
    """Three passes on two cards, with tokens that do not divide: one card has nothing to do in the second round."""
    scene, members, _ = golden("v3_one_reference")
    video = {**scene.video.model_dump(), "width": 80, "height": 80, "frames": 9}
    sampling = {**scene.sampling.model_dump(), "steps": 12}
    scene = scene_from_data({**scene.model_dump(exclude_none=True), "video": video, "sampling": sampling})
    options = replace(V3, cards=2, step_cache=True, state=tmp_path / "run.safetensors")
    latents, _, notices = together(pair, scene, members, options, tmp_path)
    assert "passes on 2 cards" in notices[0]
    ours, _, _ = alone(scene, members, replace(options, state=None))
    assert np.abs(latents - ours).max() <= ONE_PROCESS
    again, _, _ = together(pair, scene, members, options, tmp_path)  # from what is kept
    assert np.array_equal(again, latents)


def test_tokens_that_do_not_read_the_prompt_are_found_in_every_part():
    for tokens, unread, split in ((120, 24, 2), (120, 70, 4), (120, 0, 2), (120, 120, 4), (12, 5, 3)):
        reads = [i < tokens - unread for i in range(tokens)]
        size = tokens // split
        for index in range(split):
            here = unread_of(tokens, unread, split, index)
            assert reads[index * size : (index + 1) * size] == [True] * (size - here) + [False] * here
    assert list(parts(0, 0)) == []  # a part in which none, or all, do


@pytest.mark.parametrize(("tile", "most"), [(0, 1), (32, 0)])
def test_frames_are_decoded_in_parts(pair, tmp_path, tile, most):
    """Bands differ by rounding at most, tiles not at all."""
    scene = a_scene(TRIO, video={"width": 640, "height": 64}, sampling={"steps": 1, "guidance": 1.0, "seed": 5})
    options = replace(TWO, tile=tile)
    _, frames, _ = together(pair, scene, members_of(scene), options, tmp_path)
    _, shown, _ = alone(scene, members_of(scene), options)
    assert furthest(frames, shown) <= most


def test_clips_are_made_by_the_same_processes(pair, tmp_path):
    scene = a_scene(TRIO, video={"trim_head": 4})
    before = [each.pid for each in ranks_below(os.getpid())]
    _, frames, _ = together(pair, scene, members_of(scene), TWO, tmp_path)
    assert len(frames) == 9 - 4
    assert set(before) <= {each.pid for each in ranks_below(os.getpid())}
    card, host = pair.held
    assert card == 0
    assert host > 0
