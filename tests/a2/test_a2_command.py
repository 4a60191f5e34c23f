"""The a2 engine behind the door and on the command line: what is told, what is refused, what is left behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from engine.a2.options import A2Options
from engine.door import command
from engine.door.render import Progress, RenderRequest, render
from engine.errors import EngineUnavailable, Stopped
from engine.media.video import probe, read_scene
from engine.scene.scene_file import load_scene
from tests.tiny import GOLDEN, TINY

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> None:
    """On the slowest machine no render here counts as a long one, of which a few lines more are told."""
    monkeypatch.setattr(command._ProgressLine, "_PATIENCE", 3600.0)


@pytest.fixture
def scene_file(tmp_path: Path) -> Path:
    folder = tmp_path / "scene"
    shutil.copytree(GOLDEN, folder)
    path = folder / "two_references.json"
    change(
        path, sampling={"steps": 2, "guidance": 2.0}, video={"width": 64, "height": 64, "frames": 13, "trim_head": 4}
    )
    return path


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")


def run(capsys, scene: Path, out: Path, *flags: object) -> tuple[int, list[str]]:
    arguments = [scene, "-o", out, *flags]
    try:
        status = command.main([str(argument) for argument in arguments])
    except SystemExit as exit:
        status = exit.code
    return status, capsys.readouterr().err.splitlines()


ON_TINY = ("--model", TINY, "--device", "cpu")


def test_a_clip_is_trimmed_and_says_what_it_was_made_from(scene_file, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    status, lines = run(capsys, scene_file, out, *ON_TINY)
    assert status == 0, lines
    assert len(lines) == 1
    assert "9 frames" in lines[0]
    assert "(a2)" in lines[0]
    assert probe(out).frames == 9
    assert read_scene(out) == load_scene(scene_file)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--resident-blocks", "4"], "--resident-blocks 4"),
        (["--offload", "none", "--resident-blocks", "4"], "--resident-blocks 4"),
        (["--offload", "blocks", "--resident-blocks", "-1"], "--resident-blocks -1"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--device", "teapot"], "teapot"),
        (["--model", "nowhere"], "nowhere"),
        (["--model", "~nobody-of-that-name/model"], "is not there"),
        (["--model", "m" * 5000], "is not there"),
        (["--save-latents", "."], "is a folder"),
        (["--state", "."], "is a folder"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_any_work(scene_file, tmp_path, capsys, flags, says):
    status, lines = run(capsys, scene_file, tmp_path / "out.mp4", *ON_TINY, *flags)
    assert status == 1
    assert len(lines) == 1
    assert says in lines[0]
    assert sorted(os.listdir(tmp_path)) == ["scene"]


@pytest.mark.parametrize("flag", ["--state", "--save-latents"])
def test_what_is_no_run_of_ours_is_never_replaced(scene_file, tmp_path, capsys, flag):
    notes = tmp_path / "notes.txt"
    victims = {scene_file: "is the scene, too", tmp_path / "out.mp4": "is -o, too", notes: "is there already"}
    for victim, says in victims.items():
        notes.write_text("mine, and longer than nine bytes")
        before = victim.read_bytes() if victim.exists() else None
        status, lines = run(capsys, scene_file, tmp_path / "out.mp4", *ON_TINY, flag, victim)
        assert (status, len(lines)) == (1, 1)
        assert says in lines[0]
        assert (victim.read_bytes() if victim.exists() else None) == before


def test_a_state_may_have_any_name_and_is_taken_up_again(scene_file, tmp_path, capsys):
    for _ in range(2):
        status, lines = run(capsys, scene_file, tmp_path / "out.mp4", *ON_TINY, "--state", tmp_path / "run.keep")
        assert status == 0, lines


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "fp8"])
def test_streamed_blocks_give_the_same_latents_bit_for_bit(scene_file, tmp_path, capsys, monkeypatch, precision):
    from safetensors.numpy import load_file

    from engine.a2 import loading

    if precision in ("int8", "fp8"):
        pytest.importorskip("optimum.quanto")
    monkeypatch.setattr(loading, "cache_folder", lambda: tmp_path / "quantised")
    blocks = ["--offload", "blocks", "--resident-blocks"]
    ways, found = [[], ["--offload", "none"], [*blocks, 0], [*blocks, 2]], []
    for number, flags in enumerate(ways):
        latents = tmp_path / f"{number}.safetensors"
        how = ["--precision", precision, "--save-latents", latents, *flags]
        status, lines = run(capsys, scene_file, tmp_path / "out.mp4", *ON_TINY, *how)
        assert status == 0, lines
        found.append(load_file(latents)["latents"].tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("video", "says"),
    [
        ({"frames": 14}, "4k + 1"),
        ({"width": 100}, "video.width"),
        ({"frames": 9}, "video.trim_head"),  # whose default is 12
    ],
)
def test_an_impossible_clip_names_the_field(scene_file, tmp_path, capsys, video, says):
    change(scene_file, video={"width": 64, "height": 64, **video})
    status, lines = run(capsys, scene_file, tmp_path / "out.mp4", *ON_TINY)
    assert (status, len(lines)) == (1, 1)
    assert says in lines[0]


def test_a_damaged_checkpoint_is_one_line_that_names_the_file(scene_file, tmp_path, capsys):
    folder = tmp_path / "checkpoint"
    shutil.copytree(TINY, folder)
    (folder / VAE).write_bytes((folder / VAE).read_bytes()[:-9])
    status, lines = run(capsys, scene_file, tmp_path / "out.mp4", "--model", folder)
    assert (status, len(lines)) == (1, 1)
    assert VAE in lines[0]
    assert not (tmp_path / "out.mp4").exists()


def request_for(scene_file: Path, out: Path) -> RenderRequest:
    options = A2Options(model=str(TINY), device="cpu")
    return RenderRequest(load_scene(scene_file), scene_file.parent, out, poster=False, options=options)


def test_progress_tells_every_stage(scene_file, tmp_path):
    told: list[Progress] = []
    render(request_for(scene_file, tmp_path / "out.mp4"), told.append)
    stages = list(dict.fromkeys(progress.stage for progress in told))
    assert stages == ["cast", "loading", "conditioning", "sampling", "decoding"]
    assert [p.detail for p in told if p.stage == "loading"][:2] == ["text_encoder", "image_encoder"]
    assert [p.step for p in told if p.stage == "sampling"] == [0, 1, 2]
    assert [(p.step, p.of) for p in told if p.stage == "decoding"] == [(step, 9) for step in range(10)]


@pytest.mark.parametrize("stage", ["loading", "conditioning", "sampling", "decoding"])
def test_stop_ends_it_in_any_stage_and_leaves_nothing(scene_file, tmp_path, stage):
    told: list[Progress] = []
    with pytest.raises(Stopped):
        render(
            request_for(scene_file, tmp_path / "out.mp4"), told.append, lambda: bool(told) and told[-1].stage == stage
        )
    assert told[-1].stage == stage
    assert sorted(os.listdir(tmp_path)) == ["scene"]


def test_too_little_memory_says_what_to_change(scene_file, tmp_path, capsys, monkeypatch):
    from engine.a2 import recipe

    def hungry(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(recipe, "sample", hungry)
    status, lines = run(capsys, scene_file, tmp_path / "out.mp4", *ON_TINY)
    assert (status, len(lines)) == (1, 1)
    assert "smaller or shorter" in lines[0]


# ---------------------------------------------------------------------------
# What nobody has said is planned


def machine(monkeypatch, **facts: object) -> None:
    from engine.a2 import here
    from tests.a2.test_plan import hardware

    card, memory = facts.pop("vram", None), facts.pop("ram", 64)
    monkeypatch.setattr(here, "read_hardware", lambda *_: hardware(card, memory, **facts))


def planned(**options: object) -> A2Options:
    from engine.scene.engines import find_engine

    scene = load_scene(GOLDEN / "three_references.json")
    return find_engine("a2").planned(scene, A2Options(**options), Path())


def test_without_flags_a_clip_is_run_as_planned(monkeypatch):
    machine(monkeypatch, vram=11.4, ram=28)
    options = planned()
    assert (options.precision, options.offload, options.together) == ("int8", "blocks", False)
    assert 0 < options.resident_blocks < 40
    assert options.chunk > 0


def test_what_was_said_is_kept_and_the_rest_is_planned(monkeypatch):
    machine(monkeypatch, vram=11.4, ram=28)
    options = planned(precision="fp8", resident_blocks=3, offload="blocks")
    assert (options.precision, options.resident_blocks, options.offload) == ("fp8", 3, "blocks")
    assert options.chunk > 0
    assert planned(device="cpu", precision="int8") == A2Options(device="cpu", precision="int8")


def test_what_cannot_fit_is_refused_with_the_numbers_and_how_to_insist(monkeypatch, scene_file, tmp_path, capsys):
    machine(monkeypatch, vram=2, ram=6)
    with pytest.raises(
        EngineUnavailable, match=r"needs \d+\.\d GB of the card, 2\.0 GB are free.*--precision or --offload"
    ):
        planned()
    assert planned(precision="int8").precision == "int8"  # who insists may try
    machine(monkeypatch, vram=None, ram=0.3)
    status, lines = run(capsys, scene_file, tmp_path / "out.mp4", "--model", TINY)
    assert status == 1
    assert "0.3 GB are free" in lines[-1]
    assert not (tmp_path / "out.mp4").exists()


def test_a_device_that_was_named_is_the_one_that_is_planned_for(monkeypatch):
    machine(monkeypatch, vram=24, ram=64)
    assert planned(device="cpu").offload == "none"
    assert planned(device="cuda").offload == "blocks"


def test_a_run_that_was_kept_goes_on_in_its_precision(monkeypatch, scene_file, tmp_path, capsys):
    state = tmp_path / "run.safetensors"
    assert run(capsys, scene_file, tmp_path / "a.mp4", *ON_TINY, "--precision", "bf16", "--state", state)[0] == 0
    machine(monkeypatch, vram=11.4, ram=28)
    assert planned().precision == "int8"
    assert planned(state=state).precision == "bf16"
    assert planned(state=tmp_path / "none").precision == "int8"


def test_where_nothing_is_known_of_a_machine_nothing_is_refused(monkeypatch):
    machine(monkeypatch, vram=None, ram=1, ram_free=None)
    assert planned() == A2Options()
    machine(monkeypatch, vram=3, ram=8, vram_total=24 * 2**30, ram_total=64 * 2**30)
    assert planned().offload == "blocks"  # others hold the card now: it is tried with what needs least
