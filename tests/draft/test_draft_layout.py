"""Who stands where."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from engine.draft.measure import bounding_box, measure
from engine.draft.render import arrange, block, empty_stage, frames
from engine.scene.cast import Member
from engine.scene.scene import Placement, Scene
from engine.scene.scene_file import scene_from_data

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


def dancing() -> Image.Image:
    """Somebody from head to foot with both arms stretched out."""
    picture = standing().resize((280, 580)).crop((-100, 0, 380, 580))
    ImageDraw.Draw(picture).rectangle((20, 150, 460, 190), fill=(200, 150, 120, 255))
    return picture


def pen() -> Image.Image:
    """A flat thing, twenty times as wide as high."""
    picture = Image.new("RGBA", (1240, 200), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rectangle((20, 70, 1220, 130), fill=(30, 40, 160, 255))
    return picture


def half_a_bust(side: str) -> Image.Image:
    """Somebody whom the photo's edge cuts off at that side."""
    left = (130, 0, 400, 400) if side == "left" else (0, 0, 270, 400)
    return bust().crop(left)


def head(placement: Placement, picture: Image.Image, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the head in fractions of the frame."""
    shape = measure(picture, "character")
    left, top, right, bottom = box(placement, picture, size)
    start, end = (left + (right - left) * side for side in shape.head)
    return start, top, end, top + 0.27 * (bottom - top)


def faces_apart(placed: dict[int, Placement], pictures: list[Image.Image], size: tuple[int, int]) -> bool:
    heads = [head(placed[i], picture, size) for i, picture in enumerate(pictures)]
    for one, other in combinations(heads, 2):
        shared = min(one[2], other[2]) - max(one[0], other[0])
        if min(one[3], other[3]) > max(one[1], other[1]) and shared > 0.25 * min(one[2] - one[0], other[2] - other[0]):
            return False
    return True


@pytest.mark.parametrize("size", [(480, 832), (64, 480), (64, 1920), (832, 480)])
@pytest.mark.parametrize("count", [1, 3, 16])
def test_flat_things_find_a_place_in_any_frame(size, count):
    scene = scene_of([prop(f"pen {i}") for i in range(count)], size=size)
    placed = arrange(scene, members_of(scene, *[pen()] * count))
    assert all(placement.scale > 0.01 for placement in placed.values())


@pytest.mark.parametrize("size", [(480, 832), (64, 1920)])
def test_a_flat_thing_in_a_hand_finds_a_place_in_an_upright_frame(size):
    scene = scene_of([character("Mia"), character("Ken"), prop("pen")], "Mia holds the pen", size)
    placed = arrange(scene, members_of(scene, standing(), bust(), pen()))
    assert placed[2].scale > 0.01


@pytest.mark.parametrize("size", FRAMES)
def test_people_cut_off_at_a_side_stand_at_that_edge_and_hide_nobody(size):
    cast = [character(name) for name in ("Mia", "Left", "Right")]
    pictures = [bust(), half_a_bust("left"), half_a_bust("right")]
    assert [measure(p, "character").cropped for p in pictures[1:]] == [{"left", "bottom"}, {"right", "bottom"}]
    scene = scene_of([cast[0], cast[1]], size=size)
    placed = arrange(scene, members_of(scene, *pictures[:2]))
    assert box(placed[1], pictures[1], size)[0] == pytest.approx(-0.01, abs=0.01)
    assert faces_apart(placed, pictures[:2], size)
    scene = scene_of([cast[2], cast[0], cast[1]], size=size)
    pictures = [pictures[2], pictures[0], pictures[1]]
    placed = arrange(scene, members_of(scene, *pictures))
    assert box(placed[2], pictures[2], size)[0] == pytest.approx(-0.01, abs=0.01)
    assert box(placed[0], pictures[0], size)[2] == pytest.approx(1.01, abs=0.01)
    assert faces_apart(placed, pictures, size)


def test_only_one_of_two_people_cut_off_at_the_same_side_stands_at_the_edge():
    pictures = [half_a_bust("left"), half_a_bust("left"), standing()]
    scene = scene_of([character(name) for name in "abc"])
    placed = arrange(scene, members_of(scene, *pictures))
    assert faces_apart(placed, pictures, (832, 480))


@pytest.mark.parametrize("count", [4, 5, 6])
def test_a_group_in_an_upright_frame_stands_in_two_rows_that_show_every_face(count):
    scene = scene_of([character(f"c{i}") for i in range(count)], size=(480, 832))
    pictures = [dancing()] * count
    placed = arrange(scene, members_of(scene, *pictures))
    tall = max(p.scale for p in placed.values())
    back = [p for p in placed.values() if p.scale < 0.9 * tall]
    front = [p for p in placed.values() if p.scale >= 0.9 * tall]
    assert tall > 1.25 / count
    assert 2 * len(back) in (count, count + 1)
    assert max(p.y for p in back) < min(p.y for p in front)
    assert max(p.y - p.scale for p in back) < min(p.y - p.scale for p in front)  # heads over the front row's
    assert faces_apart(placed, pictures, (480, 832))


def test_six_products_fill_an_upright_frame():
    scene = scene_of([prop(f"thing {i}") for i in range(6)], size=(480, 832))
    placed = arrange(scene, members_of(scene, *[thing()] * 6))
    boxes = [box(p, thing(), (480, 832)) for p in placed.values()]
    assert min(p.scale for p in placed.values()) > 0.14
    assert max(b[3] for b in boxes) - min(b[1] for b in boxes) > 0.3
    assert min(b[0] for b in boxes) > 0
    assert max(b[2] for b in boxes) < 1


def test_things_are_not_oversized_beside_a_small_group():
    scene = scene_of([character(f"c{i}") for i in range(8)] + [prop("cup")], size=(480, 832))
    placed = arrange(scene, members_of(scene, *[dancing()] * 8, thing()))
    assert placed[8].scale < 0.45 * max(placed[i].scale for i in range(8))


def test_a_close_photo_cut_off_at_the_top_hangs_from_the_frames_upper_edge():
    picture = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((50, -80, 250, 250), fill=(200, 150, 90, 255))
    assert measure(picture, "character").cropped == {"top"}
    scene = scene_of([character("Cat")])
    placement = arrange(scene, members_of(scene, picture))[0]
    assert placement.y - placement.scale == pytest.approx(0, abs=0.02)


# ---------------------------------------------------------------------------
# Measuring


def test_a_rectangular_product_with_its_own_alpha_is_no_print():
    book = Image.new("RGBA", (300, 400), (0, 0, 0, 0))
    ImageDraw.Draw(book).rectangle((40, 40, 260, 360), fill=(20, 40, 150, 255))
    assert measure(book, "object").kind != "card"
    assert measure(book.convert("RGB"), "object").kind == "card"


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
