"""The model's engine on the Create page: it says what is missing, what it will see, and how long the clip gets."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from app.create import views
from app.create.desk import checked_scene
from app.create.engines import Engines, references_html
from app.create.progress import preview_html, preview_stamp, progress_html, result_html
from app.create.sheet import page_settings
from app.create.shoot import shoot
from app.jobs.queue import JobQueue
from app.jobs.status import DONE, RUNNING, Snapshot
from app.machine.planner import Planner
from app.machine.settings import OwnerSettings
from engine.errors import EngineUnavailable
from engine.words import duration

TINY = Path(__file__).resolve().parents[1] / "fixtures" / "a2_tiny"
ID = "0" * 32


class Unknown(Planner):
    """Of a machine that has not answered yet."""

    def hardware(self, patience=0.0):
        return None


@pytest.fixture
def model(tmp_path):
    """A model whose files are there; whether its libraries are is the machine's matter."""
    settings = OwnerSettings(tmp_path / "settings.json")
    settings.put(model=str(TINY))
    return Engines(settings, tmp_path / "loras", Unknown(tmp_path))


@pytest.fixture
def nowhere(tmp_path):
    settings = OwnerSettings(tmp_path / "settings.json")
    settings.put(model=str(tmp_path / "nowhere"))
    return Engines(settings, tmp_path / "loras", Unknown(tmp_path))


def add(desk, tmp_path, role, name, colour):
    picture = Image.new("RGBA", (120, 160), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rectangle((30, 20, 90, 150), fill=colour)
    if role == "background":
        picture = Image.new("RGB", (160, 120), colour)
    picture.save(tmp_path / f"{name}.png")
    return desk.add(role, tmp_path / f"{name}.png", name)


def pictures_in(text):
    found = re.findall(r"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)", text)
    return [Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB") for each in found]


def test_where_the_model_is_missing_the_page_says_so_and_that_the_draft_works(desk, nowhere, tmp_path):
    add(desk, tmp_path, "character", "Mia", "red")
    assert nowhere.can_shoot(desk)
    assert nowhere.note(desk) == ""
    desk.put("engine", "a2")
    assert not nowhere.can_shoot(desk)
    said = nowhere.note(desk)
    assert "Models tab" in said
    assert "The draft works now" in said


def test_a_clip_is_not_queued_for_a_model_that_is_not_there(desk, nowhere, tmp_path):
    add(desk, tmp_path, "character", "Mia", "red")
    desk.put("engine", "a2")
    board = JobQueue(tmp_path, lambda *_, **__: pytest.fail("it was rendered"))
    try:
        with pytest.raises(EngineUnavailable):
            shoot(desk, board, nowhere.options(desk))
        assert board.queue() == []
        assert not list((tmp_path / "clips").glob("*"))
    finally:
        board.close()


def test_the_seconds_asked_for_are_what_is_left_after_the_trim(desk):
    desk.put("seconds", 4.6)
    draft = views.video_of(desk)
    desk.put("engine", "a2")
    video = views.video_of(desk)
    assert video["frames"] == 81
    assert video["trim_head"] == 12
    assert video["frames"] - video["trim_head"] == draft["frames"] == 69


def test_a_clip_longer_than_the_model_was_trained_on_is_said(desk, model, tmp_path):
    pytest.importorskip("torch")
    desk.put("engine", "a2")
    desk.put("seconds", 4.6)
    assert "81 frames are made" in model.note(desk)  # before there is a cast
    add(desk, tmp_path, "character", "Mia", "red")
    assert "trained on" not in model.note(desk)
    assert "81 frames are made" in model.note(desk)
    desk.put("seconds", 8.0)
    assert "trained on 81 frames" in model.note(desk)
    assert model.can_shoot(desk)


def test_the_canvases_are_the_models_own_and_in_its_order(desk, model, tmp_path):
    add(desk, tmp_path, "background", "street", (0, 0, 200))
    add(desk, tmp_path, "object", "cup", (0, 160, 0))
    add(desk, tmp_path, "character", "Mia", (200, 0, 0))
    assert references_html(desk, model) == ""  # the draft does not see them
    desk.put("engine", "a2")
    shown = references_html(desk, model)
    assert re.findall(r"<b>(.*?)</b> (\w+)", shown) == [
        ("1. Characters", "Mia"), ("2. Objects", "cup"), ("3. Background", "street"),
    ]  # fmt: skip
    middles = [picture.getpixel((picture.width // 2, picture.height // 2)) for picture in pictures_in(shown)]
    assert [max(range(3), key=colour.__getitem__) for colour in middles] == [0, 1, 2]


def test_a_large_cast_shares_three_canvases_and_names_are_escaped(desk, model, tmp_path):
    for number in range(3):
        add(desk, tmp_path, "character", f"M{number}", "red")
    add(desk, tmp_path, "object", "cup", "green")
    desk.rename(desk.cards[0].id, "<b>x</b>")
    desk.put("engine", "a2")
    shown = references_html(desk, model)
    assert len(pictures_in(shown)) == 3
    assert "&lt;b&gt;x&lt;/b&gt;" in shown
    assert "shares them" in shown


def test_the_canvases_are_made_anew_only_where_the_cast_or_the_format_changed(desk, model, tmp_path):
    add(desk, tmp_path, "character", "Mia", "red")
    desk.put("engine", "a2")
    shown = references_html(desk, model)
    desk.put("a2.turbo", True)
    desk.put("prompt", "Mia waves.")
    assert references_html(desk, model) is shown
    card = desk.cards[0]
    for change in (lambda: desk.put("format", "1:1"), lambda: desk.rename(card.id, "Ann"),
                   lambda: add(desk, tmp_path, "object", "cup", "green"), lambda: desk.remove(card.id)):  # fmt: skip
        before = references_html(desk, model)
        change()
        assert references_html(desk, model) != before


def test_the_model_gets_the_numbers_that_were_set(desk, tmp_path):
    add(desk, tmp_path, "character", "Mia", "red")
    for name, value in {
        "engine": "a2",
        "sampling.steps": 8,
        "sampling.guidance": 2.5,
        "sampling.flow_shift": 3.0,
    }.items():
        desk.put(name, value)
    scene = checked_scene(desk, views.video_of(desk), 7)
    assert (scene.engine, scene.sampling.steps, scene.sampling.guidance, scene.sampling.flow_shift) == (
        "a2", 8, 2.5, 3.0,
    )  # fmt: skip
    odd = {"engine": "gpt", "sampling.steps": 10**400, "sampling.guidance": float("nan"), "sampling.flow_shift": "x"}
    for name, value in odd.items():
        desk.put(name, value)
    assert desk.sheet.engine == "a2"
    assert desk.sheet.sampling == {"steps": 200, "guidance": 2.5, "flow_shift": 3.0, "image_guidance": None}
    desk.put("sampling.flow_shift", 0)  # the range begins above it
    assert checked_scene(desk, views.video_of(desk), 7).sampling.flow_shift > 0


# -- faster, or another look ----------------------------------------------------


@pytest.fixture
def loras(tmp_path):
    folder = tmp_path / "loras"
    folder.mkdir()
    for name in ("noir.safetensors", "turbo.safetensors", "notes.txt"):
        (folder / name).touch()
    return folder


def test_loras_are_chosen_by_name_from_the_owners_folder(desk, model, loras):
    assert model.lora_files() == ["noir.safetensors", "turbo.safetensors"]
    for name, value in {"lora_0": "noir.safetensors", "strength_0": 0.5, "lora_1": "../secret.safetensors",
                        "lora_2": "notes.txt", "a2.step_cache": True, "engine": "a2"}.items():  # fmt: skip
        desk.put(name, value)
    options = model.options(desk)
    assert [(lora.path, lora.strength) for lora in options.loras] == [(loras / "noir.safetensors", 0.5)]
    assert options.step_cache
    (loras / "noir.safetensors").unlink()
    assert model.options(desk).loras == ()


def test_a_guest_neither_sees_nor_uses_the_owners_files(desk, loras, tmp_path):
    model = Engines(OwnerSettings(tmp_path / "settings.json"), loras, Unknown(tmp_path), is_owner=lambda: False)
    desk.put("lora_0", "noir.safetensors")
    desk.put("engine", "a2")
    assert model.lora_files() == []
    assert model._chosen(desk).loras == ()


def test_a_guest_is_not_told_where_the_owners_model_should_be(desk, nowhere, tmp_path):
    guest = Engines(nowhere._settings, tmp_path / "loras", Unknown(tmp_path), is_owner=lambda: False)
    add(desk, tmp_path, "character", "Mia", "red")
    desk.put("engine", "a2")
    assert not guest.can_shoot(desk)
    assert "only its owner" in guest.note(desk)
    assert "Models tab" not in guest.note(desk)
    with pytest.raises(EngineUnavailable) as refused:
        guest.options(desk)
    for said in (guest.note(desk), str(refused.value)):
        assert str(tmp_path) not in html.unescape(said)
    assert str(tmp_path / "nowhere") in html.unescape(nowhere.note(desk))


def test_what_does_not_go_together_is_said_before_generate(desk, model, loras, tmp_path):
    pytest.importorskip("torch")
    add(desk, tmp_path, "character", "Mia", "red")
    desk.put("engine", "a2")
    desk.put("a2.turbo", True)
    assert "Turbo needs a step-distilled LoRA" in model.note(desk)
    assert not model.can_shoot(desk)
    desk.put("lora_0", "turbo.safetensors")
    assert "Turbo makes it in 4 steps" in model.note(desk)
    assert model.can_shoot(desk)
    desk.put("a2.step_cache", True)
    assert "do not go together" in model.note(desk)


def test_what_does_not_go_together_is_refused_before_a_job_is_made(desk, model, tmp_path):
    pytest.importorskip("torch")
    add(desk, tmp_path, "character", "Mia", "red")
    desk.put("engine", "a2")
    desk.put("a2.turbo", True)
    board = JobQueue(tmp_path, lambda *_, **__: pytest.fail("it was rendered"))
    try:
        with pytest.raises(EngineUnavailable, match="step-distilled LoRA"):
            shoot(desk, board, model.options(desk))
        assert board.queue() == []
    finally:
        board.close()


@pytest.mark.parametrize("odd", [None, [], "x" * 9999, float("inf"), {"a": 1}, True])
def test_odd_values_from_a_page_do_no_harm(desk, odd, tmp_path):
    add(desk, tmp_path, "character", "Mia", "red")
    for name in ("lora_0", "strength_0", *page_settings()):
        desk.put(name, odd)
    assert desk.sheet.is_sound()
    desk.put("engine", "a2")
    assert desk.sheet.options(own_machine=True).attention is None
    assert checked_scene(desk, views.video_of(desk), 7)
    assert -2 <= desk.sheet.strengths[0] <= 2


# -- progress ----------------------------------------------------------------------


def test_progress_of_the_model_tells_stage_step_and_time():
    snap = Snapshot(ID, RUNNING, "sampling", 0.24, 130, 400, engine="a2", step=12, of=50)
    said = progress_html(snap)
    for part in ("step 12 of 50", "2 min so far", "about 7 min left", 'aria-valuenow="24"', 'class="now">Make'):
        assert part in said
    full = Snapshot(ID, RUNNING, "decoding", error="The disk is full. Free some space.", engine="a2")
    assert "Waiting. The disk is full" in progress_html(full)
    assert "text_encoder" not in progress_html(Snapshot(ID, RUNNING, "loading", detail="text_encoder", engine="a2"))


def test_every_stage_of_either_engine_has_words():
    for engine, stages in {"draft": ("cast", "frames", "poster"), "a2": ("cast", "loading", "decoding")}.items():
        for stage in ("", *stages):
            assert progress_html(Snapshot(ID, RUNNING, stage, engine=engine))


def test_a_result_says_which_engine_made_it():
    assert "Draft" in result_html(Snapshot(ID, DONE))
    said = result_html(Snapshot(ID, DONE, elapsed=7500, engine="a2", notices=("<turbo>",)))
    assert "Video model" in said
    assert "Draft" not in said
    assert "2 h 05 min" in said
    assert "&lt;turbo&gt;" in said


def test_a_preview_is_shown_while_the_job_runs_and_only_then(tmp_path):
    file = tmp_path / "preview.webp"
    running = Snapshot(ID, RUNNING, preview=file)
    assert (preview_html(running, (832, 480)), preview_stamp(running)) == ("", 0.0)
    Image.new("RGB", (8, 6), "red").save(file)
    assert len(pictures_in(preview_html(running, (832, 480)))) == 1
    assert preview_stamp(running) > 0
    assert preview_stamp(Snapshot(ID, DONE, preview=file)) == 0.0
    assert preview_html(None, (1, 1)) == ""


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (100, "2 min"), (5400, "1 h 30 min")])
def test_durations_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


# -- settings ------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "[]", '{"model": 3}', '{"other": "x"}', "\0"])
def test_settings_that_cannot_be_read_are_the_default(tmp_path, content):
    file = tmp_path / "settings.json"
    file.write_text(content, encoding="utf-8")
    assert OwnerSettings(file).get().model == ""


def test_settings_are_kept(tmp_path):
    OwnerSettings(tmp_path / "settings.json").put(model="/models/mine")
    assert OwnerSettings(tmp_path / "settings.json").get().model == "/models/mine"
    assert [each.name for each in tmp_path.iterdir()] == ["settings.json"]
