"""What our sampling loop costs beside a plain loop of the same transformer calls, on a random model of about 100 M.

    python tests/bench/sampling_overhead.py

Prints one JSON line. The two loops take turns step by step, so that a machine that slows down slows both; `overhead` is
the median of (ours - plain) / plain over the steps' pairs, of processor time. Ours has guidance, UniPC, stop hooks and
a preview every second step; plain only calls the transformer twice. `preview_ms` is one preview of latents of
832x480x81, `state_ms` what keeping such a run on disk costs a step.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from diffusers import WanTransformer3DModel

from engine.a2.computing import computing
from engine.a2.conditioning import Conditioning
from engine.a2.options import A2Options
from engine.a2.preview import preview
from engine.a2.sampling import Guidance, Step, begin, sample
from engine.a2.state import save_run
from engine.scene.scene import Sampling

STEPS = 20
SHAPE = (3, 16, 28)  # latent frames and pixels: of 480p only the corner that two cores can do in a second or two


def make_transformer() -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=6, attention_head_dim=128, in_channels=36, out_channels=16, text_dim=512, ffn_dim=3072,
        num_layers=10, image_dim=1280, added_kv_proj_dim=768,
    ).eval().requires_grad_(False)  # fmt: skip


def make_conditioning(t: int, h: int, w: int) -> Conditioning:
    text, other, image = torch.randn(1, 512, 512), torch.randn(1, 512, 512), torch.randn(1, 771, 1280)
    condition, noise = torch.randn(1, 20, t, h, w), torch.randn(1, 16, t, h, w)
    return Conditioning(noise, condition, image, text, other, torch.randn(17, 3), torch.Generator().get_state())


def take_turns(transformer: WanTransformer3DModel, ready: Conditioning) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds of every step of both loops."""
    x, spent = torch.cat([ready.noise, ready.condition], dim=1), {"plain": [], "ours": []}
    begun = [0.0, 0.0]

    def plain() -> None:
        for text in (ready.prompt_embeds, ready.negative_embeds):
            transformer(x, torch.tensor([500]), text, ready.image_embeds, return_dict=False)

    def on_step(step: Step) -> None:
        if step.step % 2 == 0:
            preview(step.clean, ready.colours, count=3)
        spent["ours"].append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        if step.step < step.of:
            spent["plain"].append(seconds(plain))
        begun[:] = time.perf_counter(), time.process_time()

    plain()  # warm up
    spent["plain"].append(seconds(plain))
    begun[:] = time.perf_counter(), time.process_time()
    run = begin(ready, Sampling(steps=STEPS), "unipc", torch.device("cpu"))
    with computing(transformer, A2Options()):
        sample(transformer, ready, run, Guidance(5.0), on_step, stop=lambda: False)
    return spent


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    begun, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - used


def main() -> None:
    transformer, ready = make_transformer(), make_conditioning(*SHAPE)
    spent = take_turns(transformer, ready)
    pairs = list(zip(spent["plain"], spent["ours"], strict=True))
    large = make_conditioning(21, 60, 104)
    run = begin(large, Sampling(steps=STEPS), "unipc", torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        kept = min(
            seconds(lambda: save_run(Path(folder) / "s", run, large, ("unipc", "bf16"), "x"))[0] for _ in range(3)
        )
    shown = min(seconds(lambda: preview(large.noise, large.colours, count=3))[0] for _ in range(5))
    print(json.dumps({
        "bench": "sampling_overhead",
        "parameters": sum(p.numel() for p in transformer.parameters()),
        "steps": STEPS,
        "step_s": {name: round(statistics.median(wall for wall, _ in steps), 3) for name, steps in spent.items()},
        "overhead": round(statistics.median((ours[1] - plain[1]) / plain[1] for plain, ours in pairs), 4),
        "overhead_wall": round(statistics.median((ours[0] - plain[0]) / plain[0] for plain, ours in pairs), 4),
        "preview_ms": round(1000 * shown, 2),
        "state_ms": round(1000 * kept, 1),
        "cpus": os.cpu_count(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
