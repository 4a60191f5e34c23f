"""Masks as other programs write them: understood, or it is said what they hold; a wrong way round is doubted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from engine.cutout import apply_mask, retouch, uncut
from engine.media.images import open_image

SIZE, BODY = (300, 200), (100, 40, 200, 190)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]


def photo() -> Image.Image:
    picture = Image.new("RGB", SIZE, (40, 120, 60))
    ImageDraw.Draw(picture).ellipse(BODY, fill=(220, 60, 40))
    return picture


def shape(value: int = 255, ground: int = 0, box: tuple[int, int, int, int] = BODY) -> Image.Image:
    mask = Image.new("L", SIZE, ground)
    ImageDraw.Draw(mask).ellipse(box, fill=value)
    return mask


def labels(*values: int, rim: int | None = None) -> Image.Image:
    """A map of classes: an ellipse of each value, side by side; round each a rim that says "no class"."""
    mask = Image.new("L", SIZE, 0)
    for number, value in enumerate(values):
        left = 20 + 90 * number
        box = (left, 60, left + 70, 160)
        ImageDraw.Draw(mask).ellipse(box, fill=value, outline=value if rim is None else rim, width=3)
    return mask


def coloured(mask: Image.Image) -> Image.Image:
    mask = mask.convert("P")
    mask.putpalette(VOC)
    return mask


def kept(mask: Image.Image) -> np.ndarray:
    return np.asarray(apply_mask(photo(), mask).picture.getchannel("A")) >= 128


@pytest.mark.parametrize("box", [BODY, (60, 30, 240, 400), (10, 20, 290, 400), (150, 60, 230, 140)])
def test_an_inverted_mask_is_doubted_and_the_right_one_is_not(box):
    inverted = apply_mask(photo(), shape(0, 255, box))
    assert "inverted" in " ".join(inverted.doubts)
    assert apply_mask(photo(), shape(255, 0, box)).doubts == ()


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_of_one_value_is_no_inverted_one_unless_it_is_black(value):
    doubts = " ".join(apply_mask(photo(), Image.new("L", SIZE, value)).doubts)
    assert ("leaves nothing" in doubts) == (value == 0)


def test_brush_strokes_that_leave_the_borders_are_doubted():
    after = retouch(photo(), uncut(photo()), None, shape())
    assert "inverted" in " ".join(after.doubts)


@pytest.mark.parametrize("value", [1, 2, 15, 100])
def test_a_class_of_a_label_map_is_what_stays(value):
    result = apply_mask(photo(), shape(value))
    assert np.array_equal(kept(shape(value)), np.asarray(shape()) > 0)
    assert (result.doubts, result.notice) == ((), "")


def test_a_label_maps_rim_is_no_class():
    found = kept(labels(15, rim=255))
    assert found[110, 55]
    assert not found[110, 21]
    assert not found[10, 10]


def test_of_several_classes_all_stay_and_it_is_told():
    result = apply_mask(photo(), labels(1, 2, 3))
    assert all(kept(labels(1, 2, 3))[110, 55 + 90 * number] for number in range(3))
    assert "1, 2, 3" in result.notice
    assert "2 colours" in apply_mask(photo(), coloured(labels(1, 4))).notice


def test_a_palette_of_class_colours_is_understood(tmp_path):
    coloured(shape(1)).save(tmp_path / "voc.png")
    mask = open_image(tmp_path / "voc.png")
    assert np.array_equal(kept(mask), np.asarray(shape()) > 0)
    assert apply_mask(photo(), mask).doubts == ()


def test_a_dim_mask_is_stretched_and_it_is_told():
    soft = Image.linear_gradient("L").resize(SIZE).point(lambda value: value * 90 // 255)
    result = apply_mask(photo(), soft)
    assert "90 of 255" in result.notice
    assert kept(soft)[-1].all()
    assert not kept(soft)[0].any()


@pytest.mark.parametrize("ground", ["photo", "white"])
def test_a_mask_that_comfyui_saved_is_what_was_painted(ground):
    saved = photo().convert("RGBA") if ground == "photo" else Image.new("RGBA", SIZE, (255, 255, 255, 255))
    saved.putalpha(shape(0, 255))
    result = apply_mask(photo(), saved)
    assert np.array_equal(np.asarray(result.picture.getchannel("A")) >= 128, np.asarray(shape()) > 0)
    assert "ComfyUI" in result.notice


def test_a_cut_out_as_a_mask_is_what_can_be_seen():
    for ground in ((0, 0, 0), (40, 120, 60)):  # what editors leave below see-through pixels
        saved = Image.composite(photo(), Image.new("RGB", SIZE, ground), shape()).convert("RGBA")
        saved.putalpha(shape())
        assert np.array_equal(kept(saved), np.asarray(shape()) > 0)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "JPEG", "16 bit", "half"])
def test_black_and_white_stays_what_it_was(tmp_path, mode):
    path, mask = tmp_path / "mask.png", shape()
    if mode == "16 bit":
        Image.fromarray(np.asarray(mask).astype(np.uint16) * 257).save(path)
    elif mode == "JPEG":
        path = tmp_path / "mask.jpg"
        mask.save(path, quality=80)
    elif mode == "half":
        mask.resize((150, 100)).save(path)
    else:
        mask.convert(mode).save(path)
    result = apply_mask(photo(), open_image(path))
    found = np.asarray(result.picture.getchannel("A")) >= 128
    assert (found != (np.asarray(mask) > 0)).mean() < 0.01
    assert (result.doubts, result.notice) == ((), "")
