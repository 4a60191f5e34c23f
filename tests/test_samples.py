"""Promises about the sample cast: every scene loads, every picture opens, every file has a licence."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from app.tray import Tray
from engine.errors import SceneError
from engine.images import open_image
from engine.presets import load_presets
from engine.scene import load_scene

ASSETS = Path(__file__).resolve().parent.parent / "assets"
SAMPLES = ASSETS / "samples"
SCENES = sorted(SAMPLES.glob("*.json"))
FILES = sorted(path for path in SAMPLES.rglob("*") if path.is_file())
PRESETS = {preset.name: preset for preset in load_presets(ASSETS.parent / "presets").presets}


@pytest.mark.parametrize("path", SCENES, ids=lambda path: path.stem)
def test_a_sample_scene_loads_and_mentions_its_whole_cast(path: Path):
    scene = load_scene(path)
    assert scene.engine == "draft"
    assert "\n" not in scene.prompt + scene.negative_prompt
    for element in scene.cast:
        assert element.name
        assert element.description
        assert re.search(rf"\b{re.escape(element.name)}\b", scene.prompt), element.name
        assert (path.parent / element.image).resolve().is_relative_to(SAMPLES)


@pytest.mark.parametrize("path", SCENES, ids=lambda path: path.stem)
def test_a_sample_scene_needs_no_model_to_cut_out_its_cast(path: Path):
    for element in load_scene(path).cast:
        picture = open_image(path.parent / element.image)
        if element.role == "background":
            assert picture.mode == "RGB"
        else:
            low, high = picture.getchannel("A").getextrema()
            assert (low, high) == (0, 255), element.image


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_sample_scene_that_follows_it(name: str):
    preset, scene = PRESETS[name], load_scene(SAMPLES / f"{name}.json")
    assert (scene.video.width, scene.video.height) == preset.size
    assert scene.direction.camera == preset.draft.camera
    assert scene.negative_prompt.split() == preset.negative_prompt.split()
    assert sorted(element.role for element in scene.cast) == sorted(slot.role for slot in preset.slots)


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix not in (".json", ".toml")], ids=lambda path: path.name)
def test_a_sample_picture_opens(path: Path):
    assert min(open_image(path).size) >= 300


def test_every_sample_file_has_a_licence_in_the_list():
    text = (ASSETS / "README.md").read_text(encoding="utf-8")
    patterns = re.findall(r"`(samples/[^`]+)`", text)
    for path in FILES:
        name = path.relative_to(ASSETS).as_posix()
        assert any(fnmatch(name, pattern) for pattern in patterns), name
    assert "Copyright (c) Microsoft Corporation." in text
    assert "The above copyright notice and this permission notice shall be included in all" in text


def test_the_samples_are_a_few_megabytes():
    assert sum(path.stat().st_size for path in FILES) < 5_000_000


@pytest.mark.parametrize("name", [scene.stem for scene in SCENES])
def test_a_sample_scene_belongs_to_a_preset(name: str):
    assert name in PRESETS


def test_every_picture_of_the_sample_cast_is_offered_once_under_a_part_it_can_play():
    tray = Tray(ASSETS / "samples")
    keys = [sample["key"] for part in tray.value["parts"] for sample in part["samples"]]
    pictures = [path.relative_to(ASSETS / "samples").as_posix() for path in (ASSETS / "samples").glob("*/*.*")]
    raw = {"photos/astronaut.jpg", "photos/coffee.jpg", "photos/chelsea.jpg"}  # to try the cut-outs with
    assert sorted(keys) == sorted(set(pictures) - raw)
    assert tray.pick("cast/bubble_tea.webp")[0::2] == ("object", "bubble tea")


def test_a_key_that_is_not_in_the_tray_opens_no_file():
    with pytest.raises(SceneError, match="no sample"):
        Tray(ASSETS / "samples").pick("../README.md")
