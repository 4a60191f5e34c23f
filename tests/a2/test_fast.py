"""Fast: what is worth it on a machine, never against what was chosen; and what the plan makes of such choices."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from engine.a2.engine import ENGINE
from engine.a2.geometry import ClipSize
from engine.a2.options import A2Options, check_speed, of_the_model, sized
from engine.a2.plan import planner as planners
from engine.a2.plan.calibration import Machine, recall, remember
from engine.a2.plan.choose import Overrides
from engine.a2.plan.fallbacks import Way, next_way
from engine.a2.plan.fast import Abilities, abilities_of, as_fast, operations, said_of
from engine.a2.plan.plan import make_plan
from engine.a2.plan.planner import A2Planner
from engine.a2.plan.speed import Speed
from engine.errors import EngineUnavailable
from engine.scene.engine import Lora
from tests.a2.test_plan import SPEED, hardware
from tests.tiny import TRIO, a_scene

ALL = Abilities(bf16=True, int8=True, fp8=True, compiles=True)
LONG, SHORT = ClipSize(), ClipSize(416, 240, 17, 10)
FAST = A2Options(fast=True)
TIMED = replace(
    SPEED, attentions={"native": 90e12, "cudnn": 150e12, "flash": 160e12}, w8a8=140e12, convolution_bf16=4e13
)


# -- what Fast turns on ------------------------------------------------------------------


def test_without_it_nothing_changes():
    assert as_fast(A2Options(), LONG, ALL) == A2Options()


def test_all_that_a_good_card_has_is_used_for_a_long_clip():
    made = as_fast(FAST, LONG, ALL)
    assert (made.step_cache, made.w8a8, made.compiled, made.vae_precision) == (True, True, True, "bf16")
    assert made.weights == "int8"
    assert as_fast(made, LONG, ALL) == made


def test_a_short_clip_is_not_compiled():
    assert operations(SHORT) < 1e17 < operations(LONG)
    assert as_fast(FAST, SHORT, ALL).compiled is False


def test_turbo_has_no_step_cache():
    made = as_fast(replace(FAST, turbo=True, loras=(Lora("x.safetensors"),)), LONG, ALL)
    assert not made.step_cache
    check_speed(made)


@pytest.mark.parametrize("chosen", [
    {"w8a8": False}, {"compiled": False}, {"vae_precision": "fp32"}, {"w8a8": True}, {"step_cache": True},
    {"attention": "native"}, {"precision": "bf16"},
], ids=str)  # fmt: skip
def test_what_was_chosen_stays(chosen):
    for able in (ALL, Abilities()):
        made = as_fast(replace(FAST, **chosen), LONG, able)
        assert {name: getattr(made, name) for name in chosen} == chosen


@pytest.mark.parametrize(("precision", "able", "used"), [
    (None, ALL, True), ("int8", ALL, True), ("fp8", ALL, True), ("bf16", ALL, False), ("fp32", ALL, False),
    ("fp8", replace(ALL, fp8=False), False), (None, replace(ALL, int8=False), False),
])  # fmt: skip
def test_eight_bits_only_where_card_and_weights_have_them(precision, able, used):
    made = as_fast(replace(FAST, precision=precision), LONG, able)
    assert made.w8a8 == used
    check_speed(made)


def test_a_processor_gets_the_step_cache_alone():
    made = as_fast(FAST, LONG, abilities_of(hardware(None, 64), on_card=True))
    assert (made.step_cache, made.w8a8, made.compiled, made.vae_precision) == (True, False, False, "fp32")
    assert abilities_of(hardware(24, 64), on_card=False) == Abilities()


def test_what_a_card_can_do_is_read_from_what_is_known_of_it(monkeypatch):
    monkeypatch.setattr("engine.a2.plan.fast.might_compile", lambda: True)
    assert abilities_of(hardware(24, 64, fp8=True), on_card=True) == ALL
    assert abilities_of(hardware(16, 64, bf16=False), on_card=True) == Abilities()
    assert abilities_of(hardware(16, 64, bf16=None, fp8=None), on_card=True) == Abilities()


def test_eight_bits_that_were_measured_to_be_slower_are_not_used(monkeypatch):
    monkeypatch.setattr("engine.a2.plan.fast.might_compile", lambda: True)
    machine = hardware(24, 64, fp8=True)
    assert abilities_of(machine, True, replace(TIMED, w8a8=60e12)) == replace(ALL, int8=False)
    assert abilities_of(machine, True, TIMED) == abilities_of(machine, True, SPEED) == ALL


def test_it_says_what_it_used():
    assert said_of(as_fast(FAST, LONG, ALL)) == (
        "Fast: with the step cache, 8-bit multiplication, a compiled model, the VAE in bf16."
    )
    assert said_of(as_fast(replace(FAST, turbo=True), SHORT, Abilities())) == "Fast: nothing of it is worth it here."
    assert said_of(A2Options(step_cache=True)) == ""
    assert any("Fast changes the picture" in said for said in ENGINE.remarks(a_scene(TRIO), FAST))


# -- options that do not go together -------------------------------------------------------


@pytest.mark.parametrize(("options", "says"), [
    ({"w8a8": True, "precision": "bf16"}, "these are bf16"), ({"w8a8": True, "precision": "fp32"}, "these are fp32"),
    ({"w8a8": True, "precision": "fp8", "attention": "sage"}, "black frames"),
])  # fmt: skip
def test_what_does_not_go_with_eight_bits_is_refused(options, says):
    with pytest.raises(EngineUnavailable, match=says):
        check_speed(A2Options(**options))
    check_speed(replace(A2Options(**options), w8a8=None))


def test_eight_bit_products_want_eight_bit_weights_and_another_model_is_loaded_for_them():
    assert of_the_model(A2Options(w8a8=True)) == of_the_model(A2Options(precision="int8"))
    assert of_the_model(A2Options(w8a8=True, precision="fp8")) == of_the_model(A2Options(precision="fp8"))
    assert of_the_model(A2Options(compiled=True, vae_precision="bf16")) == of_the_model(A2Options())


# -- the plan --------------------------------------------------------------------------------


@pytest.fixture
def planner(monkeypatch, tmp_path):
    """A planner whose machine was measured."""
    machine = hardware(22.5, 60, name="a card", fp8=True)
    monkeypatch.setattr(planners, "speeds_file", lambda: tmp_path / "speeds.json")
    monkeypatch.setattr("engine.a2.plan.fast.might_compile", lambda: True)
    monkeypatch.setattr("engine.a2.attention.importlib.util.find_spec", lambda name: object())
    remember(Machine("a card", "2.13.0", "bf16"), TIMED, tmp_path / "speeds.json")
    return lambda options, video=None: A2Planner().plan(
        machine, a_scene(TRIO, video or {"width": 832, "height": 480, "frames": 81}, sampling={"steps": 50}), options
    )


def test_the_plan_spells_fast_out_and_the_job_is_run_so(planner):
    plan = planner(FAST)
    made = plan.applied(FAST)
    assert (made.step_cache, made.w8a8, made.compiled, made.vae_precision) == (True, True, True, "bf16")
    assert (made.precision, made.attention) == ("int8", "flash")
    assert "int8 (W8A8)" in plan.sentence()
    json.dumps(plan.to_dict())


def test_the_fastest_attention_is_chosen_unless_a_person_chose(planner, monkeypatch):
    assert planner(A2Options()).applied(A2Options()).attention == "flash"
    for chosen in ("native", "sage"):
        asked = A2Options(attention=chosen)
        assert planner(asked).applied(asked).attention == chosen
    monkeypatch.setattr("engine.a2.attention.importlib.util.find_spec", lambda name: None)
    assert planner(A2Options()).applied(A2Options()).attention is None  # it was taken off since


def test_seconds_are_those_of_what_is_used(planner):
    def seconds(stage: int, **options: object) -> float:
        return planner(A2Options(precision="int8", **options)).stages[stage].seconds

    assert seconds(2, attention="flash") < seconds(2, attention="cudnn") < seconds(2, attention="native")
    assert seconds(2, w8a8=True) < seconds(2)
    assert seconds(3, vae_precision="bf16") == pytest.approx(seconds(3) / 2)


def test_a_vae_of_half_the_bytes_decodes_whole_where_the_other_needs_tiles():
    fp32, bf16 = (
        make_plan(hardware(6.5, 60), sized(LONG, A2Options(vae_precision=how))).settings for how in ("fp32", "bf16")
    )
    assert fp32.tiling is not None
    assert bf16.tiling is None


def test_the_context_is_kept_where_nothing_else_wants_the_room():
    assert not make_plan(hardware(7.5, 30), LONG).settings.keep_context  # blocks stream: these are worth more
    assert make_plan(hardware(75, 90), LONG).settings.keep_context
    plan = make_plan(hardware(75, 90), LONG)
    assert plan.applied(A2Options()).keep_context
    without = make_plan(hardware(75, 90), replace(LONG, passes=1))
    assert plan.stages[2].vram - without.stages[2].vram == pytest.approx(1.08 * 40 * 2 * 1283 * 5120 * 2, rel=0.05)


def test_memory_that_runs_out_first_costs_what_was_kept():
    way, words = next_way(Way(A2Options(keep_context=True, batched_guidance=True), LONG, True), "sampling", 3)
    assert (way.options.keep_context, way.options.batched_guidance) == (False, True)
    assert "keys and values" in words


# -- what was measured -----------------------------------------------------------------------


def test_a_kernel_has_to_be_faster_by_more_than_chance():
    assert replace(SPEED, attentions={"native": 1.0, "cudnn": 1.04}).fastest == "native"
    assert replace(SPEED, attentions={"native": 1.0, "cudnn": 1.2}).fastest == "cudnn"
    assert SPEED.fastest is None
    assert replace(SPEED, attentions={"of another version": 9.0}).fastest is None


def test_speeds_that_an_earlier_version_measured_are_read(tmp_path):
    file, machine = tmp_path / "speeds.json", Machine("a card", "2.13.0", "bf16")
    old = {
        name: value for name, value in asdict(SPEED).items() if name not in ("attentions", "w8a8", "convolution_bf16")
    }
    file.write_text(json.dumps({machine.key: old}))
    assert recall(machine, file) == SPEED
    remember(machine, TIMED, file)
    assert recall(machine, file) == TIMED
    for damage in ({"attentions": {"native": -1}}, {"attentions": 3}, {"w8a8": "fast"}):
        file.write_text(json.dumps({machine.key: {**old, **damage}}))
        assert recall(machine, file) is None


def test_what_was_not_measured_is_taken_for_what_was():
    assert make_plan(hardware(22, 60), replace(LONG, w8a8=True, vae=2), overrides=Overrides(precision="int8"),
                     speed=SPEED).seconds  # fmt: skip
    assert isinstance(SPEED, Speed)
