"""The draft's frames: how many, what they show, and that the same scene gives the same ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from engine.draft.engine import Draft
from engine.draft.render import arrange, frames
from engine.errors import Stopped
from engine.scene.cast import Member
from engine.scene.scene import CAMERAS, MOTIONS, Scene
from engine.scene.scene_file import scene_from_data

RED, GREEN = (220, 30, 30, 255), (40, 170, 80, 255)


def person(colour: tuple[int, ...] = RED) -> Image.Image:
    picture = Image.new("RGBA", (160, 300), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((55, 20, 105, 80), fill=colour)
    draw.polygon([(80, 70), (120, 280), (95, 280), (80, 180), (65, 280), (40, 280)], fill=colour)
    return picture


def bust(colour: tuple[int, ...] = RED) -> Image.Image:
    picture = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((105, 30, 195, 140), fill=colour)
    draw.ellipse((50, 130, 250, 480), fill=colour)
    return picture


def thing(colour: tuple[int, ...] = GREEN) -> Image.Image:
    picture = Image.new("RGBA", (120, 120), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rounded_rectangle((15, 15, 105, 105), 12, fill=colour)
    return picture


def place(width: int = 320, height: int = 180) -> Image.Image:
    rows = np.linspace((120, 150, 190), (170, 165, 160), height)[:, None]
    ripples = 18 * np.sin(np.arange(width) / 7)[None, :, None] + 18 * np.sin(np.arange(height) / 4)[:, None, None]
    return Image.fromarray(np.clip(rows + ripples, 0, 255).astype(np.uint8))


def make(*cast: tuple[dict, Image.Image], prompt: str = "", **fields: object) -> tuple[Scene, list[Member]]:
    """A scene of 128x96 and 9 frames, unless `fields` say otherwise, and its members."""
    elements = [{"image": "x.png", **element} for element, _ in cast]
    video = {"width": 128, "height": 96, "frames": 9, **fields.pop("video", {})}
    scene = scene_from_data({"cast": elements, "prompt": prompt, "video": video, **fields})
    return scene, [Member(element, picture) for element, (_, picture) in zip(scene.cast, cast, strict=True)]


def actor(name: str, picture: Image.Image, role: str = "character", **more: object) -> tuple[dict, Image.Image]:
    return {"role": role, "name": name, **more}, picture


BACKGROUND = ({"role": "background"}, place())
STILL = {"direction": {"camera": "still"}}


def reddish(frame: np.ndarray) -> np.ndarray:
    values = frame.astype(int)
    return (values[..., 0] > 110) & (values[..., 0] > values[..., 1] + 60) & (values[..., 0] > values[..., 2] + 60)


# ---------------------------------------------------------------------------
# Frames


@pytest.mark.parametrize("size", [(64, 64), (128, 80), (80, 128), (320, 64)])
@pytest.mark.parametrize("count", [5, 16])
def test_exactly_the_frames_asked_for_in_the_size_asked_for(size, count):
    scene, members = make(
        actor("Mia", person()), BACKGROUND, video={"width": size[0], "height": size[1], "frames": count}
    )
    made = list(frames(scene, members))
    assert len(made) == count
    assert all(frame.shape == (size[1], size[0], 3) and frame.dtype == np.uint8 for frame in made)


def test_frames_are_independent_arrays():
    scene, members = make(actor("Mia", person()), BACKGROUND, prompt="Mia dances")
    one, *rest = frames(scene, members)
    before = one.copy()
    for frame in rest:
        frame[:] = 0
    assert np.array_equal(one, before)


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_renders_for_people_busts_and_things(motion):
    scene, members = make(
        actor("Mia", person(), motion=motion),
        actor("Ken", bust(), motion=motion),
        actor("cup", thing(), "object", motion=motion),
        BACKGROUND,
    )
    made = np.stack(list(frames(scene, members)))
    assert np.ptp(made, axis=0).max() > 40  # something moves


@pytest.mark.parametrize("camera", CAMERAS)
def test_every_camera_moves_over_a_background_alone_except_the_still_one(camera):
    scene, members = make(BACKGROUND, direction={"camera": camera})
    made = np.stack(list(frames(scene, members))).astype(int)
    assert (np.abs(np.diff(made, axis=0)).max() > 3) == (camera != "still")


def test_no_background_gives_a_studio_that_depends_on_the_seed():
    looks = []
    for seed in (1, 2, 3):
        scene, members = make(actor("Mia", person()), sampling={"seed": seed}, **STILL)
        frame = next(frames(scene, members))
        looks.append(frame[:20, :20].reshape(-1, 3).mean(0))
        assert 60 < looks[-1].mean() < 240
    assert max(np.abs(a - b).max() for a in looks for b in looks) > 4


def test_a_cast_of_ten_a_card_and_actors_outside_the_frame_render():
    far = {"x": -0.9, "y": 2.0, "scale": 0.5}
    huge = {"x": 0.5, "y": 0.9, "scale": 4.0, "flip": True}
    card = Image.new("RGBA", (90, 60), (30, 90, 200, 255))
    cast = [actor(f"c{i}", person()) for i in range(4)]
    cast += [actor("far", person(), placement=far), actor("huge", person(), placement=huge)]
    cast += [actor(f"o{i}", thing(), "object") for i in range(3)] + [actor("card", card, "object")]
    scene, members = make(*cast, BACKGROUND, prompt="c0 holds the o0")
    assert len(list(frames(scene, members))) == 9


@pytest.mark.parametrize("picture", [place(40, 30), place(1500, 200), place(100, 900)])
def test_a_background_of_any_size_fills_the_frame(picture):
    scene, members = make(({"role": "background"}, picture), direction={"camera": "orbit"})
    for frame in frames(scene, members):
        assert frame.min() > 50  # no black border; the darkest of the picture is lighter


def test_an_empty_cut_out_and_a_tiny_one_do_no_harm():
    empty = Image.new("RGBA", (50, 50), (0, 0, 0, 0))
    dot = Image.new("RGBA", (3, 3), (200, 0, 0, 255))
    scene, members = make(actor("a", empty), actor("b", dot), actor("c", dot, "object"), BACKGROUND)
    assert len(list(frames(scene, members))) == 9


# ---------------------------------------------------------------------------
# What they show


def test_an_explicit_placement_is_where_the_cut_out_appears():
    placement = {"x": 0.3, "y": 0.8, "scale": 0.5}
    scene, members = make(
        actor("cup", thing(RED), "object", placement=placement),
        ({"role": "background"}, Image.new("RGB", (64, 48), (128, 140, 150))),
        video={"width": 256, "height": 192},
        **STILL,
    )
    rows, columns = np.nonzero(reddish(next(frames(scene, members))))
    assert rows.max() + 1 == pytest.approx(0.8 * 192, abs=3)
    assert rows.max() + 1 - rows.min() == pytest.approx(0.5 * 192, abs=4)
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(0.3 * 256, abs=3)


def test_flip_mirrors_the_cut_out():
    picture = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    ImageDraw.Draw(picture).polygon([(5, 95), (95, 95), (5, 5)], fill=RED)  # heavy on the left
    middles = []
    for flip in (False, True):
        placement = {"x": 0.5, "y": 0.9, "scale": 0.6, "flip": flip}
        scene, members = make(actor("sail", picture, "object", placement=placement), BACKGROUND, **STILL)
        middles.append(np.nonzero(reddish(next(frames(scene, members))))[1].mean())
    assert middles[0] < 62
    assert middles[1] > 65


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("motion", MOTIONS)
def test_the_cut_line_of_a_bust_never_enters_the_frame(camera, motion):
    video = {"width": 192, "height": 112, "frames": 31}
    scene, members = make(actor("Mia", bust(), motion=motion), BACKGROUND, direction={"camera": camera}, video=video)
    for frame in frames(scene, members):
        assert reddish(frame)[-1].sum() > 30  # the body goes on to the last row


def test_who_stands_lower_stands_in_front():
    def shows(first: float, second: float) -> int:
        scene, members = make(
            actor("red", thing(RED), "object", placement={"x": 0.5, "y": first, "scale": 0.4}),
            actor("green", thing(), "object", placement={"x": 0.5, "y": second, "scale": 0.4}),
            BACKGROUND,
            **STILL,
        )
        return int(reddish(next(frames(scene, members))).sum())

    assert shows(0.85, 0.8) > 1.3 * shows(0.8, 0.85)


def test_a_shadow_darkens_the_ground_and_shrinks_as_the_actor_rises():
    def darkness(motion: str) -> float:
        ground = Image.new("RGB", (64, 48), (180, 180, 180))
        placement = {"x": 0.5, "y": 0.85, "scale": 0.4}
        cast = [actor("cup", thing(), "object", motion=motion, placement=placement)]
        scene, members = make(
            *cast, ({"role": "background"}, ground), video={"width": 256, "height": 192, "frames": 31}, **STILL
        )
        below = list(frames(scene, members))[24][165:176, 98:158].astype(float)
        return float(180 - below.mean())

    assert darkness("idle") > 8
    assert darkness("lift") < 0.8 * darkness("idle")


def test_a_held_object_moves_with_its_holder():
    def path(prompt: str) -> np.ndarray:
        scene, members = make(
            actor("Mia", person((60, 60, 200, 255)), motion="walk", placement={"x": 0.3, "y": 0.95, "scale": 0.8}),
            actor("cup", thing(RED), "object", placement={"x": 0.4, "y": 0.7, "scale": 0.2}),
            BACKGROUND,
            prompt=prompt,
            video={"width": 256, "height": 144, "frames": 31},
            **STILL,
        )
        return np.array([np.nonzero(reddish(frame))[0].mean() for frame in frames(scene, members)])

    assert np.ptp(path("Mia walks and holds the cup")) > 3
    assert np.ptp(path("Mia walks")) < 0.5


def test_colours_of_a_product_stay_close_to_the_photos():
    scene, members = make(
        actor("cup", thing((30, 90, 220, 255)), "object", placement={"x": 0.5, "y": 0.85, "scale": 0.6}),
        ({"role": "background"}, Image.new("RGB", (64, 48), (40, 120, 30))),
        **STILL,
    )
    middle = next(frames(scene, members))[48:60, 58:70].reshape(-1, 3).mean(0)
    assert np.abs(middle - (30, 90, 220)).max() < 22


def test_frames_do_not_flicker():
    scene, members = make(
        actor("Mia", person()), actor("Ken", bust()), BACKGROUND, prompt="Mia dances", video={"frames": 46}
    )
    made = np.stack(list(frames(scene, members))).astype(np.float32)
    steps = np.abs(np.diff(made, axis=0)).mean((1, 2, 3))
    assert steps.max() < 9


# ---------------------------------------------------------------------------
# The same again


def digest(scene: Scene, members: list[Member]) -> str:
    total = hashlib.sha256()
    for frame in frames(scene, members):
        total.update(frame.tobytes())
    return total.hexdigest()


def busy_scene(seed: int = 5) -> tuple[Scene, list[Member]]:
    return make(
        actor("Mia", person()),
        actor("Ken", bust()),
        actor("cup", thing(), "object"),
        prompt="Mia dances while Ken holds the cup, handheld",
        sampling={"seed": seed},
    )


def test_the_same_scene_gives_the_same_frames_bit_for_bit():
    assert digest(*busy_scene()) == digest(*busy_scene())


def test_another_seed_gives_other_frames():
    assert digest(*busy_scene(5)) != digest(*busy_scene(6))


def test_another_process_gives_the_same_frames():
    code = "from test_draft_render import busy_scene, digest; print(digest(*busy_scene()))"
    here = Path(__file__).resolve().parent
    search = f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}]; "
    run = subprocess.run([sys.executable, "-c", search + code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest(*busy_scene())


def test_stop_ends_the_work_before_the_next_frame():
    pressed: list[bool] = []
    scene, members = make(actor("Mia", person()), BACKGROUND)
    stream = frames(scene, members, stop=lambda: bool(pressed))
    next(stream)
    pressed.append(True)
    with pytest.raises(Stopped):
        next(stream)


def test_stop_acts_before_the_first_frame():
    scene, members = make(actor("Mia", person()), BACKGROUND)
    with pytest.raises(Stopped):
        next(frames(scene, members, stop=lambda: True))


def test_memory_does_not_grow_with_the_length_of_the_clip():
    peaks = []
    for count in (9, 121):
        scene, members = make(actor("Mia", person()), BACKGROUND, prompt="Mia dances", video={"frames": count})
        tracemalloc.start()
        for _ in frames(scene, members):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 200_000


def test_the_note_says_that_it_is_a_draft():
    assert "draft" in Draft.note
    assert Draft.note.endswith(".")


def test_arrange_agrees_with_what_is_drawn():
    scene, members = make(actor("Mia", person()), actor("cup", thing(), "object"), BACKGROUND, **STILL)
    placed = arrange(scene, members)
    cast = tuple(element.model_copy(update={"placement": placed.get(i)}) for i, element in enumerate(scene.cast))
    fixed = scene.model_copy(update={"cast": cast})
    assert digest(scene, members) == digest(fixed, [Member(e, m.picture) for e, m in zip(cast, members, strict=True)])
