"""What passes the scene's border is valid; what does not is refused with the field's name and the remedy."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import (
    CutoutError,
    DiskFull,
    EncoderMissing,
    EngineUnavailable,
    ImageError,
    PresetError,
    SceneError,
    Stopped,
    TroupeError,
    VideoError,
)
from engine.scene.scene import CAMERAS, MAX_CAST, MOTIONS, ROLES, Scene, label
from engine.scene.scene_file import load_scene, scene_from_data, scene_from_json, scene_to_json

CONTRACT = """{
  "version": 1,
  "engine": "a2",
  "cast": [
    {"role": "character",  "name": "Mia",   "image": "character.png",  "cutout": "auto"},
    {"role": "object",     "name": "cup",   "image": "object.png",     "cutout": "auto"},
    {"role": "background", "name": "stage", "image": "background.png"}
  ],
  "prompt": "Mia lifts the cup on the stage.",
  "negative_prompt": "static, blurred details",
  "video":    {"width": 832, "height": 480, "frames": 81, "fps": 15, "trim_head": 12},
  "sampling": {"steps": 50, "guidance": 5.0, "flow_shift": 8.0, "seed": 42}
}"""


def minimal(**changes) -> dict:
    return {"cast": [{"role": "character", "image": "a.png"}], "prompt": "x", **changes}


def element(**changes) -> dict:
    return minimal(cast=[{"role": "character", "image": "a.png", **changes}])


def refused(data: dict) -> SceneError:
    with pytest.raises(SceneError) as caught:
        scene_from_json(json.dumps(data))
    error = caught.value
    assert "\n" not in str(error)
    assert error.remedy, "every error says what to do"
    assert error.problem.startswith(f"{error.field}: ") or not error.field
    str(error).encode()  # can be printed
    return error


# ---------------------------------------------------------------------------
# The contract


def test_the_designs_scene_file_is_read():
    scene = scene_from_json(CONTRACT)
    assert [member.name for member in scene.cast] == ["Mia", "cup", "stage"]
    assert (scene.engine, scene.video.frames, scene.sampling.seed) == ("a2", 81, 42)
    assert scene.cast[2].cutout == "auto"


def test_everything_but_role_image_and_prompt_has_a_default():
    scene = scene_from_data(minimal())
    assert (scene.version, scene.video.width, scene.video.height, scene.video.fps) == (1, 832, 480, 15)
    assert (scene.sampling.steps, scene.sampling.guidance, scene.sampling.flow_shift) == (50, 5.0, 8.0)
    assert scene.video.trim_head == 12


@pytest.mark.parametrize("field", ["cast", "prompt"])
def test_a_missing_field_is_named(field):
    data = minimal()
    del data[field]
    assert refused(data).field == field


@pytest.mark.parametrize("field", ["role", "image"])
def test_a_missing_field_of_an_element_is_named(field):
    data = minimal()
    del data["cast"][0][field]
    assert refused(data).field == f"cast[0].{field}"


def test_a_scene_is_frozen():
    scene = scene_from_json(CONTRACT)
    with pytest.raises(ValueError, match="frozen"):
        scene.prompt = "y"
    assert hash(scene) == hash(scene_from_json(CONTRACT))


# ---------------------------------------------------------------------------
# Round trip

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@st.composite
def scenes(draw) -> dict:
    fraction = st.floats(-1, 2, allow_nan=False)
    cast = []
    for index in range(draw(st.integers(1, 4))):
        placement = st.fixed_dictionaries(
            {"x": fraction, "y": fraction, "scale": st.floats(0.02, 4)}, optional={"flip": st.booleans()}
        )
        fields = {
            "role": st.sampled_from(ROLES[:2]),
            "image": st.just(f"{index}.png"),
            "name": st.just(f"name {index}"),
        }
        optional = {
            "cutout": st.sampled_from(["auto", "none", "mask.png"]),
            "description": names,
            "placement": placement,
            "motion": st.sampled_from(MOTIONS),
        }
        cast.append(draw(st.fixed_dictionaries(fields, optional=optional)))
    side = st.integers(4, 120).map(lambda value: value * 16)
    return {
        "cast": cast,
        "prompt": draw(names),
        "engine": draw(st.sampled_from(["a2", "draft"])),
        "video": {"width": draw(side), "height": draw(side), "frames": draw(st.integers(1, 240)) * 4 + 1},
        "sampling": {"seed": draw(st.integers(0, 2**63 - 1)), "guidance": draw(st.floats(0, 30))},
        "direction": {"camera": draw(st.sampled_from([*CAMERAS, None])), "bpm": draw(st.floats(40, 220))},
    }


@settings(max_examples=80)
@given(scenes())
def test_a_scene_survives_being_written_and_read(data):
    scene = scene_from_data(data)
    assert scene_from_json(scene_to_json(scene)) == scene
    assert scene_from_json(scene_to_json(scene).encode()) == scene


def test_whole_numbers_are_welcome_where_fractions_are():
    scene = scene_from_data(element(placement={"x": 0, "y": 1, "scale": 1}))
    assert scene.cast[0].placement.y == 1.0
    assert scene_from_data(minimal(sampling={"guidance": 5})).sampling.guidance == 5.0


def test_names_in_every_script_survive():
    scene = scene_from_data(element(name="Zoë 小美 👩‍🚀"))
    assert "小美" in scene_to_json(scene)
    assert scene_from_json(scene_to_json(scene)) == scene


# ---------------------------------------------------------------------------
# What is refused, and how


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        (minimal(promt="x"), "promt", "negative_prompt"),
        (element(colour="red"), "cast[0].colour", "description"),
        (element(placement={"x": 0, "y": 0, "scale": 1, "z": 1}), "cast[0].placement.z", "flip"),
        (minimal(video={"widht": 480}), "video.widht", "trim_head"),
        (minimal(sampling={"cfg": 5}), "sampling.cfg", "guidance"),
        (minimal(direction={"zoom": 5}), "direction.zoom", "camera"),
        (element(role="hero"), "cast[0].role", "'character'"),
        (element(motion="fly"), "cast[0].motion", "'float'"),
        (minimal(engine="b3"), "engine", "'draft'"),
        (minimal(version=2), "version", "1"),
        (minimal(direction={"camera": "spin"}), "direction.camera", "'orbit'"),
        (minimal(video={"width": 500}), "video.width", "496 or 512"),
        (minimal(video={"width": 48}), "video.width", "64"),
        (minimal(video={"height": 4000}), "video.height", "1920"),
        (minimal(video={"frames": 3}), "video.frames", "5"),
        (minimal(video={"frames": "81"}), "video.frames", "integer"),
        (minimal(video={"frames": 81.5}), "video.frames", "integer"),
        (minimal(video={"fps": 0}), "video.fps", "1"),
        (minimal(video={"fps": True}), "video.fps", "integer"),
        (minimal(video=[]), "video", "an object { … }"),
        (minimal(sampling="fast"), "sampling", "an object { … }"),
        (minimal(video={"width": 5}), "video.width", "Use 64."),
        (minimal(video={"height": -5}), "video.height", "Use 64."),
        (minimal(video={"height": 1999}), "video.height", "Use 1920."),
        (minimal(version=True), "version", "true is not a choice. Use 1."),
        (minimal(version=1.0), "version", "1.0 is not a choice. Use 1."),
        (minimal(version="1"), "version", "1"),
        (minimal(engine="a2", video={"frames": 80}), "video.frames", "77 or 81"),
        (minimal(sampling={"seed": -1}), "sampling.seed", "0"),
        (minimal(sampling={"seed": 2**63}), "sampling.seed", str(2**63 - 1)),
        (minimal(sampling={"seed": 10**400}), "sampling.seed", "seed"),
        (minimal(sampling={"steps": 0}), "sampling.steps", "1"),
        (minimal(sampling={"flow_shift": 0}), "sampling.flow_shift", "0"),
        (minimal(sampling={"guidance": 10**400}), "sampling.guidance", "guidance"),
        (minimal(prompt=7), "prompt", "string"),
        (minimal(prompt=None), "prompt", "string"),
        (minimal(prompt="x" * 4001), "prompt", "4000"),
        (minimal(cast=[]), "cast", "at least one"),
        (minimal(cast={}), "cast", "a list [ … ]"),
        (minimal(cast="a.png"), "cast", "a list [ … ]"),
        (minimal(cast=["a.png"]), "cast[0]", "an object { … }"),
        (minimal(cast=[{"role": "object", "image": "a.png"}] * (MAX_CAST + 1)), "cast", str(MAX_CAST)),
        (element(image=""), "cast[0].image", "1"),
        (element(image="  "), "cast[0].image", "1"),
        (element(image=["a.png"]), "cast[0].image", "string"),
        (element(name="x" * 61), "cast[0].name", "60"),
        (element(placement={"x": 0.5, "y": 9, "scale": 1}), "cast[0].placement.y", "2"),
        (element(placement={"x": "left", "y": 1, "scale": 1}), "cast[0].placement.x", "number"),
        (element(placement={"x": 0.5, "y": 1, "scale": 0}), "cast[0].placement.scale", "0.01"),
        (element(placement={"x": 0.5, "y": 1}), "cast[0].placement.scale", "missing"),
        (element(placement={"x": 0.5, "y": 1, "scale": 1, "flip": 1}), "cast[0].placement.flip", "boolean"),
    ],
)
def test_a_wrong_field_is_named_with_the_remedy(data, field, says):
    error = refused(data)
    assert error.field == field
    assert says in str(error)


@pytest.mark.parametrize("data", [minimal(**{"k" * 600: 1}), minimal(**{"k\n" * 600: 1}), element(**{"k" * 600: 1})])
def test_a_key_of_any_length_makes_a_short_line(data):
    error = refused(data)
    assert "no such field" in error.problem
    assert len(str(error)) < 300
    with pytest.raises(SceneError) as caught:
        scene_from_json('{"kkk": 1, "kkk": 2}'.replace("kkk", "k" * 600))
    assert len(str(caught.value)) < 300


def test_a_second_background_is_refused():
    cast = [{"role": "background", "image": "a.png"}, {"role": "background", "image": "b.png"}]
    error = refused(minimal(cast=cast))
    assert error.field == "cast[1].role"


def test_two_of_one_name_are_refused_whatever_their_case():
    cast = [{"role": "character", "image": "a.png", "name": n} for n in ("Mia", "Tom", "mia ")]
    error = refused(minimal(cast=cast))
    assert error.field == "cast[2].name"
    assert "cast[0]" in error.problem


def test_unnamed_elements_may_be_many_and_get_a_label():
    scene = scene_from_data(minimal(cast=[{"role": "object", "image": "a.png"}] * 3))
    assert [label(member, index) for index, member in enumerate(scene.cast)] == ["object 1", "object 2", "object 3"]


@pytest.mark.parametrize("text", ['{"prompt": "a", "prompt": "b", "cast": []}', '{"cast": [{"role": 1, "role": 2}]}'])
def test_a_key_that_is_there_twice_is_refused(text):
    with pytest.raises(SceneError, match="twice") as refusal:
        scene_from_json(text)
    assert refusal.value.field == ("prompt" if text.startswith('{"prompt') else "cast[0].role")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["guidance", "steps"])
def test_numbers_that_are_none_are_refused(number, field):
    with pytest.raises(SceneError) as refusal:
        scene_from_json(json.dumps(minimal(sampling={field: "?"})).replace('"?"', number))
    assert refusal.value.field == f"sampling.{field}"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_scene_file_in_any_unicode_encoding_is_read(tmp_path, encoding):
    (tmp_path / "scene.json").write_text(json.dumps(minimal(prompt="Zoë"), ensure_ascii=False), encoding=encoding)
    assert load_scene(tmp_path / "scene.json").prompt == "Zoë"


def test_a_scene_file_in_another_encoding_says_what_to_do(tmp_path):
    (tmp_path / "scene.json").write_text(json.dumps(minimal(prompt="Zoë"), ensure_ascii=False), encoding="cp1252")
    with pytest.raises(SceneError, match=r"not text in UTF-8.* save it anew"):
        load_scene(tmp_path / "scene.json")


def test_what_people_read_is_in_one_normal_form_and_files_names_are_not(tmp_path):
    apart = "Zoe\u0308"
    cast = [{"role": "character", "name": apart, "image": f"{apart}.png"}]
    scene = scene_from_data(minimal(cast=cast, prompt=f"{apart} waves."))
    assert (scene.cast[0].name, scene.prompt) == ("Zoë", "Zoë waves.")
    assert scene.cast[0].image == f"{apart}.png"
    refused(minimal(cast=[*cast, {**cast[0], "name": "Zoë"}]))


@pytest.mark.parametrize("where", ["prompt", "negative_prompt"])
def test_half_a_surrogate_pair_is_refused(where):
    refusal = refused(minimal(**{where: "half \ud83d of an emoji"}))
    assert refusal.field == where
    assert "half a character" in refusal.remedy


@pytest.mark.parametrize("where", ["name", "image", "cutout", "description"])
def test_half_a_surrogate_pair_in_an_element_is_refused(where):
    assert refused(element(**{where: "half \ud83d of an emoji"})).field == f"cast[0].{where}"


def test_half_a_surrogate_pair_in_a_key_is_refused():
    refused(minimal(**{"\ud83d": 1}))


@pytest.mark.parametrize("where", ["image", "cutout"])
def test_a_zero_byte_in_a_path_reaches_no_file_system(where):
    assert refused(element(**{where: "a\0.png"})).field == f"cast[0].{where}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '"scene"',
        "{'cast': 1}",
        "[" * 100_000,
        '{"cast":' * 100_000,
        "9" * 5000,
        b"\xff\xfe\0",
    ],
)
def test_what_is_no_scene_file_is_refused(text):
    with pytest.raises(SceneError) as caught:
        scene_from_json(text)
    assert caught.value.remedy


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
paths = st.sampled_from(
    ["version", "engine", "cast", "prompt", "negative_prompt", "video", "sampling", "direction", "extra"]
)
element_keys = st.sampled_from(["role", "image", "name", "cutout", "description", "placement", "motion"])


@settings(max_examples=300)
@given(st.dictionaries(paths, anything, max_size=3), st.dictionaries(element_keys, anything, max_size=2))
def test_no_json_gives_anything_but_a_scene_or_a_scene_error(changes, element_changes):
    data = element(**element_changes) | changes
    outcome = scene_or_error(json.dumps(data))
    if isinstance(outcome, Scene):
        assert scene_from_json(scene_to_json(outcome).encode()) == outcome
    else:
        assert "\n" not in str(outcome)
        assert outcome.remedy
        str(outcome).encode()


def scene_or_error(text: str) -> Scene | SceneError:
    try:
        return scene_from_json(text)
    except SceneError as error:
        return error


@pytest.mark.parametrize("depth", [50, 500, 900, 960, 980, 990, 995, 5000])
def test_deep_nesting_is_refused_wherever_it_lies(depth):
    deep = "[" * depth + "]" * depth
    for field in ("prompt", "cast", "video", "extra"):
        rest = {key: value for key, value in minimal().items() if key != field}
        text = json.dumps({**rest, field: "?"}).replace('"?"', deep)
        with pytest.raises(SceneError):
            scene_from_json(text)


def test_an_object_of_very_many_keys_is_refused():
    keys = {f"key {number}": number for number in range(60_000)}
    assert refused(minimal(**keys)).field.startswith("key")


@settings(max_examples=150)
@given(st.text() | st.binary())
def test_no_text_gives_anything_but_a_scene_error(text):
    with pytest.raises(SceneError):
        scene_from_json(text)


# ---------------------------------------------------------------------------
# Files


def test_a_scene_file_is_loaded_with_or_without_a_byte_order_mark(tmp_path):
    plain, marked = tmp_path / "a.json", tmp_path / "b.json"
    plain.write_text(CONTRACT, encoding="utf-8")
    marked.write_bytes(b"\xef\xbb\xbf" + CONTRACT.encode())
    assert load_scene(plain) == load_scene(str(marked))


def test_files_that_are_no_scene_are_refused(tmp_path: Path):
    (tmp_path / "photo.json").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xff")
    (tmp_path / "zero.json").write_bytes(b"")
    for path in (tmp_path, tmp_path / "gone.json", tmp_path / "photo.json", tmp_path / "zero.json", tmp_path / "a\0b"):
        with pytest.raises(SceneError) as caught:
            load_scene(path)
        assert caught.value.remedy


# ---------------------------------------------------------------------------
# The tree of errors


@pytest.mark.parametrize(
    "kind", [ImageError, CutoutError, PresetError, VideoError, EncoderMissing, DiskFull, EngineUnavailable, Stopped]
)
def test_an_error_is_one_line_and_survives_a_process_border(kind):
    error = kind("two\nlines", "do  this.")
    assert str(error) == "two lines. do this."
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.remedy) == (kind, str(error), "do this.")
    assert isinstance(error, TroupeError)


def test_a_scene_error_keeps_its_field_over_a_process_border():
    error = SceneError("video.fps", "0 does not fit", "Use 1 to 60.")
    again = pickle.loads(pickle.dumps(error))
    assert (again.field, str(again)) == ("video.fps", "video.fps: 0 does not fit. Use 1 to 60.")
    assert str(again) == str(error)


def test_the_families_hold():
    assert issubclass(EncoderMissing, VideoError)
    assert issubclass(DiskFull, VideoError)
    assert str(Stopped()) == "Stopped"
