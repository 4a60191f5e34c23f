"""What streaming a model's blocks costs beside having all of them in place, on a random model of about 100 M; and what
diffusers' group offload costs in the same run.

    python tests/bench/streaming.py

Prints one JSON line. On the CPU the copies are plain ones that nothing hides: `ratio` (wall clock) is an upper bound of
what the streaming itself costs, and where other work is on the machine, that of processor time says more. Where there
is a CUDA card it is used, and the model is in bf16. The ways take turns forward by forward, and a ratio is the median
over the rounds. `same`: the same bits as the resident model's every time.

`group_offload` has a row for each way to ask diffusers for it: on a card with its ratio and, from the same rounds,
ours. On the CPU it copies nothing (`tensors_moved`), so there is no ratio; `added_ms` is then what its hooks, and what
our bookkeeping, add to a forward, in milliseconds, on a model of the same modules whose weights are next to nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from diffusers import WanTransformer3DModel

from engine.memory.slabs import stream_blocks

ROUNDS = 6
THIN_ROUNDS = 100  # of forwards that take some ten milliseconds
CONFIG = {"num_attention_heads": 6, "attention_head_dim": 128, "in_channels": 36, "out_channels": 16, "text_dim": 512,
          "ffn_dim": 3072, "num_layers": 10, "image_dim": 1280, "added_kv_proj_dim": 768}  # fmt: skip
THIN = {**CONFIG, "num_attention_heads": 1, "attention_head_dim": 12, "text_dim": 12, "ffn_dim": 24, "image_dim": 12,
        "added_kv_proj_dim": 12}  # fmt: skip
NO_COPIES = (
    "a no-op without a card: both devices are the CPU, where Tensor.to returns the tensor itself. What its copies cost,"
    " and how much of that a stream hides, was not measured"
)

Way = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Setting:
    device: torch.device
    dtype: torch.dtype
    config: dict[str, int]
    latent: tuple[int, int, int]  # frames, rows, columns

    def make(self) -> WanTransformer3DModel:
        """On the host, whatever the device."""
        torch.manual_seed(0)
        model = WanTransformer3DModel(**self.config).eval().requires_grad_(False)
        return model if self.dtype == torch.float32 else model.to(self.dtype)

    def forward_of(self, model: WanTransformer3DModel) -> Way:
        torch.manual_seed(1)
        shapes = (36, *self.latent), (512, self.config["text_dim"]), (771, self.config["image_dim"])
        x, text, image = (torch.randn(1, *shape).to(self.device, self.dtype) for shape in shapes)
        step = torch.tensor([500], device=self.device)

        def forward() -> torch.Tensor:
            with torch.no_grad():
                return model(x, step, text, image, return_dict=False)[0]

        return forward


@dataclass
class Spent:
    """What each way took, round by round, in seconds; and whether it gave the first way's bits every time."""

    seconds: dict[str, list[float]]
    processor: dict[str, list[float]]
    same: dict[str, bool]

    def of(self, way: str) -> dict[str, Any]:
        """A way beside the resident one."""
        return {
            "ratio": round(statistics.median(_pairs(self.seconds, way, lambda a, b: a / b)), 4),
            "ratio_of_processor_time": round(statistics.median(_pairs(self.processor, way, lambda a, b: a / b)), 4),
            "forward_s": [round(statistics.median(self.seconds[each]), 4) for each in ("resident", way)],
            "same": self.same[way],
        }

    def added(self, way: str) -> dict[str, float]:
        """What a way adds to the resident one's forward, in milliseconds: wall clock and processor time."""
        return {
            name: round(1000 * statistics.median(_pairs(spent, way, lambda a, b: a - b)), 3)
            for name, spent in (("wall", self.seconds), ("processor", self.processor))
        }


def _pairs(spent: dict[str, list[float]], way: str, compare: Callable[[float, float], float]) -> list[float]:
    return [compare(one, plain) for one, plain in zip(spent[way], spent["resident"], strict=True)]


def take_turns(ways: dict[str, Way], device: torch.device, rounds: int) -> Spent:
    """Run all ways so many times, each round beginning with another, after once to warm up."""
    warm = {name: way() for name, way in ways.items()}
    first = next(iter(warm.values()))
    found = Spent(
        {name: [] for name in ways}, {name: [] for name in ways},
        {name: torch.equal(first, result) for name, result in warm.items()},
    )  # fmt: skip
    names = list(ways)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            begun, busy = time.perf_counter(), time.process_time()
            result = ways[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            found.seconds[name].append(time.perf_counter() - begun)
            found.processor[name].append(time.process_time() - busy)
            found.same[name] = found.same[name] and torch.equal(first, result)
    return found


def stream(setting: Setting, resident: Way) -> list[dict[str, Any]]:
    """Ours, with no block that stays, and with half of them."""
    results = []
    for kept in (0, 5):
        model = setting.make()
        with stream_blocks(model, model.blocks, setting.device, kept) as slabs:
            ways = {"resident": resident, "ours": setting.forward_of(model)}
            results.append({
                "resident_blocks": kept,
                **take_turns(ways, setting.device, ROUNDS).of("ours"),
                "weights_on_device_mb": round(slabs.device_bytes / 1e6, 1),
                "weights_on_host_mb": round(slabs.host_bytes / 1e6, 1),
            })  # fmt: skip
    return results


def ways_to_ask(cuda: bool) -> list[dict[str, Any]]:
    """For group offload; what needs a stream, only where there is a card."""
    streams: list[dict[str, Any]] = [{}, {"low_cpu_mem_usage": True}, {"record_stream": True}] if cuda else []
    return [
        {"offload_type": kind, **way}
        for kind in ("block_level", "leaf_level")
        for way in ({"use_stream": False}, *({"use_stream": True, **each} for each in streams))
    ]


def offload(setting: Setting, asked: dict[str, Any]) -> tuple[WanTransformer3DModel, int]:
    """A model under group offload, and how many of its tensors are elsewhere than before."""
    model = setting.make()
    before = [tensor.data_ptr() for tensor in model.parameters()]
    blocks = {"num_blocks_per_group": 1} if asked["offload_type"] == "block_level" else {}
    model.enable_group_offload(onload_device=setting.device, offload_device=torch.device("cpu"), **asked, **blocks)
    setting.forward_of(model)()
    return model, sum(was != tensor.data_ptr() for was, tensor in zip(before, model.parameters(), strict=True))


def beside_ours(setting: Setting, resident: Way, theirs: WanTransformer3DModel, rounds: int) -> Spent:
    """Group offload and our streaming in turns, with no block that stays, as it has none either."""
    model = setting.make()
    with stream_blocks(model, model.blocks, setting.device):
        ways = {"resident": resident, "theirs": setting.forward_of(theirs), "ours": setting.forward_of(model)}
        return take_turns(ways, setting.device, rounds)


def offload_on_card(setting: Setting, resident: Way) -> list[dict[str, Any]]:
    rows = []
    for asked in ways_to_ask(cuda=True):
        try:
            spent = beside_ours(setting, resident, offload(setting, asked)[0], ROUNDS)
        except (RuntimeError, ValueError) as error:
            rows.append({**asked, "failed": (str(error).splitlines() or [type(error).__name__])[0][:200]})
            continue
        rows.append({**asked, **spent.of("theirs"), "ours": spent.of("ours")})
    return rows


def offload_on_cpu(setting: Setting, resident: Way) -> list[dict[str, Any]]:
    rows = []
    threads = torch.get_num_threads()
    for asked in ways_to_ask(cuda=False):
        theirs, moved = offload(setting, asked)
        same = take_turns({"resident": resident, "theirs": setting.forward_of(theirs)}, setting.device, 0).same
        thin = Setting(setting.device, setting.dtype, THIN, (1, 2, 2))
        torch.set_num_threads(1)  # so little work only waits for more of them on a busy machine
        try:
            spent = beside_ours(thin, thin.forward_of(thin.make()), offload(thin, asked)[0], THIN_ROUNDS)
        finally:
            torch.set_num_threads(threads)
        rows.append({
            **asked, "note": NO_COPIES, "tensors_moved": moved, "same": same["theirs"],
            "added_ms": {"theirs": spent.added("theirs"), "ours": spent.added("ours")},
            "resident_ms": round(1000 * statistics.median(spent.seconds["resident"]), 3),
        })  # fmt: skip
    return rows


def main() -> None:
    cuda = torch.cuda.is_available()
    device, dtype = torch.device("cuda" if cuda else "cpu"), torch.bfloat16 if cuda else torch.float32
    # of 480p only the corner that two cores can do in a second or two
    setting = Setting(device, dtype, CONFIG, (5, 60, 104) if cuda else (3, 16, 28))
    model = setting.make().to(device)
    resident = setting.forward_of(model)
    print(json.dumps({
        "bench": "streaming",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rounds": ROUNDS,
        "results": stream(setting, resident),
        "group_offload": (offload_on_card if cuda else offload_on_cpu)(setting, resident),
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
