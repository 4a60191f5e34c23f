"""What the step cache saves and what it costs, beside the others that diffusers has, on a random model of about 45 M.

    python tests/bench/step_cache.py

Prints one JSON line. Every candidate runs in the same window (not in the first fifth of the steps, nor in the last
step) of the same run. `time` is processor time over that of the run without a cache, `whole` the share of passes
through all blocks, `cosine` and `error` (mean |difference| over mean |latents|) compare the final latents with those of
the run without. Random weights tell whether a cache engages, keeps the halves of the guidance apart and what it saves;
what it does to a picture only trained ones could tell.

MagCache's ratios are measured in a run of another seed. TaylorSeer is its light form, which only keeps the output: the
other keeps every attention's, over a hundred gigabytes for a real clip.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig, WanTransformer3DModel

from engine.a2 import step_cache
from engine.a2.conditioning import Conditioning
from engine.a2.sampling import Guidance, begin, sample
from engine.scene.scene import Sampling

STEPS = 30
SHAPE = (3, 12, 16)  # latent frames and pixels
WINDOW = STEPS - int(-(-step_cache.WHOLE_AT_FIRST * STEPS // 1)) - step_cache.WHOLE_AT_LAST


def make_transformer() -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=128, in_channels=36, out_channels=16, text_dim=256, ffn_dim=2048,
        num_layers=10, image_dim=256, added_kv_proj_dim=512,
    ).eval().requires_grad_(False)  # fmt: skip


def make_conditioning(seed: int) -> Conditioning:
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng)

    noise, condition = draw(1, 16, *SHAPE), draw(1, 20, *SHAPE)
    return Conditioning(
        noise, condition, draw(1, 257, 256), draw(1, 512, 256), draw(1, 512, 256), draw(17, 3), rng.get_state()
    )


@contextlib.contextmanager
def using(config: Callable[[], Any]) -> Iterator[None]:
    """The engine's step cache with another of diffusers' caches in it."""
    ours, step_cache.make_config = step_cache.make_config, config
    try:
        yield
    finally:
        step_cache.make_config = ours


def run(transformer: Any, ready: Conditioning, cached: bool) -> tuple[torch.Tensor, float, float]:
    """Final latents, processor seconds, and the share of passes that went through all blocks."""
    begun = time.process_time()
    state = begin(ready, Sampling(steps=STEPS), "unipc", torch.device("cpu"), cached)
    latents = sample(transformer, ready, state, Guidance(5.0))
    reused = state.cache.reused if state.cache else 0
    return latents, time.process_time() - begun, 1 - reused / (2 * STEPS)


def mag_ratios(transformer: Any, ready: Conditioning) -> list[float]:
    """Calibrated as its authors say, over the window; the library prints them."""
    printed = io.StringIO()
    config = MagCacheConfig(calibrate=True, num_inference_steps=WINDOW)
    with contextlib.redirect_stdout(printed), using(lambda: config):
        run(transformer, ready, True)
    return ast.literal_eval(next(line for line in printed.getvalue().splitlines() if line.startswith("[1")))


def candidates(ratios: list[float]) -> dict[str, Callable[[], Any]]:
    def mag(threshold: float) -> Callable[[], Any]:
        return lambda: MagCacheConfig(threshold, 3, 0.0, WINDOW, mag_ratios=torch.tensor(ratios))

    def taylor(interval: int) -> Callable[[], Any]:
        return lambda: TaylorSeerCacheConfig(
            interval, 2, max_order=1, taylor_factors_dtype=torch.float32, use_lite_mode=True
        )

    return {
        **{f"first_block_{t:g}": lambda t=t: FirstBlockCacheConfig(t) for t in (0.05, 0.1, 0.2)},
        **{f"mag_{t:g}": mag(t) for t in (0.06, 0.12, 0.24)},
        **{f"taylor_{n}": taylor(n) for n in (2, 3)},
    }


def compare(transformer: Any, ready: Conditioning, other: Conditioning) -> dict[str, dict[str, float]]:
    run(transformer, replace(ready), False)  # warm up
    plain, spent, _ = run(transformer, ready, False)
    found = {}
    for name, config in candidates(mag_ratios(transformer, other)).items():
        with using(config):
            latents, seconds, whole = run(transformer, ready, True)
        found[name] = {
            "time": round(seconds / spent, 3),
            "whole": round(whole, 3),
            "cosine": round(float(torch.nn.functional.cosine_similarity(latents.flatten(), plain.flatten(), dim=0)), 5),
            "error": round(float((latents - plain).abs().mean() / plain.abs().mean()), 4),
        }
    return found


def main() -> None:
    transformer = make_transformer()
    found = compare(transformer, make_conditioning(1), make_conditioning(2))
    print(json.dumps({
        "bench": "step_cache",
        "parameters": sum(p.numel() for p in transformer.parameters()),
        "steps": STEPS,
        "threshold": step_cache.THRESHOLD,
        "candidates": found,
        "cpus": os.cpu_count(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
