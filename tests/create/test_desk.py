"""The desk: what a person laid out is still there after anything, and a bad file never costs the rest."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from app import server
from app.create import views
from app.create.desk import Desk, checked_scene
from app.create.desks import Desks, lay_out_scene, open_scene
from app.create.library import Library
from app.create.shoot import shoot, take_back
from app.jobs.queue import QueueFull
from engine.errors import ImageError, SceneError, TroupeError
from engine.scene.scene import MAX_CAST, MAX_SEED
from engine.scene.scene_file import load_scene, scene_from_data, scene_to_json

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(REPO / "presets", tmp_path / "presets", REPO / "assets" / "samples")


def again(desks: Desks, desk: Desk) -> Desk:
    """The same desk, as a new process would find it."""
    return Desks(desks.folder).get(desk.id)


def tamper(desk: Desk, part: str, field: str, value: object) -> None:
    """Write a value into the desk's file, as no page would."""
    data = json.loads((desk.folder / "desk.json").read_text())
    (data[part][0] if part == "cards" else data[part])[field] = value
    (desk.folder / "desk.json").write_text(json.dumps(data))


def test_a_desk_is_found_again_after_a_restart(desks, desk, picture):
    card = desk.add("character", picture())
    desk.sheet.prompt = "Mia waves."
    desk.place(card.id, {"x": 0.25, "y": 0.9, "scale": 0.5})
    desk.put("format", "9:16")
    found = again(desks, desk)
    assert [each.name for each in found.cards] == ["Mia"]
    assert found.cards[0].placement["x"] == 0.25
    assert (found.sheet.prompt, found.sheet.format) == ("Mia waves.", "9:16")
    assert found.picture(found.cards[0]).size == (120, 200)


def test_a_damaged_desk_file_is_set_aside_and_named_and_a_new_desk_starts(desks, desk, picture):
    desk.add("character", picture())
    (desk.folder / "desk.json").write_text('{"cards": [{"id"')
    found = again(desks, desk)
    assert found.cards == []
    (aside,) = desk.folder.glob("desk.damaged*")
    assert aside.name in found.notice
    found.put("prompt", "Mia waves.")  # which tidies up what no card needs
    assert len(list(aside.glob("*.png"))) == 2
    assert (aside / "desk.json").is_file()


@pytest.mark.parametrize(
    ("settings", "taken"),
    [({"sampling.steps": -4, "sampling.guidance": float("nan"), "a2.turbo": "yes", "a2.attention": "magic"}, {}),
     ({"sampling.flow_shift": 0.01}, {"flow_shift": 0.01}), ({"sampling.steps": 7.0}, {"steps": 7}),
     ({"sampling.guidance": 4, "other.thing": [1]}, {"guidance": 4.0}), ({"sampling.steps": 10**400}, {})],
)  # fmt: skip
def test_a_setting_that_this_version_cannot_use_costs_nothing_but_itself(desks, desk, picture, settings, taken):
    desk.add("character", picture())
    tamper(desk, "sheet", "settings", settings)
    found = again(desks, desk)
    assert (len(found.cards), found.notice) == (1, "")
    assert found.sheet.sampling == {"steps": 50, "guidance": 5.0, "flow_shift": 8.0, "image_guidance": None} | taken


def test_an_undo_that_cannot_be_read_costs_nothing_else(desks, desk, picture):
    desk.add("character", picture())
    desk.clear()
    desk.add("object", picture("cup.png"))
    file = desk.folder / "desk.json"
    data = json.loads(file.read_text())
    data["undo"]["sheet"]["seconds"] = 1e9
    file.write_text(json.dumps(data))
    found = again(desks, desk)
    assert (len(found.cards), found.undo, found.notice) == (1, None, "")


def test_a_lost_picture_takes_only_its_own_card(desks, desk, picture):
    gone, stays = desk.add("character", picture("mia.png")), desk.add("character", picture("ken.png"))
    (desk.folder / f"{gone.id}.cutout.png").unlink()
    assert [card.id for card in again(desks, desk).cards] == [stays.id]


@pytest.mark.parametrize("wrong", [None, 5, "", "../../etc", "A" * 32, "0" * 33, ["0" * 32]])
def test_what_is_no_desk_id_opens_nothing(desks, wrong):
    with pytest.raises(TroupeError, match="Reload"):
        desks.get(wrong)
    assert not desks.folder.exists() or not any(desks.folder.iterdir())


def test_a_file_that_is_no_picture_changes_nothing(desk, picture, tmp_path):
    desk.add("character", picture())
    (tmp_path / "fake.png").write_text("no")
    with pytest.raises(ImageError, match=r"fake\.png"):
        desk.add("character", tmp_path / "fake.png")
    assert len(desk.cards) == 1
    assert len(list(desk.folder.glob("*.png"))) == 2


def test_names_are_unique_and_camera_numbers_say_nothing(desk, picture):
    names = [
        desk.add("character", picture(name)).name for name in ("mia.png", "MIA.png", "IMG_2041.png", "DSC0001.png")
    ]
    assert names == ["Mia", "MIA 2", "character", "character 2"]


def test_a_second_background_replaces_the_first(desk, picture):
    desk.add("background", picture("stage.png"))
    desk.add("background", picture("street.png"))
    assert [card.name for card in desk.cards] == ["Street"]
    assert len(list(desk.folder.glob("*.png"))) == 1


def test_the_cast_is_as_large_as_a_scene_can_be_and_no_larger(desk, picture):
    stage = desk.add("background", picture("stage.png"))
    for number in range(MAX_CAST - 1):
        desk.add("object" if number % 2 else "character", picture(f"someone{number}.png"))
    with pytest.raises(SceneError, match=f"room for a cast of {MAX_CAST}"):
        desk.add("character", picture("late.png"))
    desk.add("background", picture("street.png"))  # takes the other one's place
    assert stage not in desk.cards
    assert len(checked_scene(desk, {}, 1).cast) == MAX_CAST


def test_the_scene_lists_characters_then_objects_then_the_background(desk, picture):
    for role, name in (("background", "stage.png"), ("object", "cup.png"), ("character", "mia.png")):
        desk.add(role, picture(name))
    scene = checked_scene(desk, views.video_of(desk), 7)
    assert [element.name for element in scene.cast] == ["Mia", "Cup", "Stage"]
    assert (scene.sampling.seed, scene.video.frames) == (7, 81)


def test_a_rename_follows_into_the_prompt_and_leaves_other_words_alone(desk, picture):
    card = desk.add("character", picture())
    desk.sheet.prompt = "Mia meets Miaou. Mia's hat."
    desk.rename(card.id, r"Kim \1")
    assert desk.sheet.prompt == r"Kim \1 meets Miaou. Kim \1's hat."


def test_the_linter_lists_who_is_missing(desk, picture):
    for name in ("mia.png", "red-cup.png"):
        desk.add("character", picture(name))
    desk.sheet.prompt = "MIA smiles. A red cupboard."
    assert views.names_value(desk)["note"] == "The prompt never mentions Red cup."


def test_the_photo_as_it_is_and_the_cut_out_are_both_a_click_away(desk, picture):
    card = desk.add("character", picture())
    assert desk.picture(card).getchannel("A").getextrema() == (0, 255)
    desk.set_mode(card.id, "none")
    assert desk.files(card)[card.id].name.endswith(".photo.png")
    desk.set_mode(card.id, "auto")
    assert desk.files(card)[card.id].name.endswith(".cutout.png")


def test_the_brush_can_be_taken_back_by_cutting_out_again(desk, tmp_path):
    Image.new("RGB", (200, 200), "white").save(tmp_path / "plain.png")
    photo = Image.open(tmp_path / "plain.png")
    ImageDraw.Draw(photo).ellipse((60, 60, 140, 140), fill="navy")
    photo.save(tmp_path / "plain.png")
    card = desk.add("object", tmp_path / "plain.png")
    everything = Image.new("L", (50, 50), 255)
    desk.retouch(card.id, Image.new("L", (50, 50), 0), everything)
    assert desk.picture(card).getchannel("A").getextrema()[1] < 16
    desk.cut_again(card.id)
    assert desk.picture(card).getchannel("A").getextrema()[1] > 200


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [("seed", -1, 0), ("seed", 10**20, MAX_SEED), ("seconds", 1e9, 60), ("bpm", None, 110), ("format", "4:3", "16:9"),
     ("quality", "../x", "fast"), ("camera", "explode", None)],
)  # fmt: skip
def test_what_a_page_could_not_have_sent_is_dropped_or_brought_into_range(desk, name, value, kept):
    desk.put(name, value)
    assert getattr(desk.sheet, name) == kept


def test_a_job_s_folder_holds_the_whole_scene_for_the_command_line(desk, picture, jobs):
    desk.add("character", picture())
    desk.sheet.prompt = "Mia waves."
    job = shoot(desk, jobs)
    scene = load_scene(job.folder / "scene.json")
    assert all((job.folder / element.image).is_file() for element in scene.cast)
    assert job.request.out.name == "mia-waves_42.mp4"


def test_an_empty_cast_is_refused_before_anything_is_written(desk, jobs, tmp_path):
    with pytest.raises(SceneError, match="cast is empty"):
        shoot(desk, jobs)
    assert not (tmp_path / "clips").exists()


def test_a_full_queue_leaves_no_folder_behind(desk, picture, jobs, tmp_path):
    desk.add("character", picture())
    jobs._in_all = 0
    with pytest.raises(QueueFull):
        shoot(desk, jobs)
    assert not (tmp_path / "clips").exists()


def test_a_waiting_clip_is_taken_back_to_the_desk_changed_and_put_in_its_place(desk, desks, picture, jobs):
    card = desk.add("character", picture())
    desk.sheet.prompt = "Mia waves."
    desk.put("format", "9:16")
    desk.put("seed", 7)
    first = shoot(desk, jobs)
    last = shoot(desk, jobs)
    desk.remove(card.id)
    desk.put("format", "1:1")
    with pytest.raises(TroupeError, match="no such clip"):
        take_back(desks.new(), jobs, first.id, desks.new().id)
    take_back(desk, jobs, first.id, desk.id)
    assert [(each.name, each.sample) for each in desk.cards] == [("Mia", False)]
    assert (desk.sheet.prompt, desk.sheet.format, desk.sheet.seed) == ("Mia waves.", "9:16", 7)
    desk.sheet.prompt = "Mia dances."
    again = shoot(desk, jobs)
    assert [(snap.id, snap.prompt) for snap in jobs.queue()] == [(again.id, "Mia dances."), (last.id, "Mia waves.")]


def test_a_sample_scene_lays_out_its_whole_cast(desk):
    lay_out_scene(desk, REPO / "assets" / "samples" / "model_holds_product.json")
    scene = load_scene(REPO / "assets" / "samples" / "model_holds_product.json")
    assert [card.name for card in desk.cards] == [element.name for element in scene.cast]
    assert desk.sheet.prompt == scene.prompt
    assert all(card.sample for card in desk.cards)


def test_a_preset_directs_a_cast_of_one_s_own(desk, picture, library):
    desk.add("character", picture("mia.png"))
    desk.add("object", picture("cup.png"))
    library.direct(desk, "ecommerce/vertical_ad")
    assert (desk.sheet.format, desk.sheet.preset) == ("9:16", "ecommerce/vertical_ad")
    assert views.names_value(desk)["ok"]


def test_a_preset_of_one_s_own_is_kept_beside_the_outputs_and_fits_another_cast(
    desks, desk, picture, library, tmp_path
):
    desk.add("character", picture("mia.png"))
    desk.sheet.prompt = "Mia dances. We love Mia's {shoes}."
    desk.put("camera", "orbit")
    library.keep(desk, "  My   night ")
    assert [path.name for path in (tmp_path / "presets").iterdir()] == ["my_night.toml"]
    other = desks.new()
    other.add("character", picture("ken.png"))
    library.direct(other, "own/my_night")
    assert other.sheet.prompt == "Ken dances. We love Ken's (shoes)."
    assert other.sheet.camera == "orbit"
    assert library.strip()["groups"][-1]["cards"][0]["title"] == "My night"


@pytest.mark.parametrize(("title", "prompt"), [("", "Mia."), ("x", "  ")])
def test_a_preset_without_a_title_or_prompt_is_refused(desk, library, title, prompt, tmp_path):
    desk.sheet.prompt = prompt
    with pytest.raises(TroupeError):
        library.keep(desk, title)
    assert not (tmp_path / "presets").exists()


def test_what_was_cleared_or_replaced_can_be_brought_back_even_after_a_restart(desks, desk, picture):
    desk.add("character", picture())
    desk.put("prompt", "Mia waves.")
    desk.clear()
    assert (desk.cards, desk.sheet.prompt) == ([], "")
    found = again(desks, desk)
    found.undo_last()
    assert ([card.name for card in found.cards], found.sheet.prompt) == (["Mia"], "Mia waves.")
    assert found.picture(found.cards[0]).size == (120, 200)
    found.undo_last()  # and forward again
    assert found.cards == []


def test_pictures_that_nothing_needs_any_more_are_deleted(desk, picture):
    desk.add("background", picture("stage.png"))
    desk.add("background", picture("street.png"))
    assert len(list(desk.folder.glob("*.png"))) == 1


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [("sheet", "seed", "abc"), ("sheet", "format", "7:3"), ("sheet", "seconds", 1e9), ("cards", "id", "../../x"),
     ("cards", "role", "villain"), ("cards", "placement", 7)],
)  # fmt: skip
def test_a_desk_with_a_value_that_cannot_be_is_set_aside(desks, desk, picture, part, field, value):
    desk.add("character", picture())
    tamper(desk, part, field, value)
    found = again(desks, desk)
    assert (found.cards, found.sheet.format) == ([], "16:9")
    assert len(list(desk.folder.glob("desk.damaged*"))) == 1


def test_a_failed_save_leaves_the_last_good_desk_and_nothing_partial(desks, desk, picture, monkeypatch):
    desk.add("character", picture())
    full = OSError(28, "No space left")
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space left"):
        desk.put("prompt", "lost")
    assert not list(desk.folder.glob("*.part"))
    assert [card.name for card in again(desks, desk).cards] == ["Mia"]


@pytest.mark.parametrize("shown", ["", "Mia waves."])
def test_a_prompt_that_was_replaced_does_not_come_back_from_a_browser_that_has_yet_to_be_told(desk, shown):
    desk.hear(shown)
    with desk.replacing(shown):
        desk.put("prompt", "Mia dances.")  # as a preset does
    desk.hear(shown)
    assert desk.sheet.prompt == "Mia dances."
    desk.hear("Mia dances.")  # the browser shows the new one
    desk.hear(shown)  # and the person wants the old one again
    assert desk.sheet.prompt == shown


def test_what_another_tab_shows_is_taken_as_it_is(desk):
    desk.hear("Mia waves.")
    with desk.replacing("Mia dances."):  # a tab that shows this already, and so will not say it again
        desk.put("prompt", "Mia dances.")
    desk.hear("Mia waves.")
    assert desk.sheet.prompt == "Mia waves."


def test_what_leaves_the_prompt_alone_lets_nobody_be_ignored(desk):
    desk.hear("Mia waves.")
    with desk.replacing("an older one"):
        desk.put("bpm", 90)
    desk.hear("an older one")
    assert desk.sheet.prompt == "an older one"


def test_half_a_surrogate_pair_in_a_prompt_does_not_stop_the_desk(desks, desk):
    desk.put("prompt", "Mia \ud83d waves")
    assert again(desks, desk).sheet.prompt == "Mia ? waves"


def test_a_name_inside_another_name_is_neither_found_nor_renamed(desk, picture):
    ann, both = desk.add("character", picture("ann.png")), desk.add("character", picture("both.png"))
    desk.rename(both.id, "Anna Ann")
    desk.put("prompt", "Anna Ann sings.")
    assert [each["mentioned"] for each in views.names_value(desk)["names"]] == [False, True]
    desk.rename(ann.id, "Bob")
    assert desk.sheet.prompt == "Anna Ann sings."


def test_a_full_cast_refuses_before_it_cuts_out(desk, picture, monkeypatch):
    for number in range(MAX_CAST):
        desk.add("object", picture(f"thing{number}.png"))
    never = "app.create.desk.cutout.cut_out"
    monkeypatch.setattr(never, lambda *args, **more: pytest.fail("it was cut out for nothing"))
    with pytest.raises(SceneError, match="room for a cast of"):
        desk.add("object", picture("late.png"))


def test_touching_a_sample_makes_it_ones_own(desk):
    lay_out_scene(desk, REPO / "assets" / "samples" / "dance_floor.json")
    card = desk.cards[0]
    desk.place(card.id, {"x": 0.5, "y": 0.9, "scale": 0.5})
    assert [each.sample for each in desk.cards].count(False) == 1


def test_a_shared_troupe_keeps_no_presets(desk, tmp_path):
    desk.put("prompt", "Mia waves.")
    shared = Library(REPO / "presets", None, REPO / "assets" / "samples")
    with pytest.raises(TroupeError, match="shared"):
        shared.keep(desk, "mine")


def test_an_outputs_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TroupeError, match="--outputs"):
        server.open_house(tmp_path / "file")


def test_undo_goes_back_to_ones_own_words_however_many_presets_were_tried(desk, picture, library):
    desk.add("character", picture())
    desk.put("prompt", "Mia waits for the bus.")
    for key in ("ecommerce/vertical_ad", "ecommerce/vertical_ad", "music_video/dream_walk"):
        desk.remember_own("picking a preset")
        library.direct(desk, key)
        desk.mark()
    desk.undo_last()
    assert desk.sheet.prompt == "Mia waits for the bus."


def test_undo_leaves_a_running_job_in_view(desk, picture):
    desk.add("character", picture())
    desk.remember("picking a preset")
    desk.sheet.job, desk.sheet.seed = "a" * 32, 7
    desk.undo_last()
    assert (desk.sheet.job, desk.sheet.seed) == ("a" * 32, 7)


def test_a_background_of_the_same_name_keeps_the_name(desk, picture):
    for _ in range(2):
        desk.add("background", picture("street.png"), "neon street")
    assert desk.names == ["neon street"]


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [("sheet", "prompt", "\ud800"),
     ("cards", "motion", "fly"), ("cards", "name", "x" * 500), ("cards", "placement", {"x": 99, "y": 0, "scale": 1})],
)  # fmt: skip
def test_a_desk_that_no_clip_could_be_made_from_is_set_aside(desks, desk, picture, part, field, value):
    desk.add("character", picture())
    tamper(desk, part, field, value)
    assert again(desks, desk).cards == []
    assert len(list(desk.folder.glob("desk.damaged*"))) == 1


def test_a_clips_scene_comes_back_to_the_desk_as_it_was_shot(desks, desk, tmp_path):
    lay_out_scene(desk, REPO / "assets" / "samples" / "model_holds_product.json")
    desk.place(desk.cards[0].id, {"x": 0.2, "y": 0.8, "scale": 0.5, "flip": True})
    for name, value in {"format": "9:16", "seconds": 3.0, "seed": 77, "engine": "a2", "steps": 9}.items():
        desk.put(name, value)
    folder = tmp_path / "scene"
    folder.mkdir()
    files = {card.id: f"{card.id}.png" for card in desk.cards}
    for card in desk.cards:
        (folder / files[card.id]).write_bytes(desk.files(card)[card.id].read_bytes())
    scene = checked_scene(desk, views.video_of(desk), 77, files)
    (folder / "scene.json").write_text(scene_to_json(scene), encoding="utf-8")
    other = desks.new()
    open_scene(other, folder / "scene.json")
    again = checked_scene(other, views.video_of(other), other.sheet.seed)
    assert again.model_dump(exclude={"cast"}) == scene.model_dump(exclude={"cast"})
    assert [(card.name, card.role, card.motion) for card in other.cards] == [
        (card.name, card.role, card.motion) for card in desk.cards
    ]
    assert other.cards[0].placement == desk.cards[0].placement
    assert not any(card.sample for card in other.cards)


@pytest.mark.parametrize(
    ("more", "count"),
    [({"sampling": {"seed": 2**40}}, 1), ({"sampling": {"seed": MAX_SEED}}, 1), ({}, 7), ({}, MAX_CAST),
     ({"video": {"width": 640, "height": 480, "fps": 30, "frames": 100}}, 1),
     ({"video": {"width": 1920, "height": 1088, "fps": 60, "frames": 961}}, 1),
     ({"video": {"frames": 961, "fps": 15}}, 1), ({"video": {"frames": 5, "fps": 60}}, 1),
     ({"engine": "a2", "video": {"width": 320, "height": 512, "fps": 24, "frames": 41, "trim_head": 0}}, 1)],
)  # fmt: skip
def test_whatever_the_command_line_makes_comes_back_to_the_desk_as_it_was(desks, picture, tmp_path, more, count):
    cast = [{"role": "character", "name": f"c{i}", "image": picture().name} for i in range(count)]
    scene = scene_from_data({"cast": cast, "prompt": "c0 waves.", **more})
    (tmp_path / "scene.json").write_text(scene_to_json(scene), encoding="utf-8")
    desk = desks.new()
    open_scene(desk, tmp_path / "scene.json")
    desk = Desks(desks.folder).get(desk.id)  # as after a restart
    again = checked_scene(desk, views.video_of(desk), desk.sheet.seed)
    assert again.model_dump(exclude={"cast"}) == scene.model_dump(exclude={"cast"})
    assert [card.name for card in desk.cards] == [element.name for element in scene.cast]


def test_the_size_of_an_opened_clip_stays_until_another_format_is_chosen(desk, picture, tmp_path):
    video = {"width": 640, "height": 480, "fps": 30, "frames": 100}
    scene = {"cast": [{"role": "object", "image": picture().name}], "prompt": "", "video": video}
    (tmp_path / "scene.json").write_text(json.dumps(scene))
    open_scene(desk, tmp_path / "scene.json")
    assert views.format_choices(desk)[-1] == ("640×480, 30 fps", desk.sheet.format)
    desk.put("seconds", 2.0)
    assert views.video_of(desk) | {"trim_head": 0} == {**video, "frames": 61, "trim_head": 0}
    made = views.video_of(desk)["frames"]
    desk.put("seconds", desk.sheet.seconds)  # as a control does that tells what it was just given
    assert views.video_of(desk)["frames"] == made
    desk.put("seconds", 60.0)  # at this rate a clip cannot be that long
    assert checked_scene(desk, views.video_of(desk), 1).video.frames == 961
    desk.put("format", "9:16")
    assert (views.video_of(desk)["width"], views.video_of(desk)["fps"]) == (480, 15)
    desk.put("format", "own")  # it is still offered
    assert (views.video_of(desk)["width"], views.video_of(desk)["fps"]) == (640, 30)


def test_a_seed_that_a_browser_cannot_hold_stays_when_it_comes_back(desk):
    desk.put("seed", 2**62 + 1)
    desk.put("seed", float(2**62 + 1))
    assert desk.sheet.seed == 2**62 + 1
    desk.put("seed", 10**400)  # of hundreds of digits: brought into range like any other
    assert desk.sheet.seed == 2**63 - 1


@pytest.mark.parametrize(
    ("file", "name"),
    [("小明", "小明"), ("傘", "傘"), ("मीरा", "मीरा"), ("민지", "민지"), ("สมชาย", "สมชาย"), ("IMG_20410", "character"),
     ("微信图片_20240101", "character"), ("스크린샷 2024", "character"), ("Jose\u0301", "José"), ("a1", "character")],
)  # fmt: skip
def test_a_file_s_name_says_something_in_every_script(desk, picture, file, name):
    assert desk.add("character", picture(f"{file}.png")).name == name


def test_one_name_in_two_spellings_is_one_name(desk, picture):
    names = [desk.add("character", picture(), name).name for name in ("Zoë", "Zoe\u0308", "O'Neil", "O’Neil")]
    assert names == ["Zoë", "Zoë 2", "O'Neil", "O’Neil 2"]


def test_a_card_may_be_called_what_windows_does_not_let_a_file_be(desk, jobs, picture):
    desk.add("character", picture(), "Aux")
    assert [path.name for path in shoot(desk, jobs).folder.glob("*.png")] == ["character-aux.png"]


def test_a_scene_that_cannot_be_opened_leaves_the_desk_as_it_was(desk, picture, tmp_path):
    desk.add("character", picture())
    before = [card.id for card in desk.cards]
    (tmp_path / "scene.json").write_text('{"cast": [{"role": "object", "image": "gone.png"}], "prompt": "x"}')
    with pytest.raises(ImageError):
        open_scene(desk, tmp_path / "scene.json")
    assert [card.id for card in desk.cards] == before
    assert desk.picture(desk.cards[0]) is not None


def test_desks_that_nobody_uses_leave_the_memory_and_are_found_again(desks, picture, monkeypatch):
    monkeypatch.setattr("app.create.desks._RECENT", 3)
    first, in_use = desks.new(), desks.new()
    first.add("character", picture())
    first_id = first.id
    gone = weakref.ref(first)
    del first
    for _ in range(5):
        desks.new()
    gc.collect()
    assert gone() is None
    assert len(desks.get(first_id).cards) == 1
    assert desks.get(in_use.id) is in_use  # never two of the same, each with a lock of its own


def test_a_card_says_what_is_wrong_with_its_file_however_it_is_used(desks, desk, tmp_path):
    large = Image.effect_noise((640, 480), 40).convert("RGB")
    large.save(tmp_path / "mia.jpg", quality=90)
    data = (tmp_path / "mia.jpg").read_bytes()
    (tmp_path / "mia.jpg").write_bytes(data[: -len(data) // 60])
    place = desk.add("background", tmp_path / "mia.jpg")
    assert "cut off" in note_of(again(desks, desk), place.id)


def test_brush_strokes_the_wrong_way_round_are_doubted_on_the_card(desk, picture):
    card = desk.add("character", picture())
    desk.set_mode(card.id, "none")
    outside, inside = Image.new("L", (120, 200), 255), Image.new("L", (120, 200), 0)
    ImageDraw.Draw(inside).ellipse((30, 20, 90, 180), fill=255)
    (desk.folder / f"{card.id}.photo.png").unlink()
    Image.new("RGB", (120, 200), "navy").save(desk.folder / f"{card.id}.photo.png")
    desk.retouch(card.id, outside, inside)
    assert "inverted" in note_of(desk, card.id)


def note_of(desk: Desk, card_id: str) -> str:
    cards = [card for section in views.board_value(desk)["sections"] for card in section["cards"]]
    return next(card["note"] for card in cards if card["id"] == card_id)
