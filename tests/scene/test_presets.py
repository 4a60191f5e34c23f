"""Promises about presets: what ships is complete, what is broken is named, what a person saves comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.errors import PresetError
from engine.scene.engine import whole_frames
from engine.scene.presets import FORMATS, FPS, Preset, Slot, direct, load_preset, load_presets, save_preset
from engine.scene.scene import Direction, Element, Placement
from engine.scene.scene_file import scene_from_json, scene_to_json

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = load_presets(ROOT / "presets")
PARTY = Preset(
    title="Party",
    prompt="{character} brings {object} to {background}. {character_2} laughs.",
    slots=(
        Slot(role="character", motion="dance"),
        Slot(role="character", noun="an old friend", placement=Placement(x=0.7, y=0.9, scale=0.5)),
        Slot(role="object", motion="hold"),
        Slot(role="background"),
    ),
)


def cast(*named: tuple[str, str]) -> tuple[Element, ...]:
    return tuple(Element(role=role, name=name, image="x.png") for role, name in named)


def write(folder: Path, text: str, name: str = "one.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# -- what ships ----------------------------------------------------------------


def test_at_least_five_presets_of_each_kind_ship_and_none_is_broken():
    assert SHIPPED.problems == ()
    groups = [preset.group for preset in SHIPPED.presets]
    assert groups.count("ecommerce") >= 5
    assert groups.count("music_video") >= 5


@pytest.mark.parametrize("preset", SHIPPED.presets, ids=lambda preset: preset.key)
def test_a_shipped_preset_is_complete(preset: Preset):
    assert preset.line
    assert preset.negative_prompt
    assert preset.draft.camera
    assert all(slot.hint and slot.noun for slot in preset.slots)
    assert all(slot.motion for slot in preset.slots if slot.role != "background")
    assert preset.named_slots.keys() == {
        name for name in preset.named_slots if preset.prompt.count("{" + name + "}") == 1
    }


@pytest.mark.parametrize("preset", SHIPPED.presets, ids=lambda preset: preset.key)
def test_a_card_picture_is_there_small_and_wide(preset: Preset):
    path = preset.picture_path
    assert path is not None
    assert path.stat().st_size <= 40 * 1024
    with Image.open(path) as picture:
        assert picture.size == (480, 270)


@pytest.mark.parametrize("preset", SHIPPED.presets, ids=lambda preset: preset.key)
def test_a_shipped_preset_directs_a_cast_for_both_engines(preset: Preset):
    names = [(slot.role, f"N{i}") for i, slot in enumerate(preset.slots)]
    directed = direct(preset, cast(*names))
    assert all(name in directed.prompt for _, name in names)
    for engine in ("draft", "a2"):
        scene = directed.scene(engine)
        assert scene_from_json(scene_to_json(scene)) == scene


def test_cards_come_in_the_order_the_files_ask_for():
    commerce = [preset.name for preset in SHIPPED.presets if preset.group == "ecommerce"]
    assert commerce[:2] == ["model_holds_product", "product_hero_turn"]


# -- filling in names ----------------------------------------------------------


def test_a_missing_part_is_played_by_a_noun():
    assert PARTY.fill({}) == "A person brings the product to the scene. An old friend laughs."


def test_a_common_noun_gets_its_article_and_a_name_does_not():
    names = {"character": "Mia", "object": "cup", "background": "the stage", "character_2": "Ken"}
    assert PARTY.fill(names) == "Mia brings the cup to the stage. Ken laughs."


def test_a_name_with_brackets_or_backslashes_is_put_in_as_it_is():
    filled = PARTY.fill({"character": r"{object} \1 {0.__class__}"})
    assert filled.startswith(r"{object} \1 {0.__class__} brings the product")


# -- directing -----------------------------------------------------------------


def test_each_of_the_cast_gets_the_part_of_its_slot():
    people = cast(("character", "Mia"), ("background", "bar"), ("character", "Ken"), ("object", "cake"))
    mia, bar, ken, cake = direct(PARTY, people).cast
    assert (mia.motion, ken.motion, cake.motion, bar.motion) == ("dance", None, "hold", None)
    assert (mia.placement, ken.placement) == (None, Placement(x=0.7, y=0.9, scale=0.5))


def test_whoever_has_no_part_is_still_named():
    people = cast(*[("character", name) for name in ("Mia", "Ken", "Zoe", "Ida")])
    prompt = direct(PARTY, people).prompt
    assert prompt.endswith("Also in the shot: Zoe, Ida.")


def test_placements_made_on_the_stage_can_be_kept():
    spot = Placement(x=0.1, y=0.8, scale=0.4)
    mia = Element(role="character", name="Mia", image="x.png", placement=spot)
    assert direct(PARTY, (mia,), keep_placements=True).cast[0].placement == spot
    assert direct(PARTY, (mia,)).cast[0].placement is None


def test_the_format_and_the_length_reach_the_video():
    for shape, (width, height) in FORMATS.items():
        video = direct(PARTY.model_copy(update={"format": shape, "seconds": 4.0}), ()).video
        assert (video.width, video.height) == (width, height)
        assert video.frames % 4 == 1
        assert abs(video.frames / video.fps - 4.0) < 0.2


def test_the_standard_length_is_the_81_frames_the_model_was_trained_on():
    assert whole_frames(5.4, FPS) == 81


# -- files ---------------------------------------------------------------------

BROKEN = {
    "title = ": "not TOML",
    'line = "no title"\nprompt = "x"': "title",
    'title = "a"\nprompt = "{charakter} sings"\nslots = [{role = "character"}]': "{charakter}",
    'title = "a"\nprompt = "{character_2} sings"\nslots = [{role = "character"}]': "{character_2}",
    'title = "a"\nprompt = "{character.__class__}"\nslots = [{role = "character"}]': "{character.__class__}",
    'title = "a"\nprompt = "sings {"': "curly bracket",
    'title = "a"\nprompt = "x"\nformat = "4:3"': "format",
    'title = "a"\nprompt = "x"\nseconds = "long"': "seconds",
    'title = "a"\nprompt = "x"\nfrmat = "1:1"': "frmat",
    'title = "a"\nprompt = "x"\n[draft]\ncamera = "drone"': "draft.camera",
    'title = "a"\nprompt = "x"\nslots = [{role = "extra"}]': "slots[0].role",
    'title = "a"\nprompt = "x"\nslots = [{role = "background"}, {role = "background"}]': "background",
    'title = "a"\nprompt = "x"\npicture = "../../secret.png"': "picture",
    'title = "a"\nprompt = "x"\ngroup = "ecommerce"': "group",
}


@pytest.mark.parametrize(("text", "named"), BROKEN.items(), ids=list(BROKEN.values()))
def test_a_broken_file_is_named_with_its_fault_and_skipped(tmp_path: Path, text: str, named: str):
    write(tmp_path, text, "broken.toml")
    write(tmp_path, 'title = "Good"\nprompt = "x"', "good.toml")
    found = load_presets(tmp_path)
    assert [preset.title for preset in found.presets] == ["Good"]
    (problem,) = found.problems
    assert "broken.toml" in str(problem)
    assert named in str(problem)
    assert "\n" not in str(problem)


def test_a_file_that_is_not_text_or_far_too_long_is_refused(tmp_path: Path):
    (tmp_path / "binary.toml").write_bytes(b"\x89PNG\xff\xfe")
    write(tmp_path, 'title = "a"\nprompt = "x"\n' + "#" * 70_000, "long.toml")
    (tmp_path / "folder.toml").mkdir()
    found = load_presets(tmp_path)
    assert found.presets == ()
    assert len(found.problems) == 3


def test_a_folder_that_is_not_there_holds_no_presets(tmp_path: Path):
    assert load_presets(tmp_path / "nowhere").presets == ()


def test_the_group_is_the_folder_and_ones_own_come_last(tmp_path: Path):
    (tmp_path / "music_video").mkdir()
    write(tmp_path / "music_video", 'title = "b"\nprompt = "x"')
    write(tmp_path, 'title = "a"\nprompt = "x"')
    assert [preset.key for preset in load_presets(tmp_path).presets] == ["music_video/one", "own/one"]
    with pytest.raises(PresetError, match="no preset"):
        load_presets(tmp_path).get("own/two")


# -- a person's own ------------------------------------------------------------


def test_a_saved_preset_comes_back_the_same(tmp_path: Path):
    title = 'My "best" one\\\x7f\u2028 — größer 🎬'
    mine = PARTY.model_copy(update={"title": title, "prompt": "Line one\n{character}\tsings", "seconds": 3.0})
    mine = mine.model_copy(update={"draft": Direction(camera="orbit", bpm=97.5)})
    path = save_preset(mine, tmp_path / "new" / "presets")
    back = load_preset(path)
    assert back.model_dump() == mine.model_dump()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("title", ["../../escape", "C:\\evil", "CON", "nul", "???", "a" * 60, ".hidden", "日本"])
def test_any_title_makes_a_safe_file_name_inside_the_folder(tmp_path: Path, title: str):
    path = save_preset(PARTY.model_copy(update={"title": title}), tmp_path)
    assert path.parent == tmp_path
    assert path.suffix == ".toml"
    assert path.stem.casefold() not in ("con", "nul")
    assert load_preset(path).title == title


def test_the_same_title_replaces_and_another_title_does_not(tmp_path: Path):
    first = save_preset(PARTY.model_copy(update={"title": "Night out"}), tmp_path)
    again = save_preset(PARTY.model_copy(update={"title": "Night out", "seconds": 8.0}), tmp_path)
    other = save_preset(PARTY.model_copy(update={"title": "Night-out"}), tmp_path)
    assert first == again != other
    assert load_preset(first).seconds == 8.0


def test_nothing_partial_is_left_when_saving_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(PresetError, match="No space left"):
        save_preset(PARTY, tmp_path)
    assert list(tmp_path.iterdir()) == []
