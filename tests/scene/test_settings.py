"""A setting is declared once: what follows from it holds for each, whoever has declared it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import gradio as gr
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from app.create.controls import Controls
from app.create.desks import Desks
from app.create.sheet import kept_settings, page_settings
from engine.door.arguments import parse
from engine.scene.engines import all_engines
from engine.scene.scene import Sampling
from engine.scene.settings import Setting, declared, spelled

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2),
    st.just(10**400), st.just(-(10**400)), st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)  # fmt: skip


@dataclass(frozen=True)
class Some:
    """One of each kind."""

    count: Annotated[int, Field(ge=1, le=9), Setting("Count", control="slider")] = 3
    share: Annotated[float, Field(gt=0, le=1), Setting("Share", control="slider", step=0.1)] = 0.5
    most: Annotated[int | None, Field(ge=0, le=5), Setting("Most", control="number")] = None
    fast: Annotated[bool, Setting("Fast", control="checkbox")] = False
    way: Annotated[
        Literal["a", "b"] | None, Setting("Way", control="radio", choices={None: "As planned", "a": "A"})
    ] = None
    both: Annotated[bool | None, Setting("Both", control="radio", choices={None: "?", True: "Yes", False: "No"})] = None
    silent: str = "not declared"


FIELDS = declared(Some)


def test_a_field_without_a_setting_is_nobody_s_to_set():
    assert list(FIELDS) == ["count", "share", "most", "fast", "way", "both"]


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [("count", 0, 1), ("count", 10**400, 9), ("count", 4.7, 4), ("count", "5", 3), ("count", True, 3),
     ("count", None, 3), ("count", math.nan, 3), ("count", math.inf, 9), ("share", 0, 0.1), ("share", 0.01, 0.01),
     ("share", -math.inf, 0.1),
     ("most", None, None), ("most", 7, 5), ("most", "x", None), ("fast", True, True), ("fast", 1, False),
     ("way", "a", "a"), ("way", "b", None), ("way", "", None), ("both", "on", True), ("both", "off", False),
     ("both", False, False), ("both", 0, None)],
)  # fmt: skip
def test_what_a_browser_sends_is_brought_into_range_or_left_out(name, value, taken):
    found = FIELDS[name].taken(value, FIELDS[name].default)
    assert (found, type(found)) == (taken, type(taken))
    assert FIELDS[name].holds(found)


@given(st.sampled_from(sorted(FIELDS)), ANYTHING)
def test_whatever_comes_is_taken_as_something_that_holds(name, value):
    assert FIELDS[name].holds(FIELDS[name].taken(value, FIELDS[name].default))


def test_every_default_holds_and_every_choice_of_the_page_comes_back():
    for each in page_settings().values():
        assert each.holds(each.default)
        if each.setting.control in ("radio", "dropdown"):
            assert [each.taken(spelled(value), "none") for value in each.offered] == list(each.offered)


def test_every_setting_has_its_control_with_its_whole_range():
    with gr.Blocks():
        controls = Controls()
    assert set(controls.parts) == set(page_settings())
    for key, part in controls.parts.items():
        each = page_settings()[key]
        assert part.label == each.setting.label != ""
        if isinstance(part, gr.Slider):
            assert (part.minimum, part.maximum, part.value) == (each.lowest, each.high, each.default)
    for name, number in declared(Sampling).items():
        assert Sampling.model_validate({name: number.high})
        assert Sampling.model_validate({name: number.kind(number.lowest)})


def test_guests_see_no_control_that_would_do_nothing_for_them(tmp_path):
    desk = Desks(tmp_path).new()
    desk.put("engine", "a2")
    with gr.Blocks():
        controls = Controls()
    for own_machine in (True, False):
        shown = controls.updates(desk.sheet, own_machine) | controls.lora_updates(desk.sheet, [], own_machine)
        for key in ("a2.precision", "a2.offload", "a2.resident_blocks", "a2.batched_guidance"):
            assert shown[controls.parts[key]]["visible"] == own_machine
        assert shown[controls.loras[0]]["visible"] == own_machine
        assert shown[controls.parts["a2.turbo"]]["visible"]


def test_a_control_reaches_down_to_what_a_scene_file_holds(tmp_path):
    desk = Desks(tmp_path).new()
    desk.put("sampling.flow_shift", 0.01)
    assert desk.sheet.sampling["flow_shift"] == 0.01
    with gr.Blocks():
        controls = Controls()
    shown = controls.updates(desk.sheet, True)[controls.parts["sampling.flow_shift"]]
    assert (shown["value"], shown["minimum"]) == (0.01, 0.01)


@pytest.mark.parametrize(
    ("key", "in_json", "said"),
    [("sampling.steps", True, "Use 1 to 200."), ("a2.resident_blocks", True, "Use 0 to 1000, or null."),
     ("a2.resident_blocks", False, "Use 0 to 1000."), ("a2.batched_guidance", True, "Use null or true or false."),
     ("a2.precision", True, 'Use null or "bf16" or "int8" or "fp8".')],
)  # fmt: skip
def test_what_may_be_chosen_is_said_as_it_is_written(key, in_json, said):
    assert page_settings()[key].range_said(in_json) == said


def test_every_flag_is_understood_and_its_default_is_to_say_nothing():
    arguments = vars(parse(["s.json", "-o", "o.mp4"]))
    for engine in all_engines():
        for name, each in declared(engine.options).items():
            assert (name in arguments) == bool(each.setting.flag)
            assert arguments.get(name) is None


def test_a_desk_of_an_earlier_version_has_its_settings_where_they_now_are(tmp_path):
    earlier = {"steps": 33, "guidance": 2, "flow_shift": 3.0, "turbo": True, "step_cache": False, "attention": "sage",
               "precision": "int8", "offload": "", "resident": 3, "guidance_passes": "in turn"}  # fmt: skip
    desk = Desks(tmp_path).new()
    desk.sheet.settings = kept_settings(earlier)
    desk.put("engine", "a2")
    assert desk.sheet.is_sound()
    options = desk.sheet.options(own_machine=True)
    assert (options.precision, options.offload, options.resident_blocks, options.batched_guidance) == (
        "int8",
        None,
        3,
        False,
    )
    assert (options.turbo, options.step_cache, options.attention) == (True, False, "sage")
    assert desk.sheet.sampling == {"steps": 33, "guidance": 2.0, "flow_shift": 3.0, "image_guidance": None}
    guests = desk.sheet.options(own_machine=False)
    assert (guests.precision, guests.batched_guidance, guests.turbo) == (None, None, True)
    assert kept_settings({"settings": {"a2.turbo": True, "a3.turbo": True}}) == {"a2.turbo": True}
