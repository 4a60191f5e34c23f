"""A see-through frame is no cut-out; a ghost, a small thing and a shape of its own are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from engine.cutout import Models, cut_out, uncut
from engine.cutout.weights import Unavailable
from engine.media.images import open_image
from tests.cutout.test_cutout import alpha_of, with_mask

SIZE, BODY = (240, 240), (80, 70, 160, 200)


def photo() -> Image.Image:
    """A red body before a green ground with some texture."""
    rng = np.random.default_rng(5)
    ground = np.array([70, 130, 80]) + rng.integers(-15, 15, (*SIZE, 1))
    picture = Image.fromarray(ground.astype(np.uint8))
    ImageDraw.Draw(picture).ellipse(BODY, fill=(200, 40, 40))
    return picture


def body() -> Image.Image:
    mask = Image.new("L", SIZE, 0)
    ImageDraw.Draw(mask).ellipse(BODY, fill=255)
    return mask


def frame(kind: str) -> Image.Image:
    alpha = Image.new("L", SIZE, 0)
    draw = ImageDraw.Draw(alpha)
    if kind == "avatar":
        draw.ellipse((0, 0, 239, 239), fill=255)
    elif kind == "avatar with a margin":
        draw.ellipse((20, 20, 219, 219), fill=255)
    elif kind == "card":
        draw.rounded_rectangle((0, 0, 239, 239), 30, fill=255)
    elif kind == "slightly rounded card":
        draw.rounded_rectangle((0, 0, 239, 239), 20, fill=255)
    elif kind == "margin":
        draw.rectangle((20, 10, 230, 225), fill=255)
    elif kind == "margin on one side":
        draw.rectangle((0, 0, 239, 215), fill=255)
    elif kind == "tilted":
        draw.polygon([(30, 60), (180, 20), (220, 170), (70, 210)], fill=255)
    elif kind == "vignette":
        draw.ellipse((15, 15, 224, 224), fill=255)
        alpha = alpha.filter(ImageFilter.GaussianBlur(12))
    return alpha


def framed(kind: str) -> Image.Image:
    picture = photo().convert("RGBA")
    picture.putalpha(frame(kind))
    return picture


KINDS = ["avatar", "avatar with a margin", "card", "slightly rounded card", "margin", "margin on one side", "tilted",
         "vignette"]  # fmt: skip


class Finder:
    """A session that finds the red body wherever it is in the picture it is given."""

    def predict(self, image: Image.Image) -> list[Image.Image]:
        pixels = np.asarray(image.convert("RGB")).astype(int)
        return [Image.fromarray(((pixels[..., 0] > pixels[..., 1] + 60) * 255).astype(np.uint8))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_subject_is_cut_out_inside_a_frame(kind):
    result = cut_out(framed(kind), models=Models(lambda model: Finder()))
    assert result.source == "u2netp"
    assert result.picture.size == SIZE
    assert ((alpha_of(result) >= 128) != (np.asarray(body()) >= 128)).mean() < 0.01
    assert "frame" in result.notice


@pytest.mark.parametrize("kind", KINDS)
def test_as_it_is_a_framed_picture_stays_whole(kind):
    assert np.array_equal(alpha_of(uncut(framed(kind))), np.asarray(frame(kind)))


def test_a_ball_or_a_box_of_its_own_is_the_subject():
    everything, _ = with_mask(Image.new("L", (10, 10), 255))
    for kind in ("avatar", "card", "tilted"):
        result = cut_out(framed(kind), models=everything)
        assert (result.source, result.doubts) == ("alpha", ())
        assert np.array_equal(alpha_of(result), np.asarray(frame(kind)))


def test_a_drawn_shape_of_one_colour_needs_no_model():
    def load(model: str):
        raise AssertionError("a model was asked for")

    shape = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    shape.paste((200, 40, 40, 255), mask=frame("avatar"))
    assert cut_out(shape, models=Models(load)).source == "alpha"


def test_a_shape_as_people_and_things_have_is_the_cut_out():
    def load(model: str):
        raise AssertionError("a model was asked for")

    alpha = Image.new("L", SIZE, 0)
    draw = ImageDraw.Draw(alpha)
    draw.ellipse((95, 20, 145, 70), fill=255)
    draw.rectangle((100, 60, 140, 160), fill=255)
    draw.polygon([(100, 150), (140, 150), (170, 235), (70, 235)], fill=255)
    picture = photo().convert("RGBA")
    picture.putalpha(alpha)
    assert cut_out(picture, models=Models(load)).source == "alpha"
    ring = frame("avatar")
    ImageDraw.Draw(ring).ellipse((70, 70, 170, 170), fill=0)
    picture.putalpha(ring)
    assert cut_out(picture, models=Models(load)).source == "alpha"


@pytest.mark.parametrize("sides", [5, 6, 8])
def test_a_box_or_a_gem_is_no_frame(sides):
    def load(model: str):
        raise AssertionError("a model was asked for")

    alpha = Image.new("L", SIZE, 0)
    ImageDraw.Draw(alpha).regular_polygon((120, 120, 100), sides, fill=255)
    picture = photo().convert("RGBA")
    picture.putalpha(alpha)
    assert cut_out(picture, models=Models(load)).source == "alpha"


@pytest.mark.parametrize("name", ["box", "astronaut", "walker_man"])
def test_the_samples_are_cut_out_already(name, repo):
    def load(model: str):
        raise AssertionError("a model was asked for")

    picture = open_image(repo / "assets" / "samples" / "cast" / f"{name}.webp")
    assert cut_out(picture, models=Models(load)).source == "alpha"


def test_without_a_model_a_busy_framed_picture_is_left_and_doubted():
    def load(model: str):
        raise Unavailable("no network")

    rng = np.random.default_rng(1)
    busy = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize(SIZE)
    ImageDraw.Draw(busy).ellipse(BODY, fill=(200, 40, 40))
    busy.putalpha(frame("card"))
    result = cut_out(busy, models=Models(load))
    assert result.source in ("alpha", "plain background")
    assert result.doubts or result.notice


# ---------------------------------------------------------------------------
# What is there is not called empty


def test_a_ghost_and_a_small_thing_are_not_empty(tmp_path):
    ghost = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    ghost.paste((200, 220, 255, 110), mask=body())
    small = Image.new("RGBA", (2400, 1600), (0, 0, 0, 0))
    small.paste((200, 40, 40, 255), (1000, 800, 1030, 840))
    for name, picture in {
        "ghost": ghost,
        "throughout": Image.new("RGBA", SIZE, (9, 9, 9, 110)),
        "small": small,
    }.items():
        picture.save(tmp_path / f"{name}.png")
        opened = open_image(tmp_path / f"{name}.png")
        result = cut_out(opened, models=with_mask(body(), "none of them")[0])
        assert (result.source, result.doubts) == ("alpha", ()), name
        assert uncut(opened).doubts == (), name


# ---------------------------------------------------------------------------
# A small second thing


def starry(star: tuple[int, int, int, int]) -> tuple[Image.Image, Image.Image]:
    """A body with a yellow star beside it, and the mask that a model gives of both."""
    picture, mask = photo(), body()
    ImageDraw.Draw(picture).ellipse(star, fill=(250, 230, 60))
    ImageDraw.Draw(mask).ellipse(star, fill=255)
    return picture, mask.filter(ImageFilter.GaussianBlur(0.7))


@pytest.mark.parametrize("side", [8, 12, 20])
def test_a_small_second_thing_that_the_model_is_sure_of_stays(side):
    star = (200, 40, 200 + side, 40 + side)
    picture, mask = starry(star)
    alpha = alpha_of(cut_out(picture, models=with_mask(mask)[0]))
    assert alpha[40 + side // 2, 200 + side // 2] == 255
    assert alpha[40 + side // 2, 190] == 0


def test_a_scrap_of_the_background_goes_and_so_does_what_the_model_is_unsure_of():
    _, mask = starry((200, 40, 212, 52))
    assert alpha_of(cut_out(photo(), models=with_mask(mask)[0]))[46, 206] == 0, "nothing is there"
    picture, _ = starry((200, 40, 212, 52))
    unsure = body()
    ImageDraw.Draw(unsure).ellipse((200, 40, 212, 52), fill=180)
    assert alpha_of(cut_out(picture, models=with_mask(unsure)[0]))[46, 206] == 0
