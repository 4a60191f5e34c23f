"""Pictures and frames that are hard for the draft: slim, flat, tiny, cut off, at the edge."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from test_draft_render import BACKGROUND, GREEN, RED, STILL, actor, bust, make, person, reddish, thing

from engine.draft.render import frames


def ground_and_sky() -> tuple[dict, Image.Image]:
    return {"role": "background"}, Image.new("RGB", (64, 48), (180, 180, 180))


def test_a_slim_thing_keeps_its_width_and_stands_on_its_shadow_while_it_turns():
    bottle = Image.new("RGBA", (184, 840), (0, 0, 0, 0))
    ImageDraw.Draw(bottle).rectangle((20, 20, 164, 820), fill=RED)  # aspect 0.18
    spot = {"x": 0.5, "y": 0.9, "scale": 0.75}
    widths, feet = {}, {}
    for motion in ("idle", "turn"):
        cast = actor("bottle", bottle, "object", motion=motion, placement=spot)
        scene, members = make(cast, ground_and_sky(), video={"width": 192, "height": 320, "frames": 61}, **STILL)
        masks = [reddish(frame) for frame in frames(scene, members)]
        widths[motion] = [mask[60:280].sum(1).mean() for mask in masks]
        feet[motion] = [np.nonzero(mask[275:285].any(0))[0].mean() for mask in masks]
    assert min(widths["turn"]) >= 0.85 * widths["idle"][0]
    assert max(widths["turn"]) <= 1.1 * widths["idle"][0]
    assert max(abs(foot - feet["idle"][0]) for foot in feet["turn"]) < 0.1 * widths["idle"][0]


@pytest.mark.parametrize("side", ["top", "left", "right"])
def test_a_hat_that_touches_the_photo_s_edge_stays_whole(side):
    """As a portrait is framed: its cut-out reaches the border along a part of it."""
    picture = Image.new("RGBA", (300, 400), (0, 0, 0, 0))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((90, 60, 210, 380), fill=RED)
    pen.rectangle({"top": (120, 0, 180, 60), "left": (0, 100, 90, 160), "right": (210, 100, 299, 160)}[side], fill=RED)
    spot = {"x": 0.5, "y": 0.9, "scale": 0.8}
    scene, members = make(
        actor("Mia", picture, motion="idle", placement=spot), BACKGROUND, video={"width": 256, "height": 256}, **STILL
    )
    red = reddish(next(frames(scene, members)))
    rows, columns = np.nonzero(red.any(1))[0], np.nonzero(red.any(0))[0]
    height, width = 380 if side == "top" else 320, {"top": 120, "left": 210, "right": 210}[side]
    assert len(rows) == pytest.approx(0.8 * 256, abs=6)  # nothing of it is gone
    assert len(columns) == pytest.approx(0.8 * 256 * width / height, abs=7)


@pytest.mark.parametrize("size", [(400, 2), (2, 400), (3, 3), (1, 1)])
def test_a_thin_or_tiny_picture_without_alpha_renders(size):
    card = Image.new("RGB", size, (30, 90, 200))
    scene, members = make(actor("stick", card, "object"), actor("Mia", card), BACKGROUND)
    assert len(list(frames(scene, members))) == 9


@pytest.mark.parametrize("size", [(64, 1920), (1920, 64)])
def test_extreme_frames_render(size):
    flat = Image.new("RGBA", (600, 60), (0, 0, 0, 0))
    ImageDraw.Draw(flat).rectangle((10, 10, 590, 40), fill=GREEN)
    cast = [actor("Mia", person()), actor("Ken", bust()), actor("pen", flat, "object")]
    scene, members = make(
        *cast, BACKGROUND, prompt="Mia holds the pen", video={"width": size[0], "height": size[1], "frames": 5}
    )
    assert len(list(frames(scene, members))) == 5


def test_a_rectangular_product_has_no_white_frame():
    book = Image.new("RGBA", (120, 160), (0, 0, 0, 0))
    ImageDraw.Draw(book).rectangle((20, 20, 100, 140), fill=(160, 20, 20, 255))
    spot = {"x": 0.5, "y": 0.9, "scale": 0.8}
    scene, members = make(
        actor("book", book, "object", placement=spot), ground_and_sky(), video={"width": 256, "height": 192}, **STILL
    )
    assert next(frames(scene, members)).min(2).max() < 195  # nothing is lighter than the wall


def test_a_bust_placed_above_the_frames_edge_ends_softly_where_its_photo_did():
    spot = {"x": 0.5, "y": 0.7, "scale": 0.5}
    scene, members = make(
        actor("Mia", bust(), placement=spot), ground_and_sky(), video={"width": 256, "height": 192}, **STILL
    )
    for frame in frames(scene, members):
        red = frame[..., 0].astype(int) - frame[..., 1]
        assert red[140:].max() < 40  # no mirrored body below the foot
        line = red[:, 128]
        assert np.abs(np.diff(line[115:145])).max() < 75  # no knife edge


def test_somebody_cut_off_at_the_top_in_mid_frame_ends_softly():
    cat = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    ImageDraw.Draw(cat).ellipse((50, -80, 250, 250), fill=RED)
    spot = {"x": 0.5, "y": 0.9, "scale": 0.5}
    scene, members = make(
        actor("Cat", cat, placement=spot), ground_and_sky(), video={"width": 256, "height": 192}, **STILL
    )
    red = next(frames(scene, members)).astype(int)[..., 0:2] @ (1, -1)
    assert red[:72].max() < 40
    assert np.abs(np.diff(red[70:100, 128])).max() < 75


@pytest.mark.parametrize("camera", ["pan_left", "pan_right", "push_in", "handheld"])
@pytest.mark.parametrize("motion", ["walk", "run"])
def test_walkers_stay_in_the_frame(camera, motion):
    def cast(first: tuple[int, ...], second: tuple[int, ...]) -> tuple:
        return (
            actor("Mia", person(first).resize((290, 300)), motion=motion),
            actor("Ken", person(second).resize((290, 300)), motion=motion),
        )

    blue = (60, 60, 200, 255)
    for colours in ((RED, blue), (blue, RED)):
        scene, members = make(
            *cast(*colours), BACKGROUND, video={"width": 160, "height": 160, "frames": 46}, direction={"camera": camera}
        )
        for frame in frames(scene, members):
            seen = reddish(frame)
            assert not seen[:, 0].any()
            assert not seen[:, -1].any()
            assert not seen[0].any()


@pytest.mark.parametrize("camera", ["pan_left", "pan_right", "push_in", "orbit"])
def test_the_camera_leaves_the_face_of_somebody_cut_off_at_a_side_in_the_frame(camera):
    picture = Image.new("RGBA", (180, 300), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((-160, 130, 160, 480), fill=(60, 60, 200, 255))
    draw.ellipse((8, 30, 92, 140), fill=RED)
    scene, members = make(
        actor("Mia", person((60, 160, 60, 255)), motion="idle"),
        actor("Left", picture, motion="idle"),
        BACKGROUND,
        video={"width": 256, "height": 160, "frames": 31},
        direction={"camera": camera},
    )
    seen = [int(reddish(frame).sum()) for frame in frames(scene, members)]
    assert min(seen) > 0.8 * max(seen)


def test_a_lifted_thing_goes_up_by_an_eighth_of_the_frame_though_its_holder_is_small():
    ball = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(ball).ellipse((10, 10, 190, 190), fill=(60, 60, 200, 255))
    cast = [
        actor("Fox", ball, placement={"x": 0.4, "y": 0.92, "scale": 0.3}),
        actor("cup", thing(RED), "object", placement={"x": 0.6, "y": 0.92, "scale": 0.16}),
    ]
    scene, members = make(
        *cast, BACKGROUND, prompt="Fox lifts the cup", video={"width": 256, "height": 192, "frames": 46}, **STILL
    )
    middles = [np.nonzero(reddish(frame))[0].mean() for frame in frames(scene, members)]
    assert middles[0] - min(middles) > 0.11 * 192
