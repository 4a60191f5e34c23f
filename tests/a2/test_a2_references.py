"""What the model sees of a cast. Needs no torch: the page shows the same canvases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.a2.geometry import frames_for
from engine.a2.options import A2Options, check_scene
from engine.a2.packing import pack, share_slots, split_evenly
from engine.a2.references import Canvas, cover, gather_references, letterbox
from engine.errors import SceneError
from engine.scene.cast import Member
from engine.scene.scene import Scene
from engine.scene.scene_file import scene_from_data

WHITE = (255, 255, 255)


def scene_of(*roles: str, width: int = 128, height: int = 64) -> Scene:
    cast = [{"role": role, "name": f"{role} {i}", "image": "x.png"} for i, role in enumerate(roles)]
    video = {"width": width, "height": height, "frames": 17, "trim_head": 0}
    return scene_from_data({"engine": "a2", "cast": cast, "prompt": "", "video": video})


def colour_of(index: int) -> tuple[int, int, int]:
    return (200, 12 * index, 40)


def subject(index: int, box: tuple[int, int, int, int] = (20, 10, 40, 70), size=(60, 90)) -> Image.Image:
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    picture.paste((*colour_of(index), 255), box)
    return picture


def canvases(scene: Scene, **pictures: Image.Image) -> tuple[Canvas, ...]:
    members = []
    for i, element in enumerate(scene.cast):
        plain = Image.new("RGB", (90, 60), colour_of(i)) if element.role == "background" else subject(i)
        members.append(Member(element, pictures.get(f"p{i}", plain)))
    return gather_references(scene, members)


def area_of(picture: Image.Image, index: int) -> int:
    return int((np.abs(np.asarray(picture).astype(int) - colour_of(index)).max(axis=2) < 5).sum())


def test_the_order_is_characters_objects_background_whatever_the_scene_says():
    seen = canvases(scene_of("background", "object", "character"))
    assert [canvas.role for canvas in seen] == ["character", "object", "background"]
    assert [canvas.names for canvas in seen] == [("character 2",), ("object 1",), ("background 0",)]


@pytest.mark.parametrize(
    "roles",
    [("character",), ("object",), ("background",), ("character", "background"), ("object", "background")],
)
def test_a_role_that_is_not_cast_moves_nobody_into_it(roles):
    seen = canvases(scene_of(*roles))
    assert [canvas.role for canvas in seen] == list(roles)
    for index, canvas in enumerate(seen):
        corner = canvas.spatial.getpixel((0, 0))
        assert corner == (colour_of(index) if canvas.role == "background" else WHITE)


def test_every_canvas_comes_in_the_two_sizes_that_the_model_reads():
    for canvas in canvases(scene_of("character", "object", "background", width=96, height=160)):
        assert (canvas.semantic.size, canvas.spatial.size) == ((512, 512), (96, 160))
        assert (canvas.semantic.mode, canvas.spatial.mode) == ("RGB", "RGB")


def test_what_was_cut_away_is_white():
    canvas = canvases(scene_of("character"))[0]
    assert canvas.spatial.getpixel((0, 0)) == WHITE
    assert area_of(canvas.spatial, 0) > 0
    assert set(np.unique(np.asarray(canvas.semantic.resize((512, 512)))[:, :40])) == {255}


def test_a_photo_that_was_not_cut_out_keeps_its_surroundings():
    photo = Image.new("RGB", (60, 60), (9, 80, 9))
    canvas = canvases(scene_of("character", width=64, height=64), p0=photo)[0]
    assert canvas.spatial.getpixel((0, 0)) == (9, 80, 9)


def test_a_background_fills_the_frame_and_a_subject_is_never_cropped():
    wide = Image.new("RGB", (400, 50), (0, 0, 0))
    wide.paste((255, 0, 0), (0, 0, 20, 50))
    whole = letterbox(wide, (64, 64))
    assert (np.asarray(whole)[:, :, 0] > 200).sum() > (np.asarray(whole)[:, :, 1] > 200).sum()  # the red end is there
    filled = np.asarray(cover(wide, (64, 64)))
    assert filled.max() == 0  # black from edge to edge: neither white bars nor the red end


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 96), (1024, 64)])
@pytest.mark.parametrize("photo", [(1, 40), (40, 1), (33, 57), (500, 500)])
def test_any_shape_of_photo_fits_any_shape_of_video(photo, size):
    picture = Image.new("RGB", photo, (10, 20, 30))
    assert letterbox(picture, size).size == cover(picture, size).size == size


# ---------------------------------------------------------------------------
# More cast than references


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ((1, 1, 1), [1, 1, 1]),
        ((3, 0, 0), [3, 0, 0]),
        ((2, 0, 1), [2, 0, 1]),
        ((2, 1, 1), [1, 1, 1]),
        ((5, 4, 1), [1, 1, 1]),
        ((4, 1, 0), [2, 1, 0]),
        ((1, 4, 0), [1, 2, 0]),
        ((6, 0, 1), [2, 0, 1]),
        ((0, 7, 0), [0, 3, 0]),
        ((1, 0, 0), [1, 0, 0]),
    ],
)
def test_canvases_go_to_the_most_crowded(counts, shares):
    assert share_slots(counts, 3) == shares


def test_a_large_cast_is_packed_by_role_and_the_background_keeps_its_own():
    seen = canvases(scene_of("character", "character", "object", "character", "object", "background"))
    assert [canvas.names for canvas in seen] == [
        ("character 0", "character 1", "character 3"),
        ("object 2", "object 4"),
        ("background 5",),
    ]
    for canvas, stand_there in zip(seen, ((0, 1, 3), (2, 4), (5,)), strict=True):
        for index in range(6):
            assert (area_of(canvas.spatial, index) > 0) == (index in stand_there)
            assert (area_of(canvas.semantic, index) > 200) == (index in stand_there)  # not a blend at an edge


def test_nobody_on_a_canvas_is_small_because_the_photo_was_taken_from_afar():
    near, far, wide = subject(0, (0, 0, 60, 90)), subject(1, (50, 40, 62, 58), (200, 200)), subject(2, (0, 30, 60, 60))
    canvas = pack([near, far, wide], (512, 256))
    areas = [area_of(canvas, index) for index in range(3)]
    assert max(areas) < 1.12 * min(areas)


def test_people_stand_side_by_side_in_the_order_of_the_cast():
    canvas = np.asarray(pack([subject(i, (20, 5, 38, 85)) for i in range(3)], (256, 128))).astype(int)
    middles = [np.argwhere(np.abs(canvas - colour_of(i)).max(axis=2) < 5).mean(axis=0) for i in range(3)]
    assert middles[0][1] < middles[1][1] < middles[2][1]
    assert max(y for y, _ in middles) - min(y for y, _ in middles) < 2


@pytest.mark.parametrize("size", [(128, 64), (64, 128), (64, 64)])
@pytest.mark.parametrize("count", [2, 3, 5, 8, 16])
def test_a_packed_canvas_shows_everybody_whole_and_apart(size, count):
    canvas = pack([subject(i) for i in range(count)], size)
    assert canvas.size == size
    border = np.asarray(canvas)
    assert min(border[0].min(), border[-1].min(), border[:, 0].min(), border[:, -1].min()) == 255
    areas = [int((np.asarray(pack([subject(j, (20, 10, 40, 70)) if j == i else Image.new("RGBA", (20, 60), (255,) * 4)
             for j in range(count)], size))[:, :, 2] < 200).sum()) for i in range(count)]  # fmt: skip
    assert min(areas) > 0
    assert max(areas) <= 1.6 * min(areas)  # whole pixels: at this size a subject is only a few wide


def test_an_empty_cut_out_does_not_break_the_canvas():
    empty = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    assert area_of(pack([empty, subject(1)], (128, 64)), 1) > 0


def test_parts_keep_the_order_and_differ_by_one_at_most():
    for count in range(1, 17):
        for parts in range(1, min(count, 3) + 1):
            split = split_evenly(list(range(count)), parts)
            assert [thing for part in split for thing in part] == list(range(count))
            assert max(map(len, split)) - min(map(len, split)) <= 1


# ---------------------------------------------------------------------------
# Numbers


@pytest.mark.parametrize(
    ("seconds", "fps", "trim", "frames"), [(5, 15, 12, 89), (1, 8, 0, 9), (0.1, 15, 12, 17), (4.6, 15, 12, 81)]
)
def test_seconds_become_4k_plus_1_frames_and_the_trim(seconds, fps, trim, frames):
    assert frames_for(seconds, fps, trim) == frames
    assert (frames - trim) / fps >= seconds


@pytest.mark.parametrize(
    ("roles", "video", "field"),
    [
        (("character", "object", "background"), {"frames": 5, "trim_head": 0}, "video.frames"),
        (("character",), {"frames": 9, "trim_head": 9}, "video.trim_head"),
    ],
)
def test_a_clip_that_has_no_room_is_refused_by_its_field(roles, video, field):
    scene = scene_of(*roles)
    with pytest.raises(SceneError, match=f"^{field}: "):
        check_scene(scene.model_copy(update={"video": scene.video.model_copy(update=video)}))


def test_one_reference_fits_the_shortest_clip():
    scene = scene_of("character")
    check_scene(scene.model_copy(update={"video": scene.video.model_copy(update={"frames": 5})}))


def test_the_canvases_and_the_checks_load_no_model_library(repo: Path):
    code = (
        "import sys; import engine.a2.references, engine.a2.files, engine.a2.options, engine.a2.recipe,"
        "engine.door.render, engine.a2.engine, engine.a2.plan.planner, engine.door.command;"
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_machine_without_the_libraries_is_told_what_to_install(monkeypatch):
    from engine.a2 import options
    from engine.errors import EngineUnavailable
    from engine.scene.engines import find_engine

    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(EngineUnavailable, match=r"torch.*models install.*--engine draft"):
        find_engine("a2").available(A2Options())
