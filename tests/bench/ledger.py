"""The plan against what is really held, stage by stage: the released model on cards that nobody has here.

    python tests/bench/ledger.py                                   every card, memory, length and size (an hour)
    python tests/bench/ledger.py --cards 6,24 --ram 16,32 --frames 81 --sizes 832x480 --model "SkyReels-V3 R2V 14B"

Prints one JSON line: for each machine and clip how it is run (`way`), and for each stage the gigabytes of the card and
of the memory that the plan said and that were alive (`card`, `ram`: plan, then seen), two clips one after the other.
`above_plan` and `above_machine` count the stages in which more was alive than that; both should be 0. Tensors have no
data (tests/fake_card.py), so nothing here says anything about time, nor about what a real allocator loses. 5 % of a
card and 20 % of the memory are taken by others.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import pytest
import torch

from engine.a2.geometry import ClipSize
from engine.a2.models import RELEASES, SKYREELS_A2, ReleasedModel
from engine.a2.options import A2Options
from engine.a2.plan.plan import Plan, make_plan
from engine.a2.plan.shapes import shapes_of
from engine.a2.plan.sizes import CARD_PROCESS, PROCESS
from engine.memory.card import CONTEXT
from engine.memory.hardware import Fact, Hardware
from engine.words import GIB
from tests.fake_card import clip_of, clips, lend_a_guard, shortened

FREE_CARD, FREE_RAM = 0.95, 0.8


def machine(card: int, ram: int) -> Hardware:
    values = {
        "device": "cuda", "name": f"a card of {card} GB", "bf16": True, "fp8": True, "torch": torch.__version__,
        "vram_total": card * GIB, "vram_free": round(FREE_CARD * card * GIB), "pinned_limit": None,
        "ram_total": ram * GIB, "ram_free": round(FREE_RAM * ram * GIB), "disk_free": 500 * GIB,
    }  # fmt: skip
    return Hardware(**{name: Fact(value, "as the bench says") for name, value in values.items()})


def compare(card: int, ram: int, clip: ClipSize, model: ReleasedModel) -> dict[str, Any]:
    """One line of the table."""
    plan, line = (
        make_plan(machine(card, ram), clip, shapes_of(model)),
        {"gb": [card, ram], "clip": f"{clip.width}x{clip.height}x{clip.frames}"},
    )
    if not plan.fits:
        return {**line, "fits": False, "says": plan.problems}
    patch = pytest.MonkeyPatch()
    try:
        shortened(patch)
        options = plan.applied(A2Options(device="cuda:0"))
        seen = clips(patch, options, clip, None, round(FREE_CARD * card * GIB) - CONTEXT, model)
    finally:
        patch.undo()
    stages: dict[str, dict[str, list[float]]] = {}
    above_plan = above_machine = 0
    for need in plan.stages:
        peak = seen.peak_of(need.name)
        held = peak.card + CONTEXT, peak.host + PROCESS + CARD_PROCESS
        stages[need.name] = {"card": _pair(need.vram, held[0]), "ram": _pair(need.ram, held[1])}
        above_plan += (held[0] > need.vram) + (held[1] > need.ram)
        above_machine += (held[0] > FREE_CARD * card * GIB) + (held[1] > FREE_RAM * ram * GIB)
    return {
        **line,
        "fits": True,
        "way": way_of(plan),
        **stages,
        "above_plan": above_plan,
        "above_machine": above_machine,
    }


def way_of(plan: Plan) -> str:
    how = plan.settings
    where = f"{how.resident} stay, {how.in_memory} in memory, {how.streamed - how.in_memory} on disk"
    tile = how.tiling.tile if how.tiling else 0
    return f"{how.precision}, {'together' if how.together else where}, chunk {how.chunk}, tile {tile}"


def _pair(plan: int, seen: int) -> list[float]:
    return [round(plan / GIB, 2), round(seen / GIB, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cards", default="6,8,12,16,24,48")
    parser.add_argument("--ram", default="16,24,32,64")
    parser.add_argument("--frames", default="33,81,121")
    parser.add_argument("--sizes", default="832x480,1280x720")
    parser.add_argument("--model", default=SKYREELS_A2.title, choices=[each.title for each in RELEASES])
    asked = parser.parse_args()
    if why := lend_a_guard():
        sys.exit(f"ledger.py: {why}")
    sizes = [tuple(map(int, size.split("x"))) for size in asked.sizes.split(",")]
    numbers = ([int(each) for each in text.split(",")] for text in (asked.cards, asked.ram, asked.frames))
    model = next(each for each in RELEASES if each.title == asked.model)
    table = []
    gc.freeze()  # the engine's own collections need not look at the libraries
    for card, ram, frames, (width, height) in itertools.product(*numbers, sizes):
        table.append(compare(card, ram, clip_of(model, width, height, frames, 1), model))
        print(table[-1], file=sys.stderr, flush=True)
    totals = {key: sum(line.get(key, 0) for line in table) for key in ("above_plan", "above_machine")}
    fit = sum(line["fits"] for line in table)
    print(json.dumps({"bench": "ledger", "model": model.title, **totals, "fit": fit, "of": len(table), "table": table,
                      "torch": torch.__version__}))  # fmt: skip


if __name__ == "__main__":
    main()
