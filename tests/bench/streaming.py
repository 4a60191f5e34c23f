"""What streaming a model's blocks costs beside having all of them in place, on a random model of about 100 M.

    python tests/bench/streaming.py

Prints one JSON line. On the CPU the copies are plain ones that nothing hides: `ratio` (wall clock) is an upper bound of
what the streaming itself costs, and where other work is on the machine, that of processor time says more. Where there
is a CUDA card it is used, and the model is in bf16. The two ways take turns forward by forward, and a ratio is the
median over the pairs. `same`: both gave the same bits every time.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from diffusers import WanTransformer3DModel

from engine.memory.slabs import stream_blocks

PAIRS = 6


def make_transformer() -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=6, attention_head_dim=128, in_channels=36, out_channels=16, text_dim=512, ffn_dim=3072,
        num_layers=10, image_dim=1280, added_kv_proj_dim=768,
    ).eval().requires_grad_(False)  # fmt: skip


def main() -> None:
    cuda = torch.cuda.is_available()
    device, dtype = torch.device("cuda" if cuda else "cpu"), torch.bfloat16 if cuda else torch.float32
    t, h, w = (5, 60, 104) if cuda else (3, 16, 28)  # of 480p only the corner that two cores can do in a second or two
    resident = make_transformer()
    if cuda:
        resident.to(dtype)
    inputs = [torch.randn(1, 36, t, h, w), torch.randn(1, 512, 512), torch.randn(1, 771, 1280)]
    x, text, image = (tensor.to(device, dtype) for tensor in inputs)
    streamed = copy.deepcopy(resident)
    resident.to(device)

    def forward(model: WanTransformer3DModel) -> torch.Tensor:
        with torch.no_grad():
            return model(x, torch.tensor([500], device=device), text, image, return_dict=False)[0]

    results = []
    for kept in (0, 5):
        with stream_blocks(streamed, streamed.blocks, device, kept) as slabs:
            seconds, used, same = take_turns(lambda: forward(resident), lambda: forward(streamed), device)
            results.append({
                "resident_blocks": kept,
                "ratio": round(statistics.median(ours / plain for plain, ours in seconds), 4),
                "ratio_of_processor_time": round(statistics.median(ours / plain for plain, ours in used), 4),
                "forward_s": [round(statistics.median(way), 4) for way in zip(*seconds, strict=True)],
                "same": same,
                "weights_on_device_mb": round(slabs.device_bytes / 1e6, 1),
                "weights_on_host_mb": round(slabs.host_bytes / 1e6, 1),
            })  # fmt: skip
    print(json.dumps({
        "bench": "streaming",
        "device": str(device),
        "parameters": sum(parameter.numel() for parameter in resident.parameters()),
        "pairs": PAIRS,
        "results": results,
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }))  # fmt: skip


def take_turns(
    plain: Callable[[], torch.Tensor], ours: Callable[[], torch.Tensor], device: torch.device
) -> tuple[list[tuple[float, float]], list[tuple[float, float]], bool]:
    """Seconds of both ways, pair by pair, after one to warm up; the same of processor time; whether they agreed."""
    seconds, used, same = [], [], torch.equal(plain(), ours())
    for number in range(PAIRS):
        spent = {}
        for way in (plain, ours) if number % 2 else (ours, plain):
            begun, busy = time.perf_counter(), time.process_time()
            result = way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent[way] = time.perf_counter() - begun, time.process_time() - busy, result
        seconds.append((spent[plain][0], spent[ours][0]))
        used.append((spent[plain][1], spent[ours][1]))
        same = same and torch.equal(spent[plain][2], spent[ours][2])
    return seconds, used, same


if __name__ == "__main__":
    main()
