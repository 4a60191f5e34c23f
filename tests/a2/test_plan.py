"""Plans for the 14B model, from shapes alone: sensible, monotone, readable; calibration that is remembered."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.a2.files import read_checkpoint
from engine.a2.geometry import ClipSize, size_of
from engine.a2.plan.calibration import Machine, learn, recall, remember
from engine.a2.plan.choose import Overrides
from engine.a2.plan.plan import make_plan
from engine.a2.plan.shapes import default_shapes, read_shapes
from engine.a2.plan.speed import Speed
from engine.memory.hardware import Fact, Hardware
from engine.scene.scene_file import load_scene
from engine.words import GIB

GB = 2**30
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SPEED = Speed(matmul=70e12, attention=90e12, single=20e12, convolution=20e12, widen=2e11, copy=20e9, pageable=6e9)
MACHINE = Machine("RTX 3060", "2.13.0", "int8")


def hardware(vram: float | None, ram: float, **facts: object) -> Hardware:
    """`vram` and `ram` are free, in GB; no card where `vram` is None."""
    card = None if vram is None else round(vram * GIB)
    values = {
        "device": "cpu" if card is None else "cuda", "name": "a card", "vram_total": card, "vram_free": card,
        "ram_total": round(ram * GIB), "ram_free": round(ram * GIB), "pinned_limit": None, "disk_free": 500 * GIB,
        "bf16": True, "fp8": False, "torch": "2.13.0",
    }  # fmt: skip
    return Hardware(**{name: Fact(value, "as the test says") for name, value in {**values, **facts}.items()})


def test_the_counts_are_those_of_the_files():
    shapes, files = read_shapes(FIXTURES / "a2_tiny"), read_checkpoint(FIXTURES / "a2_tiny")
    counts = {
        "transformer": shapes.transformer.weights, "text_encoder": shapes.text.weights,
        "image_encoder": shapes.image.weights, "vae": shapes.vae.weights,
    }  # fmt: skip
    for name, weights in counts.items():
        assert weights.count == sum(math.prod(shape) for shape, _ in files[name].tensors.values()), name
    assert shapes.file_bytes == sum(part.bytes for part in files.values())


def test_a_14b_clip_fits_a_card_of_6_gb_with_24_gb_of_memory():
    plan = make_plan(hardware(5.6, 22), ClipSize(832, 480, 81), speed=SPEED)
    assert plan.fits, plan.sentence()
    assert (plan.settings.precision, plan.settings.offload, plan.settings.host) == ("int8", "blocks", "pinned")
    assert all(stage.vram <= 5.6 * GIB and stage.ram <= 22 * GIB for stage in plan.stages)


@pytest.mark.parametrize("vram", [6, 8, 12, 16, 24, 80])
@pytest.mark.parametrize("ram", [16, 24, 32, 64])
def test_plans_stay_within_the_machine(vram, ram):
    plan = make_plan(hardware(vram - 0.4, ram - 2), ClipSize(), speed=SPEED)
    assert plan.fits, plan.sentence()
    assert plan.vram <= (vram - 0.4) * GIB
    assert plan.ram <= (ram - 2) * GIB
    if vram == 80:
        assert (plan.settings.precision, plan.settings.offload, plan.settings.together) == ("bf16", "none", True)
    if vram <= 16:
        assert plan.settings.offload == "blocks"
        assert plan.vram > (vram - 1.2) * GIB  # what is there is used


def test_a_card_without_bf16_is_planned_in_8_bits_and_with_the_numbers_that_it_computes_with():
    turing, ampere = (make_plan(hardware(7.6, 30, bf16=has), ClipSize(), speed=SPEED) for has in (False, True))
    assert (turing.settings.precision, turing.settings.number, turing.settings.of_text) == ("int8", 2, 4)
    assert ampere.settings.number == 2
    assert turing.stages[0].vram > ampere.stages[0].vram, "a prompt is read in float32 there"
    assert make_plan(hardware(80, 64, bf16=False), ClipSize()).settings.precision == "int8"
    assert make_plan(hardware(80, 64, bf16=None), ClipSize()).settings.precision == "bf16"  # nobody knows


def test_what_the_step_cache_and_loras_take_is_planned():
    machine, clip = hardware(11.4, 30), ClipSize()
    plain = make_plan(machine, clip)
    cached, adapted = (
        make_plan(machine, replace(clip, step_cache=True)),
        make_plan(machine, replace(clip, adapters=2 * GB)),
    )
    assert cached.settings.resident < plain.settings.resident
    assert adapted.settings.resident < plain.settings.resident
    assert cached.vram <= 11.4 * GIB
    assert adapted.vram <= 11.4 * GIB


def test_at_no_stage_resident_blocks_are_in_the_way_of_others():
    """They lend what they take: the VAE has its room though sampling fills the card."""
    for vram in (6, 8, 12, 16, 24):
        plan = make_plan(hardware(vram * 0.95, 26), ClipSize(), speed=SPEED)
        needs = {need.name: need for need in plan.stages}
        assert needs["sampling"].vram > 0.85 * vram * 0.95 * GIB
        assert needs["decoding"].vram <= vram * 0.95 * GIB


def test_little_memory_reads_blocks_from_disk_and_promises_no_time():
    plan = make_plan(hardware(7.6, 12), ClipSize(), speed=SPEED)
    assert plan.fits
    assert plan.settings.in_memory < plan.settings.streamed
    assert plan.seconds is None
    least = make_plan(hardware(7.6, 5), ClipSize(416, 240), speed=SPEED)
    assert least.fits, least.sentence()
    assert least.settings.in_memory < 3


def test_more_than_can_be_pinned_is_not_pinned():
    plan = make_plan(hardware(7.6, 22, pinned_limit=10 * GIB), ClipSize())
    assert plan.settings.host == "pageable"


@settings(max_examples=60)
@given(
    vram=st.floats(3, 90), more=st.floats(0.1, 30), ram=st.floats(6, 128),
    frames=st.integers(2, 40).map(lambda k: 4 * k + 1),
    side=st.sampled_from([(832, 480), (480, 832), (1280, 720), (416, 240)]),
)  # fmt: skip
def test_more_card_never_means_slower_or_fewer_resident_blocks(vram, more, ram, frames, side):
    clip = ClipSize(*side, frames)
    small, large = (make_plan(hardware(size, ram), clip, speed=SPEED) for size in (vram, vram + more))
    assert small.fits <= large.fits
    assert small.settings.resident <= large.settings.resident
    if small.fits and small.seconds is not None:
        assert large.seconds <= small.seconds * (1 + 1e-9)


@settings(max_examples=40)
@given(ram=st.floats(3, 128), more=st.floats(0.1, 64), vram=st.one_of(st.none(), st.floats(3, 48)))
def test_more_memory_never_makes_a_clip_impossible(ram, more, vram):
    small, large = (make_plan(hardware(vram, size), ClipSize()) for size in (ram, ram + more))
    assert small.fits <= large.fits


@settings(max_examples=40)
@given(
    vram=st.floats(3, 90), ram=st.floats(6, 128),
    overrides=st.builds(
        Overrides, precision=st.sampled_from([None, "bf16", "int8", "fp8"]),
        offload=st.sampled_from([None, "none", "blocks"]),
        resident_blocks=st.one_of(st.none(), st.integers(-1, 50)),
        batched_guidance=st.sampled_from([None, True, False]),
        chunk=st.sampled_from([None, 0, 1024]), tile=st.sampled_from([None, 0, 40, 64]),
        together=st.sampled_from([None, True, False]),
    ),
)  # fmt: skip
def test_what_fits_is_within_the_machine_and_what_does_not_says_so_in_numbers(vram, ram, overrides):
    plan = make_plan(hardware(vram, ram), ClipSize(), overrides=overrides)
    if plan.fits:
        assert plan.vram <= vram * GIB + 1
        assert plan.ram <= ram * GIB + 1
    else:
        assert all(re.search(r"\d", problem) for problem in plan.problems)
    json.dumps(plan.to_dict())


def test_a_persons_choices_stand_and_are_marked():
    asked = Overrides(precision="fp8", resident_blocks=2, batched_guidance=False, chunk=2048, tile=48)
    plan = make_plan(hardware(11, 30), ClipSize(), overrides=asked)
    assert plan.fits, plan.sentence()
    assert (plan.settings.precision, plan.settings.resident, plan.settings.chunk) == ("fp8", 2, 2048)
    assert plan.settings.tiling.tile == 48
    assert {choice.name for choice in plan.choices if choice.forced} == {
        "precision", "resident_blocks", "batched_guidance", "chunk", "tile",
    }  # fmt: skip


def test_an_impossible_choice_is_said_with_numbers_and_what_would_do():
    plan = make_plan(hardware(7.5, 30), ClipSize(), overrides=Overrides(resident_blocks=30))
    assert not plan.fits
    assert re.search(r"needs 1\d\.\d GB of the card, 7\.5 GB are free", plan.sentence())
    most = int(re.search(r"with (\d+) resident blocks", plan.sentence()).group(1))
    assert make_plan(hardware(7.5, 30), ClipSize(), overrides=Overrides(resident_blocks=most)).fits
    assert not make_plan(hardware(7.5, 30), ClipSize(), overrides=Overrides(resident_blocks=most + 1)).fits
    assert (
        "41 resident blocks were asked for; the model has 40"
        in make_plan(hardware(90, 90), ClipSize(), overrides=Overrides(resident_blocks=41)).sentence()
    )


def test_where_nothing_fits_each_remedy_is_true():
    machine, clip = hardware(7.5, 30), ClipSize(1280, 720, 161)
    said = make_plan(machine, clip).sentence()
    frames = int(re.search(r"with (\d+) frames", said).group(1))
    assert make_plan(machine, replace(clip, frames=frames)).fits
    assert not make_plan(machine, replace(clip, frames=frames + 4)).fits
    width, height = map(int, re.search(r"at (\d+)×(\d+)", said).groups())
    assert make_plan(machine, replace(clip, width=width, height=height)).fits
    card = float(re.search(r"with (\d+\.\d) GB free on the card", said).group(1))
    assert make_plan(hardware(card, 30), clip).fits


def test_a_model_that_is_not_there_needs_room_on_the_disk():
    full = make_plan(hardware(24, 64, disk_free=10 * GIB), ClipSize())
    assert not full.fits
    assert "of disk, 10.0 GB are free" in full.sentence()
    assert make_plan(hardware(24, 64, disk_free=10 * GIB), ClipSize(), replace(default_shapes(), file_bytes=1)).fits


def test_the_sentence_is_for_a_person():
    small = make_plan(hardware(7.5, 30, vram_total=8 * GIB), ClipSize(), speed=SPEED).sentence()
    assert re.fullmatch(
        r"fits: \d\.\d of 8 GB, about \d+ minutes, int8, \d+ of 40 blocks resident, because .+ are free", small
    )
    assert "time not measured yet" in make_plan(hardware(7.5, 30), ClipSize()).sentence()
    assert "of memory" in make_plan(hardware(None, 90), ClipSize()).sentence()


def test_a_machine_of_which_nothing_is_known_is_not_promised_anything():
    blank = dict.fromkeys(("vram_total", "vram_free", "ram_total", "ram_free", "disk_free"))
    assert not make_plan(hardware(None, 8, **blank), ClipSize()).fits


def test_a_scene_says_the_clip():
    scene = load_scene(FIXTURES / "golden" / "three_references.json")
    assert size_of(scene).references == 3
    assert size_of(scene).frames == scene.video.frames


def test_a_speed_is_remembered_for_its_machine_only(tmp_path):
    file = tmp_path / "new" / "speeds.json"
    remember(MACHINE, SPEED, file)
    assert recall(MACHINE, file) == SPEED
    assert recall(replace(MACHINE, torch="2.12.0"), file) is None
    remember(replace(MACHINE, precision="bf16"), SPEED, file)
    assert recall(MACHINE, file) == SPEED
    assert [path.name for path in file.parent.iterdir()] == ["speeds.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"RTX 3060 | torch 2.13.0 | int8": {"matmul": -1}}'])
def test_a_damaged_file_of_speeds_is_as_none(tmp_path, text):
    file = tmp_path / "speeds.json"
    file.write_text(text)
    assert recall(MACHINE, file) is None
    remember(MACHINE, SPEED, file)
    assert recall(MACHINE, file) == SPEED


def test_jobs_set_the_prediction_right(tmp_path):
    file, machine = tmp_path / "speeds.json", hardware(7.5, 30)
    remember(MACHINE, SPEED, file)
    before = make_plan(machine, ClipSize(), speed=SPEED)
    stage = next(stage for stage in before.stages if stage.name == "sampling")
    truth = 1.7 * stage.seconds
    for _ in range(8):
        plan = make_plan(machine, ClipSize(), speed=recall(MACHINE, file))
        predicted = next(stage.seconds for stage in plan.stages if stage.name == "sampling")
        learn(MACHINE, "sampling", predicted, truth, file)
    assert predicted == pytest.approx(truth, rel=0.05)
    for senseless in (0.0, -1.0, math.inf, math.nan):
        learn(MACHINE, "sampling", 1.0, senseless, file)
    assert recall(MACHINE, file).corrections["sampling"] == pytest.approx(1.7, rel=0.05)
