"""Who stands where, and what the draft reads in a prompt."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from engine.cast import Member
from engine.draft import arrange, block, empty_stage, frames
from engine.draft.direct import direct
from engine.draft.measure import bounding_box, measure
from engine.scene import Placement, Scene, scene_from_data

FRAMES = [(832, 480), (480, 832), (640, 640)]


def standing(width: int = 200, height: int = 500) -> Image.Image:
    """Somebody from head to foot, with air around."""
    picture = Image.new("RGBA", (width + 80, height + 80), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    middle = 40 + width // 2
    draw.ellipse((middle - 45, 40, middle + 45, 130), fill=(200, 150, 120, 255))
    draw.rectangle((middle - 60, 125, middle + 60, 330), fill=(60, 90, 160, 255))
    draw.rectangle((middle - 50, 330, middle - 10, 40 + height), fill=(40, 40, 50, 255))
    draw.rectangle((middle + 10, 330, middle + 50, 40 + height), fill=(40, 40, 50, 255))
    return picture


def bust() -> Image.Image:
    """Somebody whom the photo's lower edge cuts off at the chest."""
    picture = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((140, 40, 260, 190), fill=(200, 150, 120, 255))
    draw.ellipse((50, 180, 350, 640), fill=(160, 60, 60, 255))
    return picture


def thing() -> Image.Image:
    picture = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((30, 40, 170, 180), fill=(60, 160, 90, 255))
    return picture


def scene_of(cast: list[dict], prompt: str = "", size: tuple[int, int] = (832, 480), **more: object) -> Scene:
    elements = [{"image": "x.png", **element} for element in cast]
    return scene_from_data({"cast": elements, "prompt": prompt, "video": {"width": size[0], "height": size[1]}, **more})


def members_of(scene: Scene, *pictures: Image.Image) -> list[Member]:
    return [Member(element, picture) for element, picture in zip(scene.cast, pictures, strict=True)]


def box(placement: Placement, picture: Image.Image, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the placed cut-out in fractions of the frame."""
    left, top, right, bottom = bounding_box(picture)
    half = placement.scale * (right - left) / (bottom - top) * size[1] / size[0] / 2
    return placement.x - half, placement.y - placement.scale, placement.x + half, placement.y


def character(name: str, **more: object) -> dict:
    return {"role": "character", "name": name, **more}


def prop(name: str, **more: object) -> dict:
    return {"role": "object", "name": name, **more}


# ---------------------------------------------------------------------------
# Layout


@pytest.mark.parametrize("size", FRAMES)
def test_a_standing_person_is_inside_the_frame_and_stands_low_in_it(size):
    scene = scene_of([character("Mia")], size=size)
    left, top, right, bottom = box(arrange(scene, members_of(scene, standing()))[0], standing(), size)
    assert left >= 0
    assert right <= 1
    assert top >= 0
    assert 0.7 < bottom < 0.98


@pytest.mark.parametrize("size", FRAMES)
def test_a_bust_cut_off_by_the_photo_reaches_the_lower_edge_of_the_frame(size):
    scene = scene_of([character("Mia")], size=size)
    placement = arrange(scene, members_of(scene, bust()))[0]
    assert placement.y >= 1.0
    assert placement.y - placement.scale > 0.02  # with its head inside


def test_explicit_placements_are_returned_unchanged():
    placement = {"x": 0.21, "y": 0.77, "scale": 0.33, "flip": True}
    scene = scene_of([character("Mia"), character("Ken", placement=placement)])
    assert arrange(scene, members_of(scene, standing(), bust()))[1] == Placement(**placement)


@pytest.mark.parametrize(("layers", "order"), [((0, 0), [0, 1]), ((1, 0), [1, 0]), ((0, -1), [1, 0]), ((2, 2), [0, 1])])
def test_whoever_stands_lower_is_in_front_unless_a_layer_says_otherwise(layers, order):
    spots = [{"x": 0.4, "y": y, "scale": 0.6, "layer": layer} for y, layer in zip((0.8, 0.9), layers, strict=True)]
    scene = scene_of([character(name, placement=spot) for name, spot in zip(("Mia", "Ken"), spots, strict=True)])
    assert block(scene, members_of(scene, standing(), standing()))[1] == order


def test_a_held_object_goes_to_the_layer_of_its_holder():
    behind = {"x": 0.4, "y": 0.9, "scale": 0.6, "layer": -1}
    scene = scene_of([character("Mia", placement=behind), character("Ken"), prop("cup")], "Mia holds the cup.")
    assert block(scene, members_of(scene, standing(), standing(), thing()))[1] == [0, 2, 1]


def test_an_empty_stage_is_the_wall_behind_the_clip():
    scene = scene_of([character("Mia")], direction={"camera": "still"})
    members = members_of(scene, standing())
    stage, frame = np.asarray(empty_stage(scene, members), int), next(frames(scene, members)).astype(int)
    assert stage.shape == frame.shape
    assert abs(stage[20:60, 380:450] - frame[20:60, 380:450]).mean() < 12  # the clip's grade and vignette are gentle


def test_the_background_has_no_placement():
    scene = scene_of([character("Mia"), {"role": "background"}])
    background = Image.new("RGB", (300, 200))
    assert list(arrange(scene, members_of(scene, standing(), background))) == [0]


@pytest.mark.parametrize("size", FRAMES)
@pytest.mark.parametrize("count", [2, 3, 6])
def test_no_object_on_the_ground_hides_a_face(size, count):
    cast = [character(f"c{i}") for i in range(count)] + [prop(f"thing {i}") for i in range(4)]
    scene = scene_of(cast, size=size)
    pictures = [standing() for _ in range(count)] + [thing() for _ in range(4)]
    placed = arrange(scene, members_of(scene, *pictures))
    for i in range(count, count + 4):
        left, top, right, bottom = box(placed[i], pictures[i], size)
        for j in range(count):
            x, crown = placed[j].x, placed[j].y - placed[j].scale
            chin = crown + 0.25 * placed[j].scale
            assert right < x or left > x or top >= chin or bottom <= crown, f"thing {i} hides the face of c{j}"


def test_people_in_one_scene_have_the_same_size_and_do_not_stand_in_one_spot():
    scene = scene_of([character(name) for name in "abc"])
    placed = arrange(scene, members_of(scene, standing(), standing(), standing()))
    xs = [placed[i].x for i in range(3)]
    assert xs == sorted(xs)
    assert min(b - a for a, b in pairwise(xs)) > 0.15
    scales = [placed[i].scale for i in range(3)]
    assert max(scales) < 1.2 * min(scales)


def test_a_cup_is_smaller_than_a_suitcase_beside_the_same_person():
    sizes = {}
    for name in ("cup", "suitcase"):
        scene = scene_of([character("Mia"), prop(name)])
        sizes[name] = arrange(scene, members_of(scene, standing(), thing()))[1].scale
    assert sizes["cup"] < 0.6 * sizes["suitcase"]


def test_a_held_object_is_at_the_height_of_its_holders_hands():
    scene = scene_of([character("Mia"), character("Ken"), prop("cup")], "Ken holds the cup.")
    placed = arrange(scene, members_of(scene, standing(), standing(), thing()))
    ken, cup = placed[1], placed[2]
    middle = cup.y - cup.scale / 2
    assert ken.y - 0.75 * ken.scale < middle < ken.y - 0.25 * ken.scale
    assert abs(cup.x - ken.x) < abs(cup.x - placed[0].x)


def test_products_alone_are_large():
    scene = scene_of([prop("cup")])
    assert arrange(scene, members_of(scene, thing()))[0].scale > 0.5


# ---------------------------------------------------------------------------
# Measuring


def test_cut_sides_and_kinds_are_seen_in_the_alpha():
    assert measure(bust(), "character").cropped == {"bottom"}
    assert measure(standing(), "character").cropped == set()
    assert measure(standing(), "character").kind == "figure"
    assert measure(Image.new("RGBA", (300, 200), (9, 9, 9, 255)), "character").kind == "card"


def test_a_drawn_bust_with_a_straight_lower_edge_is_a_bust_though_the_picture_goes_on():
    cut = bust()
    taller = Image.new("RGBA", (400, 460), (0, 0, 0, 0))
    taller.paste(cut, (0, 0))
    assert measure(taller, "character").kind == "bust"


def test_a_product_trimmed_to_its_box_is_not_taken_for_cropped():
    trimmed = thing().crop(bounding_box(thing()))
    assert measure(trimmed, "object").cropped == set()


def test_faint_haze_does_not_count_for_the_box():
    picture = thing()
    ImageDraw.Draw(picture).rectangle((0, 0, 8, 199), fill=(200, 0, 0, 9))
    assert bounding_box(picture) == bounding_box(thing())


# ---------------------------------------------------------------------------
# Reading the prompt


CAST = [character("Mia"), character("Ken"), prop("cup"), {"role": "background", "name": "stage"}]


def read(prompt: str, cast: list[dict] | None = None) -> tuple[str, dict[str, str], dict[str, str]]:
    scene = scene_of(CAST if cast is None else cast, prompt)
    plan = direct(scene)
    motions = {scene.cast[i].name: act.motion for i, act in plan.acts.items()}
    holders = {scene.cast[i].name: scene.cast[a.holder].name for i, a in plan.acts.items() if a.holder is not None}
    return plan.camera, motions, holders


@pytest.mark.parametrize(
    ("prompt", "mia", "ken"),
    [
        ("Mia dances while Ken walks.", "dance", "walk"),
        ("Mia and Ken are dancing on the stage", "dance", "dance"),
        ("MIA runs; ken stands still", "run", "idle"),
        ("dancing Mia and running Ken", "dance", "run"),
        ("Ken stands with Mia dancing beside him", "dance", "idle"),
        ("Mia does not dance", "idle", "idle"),
        ("The sidewalk is empty. Miami dances.", "idle", "idle"),
        ("everyone dances", "dance", "dance"),
        ("Mia sits. Then she walks away, Ken watches Mia.", "walk", "idle"),
        ("", "idle", "idle"),
    ],
)
def test_each_one_gets_the_motion_mentioned_with_the_name(prompt, mia, ken):
    _, motions, _ = read(prompt)
    assert (motions["Mia"], motions["Ken"]) == (mia, ken)


@pytest.mark.parametrize(
    ("prompt", "holder"),
    [
        ("Mia holds the cup", "Mia"),
        ("Mia dances while Ken is holding the cup", "Ken"),
        ("Ken walks, holding the cup, while Mia sways", "Ken"),
        ("Mia lifts the cup on the stage.", "Mia"),
        ("Ken presents the product", "Ken"),
        ("Mia dances with the cup, Ken walks", "Mia"),
        ("Ken dances with Mia on the stage; the cup shines", None),
        ("The cup floats between Mia and Ken", None),
        ("Mia looks at the cup", None),
    ],
)
def test_the_one_who_holds_the_object_gets_it(prompt, holder):
    assert read(prompt)[2].get("cup") == holder


def test_a_thing_can_move_by_itself():
    assert read("The cup spins slowly")[1]["cup"] == "turn"
    assert read("Mia lifts the cup")[1]["cup"] == "lift"


@pytest.mark.parametrize(
    ("prompt", "camera"),
    [
        ("Slow push in on Mia", "push_in"),
        ("We zoom out", "pull_out"),
        ("The camera pans left", "pan_left"),
        ("panning to the right", "pan_right"),
        ("tilt up", "tilt_up"),
        ("tilts down to the shoes", "tilt_down"),
        ("the camera orbits Mia", "orbit"),
        ("Handheld, close", "handheld"),
        ("a static shot", "still"),
        ("Mia dances", "push_in"),
    ],
)
def test_the_camera_move_is_read_from_the_prompt(prompt, camera):
    assert read(prompt)[0] == camera


def test_the_cameras_verbs_move_nobody():
    assert read("The camera floats around, then runs past Mia")[1]["Mia"] == "idle"


def test_explicit_direction_wins_over_the_prompt():
    cast = [character("Mia", motion="float"), prop("cup")]
    scene = scene_of(cast, "Mia dances, pan left", direction={"camera": "still"})
    plan = direct(scene)
    assert (plan.camera, plan.acts[0].motion) == ("still", "float")


def test_an_object_told_to_be_held_finds_a_holder():
    scene = scene_of([character("Mia"), prop("cup", motion="hold")])
    assert direct(scene).acts[1].holder == 0
