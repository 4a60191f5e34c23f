"""The door: one way in to every engine, and everything a person hears on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.door import render as door
from engine.door.render import Progress, RenderRequest, gather, render
from engine.errors import EngineUnavailable, ImageError, SceneError, Stopped
from engine.media.video import probe, read_frames, read_metadata, read_scene
from engine.scene.cast import Member


@pytest.fixture
def request_for(tiny_cast: Path, tiny_scene, tmp_path: Path):
    def request(**fields: object) -> RenderRequest:
        own = {key: fields.pop(key) for key in list(fields) if key in RenderRequest.__dataclass_fields__}
        return RenderRequest(**{"scene": tiny_scene(**fields), "root": tiny_cast, "out": tmp_path / "out.mp4", **own})

    return request


def cast_with(**change: str) -> list[dict]:
    return [
        {"role": "character", "name": "Mia", "image": "hero.png"},
        {"role": "object", "name": "cup", "image": "cup.png", **change},
    ]


# ---------------------------------------------------------------------------
# What comes out


def test_a_scene_becomes_a_clip_with_its_poster(request_for, tmp_path):
    result = render(request_for())
    facts = probe(result.path)
    assert (facts.width, facts.height, facts.frames, facts.fps) == (128, 96, 8, 10)
    assert (result.frames, result.engine) == (8, "draft")
    assert result.poster == tmp_path / "out.jpg"
    with Image.open(result.poster) as picture:
        assert picture.size == (128, 96)
    assert result.seconds > 0


def test_no_poster_is_made_where_none_is_wanted(request_for, tmp_path, tiny_cast):
    result = render(request_for(poster=False))
    assert result.poster is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [tiny_cast.name, "out.mp4"]


def test_the_clip_says_that_it_is_a_draft_and_how_to_make_it_again(request_for):
    from engine.draft.engine import Draft

    request = request_for()
    metadata = read_metadata(render(request).path)
    assert Draft.note in metadata["description"]
    assert metadata["title"] == request.scene.prompt
    assert read_scene(request.out) == request.scene


def test_the_same_scene_gives_the_same_frames_from_the_clip_s_own_scene(request_for, tmp_path):
    first = render(request_for()).path
    again = render(request_for(scene=read_scene(first), out=tmp_path / "again.mp4")).path
    for one, other in zip(read_frames(first), read_frames(again), strict=True):
        assert np.array_equal(one, other)


def test_a_stripped_clip_keeps_the_scene_to_itself_but_stays_honest(request_for):
    from engine.draft.engine import Draft

    path = render(request_for(prompt="A very secret plan.", embed_scene=False)).path
    data = path.read_bytes()
    for secret in (b"secret", b"Mia", b"hero.png", b"character"):
        assert secret not in data
    assert Draft.note in read_metadata(path)["description"]


def test_a_clip_does_not_tell_where_the_pictures_lie(request_for, tiny_cast):
    scene_cast = [{"role": "character", "image": str(tiny_cast / "hero.png")}]
    path = render(request_for(cast=scene_cast)).path
    assert read_scene(path).cast[0].image == "hero.png"
    assert str(tiny_cast).encode() not in path.read_bytes()


def test_cut_outs_in_hand_are_used_as_they_are(request_for, tmp_path):
    request = request_for(cast=[{"role": "character", "image": "nowhere.png"}])
    picture = Image.new("RGBA", (60, 90), (255, 0, 0, 255))
    result = render(replace(request, members=(Member(request.scene.cast[0], picture),)))
    assert result.frames == 8


# ---------------------------------------------------------------------------
# The engines


@pytest.mark.parametrize("how", ["by the scene", "by the request"])
def test_an_engine_that_is_not_there_says_what_works(request_for, how):
    video = {"width": 128, "height": 96, "frames": 9}
    with pytest.raises(EngineUnavailable, match="--engine draft"):
        render(request_for(video=video, engine="a2") if how == "by the request" else _a2_scene(request_for, video))


def _a2_scene(request_for, video: dict) -> RenderRequest:
    request = request_for(video=video)
    return replace(request, scene=request.scene.model_copy(update={"engine": "a2"}))


def test_the_request_s_engine_wins_over_the_scene_s(request_for):
    request = _a2_scene(request_for, {"width": 128, "height": 96, "frames": 9})
    result = render(replace(request, engine="draft"))
    assert result.engine == "draft"
    assert read_scene(result.path).engine == "draft"


# ---------------------------------------------------------------------------
# The cast


def test_the_cast_is_gathered_in_the_scenes_order(request_for):
    request = request_for()
    members, notices = gather(request)
    assert tuple(member.element for member in members) == request.scene.cast
    assert [member.picture.mode for member in members] == ["RGBA", "RGBA", "RGB"]
    assert notices == ()


def test_a_missing_picture_is_named_by_its_field(request_for):
    with pytest.raises(SceneError, match=r"^cast\[1\]\.image: .*'gone\.png'"):
        render(request_for(cast=cast_with(image="gone.png")))


def test_a_missing_mask_is_named_by_its_field(request_for):
    with pytest.raises(SceneError, match=r"^cast\[1\]\.cutout: .*'gone\.png'"):
        render(request_for(cast=cast_with(cutout="gone.png")))


def test_an_unreadable_picture_is_named_by_its_field(request_for, tiny_cast, tmp_path):
    (tiny_cast / "bad.png").write_text("not a picture")
    with pytest.raises(ImageError, match=r"^cast\[1\]\.image: "):
        render(request_for(cast=cast_with(image="bad.png")))
    with pytest.raises(ImageError, match=r"^cast\[1\]\.cutout: "):
        render(request_for(cast=cast_with(cutout="bad.png")))
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("way", ["../outside.png", "a/../../outside.png", "ABSOLUTE", "C:\\outside.png", "link.png"])
def test_a_confined_scene_cannot_name_files_outside_its_folder(request_for, tiny_cast, way):
    outside = tiny_cast.parent / "outside.png"
    Image.new("RGB", (64, 64)).save(outside)
    if way == "link.png":
        try:
            (tiny_cast / way).symlink_to(outside)
        except OSError:
            pytest.skip("this account cannot make links")
    name = str(outside) if way == "ABSOLUTE" else way
    for change in ({"image": name}, {"cutout": name}):
        with pytest.raises(SceneError, match=r"^cast\[1\]\.(image|cutout): .*leads out"):
            gather(request_for(cast=cast_with(**change), confined=True))


@pytest.mark.parametrize("confined", [False, True])
def test_a_file_name_that_is_too_long_is_named_by_its_field(request_for, confined):
    for field in ("image", "cutout"):
        with pytest.raises(SceneError, match=rf"^cast\[1\]\.{field}: ") as caught:
            gather(request_for(cast=cast_with(**{field: "x" * 1000}), confined=confined))
        assert len(str(caught.value)) < 320


def test_links_that_run_in_a_circle_lead_out_of_a_confined_scene(request_for, tiny_cast):
    try:
        (tiny_cast / "a.png").symlink_to(tiny_cast / "b.png")
        (tiny_cast / "b.png").symlink_to(tiny_cast / "a.png")
    except OSError:
        pytest.skip("this account cannot make links")
    with pytest.raises(SceneError, match=r"^cast\[1\]\.image: "):
        gather(request_for(cast=cast_with(image="a.png"), confined=True))


def test_a_person_may_name_a_file_beside_the_scene_s_folder(request_for, tiny_cast):
    Image.new("RGBA", (64, 64), (9, 9, 9, 255)).save(tiny_cast.parent / "outside.png")
    members, _ = gather(request_for(cast=cast_with(image="../outside.png", cutout="none")))
    assert members[1].picture.size == (64, 64)


def test_a_doubtful_cut_out_is_told_with_the_name_of_whom_it_is(request_for, tiny_cast):
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.putpixel((5, 5), (9, 9, 9, 255))
    picture.save(tiny_cast / "empty.png")
    notices = render(request_for(cast=cast_with(image="empty.png"))).notices
    assert len(notices) == 1
    assert notices[0].startswith("cup: ")


# ---------------------------------------------------------------------------
# Progress and Stop


def test_progress_tells_every_member_and_every_frame(request_for):
    told: list[Progress] = []
    render(request_for(), told.append)
    assert [p.step for p in told if p.stage == "cast"] == [0, 1, 2, 3]
    assert [p.step for p in told if p.stage == "frames"] == list(range(9))
    assert [p.elapsed for p in told] == sorted(p.elapsed for p in told)
    assert [p.remaining for p in told if (p.stage, p.step) == ("frames", 8)] == [0]


def forecasts(seconds_per_step: list[float], monkeypatch) -> list[float | None]:
    now = 0.0
    monkeypatch.setattr(door.time, "monotonic", lambda: now)
    told: list[Progress] = []
    clock = door._Clock(told.append, {"frames", "sampling"})
    clock.tell("frames", 0, len(seconds_per_step))
    for step, seconds in enumerate(seconds_per_step, 1):
        now += seconds
        clock.tell("frames", step, len(seconds_per_step))
    return [progress.remaining for progress in told]


def test_the_remaining_time_is_right_once_it_is_told(monkeypatch):
    remaining = forecasts([3.0] + [0.5] * 19, monkeypatch)  # the first step warms up
    assert remaining[:4] == [None] * 4
    for step in range(4, 21):
        assert remaining[step] == pytest.approx(0.5 * (20 - step))


def test_one_slow_step_does_not_make_the_remaining_time_jump(monkeypatch):
    steady = forecasts([1.0] * 40, monkeypatch)
    hiccup = forecasts([1.0] * 20 + [4.0] + [1.0] * 19, monkeypatch)
    assert hiccup[21] < 1.5 * steady[21]


def test_a_machine_that_slows_down_is_noticed(monkeypatch):
    remaining = forecasts([1.0] * 20 + [3.0] * 40, monkeypatch)
    assert remaining[40] == pytest.approx(3.0 * 20, rel=0.15)


@pytest.mark.parametrize("after", [0, 2, 5])
def test_stop_ends_it_and_leaves_nothing(request_for, tmp_path, tiny_cast, after):
    told: list[Progress] = []
    with pytest.raises(Stopped):
        render(request_for(), told.append, stop=lambda: len(told) > after)
    assert sorted(path.name for path in tmp_path.iterdir()) == [tiny_cast.name]


@pytest.mark.parametrize("step", [1, 4, 8])
def test_a_run_that_is_taken_up_again_has_a_clock_that_begins_with_it(monkeypatch, step):
    now, told = [0.0], []
    monkeypatch.setattr(door.time, "monotonic", lambda: now[0])
    clock = door._Clock(told.append, {"frames", "sampling"})
    for done in range(step, 20):
        clock.tell("sampling", done, 20)
        now[0] += 3.0 if done == step else 0.5  # the first step loads and warms up
    remaining = [progress.remaining for progress in told]
    assert remaining[:4] == [None] * 4
    assert remaining[4:] == [pytest.approx(0.5 * (20 - done)) for done in range(step + 4, 20)]


def test_a_view_that_is_no_picture_is_named(request_for, tiny_cast):
    request = request_for()
    (tiny_cast / "notes.png").write_text("no picture")
    first, *others = request.scene.cast
    cast = (first.model_copy(update={"views": (first.image, "notes.png")}), *others)
    with pytest.raises(ImageError, match=r"cast\[0\]\.views\[1\]"):
        gather(replace(request, scene=request.scene.model_copy(update={"cast": cast})))
