"""The plan on the page: told before Generate, as a picture and one sentence, and what it says is what is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from app.create.controls import Controls
from app.create.desks import Desks
from app.create.engines import Engines
from app.create.plan_view import plan_html
from app.create.sheet import page_settings
from app.machine.planner import Planner
from app.machine.settings import OwnerSettings
from engine.a2.options import A2Options
from engine.memory.hardware import Fact, Hardware
from engine.scene.engines import find_engine
from engine.scene.scene_file import scene_from_data
from engine.words import GIB

TINY = Path(__file__).resolve().parents[1] / "fixtures" / "a2_tiny"
MODEL = "Skywork/SkyReels-A2"


def machine(vram, ram, card="RTX 3060"):
    unknown = Fact(None, "not known")
    return Hardware(
        device=Fact("cuda" if vram else "cpu", "a test"), name=Fact(card, "a test"),
        vram_total=Fact(vram * GIB, "a test"), vram_free=Fact(vram * GIB, "a test"),
        ram_total=Fact(ram * GIB, "a test"),
        ram_free=Fact(ram * GIB, "a test"), pinned_limit=unknown, disk_free=Fact(500 * GIB, "a test"),
        bf16=Fact(True, "a test"), fp8=Fact(False, "a test"), torch=Fact("2.13.0", "a test"),
    )  # fmt: skip


class Machine(Planner):
    """Plans for a machine that the test describes."""

    def __init__(self, folder, hardware):
        super().__init__(folder)
        self.given = hardware

    def hardware(self, patience=0.0):
        return self.given


def a_scene():
    return scene_from_data({"engine": "a2", "cast": [{"role": "object", "image": "a.png"}], "prompt": "x"})


@pytest.fixture
def desk(tmp_path):
    desk = Desks(tmp_path / "desks").new()
    cup = Image.new("RGBA", (64, 48))
    cup.paste("red", (20, 10, 44, 40))  # it brings its own cut-out: no model has to find one
    cup.save(tmp_path / "cup.png")
    desk.add("object", tmp_path / "cup.png", "cup")
    desk.put("engine", "a2")
    return desk


def model_on(hardware, tmp_path, is_owner=True, checkpoint=MODEL):
    settings = OwnerSettings(tmp_path / "settings.json")
    settings.put(model=str(checkpoint))
    return Engines(settings, tmp_path / "loras", Machine(tmp_path, hardware), lambda: is_owner)


def test_what_the_plan_says_is_what_is_run(desk, tmp_path):
    model = model_on(machine(8, 32), tmp_path)
    plan, options = model.plan(desk), model.options(desk)
    assert plan.fits
    assert (options.precision, options.offload, options.resident_blocks, options.batched_guidance, options.chunk) == (
        plan.settings.precision, plan.settings.offload, plan.settings.resident, plan.settings.batched,
        plan.settings.chunk,
    )  # fmt: skip
    assert options.offload == "blocks"


def test_a_large_card_keeps_everything(desk, tmp_path):
    options = model_on(machine(141, 256), tmp_path).options(desk)
    assert (options.offload, options.resident_blocks, options.precision) == ("none", None, "bf16")


def test_what_does_not_fit_is_said_in_numbers_and_is_not_started(desk, tmp_path):
    pytest.importorskip("torch")
    model = model_on(machine(2, 4), tmp_path, checkpoint=TINY)
    assert model.can_shoot(desk)  # a tiny one does
    big = model_on(machine(2, 4), tmp_path)
    said = plan_html(big.plan(desk))
    assert "does not fit" in said
    assert "GB" in said
    assert "bad" in said


def test_the_owner_can_set_a_line_and_a_guest_cannot(desk, tmp_path):
    for name, value in {
        "precision": "int8",
        "offload": "blocks",
        "resident_blocks": 3,
        "batched_guidance": "off",
    }.items():
        desk.put(f"a2.{name}", value)
    options = model_on(machine(141, 256), tmp_path).options(desk)
    assert (options.precision, options.offload, options.resident_blocks, options.batched_guidance) == (
        "int8", "blocks", 3, False,
    )  # fmt: skip
    pytest.importorskip("torch")
    guests = model_on(machine(141, 256), tmp_path, is_owner=False, checkpoint=TINY)
    assert (guests.options(desk).precision, guests.options(desk).offload) == ("bf16", "none")


def test_the_picture_has_a_bar_for_every_stage_and_the_memory_there_is(desk, tmp_path):
    said = plan_html(model_on(machine(8, 32), tmp_path).plan(desk))
    assert said.count("<span>") == 4
    assert "It fits" in said
    assert "8.0 of 8.0 GB graphics memory are free" in said
    assert "because" in said


def test_without_a_card_a_large_model_is_called_slow_and_a_tiny_one_is_not(desk, tmp_path):
    assert "takes days" in plan_html(model_on(machine(0, 64), tmp_path).plan(desk))
    assert "takes days" not in plan_html(model_on(machine(0, 64), tmp_path, checkpoint=TINY).plan(desk))


def test_an_unknown_machine_is_no_reason_to_stop(desk, tmp_path):
    model = model_on(None, tmp_path)
    assert model.plan(desk) is None
    assert "Looking at this machine" in plan_html(None)
    assert model.options(desk).offload is None


def test_where_nothing_fits_what_needs_least_is_applied(tmp_path):
    plan = Machine(tmp_path, machine(1, 2)).plan(find_engine("a2"), a_scene(), A2Options())
    assert not plan.fits
    assert not plan.possible
    options = plan.applied(A2Options())
    assert (options.precision, options.offload, options.resident_blocks, options.host) == (
        "int8",
        "blocks",
        0,
        "mapped",
    )


def test_what_others_hold_now_is_said_and_is_no_reason_to_refuse_a_clip(desk, tmp_path):
    free = machine(12, 32)
    taken = replace(free, vram_free=Fact(2 * GIB, "a game runs"))
    pytest.importorskip("torch")
    model = model_on(taken, tmp_path)
    plan = model.plan(desk)
    assert (plan.fits, plan.possible) == (False, True)
    assert "2.0 GB are free" in plan.sentence()
    assert "can be tried all the same" in plan.sentence()
    monster = model_on(machine(2, 4), tmp_path)
    assert not monster.plan(desk).possible


@pytest.mark.parametrize(("vram", "ram", "held"), [
    (24, 32, (round(15.5 * GIB), round(2.5 * GIB))), (12, 32, (round(10.4 * GIB), round(9.5 * GIB))),
    (141, 256, (round(46 * GIB), 2 * GIB)),
])  # fmt: skip
def test_the_second_clip_is_planned_like_the_first(tmp_path, monkeypatch, vram, ram, held):
    """What our own engine holds is not missing: neither after a clip nor while one is made."""
    first = Machine(tmp_path, machine(vram, ram)).plan(find_engine("a2"), a_scene(), A2Options())
    left = replace(
        machine(vram, ram), vram_free=Fact(vram * GIB - held[0], "a test"), ram_free=Fact(ram * GIB - held[1], "a test")
    )
    monkeypatch.setattr("engine.memory.hardware.ask_hardware", lambda folder: left)
    planner = Planner(tmp_path, lambda: held)
    assert planner.hardware(120).vram_free.value == vram * GIB - held[0]  # the Models tab shows what is
    second = planner.plan(find_engine("a2"), a_scene(), A2Options())
    assert second.settings == first.settings
    assert second.applied(A2Options()) == first.applied(A2Options())


def test_nothing_is_planned_where_the_card_is_only_lent(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.memory.hardware.ask_hardware", lambda folder: machine(0, 16))
    planner = Planner(tmp_path, lambda: None)
    assert not planner.plans(find_engine("a2"))
    assert planner.plan(find_engine("a2"), a_scene(), A2Options()) is None


def test_the_machine_is_asked_in_the_background_and_not_too_often(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("engine.memory.hardware.ask_hardware", lambda folder: asked.append(folder) or machine(8, 32))
    planner = Planner(tmp_path)
    assert planner.hardware(120).vram_total.value == 8 * GIB
    planner.look()
    planner.look()
    assert asked == [tmp_path]


@pytest.mark.parametrize("odd", [None, [], -5, 1e9, float("nan"), "x", {"a": 1}])
def test_odd_wishes_do_no_harm(desk, tmp_path, odd):
    for key, each in page_settings().items():
        if each.setting.planned:
            desk.put(key, odd)
    assert desk.sheet.is_sound()
    model_on(machine(8, 32), tmp_path).plan(desk)


def test_seconds_are_shown_once_they_were_measured(tmp_path):
    plan = Machine(tmp_path, machine(24, 64)).plan(find_engine("a2"), a_scene(), A2Options())
    assert "not measured yet" in plan_html(plan)
    timed = replace(plan, stages=tuple(replace(stage, seconds=120.0) for stage in plan.stages))
    assert "about 8 minutes" in plan_html(timed)
    assert "2 min" in plan_html(timed)


def test_a_run_teaches_the_next_plan(tmp_path, monkeypatch):
    """It took twice as long as foreseen: the next plan foresees more. A resumed or cached run teaches nothing."""
    from engine.a2.plan.calibration import remember
    from engine.a2.plan.planner import _machine
    from engine.a2.plan.speed import Speed
    from engine.door.render import Progress, RenderRequest, Result

    file = tmp_path / "speeds.json"
    monkeypatch.setattr("engine.a2.plan.planner.speeds_file", lambda: file)
    planner = Machine(tmp_path, machine(24, 64))
    planner._hardware = planner.given
    remember(_machine(planner.given), Speed(1e14, 1e14, 1e13, 1e13, 1e12, 2e10, 5e9), file)
    a2, scene = find_engine("a2"), a_scene()
    options = planner.plan(a2, scene, A2Options()).applied(A2Options())
    before = planner.plan(a2, scene, A2Options()).stages[2].seconds

    def run(first_step, **changes):
        def render(request, on_progress, stop):
            for stage, step, elapsed in (("sampling", first_step, 10.0), ("decoding", 0, 10.0 + 2 * before)):
                on_progress(Progress(stage, step, 50, elapsed, None))
            return Result(tmp_path / "a.mp4", None, 69, 1.0, "a2", ())

        request = RenderRequest(scene, tmp_path, tmp_path / "a.mp4", options=replace(options, **changes))
        planner.learning(render)(request, on_progress=lambda _: None, stop=lambda: False)
        return planner.plan(a2, scene, A2Options()).stages[2].seconds

    assert run(7) == before
    assert run(0, step_cache=True) == before
    assert before * 1.2 < run(0) < before * 2.1


# ---------------------------------------------------------------------------
# Several cards


def with_cards(count, vram=24, ram=64):
    return replace(machine(vram, ram), cards=Fact(count, "a test"))


def test_several_cards_share_the_memory_and_have_the_model_each(desk, tmp_path):
    desk.put("a2.cards", 2)
    model = model_on(with_cards(2), tmp_path)
    plan, one = model.plan(desk), model_on(machine(24, 64), tmp_path).plan(desk)
    assert (plan.budget.vram, plan.budget.ram) == (one.budget.vram, one.budget.ram // 2)
    assert [(choice.value, choice.why) for choice in plan.choices if choice.name == "cards"] == [
        (2, "2 cards: the guidance's passes on 2 cards")
    ]
    assert plan.seconds is None  # nobody has measured two
    assert model.options(desk).cards == 2


def test_a_desk_from_a_machine_with_more_cards_is_made_on_one(desk, tmp_path):
    desk.put("a2.cards", 2)
    for hardware in (machine(24, 64), with_cards(1), None):
        model = model_on(hardware, tmp_path)
        assert model.options(desk).cards is None
        assert not model.several_cards


@pytest.mark.parametrize(("own", "several", "shown"), [(True, True, True), (True, False, False), (False, True, False)])
def test_cards_are_offered_to_the_owner_of_more_than_one(desk, own, several, shown):
    with gr.Blocks():
        controls = Controls()
    updates = controls.updates(desk.sheet, own, several)
    assert updates[controls.parts["a2.cards"]]["visible"] == shown
