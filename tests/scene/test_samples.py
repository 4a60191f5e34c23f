"""Promises about the sample cast: every scene loads, every picture opens, every file has a licence."""

from __future__ import annotations

import importlib.util
import re
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from app.create.tray import Tray
from engine.errors import SceneError
from engine.media.images import open_image
from engine.scene.presets import load_presets
from engine.scene.scene_file import load_scene

ASSETS = Path(__file__).resolve().parents[2] / "assets"
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


def make_script():
    path = ASSETS / "make" / "samples.py"
    spec = importlib.util.spec_from_file_location("make_samples", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_flat_colour_stays_flat_up_to_the_edge_when_it_is_enlarged():
    alpha = Image.new("L", (64, 64))
    ImageDraw.Draw(alpha).ellipse((10, 12, 50, 55), fill=255)
    picture = Image.new("RGBA", (64, 64), (150, 140, 155, 0))
    picture.putalpha(alpha)
    large = np.asarray(make_script().enlarge(picture)).astype(int)
    assert large.shape == (128, 128, 4)
    assert np.abs(large[large[..., 3] > 128][:, :3] - (150, 140, 155)).max() <= 2


def test_the_astronaut_brings_nothing_of_her_room_along():
    alpha = np.asarray(open_image(SAMPLES / "cast" / "astronaut.webp").getchannel("A"))
    assert alpha[110, 220] == alpha[430, 60] == alpha[400, 400] == 255  # face, sleeve, helmet
    assert alpha[495:, :24].max() == 0, "the flag left of her elbow"
    assert alpha[300:450, 500:].max() == 0, "the table right of the helmet"
    assert alpha[340:455, 506:].max() == 0


def test_the_walkers_edge_is_no_dotted_line():
    pixels = np.asarray(open_image(SAMPLES / "cast" / "walker_man.webp").convert("RGBA")).astype(int)
    lightness, solid = pixels[..., :3].mean(axis=2), pixels[..., 3] >= 250
    steps = []
    for row in range(350, 430):  # the leg in front
        left = np.flatnonzero(solid[row])[0]
        steps.append(lightness[row, left + 1] - lightness[row, left + 5])
    assert np.abs(np.diff(steps)).max() < 5, "the edge's lightness does not jump from row to row"


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
