"""A card that nobody has here (tests/fake_card.py): the whole recipe runs on it at the released model's sizes, whatever
is chosen, and no stage holds more than the plan said, nor more than there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
pytest.importorskip("optimum.quanto", reason="optimum-quanto is not installed (requirements-a2.txt)")

from collections.abc import Callable

from diffusers.models.autoencoders.autoencoder_kl_wan import WanEncoder3d
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from transformers.models.umt5.modeling_umt5 import UMT5Block

from engine.a2 import chunking, moving, recipe
from engine.a2.compute import Compute
from engine.a2.geometry import ClipSize
from engine.a2.options import A2Options
from engine.a2.plan.plan import make_plan
from engine.a2.plan.sizes import CARD_PROCESS, PROCESS
from engine.a2.plan.stages import PlannedClip, rehearse
from engine.memory.card import CONTEXT
from engine.memory.ledger import Held
from engine.words import GIB
from tests import fake_card
from tests.a2.test_plan import hardware
from tests.fake_card import CARD, Card, fake_checkpoint, lend_a_guard
from tests.tiny import TRIO, a_scene, members_of

NO_GUARD = lend_a_guard()
pytestmark = pytest.mark.skipif(bool(NO_GUARD), reason=NO_GUARD)

PHASES = ("prompt", "references", "sampling", "decoding")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ENOUGH = Held(10**14, 10**14)
_LATENTS = 3  # that are decoded where a clip's length does not matter: memory does not grow with it


def clips(patch, options: A2Options, clip: ClipSize, layers: int | None = 2, card: int | None = None) -> Card:
    """Make two clips one after the other, with other prompts and casts; return what was seen."""
    precision = options.precision or "bf16"
    quantised = precision if precision in ("int8", "fp8") else None
    compute = Compute(CARD, DTYPES.get(precision, torch.bfloat16), quantised)
    patch.setattr(recipe, "_identity", lambda _: [])
    with fake_card.fake_card(patch, layers, card) as seen:
        checkpoint = fake_checkpoint(compute, layers)
        for number, cast in enumerate((TRIO[1:], TRIO)):
            scene = a_scene(
                cast, prompt=f"{number}",
                video={"width": clip.width, "height": clip.height, "frames": clip.frames, "trim_head": 0},
                sampling={"steps": clip.steps, "guidance": clip.guidance},
            )  # fmt: skip
            shot = recipe.shoot(scene, members_of(scene), options, loaded=checkpoint)
            for _ in range(4 * _LATENTS - 3):
                next(shot.frames)
            shot.frames.close()
    return seen


def on_paper(options: A2Options, clip: ClipSize, layers: int | None, limits: Held = ENOUGH) -> dict[str, Held]:
    """Return what the plan says that each phase holds, without what the process itself takes."""
    precision = options.precision or "bf16"
    quantised = precision if precision in ("int8", "fp8") else None
    compute = Compute(CARD, DTYPES.get(precision, torch.bfloat16), quantised)
    checkpoint = fake_checkpoint(compute, layers)
    clip = replace(clip, step_cache=options.step_cache)
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
}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_runs_and_holds_what_was_planned(monkeypatch, way):
    options = A2Options(device="cuda:0", **WAYS[way])
    shortened(monkeypatch)
    foretold, seen = on_paper(options, SMALL, 2), clips(monkeypatch, options, SMALL)
    for phase in PHASES:
        # Convolutions lay their input out anew, which only a real allocator shows.
        least = 0.8 if phase in ("prompt", "sampling") else 0.6
        assert least * foretold[phase].card <= seen.peak(phase).card <= foretold[phase].card, phase
        assert seen.peak(phase).host <= foretold[phase].host + _FRAMES, phase


_FRAMES = 60_000_000  # bytes: pictures of the cast, which the plan counts with the process


def test_what_the_step_cache_keeps_was_planned_and_is_gone_before_decoding(monkeypatch):
    options = A2Options(device="cuda:0", precision="int8", offload="blocks", step_cache=True)
    clip = ClipSize(832, 480, 33, 10)
    foretold, seen = on_paper(options, clip, 2), clips(monkeypatch, options, clip)
    without = on_paper(replace(options, step_cache=False), clip, 2)["sampling"]
    assert without.card < seen.peak("sampling").card <= foretold["sampling"].card
    assert seen.peak("decoding").card <= foretold["decoding"].card


def shortened(patch) -> None:
    """Compute only what differs in memory: the first two of a model's blocks, and of each shape the encoder's first
    three pieces. The others are like them."""
    blocks: dict[type, list[object]] = {}

    def first(block: object) -> bool:
        known = blocks.setdefault(type(block), [])
        if block not in known and len(known) < 2:
            known.append(block)
        return block in known

    def only_first(kind: type, name: str, instead: Callable[..., object], of: Callable[..., object]) -> None:
        compute = getattr(kind, name)
        patch.setattr(
            kind, name, lambda it, x, *how, **more: (compute if first(of(it)) else instead)(it, x, *how, **more)
        )

    only_first(WanTransformerBlock, "forward", lambda _, x, *__, **___: x, lambda it: it)
    only_first(chunking._Block, "__call__", lambda _, x, *__, **___: x, lambda it: it.block)
    only_first(UMT5Block, "forward", lambda _, x, *__, **___: x, lambda it: it)
    encode, came = WanEncoder3d.forward, dict[torch.Size, list[torch.Size]]()

    def encoded(encoder, x, *how, **more):
        shapes = came.setdefault(x.shape, [])
        if len(shapes) < 3:
            out = encode(encoder, x, *how, **more)
            shapes.append(out.shape)
            return out
        return x.new_empty(shapes[0])

    patch.setattr(WanEncoder3d, "forward", encoded)


@pytest.mark.parametrize(("vram", "ram", "clip"), [
    (6, 16, ClipSize(832, 480, 33, 1)), (24, 32, ClipSize(832, 480, 81, 1)),
])  # fmt: skip
def test_no_stage_is_above_the_plan_nor_above_the_card(monkeypatch, vram, ram, clip):
    """The released model with all of its layers; tests/bench/ledger.py does it for many more cards and clips."""
    plan = make_plan(hardware(vram * 0.95, ram * 0.8), clip)
    assert plan.fits, plan.sentence()
    options = plan.applied(A2Options(device="cuda:0"))
    shortened(monkeypatch)
    seen = clips(monkeypatch, options, clip, None, round(vram * 0.95 * GIB) - CONTEXT)
    for need in plan.stages:
        assert seen.peak(need.name).card + CONTEXT <= need.vram <= vram * 0.95 * GIB, need.name
        assert seen.peak(need.name).host + PROCESS + CARD_PROCESS <= need.ram + _FRAMES, need.name
        assert need.ram <= ram * 0.8 * GIB, need.name
