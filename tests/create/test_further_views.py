"""Further views of one of the cast: they are taken, kept, shown, shot and opened again like its first picture."""

from __future__ import annotations

import pytest
from PIL import Image

from app.create.desks import Desks, open_scene
from app.create.engines import Engines, references_html
from app.create.shoot import shoot
from app.create.views import board_value
from app.machine.planner import Planner
from app.machine.settings import OwnerSettings
from engine.door.render import gather
from engine.errors import ImageError, SceneError
from engine.scene.scene import MAX_VIEWS
from engine.scene.scene_file import load_scene


@pytest.fixture
def side(picture):
    return lambda colour: picture(f"{colour}.png", colour)


def colours(pictures) -> list[tuple[int, int, int]]:
    return [picture.convert("RGB").getpixel((picture.width // 2, picture.height // 2)) for picture in pictures]


RED, BLUE, LIME = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def with_sides(desk, side):
    card = desk.add("character", side("red"), "Mia")
    for colour in ("blue", "lime"):
        desk.add_view(card.id, side(colour))
    desk.put("prompt", "Mia waves.")
    return card


def test_they_go_into_the_job_and_reach_the_engine_and_a_clip_that_is_opened_has_them(desks, desk, jobs, side):
    with_sides(desk, side)
    job = shoot(desk, jobs)
    (member,) = gather(job.request)[0]
    assert colours([member.picture, *member.views]) == [RED, BLUE, LIME]
    other = desks.new()
    open_scene(other, job.folder / "scene.json")
    other = Desks(desks.folder).get(other.id)  # as after a restart
    (card,) = other.cards
    assert colours(other.picture(card, view.id) for view in card.views) == [BLUE, LIME]
    again = shoot(other, jobs)
    assert [len(element.views) for element in load_scene(again.folder / "scene.json").cast] == [2]


def test_the_whole_photo_counts_for_every_view(desk, jobs, tmp_path):
    for colour in ("red", "blue"):
        Image.new("RGB", (160, 160), colour).save(tmp_path / f"{colour}.jpg")
    card = desk.add("object", tmp_path / "red.jpg", "Cup")
    desk.add_view(card.id, tmp_path / "blue.jpg")
    desk.set_mode(card.id, "none")
    (member,) = gather(shoot(desk, jobs).request)[0]
    assert [picture.getchannel("A").getextrema() for picture in (member.picture, *member.views)] == [(255, 255)] * 2


def test_the_model_sees_them_where_it_has_room_and_the_board_shows_them(desk, side, tmp_path):
    engines = Engines(OwnerSettings(tmp_path / "settings.json"), tmp_path / "loras", Planner(tmp_path))
    card = desk.add("character", side("red"), "Mia")
    desk.put("engine", "a2")
    assert references_html(desk, engines).count("<img") == 1
    desk.add_view(card.id, side("blue"))
    assert references_html(desk, engines).count("<img") == 2
    (shown,) = board_value(desk)["sections"][0]["cards"]
    assert [view["url"][:15] for view in shown["views"]] == ["data:image/webp"]
    assert shown["more"]


def test_one_that_is_removed_can_be_brought_back_and_its_file_stays_until_then(desks, desk, side):
    card = with_sides(desk, side)
    desk.remove_view(card.id, card.views[0].id)
    assert colours(desk.picture(card, view.id) for view in card.views) == [LIME]
    desk = Desks(desks.folder).get(desk.id)
    desk.undo_last()
    (card,) = desk.cards
    assert colours(desk.picture(card, view.id) for view in card.views) == [BLUE, LIME]


def test_the_files_go_with_the_card(desk, side):
    card = with_sides(desk, side)
    desk.remove(card.id)
    desk.undo = None
    desk.save()
    assert list(desk.folder.glob("*.png")) == []


def test_a_lost_file_takes_only_its_own_view(desks, desk, side):
    card = with_sides(desk, side)
    for path in desk.folder.glob(f"{card.views[0].id}.*"):
        path.unlink()
    (card,) = Desks(desks.folder).get(desk.id).cards
    assert len(card.views) == 1


def test_an_id_that_could_leave_the_folder_sets_the_desk_aside(desks, desk, side):
    card = with_sides(desk, side)
    file = desk.folder / "desk.json"
    file.write_text(file.read_text(encoding="utf-8").replace(card.views[0].id, "../../other"), encoding="utf-8")
    again = Desks(desks.folder).get(desk.id)
    assert again.cards == []
    assert "cannot be read" in again.notice


def test_there_are_only_so_many_and_a_bad_file_changes_nothing(desk, side, tmp_path):
    card = with_sides(desk, side)
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(ImageError):
        desk.add_view(card.id, tmp_path / "no.png")
    desk.add_view(card.id, side("navy"))
    with pytest.raises(SceneError, match="no more are taken"):
        desk.add_view(card.id, side("gold"))
    assert len(card.views) == MAX_VIEWS
    (shown,) = board_value(desk)["sections"][0]["cards"]
    assert not shown["more"]


def test_the_cut_out_of_each_is_made_again(desk, side):
    card = with_sides(desk, side)
    blank = Image.new("RGBA", (10, 10))
    for view in card.views:
        blank.save(desk.folder / f"{view.id}.cutout.png")
    desk.cut_again(card.id)
    assert colours(desk.picture(card, view.id) for view in card.views) == [BLUE, LIME]
