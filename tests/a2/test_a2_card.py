"""A card that nobody has here (tests/fake_card.py): the whole recipe runs on it at the released model's sizes, whatever
is chosen, and no stage holds more than the plan said, nor more than there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
pytest.importorskip("optimum.quanto", reason="optimum-quanto is not installed (requirements-a2.txt)")


from safetensors.torch import save_file
from torch.utils._python_dispatch import _disable_current_modes

from engine.a2 import adapters, moving
from engine.a2.geometry import ClipSize
from engine.a2.models import RELEASES, SKYREELS_A2, ReleasedModel
from engine.a2.options import A2Options, sized
from engine.a2.plan.plan import make_plan
from engine.a2.plan.shapes import shapes_of
from engine.a2.plan.sizes import CARD_PROCESS, PROCESS
from engine.a2.plan.stages import PlannedClip, rehearse
from engine.memory.card import CONTEXT
from engine.memory.ledger import Held
from engine.memory.weights import ComponentFiles
from engine.scene.engine import Lora
from engine.words import GIB
from tests import fake_card
from tests.a2.test_plan import hardware
from tests.fake_card import clip_of, clips, compute_of, configs, fake_checkpoint, hollow_module, lend_a_guard, shortened

NO_GUARD = lend_a_guard()
pytestmark = pytest.mark.skipif(bool(NO_GUARD), reason=NO_GUARD)

PHASES = ("prompt", "references", "sampling", "decoding")
ENOUGH = Held(10**14, 10**14)


def on_paper(
    options: A2Options, clip: ClipSize, layers: int | None, limits: Held = ENOUGH, model: ReleasedModel = SKYREELS_A2
) -> dict[str, Held]:
    """Return what the plan says that each phase holds, without what the process itself takes."""
    checkpoint = fake_checkpoint(compute_of(options), layers, model)
    clip = replace(sized(clip, options), adapters=clip.adapters)
    ledger = rehearse(PlannedClip(checkpoint.shapes, clip), moving.settings_of(options, checkpoint, clip), limits)
    return {phase: ledger.peaks[phase] - Held(CONTEXT, PROCESS + CARD_PROCESS) for phase in PHASES}


SMALL = ClipSize(416, 240, 17, 1)
WAYS = {
    "all on the card": {"precision": "bf16"},
    "float32": {"precision": "fp32", "offload": "blocks"},
    "in turns": {"precision": "bf16", "offload": "blocks", "resident_blocks": 2},
    "streamed": {"precision": "int8", "offload": "blocks"},
    "from the disk, in pieces": {"precision": "int8", "offload": "blocks", "host": "mapped", "chunk": 1024, "tile": 72},
    "both halves at once": {"precision": "fp8", "offload": "blocks", "resident_blocks": 1, "batched_guidance": True},
    "encoded in tiles": {"precision": "int8", "offload": "blocks", "resident_blocks": 1, "encode_tiled": True},
    "euler": {"precision": "int8", "scheduler": "euler", "chunk": 4096},
    "the context kept": {"precision": "bf16", "keep_context": True, "batched_guidance": True},
    "the context kept, in pieces": {"precision": "int8", "keep_context": True, "chunk": 1024},
    "in eight bits": {"precision": "int8", "w8a8": True, "offload": "blocks", "resident_blocks": 1},
    "in eight bits, in pieces": {"precision": "fp8", "w8a8": True, "chunk": 1024},
    "the VAE in bf16": {"precision": "bf16", "vae_precision": "bf16"},
    "the VAE in bf16, in tiles": {"precision": "int8", "vae_precision": "bf16", "tile": 40, "encode_tiled": True},
}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_runs_and_holds_what_was_planned(monkeypatch, way):
    options = A2Options(device="cuda:0", **WAYS[way])
    shortened(monkeypatch)
    foretold, seen = on_paper(options, SMALL, 2), clips(monkeypatch, options, SMALL)
    for phase in PHASES:
        # Convolutions lay their input out anew, which only a real allocator shows.
        least = 0.8 if phase in ("prompt", "sampling") else 0.6
        assert least * foretold[phase].card <= seen.peak_of(phase).card <= foretold[phase].card, phase
        assert seen.peak_of(phase).host <= foretold[phase].host, phase


RELATIVES = {
    model.title: model
    for model in RELEASES
    if model.title in ("SkyReels-V3 R2V 14B", "RefAlign 1.3B", "Phantom-Wan 1.3B")
}
OF_RELATIVES = [
    ("SkyReels-V3 R2V 14B", "all on the card"), ("SkyReels-V3 R2V 14B", "streamed"),
    ("SkyReels-V3 R2V 14B", "both halves at once"), ("RefAlign 1.3B", "streamed"),
    ("RefAlign 1.3B", "both halves at once"), ("Phantom-Wan 1.3B", "all on the card"),
]  # fmt: skip


@pytest.mark.parametrize(("title", "way"), OF_RELATIVES)
def test_every_relative_runs_and_holds_what_was_planned(monkeypatch, title, way):
    model, options = RELATIVES[title], A2Options(device="cuda:0", **WAYS[way])
    clip = clip_of(model, 416, 240, 17, 1)
    shortened(monkeypatch)
    foretold = on_paper(options, clip, 2, model=model)
    seen = clips(monkeypatch, options, clip, model=model)
    for phase in PHASES:
        least = {"sampling": 0.75, "prompt": 0.6}.get(phase, 0.5)
        assert least * foretold[phase].card <= seen.peak_of(phase).card <= foretold[phase].card, phase
        assert seen.peak_of(phase).host <= foretold[phase].host, phase


def test_what_the_step_cache_keeps_was_planned_and_is_gone_before_decoding(monkeypatch):
    options = A2Options(device="cuda:0", precision="int8", offload="blocks", step_cache=True)
    clip = ClipSize(832, 480, 33, 10)
    foretold, seen = on_paper(options, clip, 2), clips(monkeypatch, options, clip)
    without = on_paper(replace(options, step_cache=False), clip, 2)["sampling"]
    assert without.card < seen.peak_of("sampling").card <= foretold["sampling"].card
    assert seen.peak_of("decoding").card <= foretold["decoding"].card


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_lora_streams_beside_the_blocks_and_was_planned(monkeypatch, tmp_path, precision):
    model = hollow_module("transformer", configs(2)["transformer"])
    tensors = {name: (tuple(tensor.shape), tmp_path) for name, tensor in model.named_parameters()}
    files = {"transformer": ComponentFiles(tmp_path, {}, tensors, 10**9)}
    monkeypatch.setattr(fake_card, "files_of", lambda: files)
    read = adapters.read_loras

    def read_for_real(*how):
        with _disable_current_modes():
            return read(*how)

    monkeypatch.setattr(adapters, "read_loras", read_for_real)
    pairs, rank = {}, 128
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name.startswith("blocks."):
            pairs[f"transformer.{name}.lora_A.weight"] = torch.zeros(rank, layer.in_features, dtype=torch.bfloat16)
            pairs[f"transformer.{name}.lora_B.weight"] = torch.zeros(layer.out_features, rank, dtype=torch.bfloat16)
    save_file(pairs, tmp_path / "lora.safetensors")
    lora = Lora(tmp_path / "lora.safetensors", 0.5)
    options = A2Options(device="cuda:0", precision=precision, offload="blocks", resident_blocks=1, loras=(lora,))
    shortened(monkeypatch)
    without, clip = on_paper(options, SMALL, 2), replace(SMALL, adapters=lora.path.stat().st_size)
    foretold, seen = on_paper(options, clip, 2), clips(monkeypatch, options, SMALL)
    assert foretold["sampling"].card - without["sampling"].card > 0.9 * clip.adapters
    for phase in PHASES:
        assert seen.peak_of(phase).card <= foretold[phase].card, phase


@pytest.mark.parametrize(("vram", "ram", "clip"), [
    (6, 16, ClipSize(832, 480, 33, 1)), (24, 32, ClipSize(832, 480, 81, 1)),
])  # fmt: skip
def test_no_stage_is_above_the_plan_nor_above_the_card(monkeypatch, vram, ram, clip):
    """The released model with all of its layers; tests/bench/ledger.py does it for many more cards and clips."""
    _check_on_card(monkeypatch, vram, ram, clip, SKYREELS_A2)


@pytest.mark.parametrize(("title", "vram", "ram"), [("SkyReels-V3 R2V 14B", 12, 32), ("RefAlign 1.3B", 8, 16)])
def test_no_stage_of_a_relative_is_above_the_plan_nor_above_the_card(monkeypatch, title, vram, ram):
    _check_on_card(monkeypatch, vram, ram, clip_of(RELATIVES[title], 832, 480, 81, 1), RELATIVES[title])


def _check_on_card(monkeypatch, vram, ram, clip, model):
    plan = make_plan(hardware(vram * 0.95, ram * 0.8), clip, shapes_of(model))
    assert plan.fits, plan.sentence()
    options = plan.applied(A2Options(device="cuda:0"))
    shortened(monkeypatch)
    seen = clips(monkeypatch, options, clip, None, round(vram * 0.95 * GIB) - CONTEXT, model)
    for need in plan.stages:
        assert seen.peak_of(need.name).card + CONTEXT <= need.vram <= vram * 0.95 * GIB, need.name
        assert seen.peak_of(need.name).host + PROCESS + CARD_PROCESS <= need.ram, need.name
        assert need.ram <= ram * 0.8 * GIB, need.name
