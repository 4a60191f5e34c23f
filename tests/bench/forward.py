"""Seconds of a forward of the transformer: as it was before and as it is, whole and in pieces, compiled, in eight bits.

    python tests/bench/forward.py                                   a mid size, for a processor
    python tests/bench/forward.py --device cuda --heads 40 --layers 4 --latent 21,60,104 --chunk 4096

Prints one JSON line. All ways take turns, round by round, so that a machine that slows down slows all; `seconds` are
medians, `of_before` each way's over the way as it was (fp32 or int8, whole or in pieces), the median of the rounds'
ratios. "before" computes the context's keys and values in every piece, and quanto dequantises at each use and adds the
bias by itself: the new parts are switched off, nothing else. "kept" is the context's keys and values over the run.
`compiling_s` is what the first compiled forward took. `cosine` and `largest` compare with fp32 weights: `cosine` of all
numbers, `largest` the largest difference over the largest number. On a card the floats are bf16.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from diffusers import WanTransformer3DModel

from engine.a2 import chunking
from engine.a2.chunking import chunked
from engine.a2.computing import computing
from engine.a2.geometry import TEXT_TOKENS
from engine.a2.options import A2Options
from engine.memory import multiply
from engine.memory.quantize import as_weight, quantise, quantised_weights

BEFORE = "before"
WAYS: dict[str, dict[str, Any] | None] = {  # None: as it was
    BEFORE: None, "now": {}, "kept": {"keep_context": True}, "compiled": {"compiled": True, "keep_context": True},
}  # fmt: skip
EIGHT = {
    "w8a8": {"w8a8": True, "keep_context": True},
    "w8a8 compiled": {"w8a8": True, "compiled": True, "keep_context": True},
}


def make_transformer(asked: argparse.Namespace) -> WanTransformer3DModel:
    torch.manual_seed(0)
    dim = 128 * asked.heads
    model = WanTransformer3DModel(
        num_attention_heads=asked.heads, attention_head_dim=128, in_channels=36, out_channels=16, text_dim=512,
        ffn_dim=dim * 27 // 10 // 16 * 16, num_layers=asked.layers, image_dim=1280, added_kv_proj_dim=dim,
    )  # fmt: skip
    if asked.device != "cpu":
        for name, parameter in model.named_parameters():  # as the library loads it: some modules stay float32
            kept = {"time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"} & set(name.split("."))
            parameter.data = parameter.data.to(asked.device, torch.float32 if kept else torch.bfloat16)
        model.to(asked.device)
    return model.eval().requires_grad_(False)


def quantised(model: WanTransformer3DModel, kind: Any) -> WanTransformer3DModel:
    for name in quantised_weights(model, "blocks."):
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        weight = module._parameters[last]
        data, scale = quantise(weight.float().cpu(), kind, weight.dtype)
        module._parameters[last] = as_weight(data.to(weight.device), scale.to(weight.device), kind)
    return model


def inputs(asked: argparse.Namespace) -> dict[str, torch.Tensor]:
    generator, dtype = torch.Generator().manual_seed(1), torch.float32 if asked.device == "cpu" else torch.bfloat16

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=generator).to(asked.device, dtype)

    return {
        "hidden_states": some(36, *asked.latent), "timestep": torch.tensor([500], device=asked.device),
        "encoder_hidden_states": some(TEXT_TOKENS, 512), "encoder_hidden_states_image": some(771, 1280),
    }  # fmt: skip


@contextlib.contextmanager
def as_it_was(model: WanTransformer3DModel, chunk: int) -> Iterator[None]:
    """Compute as before: nothing is kept from piece to piece."""
    with (
        mock.patch.object(chunking, "reading_keys_values", return_value=contextlib.nullcontext()),
        mock.patch.object(multiply, "widened", return_value=contextlib.nullcontext()),
        chunked(model, chunk),
    ):
        yield


def run(model: WanTransformer3DModel, given: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    begun = time.perf_counter()
    with torch.no_grad():
        out = model(**given, return_dict=False)[0]
    if out.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun, out


class Way:
    """One way to compute, opened before its turn and closed after it; what it keeps is kept, as it is over a run."""

    def __init__(self, model: WanTransformer3DModel, options: dict[str, Any] | None, chunk: int) -> None:
        self._model, self._options, self._chunk = model, options, chunk
        self.seconds: list[float] = []
        self.first, self.out = 0.0, torch.empty(0)

    def turn(self, given: dict[str, torch.Tensor]) -> None:
        """Run once, or twice: what is kept or compiled is there for the second, and only that counts."""
        opened = (
            as_it_was(self._model, self._chunk) if self._options is None
            else computing(self._model, replace(A2Options(), chunk=self._chunk, **self._options))
        )  # fmt: skip
        with opened:
            first = run(self._model, given)[0] if self._options else 0.0
            seconds, self.out = run(self._model, given)
        self.first = max(self.first, first)
        self.seconds.append(seconds)


def make_ways(asked: argparse.Namespace) -> dict[tuple[str, str, str], Way]:
    ways = {}
    for kind in asked.kinds.split(","):
        model = make_transformer(asked)
        if kind != "float":
            quantised(model, kind)
        for where, chunk in (("whole", 0), ("pieces", asked.chunk)):
            for name, options in (WAYS if kind == "float" else WAYS | EIGHT).items():
                ways[kind, where, name] = Way(model, options, chunk)
    return ways


def tell(ways: dict[tuple[str, str, str], Way], exact: torch.Tensor) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for (kind, where, name), way in ways.items():
        before, out = ways[kind, where, BEFORE], way.out.float()
        line = table.setdefault(f"{kind} {where}", {})[name] = {
            "seconds": round(statistics.median(way.seconds), 3),
            "of_before": round(statistics.median(a / b for a, b in zip(way.seconds, before.seconds, strict=True)), 3),
            "cosine": round(float(torch.nn.functional.cosine_similarity(out.flatten(), exact.flatten(), dim=0)), 6),
            "largest": float(f"{float((out - exact).abs().max() / exact.abs().max()):.2g}"),
        }
        if "compiled" in name:
            line["compiling_s"] = round(way.first, 1)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--heads", type=int, default=4, help="of 128 numbers each")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--latent", default="9,32,36", type=lambda text: [int(each) for each in text.split(",")])
    parser.add_argument("--chunk", type=int, default=330)
    parser.add_argument("--kinds", default="float,int8", help="of weights; a processor only imitates products of fp8")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    given = inputs(asked)
    exact = run(make_transformer(asked), given)[1].float()
    ways = make_ways(asked)
    for number in range(asked.rounds):
        for way in ways.values():
            way.turn(given)
        table = tell(ways, exact)
        print(f"round {number + 1}: {table}", file=sys.stderr, flush=True)
    frames, height, width = asked.latent
    print(json.dumps({
        "bench": "forward", "device": asked.device, "dim": 128 * asked.heads, "layers": asked.layers,
        "tokens": frames * height * width // 4, "chunk": asked.chunk, "rounds": asked.rounds, "forward": table,
        "torch": torch.__version__, "cpus": os.cpu_count(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
