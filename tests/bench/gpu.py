"""The 14B transformer with random weights under the memory of smaller cards: what streaming costs there.

    python tests/bench/gpu.py [--steps N] [--caps 6,8,12] [--precision int8,fp8] [--no-offload]
    python tests/bench/gpu.py --small          a small model on the processor, to see that all of it runs

Prints one JSON line. For int8 and fp8, at 832x480x81 with guidance: seconds a step with all blocks on the card, then as
the plan for 6, 8, 12, 16 and 24 GB says, with that much memory and no more. `of_resident` is a cap's step over the
resident one's; `hidden` the share of the copies' time that does not show; `peak_of_plan` the peak of what was
allocated, over what the plan foretold for denoising. `group_offload` is diffusers' own in bf16 under the same caps, or
why it does not run. Where torch sees no card only --small runs, whose times say nothing about one. Wants 40 GB of
memory, with group offload 60.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from accelerate import init_empty_weights
from diffusers import WanTransformer3DModel

from engine.a2.chunking import chunked
from engine.a2.conditioning import Conditioning
from engine.a2.geometry import ClipSize
from engine.a2.plan.choose import Overrides
from engine.a2.plan.plan import make_plan
from engine.a2.plan.shapes import DEFAULT_CONFIGS
from engine.a2.sampling import Guidance, begin, sample
from engine.memory.card import CONTEXT
from engine.memory.hardware import Fact, read_hardware
from engine.memory.loading import _stays_float32
from engine.memory.quantize import as_weight, quantised_weights, stored_type
from engine.memory.shortage import is_shortage
from engine.memory.slabs import stream_blocks
from engine.scene.scene import Sampling

GB = 2**30
SMALL = {**DEFAULT_CONFIGS["transformer"], "num_attention_heads": 2, "num_layers": 3, "ffn_dim": 512,
         "added_kv_proj_dim": 256, "text_dim": 64, "image_dim": 64}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    device: torch.device
    dtype: torch.dtype
    config: dict
    clip: ClipSize
    steps: int


def make_model(setting: Setting, precision: str | None) -> WanTransformer3DModel:
    """Random weights on the host, as the loader would leave them. None: not quantised."""
    with init_empty_weights():
        model = WanTransformer3DModel(**setting.config)
    quantised = quantised_weights(model, "blocks.") if precision else set()
    generator = torch.Generator().manual_seed(0)
    drawn: dict[tuple, torch.Tensor] = {}  # one draw a shape: every block gets a copy of its own

    def draw(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        key = (shape, dtype)
        if key not in drawn:
            drawn[key] = (torch.randn(shape, generator=generator) * 0.02).to(dtype)
        return drawn[key].clone()

    for name, parameter in list(model.named_parameters()):
        owner, _, last = name.rpartition(".")
        dtype = torch.float32 if _stays_float32(model, name) else setting.dtype
        if name in quantised:
            key = (parameter.shape, precision)
            if key not in drawn:
                drawn[key] = torch.randint(-127, 128, parameter.shape, generator=generator, dtype=torch.int8)
                if precision == "fp8":
                    drawn[key] = drawn[key].to(setting.dtype).to(stored_type(precision))
            scale = torch.full((parameter.shape[0], 1), 0.02 / 127, dtype=setting.dtype)
            weight = as_weight(drawn[key].clone(), scale, precision)
        else:
            weight = torch.nn.Parameter(draw(parameter.shape, dtype), requires_grad=False)
        model.get_submodule(owner)._parameters[last] = weight
    return model.eval()


def make_conditioning(setting: Setting) -> Conditioning:
    config, latent = setting.config, setting.clip.latent
    generator = torch.Generator().manual_seed(1)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=generator)

    return Conditioning(
        noise=some(16, *latent), condition=some(20, *latent), image_embeds=some(257 * 3, config["image_dim"]),
        prompt_embeds=some(512, config["text_dim"]), negative_embeds=some(512, config["text_dim"]),
        colours=torch.zeros(17, 3), generator=torch.zeros(1),
    )  # fmt: skip


def seconds_a_step(model: WanTransformer3DModel, setting: Setting, chunk: int = 0, batched: bool = False) -> float:
    """The mean of all but the first step, which warms up."""
    conditioning, spent = make_conditioning(setting), []
    run = begin(conditioning, Sampling(steps=setting.steps + 1, guidance=5.0), "unipc", setting.device)
    last = time.perf_counter()

    def on_step(_: object) -> None:
        nonlocal last
        if setting.device.type == "cuda":
            torch.cuda.synchronize(setting.device)
        spent.append(time.perf_counter() - last)
        last = time.perf_counter()

    with chunked(model, chunk):
        latents = sample(model, conditioning, run, Guidance(5.0, batched), on_step)
    assert torch.isfinite(latents).all()
    return sum(spent[1:]) / setting.steps


def bandwidth(setting: Setting) -> float | None:
    """Bytes a second from pinned memory to the card."""
    if setting.device.type != "cuda":
        return None
    host = torch.empty(GB // 2, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=setting.device)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(8):
        there.copy_(host, non_blocking=True)
    torch.cuda.synchronize()
    return 8 * host.numel() / (time.perf_counter() - begun)


def under(setting: Setting, cap: float | None, work: Callable[[], dict]) -> dict:
    """Do it with so many GB of the card; what the driver takes of a real card's is left out."""
    cuda, total = setting.device.type == "cuda", 0
    if cuda:
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(setting.device).total_memory
        torch.cuda.reset_peak_memory_stats(setting.device)
        if cap is not None:
            torch.cuda.set_per_process_memory_fraction(min(1.0, (cap * GB - CONTEXT) / total), setting.device)
    try:
        found = {"cap_gb": cap, **work()}
    except Exception as error:
        if not (is_shortage(error) or isinstance(error, RuntimeError | NotImplementedError | ValueError)):
            raise
        return {"cap_gb": cap, "failed": (str(error).splitlines() or [type(error).__name__])[0][:200]}
    finally:
        if cuda:
            torch.cuda.set_per_process_memory_fraction(1.0, setting.device)
    if cuda:
        found["peak_gb"] = round((torch.cuda.max_memory_allocated(setting.device) + CONTEXT) / GB, 2)
    return found


def streamed(setting: Setting, precision: str, cap: float | None, speed: float | None, resident: float | None) -> dict:
    """One line: as planned for `cap` GB; None: all blocks on the card."""
    layers = setting.config["num_layers"]
    stay, chunk, batched, foretold = layers, 0, False, None
    if cap is not None and setting.device.type == "cuda":
        found = replace(
            read_hardware(), vram_total=Fact(int(cap * GB), "capped"), vram_free=Fact(int(cap * GB), "capped")
        )
        plan = make_plan(found, setting.clip, overrides=Overrides(precision=precision))
        stay, chunk, batched = plan.settings.resident, plan.settings.chunk, plan.settings.batched
        foretold = next(stage.vram for stage in plan.stages if stage.name == "sampling")
    elif cap is not None:
        stay = 0

    def work() -> dict:
        model = make_model(setting, precision)
        with stream_blocks(model, model.blocks, setting.device, stay) as slabs:
            step = seconds_a_step(model, setting, chunk, batched)
            copied = slabs.host_bytes * (1 if batched else 2)
            told = {"resident_blocks": stay, "chunk": chunk, "batched": batched, "seconds_a_step": round(step, 3)}
            told["copied_gb_a_step"] = round(copied / GB, 2)
            slabs.close(restore=False)
        if resident is not None:
            told["of_resident"] = round(step / resident, 3)
            if speed and copied:
                told["hidden"] = round(1 - max(0.0, step - resident) / (copied / speed), 3)
        return told

    line = under(setting, cap, work)
    if foretold is not None and "peak_gb" in line:
        line["plan_gb"] = round(foretold / GB, 2)
        line["peak_of_plan"] = round(line["peak_gb"] * GB / foretold, 3)
    return line


def group_offload(setting: Setting, cap: float | None) -> dict:
    """diffusers' own, block by block, in bf16."""

    def work() -> dict:
        model = make_model(replace(setting, dtype=torch.bfloat16), None)
        model.enable_group_offload(
            onload_device=setting.device, offload_device=torch.device("cpu"), offload_type="block_level",
            num_blocks_per_group=1, use_stream=setting.device.type == "cuda",
        )  # fmt: skip
        return {"seconds_a_step": round(seconds_a_step(model, setting), 3)}

    return under(setting, cap, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a small model on the processor")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--caps", default="6,8,12,16,24")
    parser.add_argument("--precision", default="int8,fp8")
    parser.add_argument("--no-offload", action="store_true", help="leave diffusers' group offload out")
    asked = parser.parse_args()
    if not (asked.small or torch.cuda.is_available()):
        sys.exit("gpu.py: torch sees no CUDA card here. With --small it runs on the processor.")
    if asked.small:
        torch.set_num_threads(1)  # so little work only waits for more of them on a busy machine
        setting = Setting(torch.device("cpu"), torch.float32, SMALL, ClipSize(64, 64, 5), asked.steps)
    else:
        config = dict(DEFAULT_CONFIGS["transformer"])
        setting = Setting(torch.device("cuda"), torch.bfloat16, config, ClipSize(), asked.steps)
    caps = [float(cap) for cap in asked.caps.split(",")]
    speed, results = bandwidth(setting), {}
    for precision in asked.precision.split(","):
        first = streamed(setting, precision, None, speed, None)
        step = first.get("seconds_a_step")
        results[precision] = [first, *(streamed(setting, precision, cap, speed, step) for cap in caps)]
    others = [] if asked.no_offload else [group_offload(setting, cap) for cap in caps]
    card = setting.device.type == "cuda"
    print(json.dumps({
        "bench": "gpu", "small": asked.small,
        "device": torch.cuda.get_device_name() if card else "cpu",
        "note": "" if card else "no card was used: caps are not kept, and the times say nothing about one",
        "clip": f"{setting.clip.width}x{setting.clip.height}x{setting.clip.frames}", "steps": setting.steps,
        "copy_gb_a_second": round(speed / GB, 2) if speed else None, "results": results, "group_offload": others,
        "torch": torch.__version__, "cpus": os.cpu_count(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
