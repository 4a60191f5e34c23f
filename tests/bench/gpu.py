"""Transformers of the released sizes with random weights, on a card: seconds a step, memory, and under caps of memory.

    python tests/bench/gpu.py [--models a2,v3,1.3b] [--ways bf16,int8,int8+w8a8,fp8+w8a8] [--attention native,cudnn]
                              [--caps 6,8,12,16,24] [--steps N] [--no-offload]
    python tests/bench/gpu.py --small          small models on the processor, to see that all of it runs

Prints one JSON line. For each model, as its authors run it at 832x480x81 with three pictures, and for each way: seconds
a step with all blocks on the card; then, for ways in 8 bits, as the plan for each cap says, with that much memory and
no more. `of_resident` is a cap's step over the resident one's; `hidden` the share of the copies' time that does not
show; `peak_of_plan` the peak of what was allocated, over what the plan foretold for sampling; `of_peak` the operations
a second over those of a large bf16 product on this card (`peak_tflops`). `clip_seconds` is a step times the model's
steps. `group_offload` is diffusers' own in bf16 under the same caps, or why it does not run. Where torch sees no card
only --small runs, whose times say nothing about one. Wants 40 GB of memory, with group offload 60.
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

from engine.a2.attention import attending, set_attention
from engine.a2.computing import computing
from engine.a2.conditioning import Conditioning
from engine.a2.geometry import TEXT_TOKENS, ClipSize
from engine.a2.models import RELEASES, ModelSpec
from engine.a2.options import A2Options
from engine.a2.plan.choose import Overrides
from engine.a2.plan.plan import make_plan
from engine.a2.plan.shapes import SHARED_CONFIGS, Shapes, shapes_from
from engine.a2.sampling import Guidance, begin, sample
from engine.memory.card import CONTEXT
from engine.memory.hardware import Fact, read_hardware
from engine.memory.loading import _stays_float32
from engine.memory.quantize import as_weight, quantised_weights, stored_type
from engine.memory.shortage import is_shortage
from engine.memory.slabs import stream_blocks
from engine.scene.scene import Sampling
from tests.fake_card import clip_of

GB = 2**30
_PICTURE = 257  # tokens that the image encoder makes of one
_MODELS = {"a2": "SkyReels-A2", "v3": "SkyReels-V3 R2V 14B", "1.3b": "RefAlign 1.3B"}
_SMALL = {"num_attention_heads": 2, "num_layers": 3, "ffn_dim": 512, "text_dim": 64}


@dataclass(frozen=True)
class Setting:
    """What is measured: a model of `config`, its family, the clip, and how it is computed."""

    device: torch.device
    dtype: torch.dtype
    config: dict
    spec: ModelSpec
    clip: ClipSize
    steps: int
    attention: str = "native"

    @property
    def shapes(self) -> Shapes:
        return shapes_from({"transformer": self.config, **SHARED_CONFIGS}, spec=self.spec)

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            steps=self.steps + 1, guidance=self.spec.guidance, image_guidance=self.spec.image_guidance,
            flow_shift=self.spec.flow_shift,
        )  # fmt: skip

    @property
    def operations(self) -> float:
        """Of one step: 2 a weight and token, 4 a number of the width and pair of tokens, in each layer and pass."""
        shape, tokens = self.shapes.transformer, self.clip.tokens
        told = TEXT_TOKENS + (3 * _PICTURE if self.spec.in_channels else 0)
        linear = 2 * tokens * (6 * shape.dim**2 + 2 * shape.dim * shape.ffn) + 4 * told * shape.dim**2
        return self.clip.passes * shape.layers * (linear + 4 * tokens * (tokens + told) * shape.dim)


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
    config, latent, seen = setting.config, setting.clip.latent, setting.spec.in_channels
    generator = torch.Generator().manual_seed(1)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=generator)

    return Conditioning(
        noise=some(16, *latent), condition=some(20, *latent) if seen else None,
        image_embeds=some(_PICTURE * 3, config["image_dim"]) if seen else None,
        prompt_embeds=some(512, config["text_dim"]), negative_embeds=some(512, config["text_dim"]),
        colours=torch.zeros(17, 3), generator=torch.zeros(1),
        references=None if seen else some(16, setting.clip.tail, *latent[1:]),
    )  # fmt: skip


def seconds_a_step(model: WanTransformer3DModel, setting: Setting, options: A2Options) -> float:
    """The mean of all but the first step, which warms up."""
    spec, conditioning, spent = setting.spec, make_conditioning(setting), []
    run = begin(conditioning, setting.sampling, spec.solver, setting.device)
    last = time.perf_counter()

    def on_step(_: object) -> None:
        nonlocal last
        if setting.device.type == "cuda":
            torch.cuda.synchronize(setting.device)
        spent.append(time.perf_counter() - last)
        last = time.perf_counter()

    guidance = Guidance(spec.guidance, bool(options.batched_guidance), spec.image_scale(setting.sampling))
    set_attention(model, setting.attention)
    with attending(setting.attention), computing(model, options, setting.clip.unread):
        latents = sample(model, conditioning, run, guidance, on_step)
    assert torch.isfinite(latents).all()
    return sum(spent[1:]) / setting.steps


def peak(setting: Setting) -> float | None:
    """Operations a second of a large product in bf16."""
    if setting.device.type != "cuda":
        return None
    a, b = (torch.randn(8192, 8192, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
    for count in (3, 20):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(count):
            a @ b
        torch.cuda.synchronize()
        took = time.perf_counter() - begun
    return 20 * 2 * 8192**3 / took


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


def streamed(setting: Setting, way: str, cap: float | None, known: Known) -> dict:
    """One line: as planned for `cap` GB; None: all blocks on the card. `way` is a precision, with "+w8a8" or not."""
    layers, (precision, _, how) = setting.config["num_layers"], way.partition("+")
    options, stay, foretold = A2Options(w8a8=how == "w8a8" or None), layers, None
    clip = replace(setting.clip, w8a8=how == "w8a8")
    if cap is not None and setting.device.type == "cuda":
        total = Fact(int(cap * GB), "capped")
        plan = make_plan(replace(read_hardware(), vram_total=total, vram_free=total), clip, setting.shapes,
                         Overrides(precision=precision))  # fmt: skip
        options, stay = plan.applied(options), plan.settings.resident
        foretold = next(stage.vram for stage in plan.stages if stage.name == "sampling")
    elif cap is not None:
        stay = 0

    def work() -> dict:
        model = make_model(setting, precision if precision in ("int8", "fp8") else None)
        with stream_blocks(model, model.blocks, setting.device, stay) as slabs:
            step = seconds_a_step(model, setting, options)
            copied = slabs.host_bytes * (1 if options.batched_guidance else setting.clip.passes)
            told = {"resident_blocks": stay, "chunk": options.chunk, "batched": bool(options.batched_guidance)}
            told |= {"seconds_a_step": round(step, 3), "copied_gb_a_step": round(copied / GB, 2)}
            told["clip_seconds"] = round(step * setting.spec.steps, 1)
            slabs.close(restore=False)
        if known.peak:
            told["of_peak"] = round(setting.operations / step / known.peak, 3)
        if known.resident is not None:
            told["of_resident"] = round(step / known.resident, 3)
            if known.copy and copied:
                told["hidden"] = round(1 - max(0.0, step - known.resident) / (copied / known.copy), 3)
        return told

    line = under(setting, cap, work)
    if foretold is not None and "peak_gb" in line:
        line["plan_gb"] = round(foretold / GB, 2)
        line["peak_of_plan"] = round(line["peak_gb"] * GB / foretold, 3)
    return line


@dataclass(frozen=True)
class Known:
    """What was measured before: the card's matrix peak, bytes a second to it, and a step with all blocks on it."""

    peak: float | None = None
    copy: float | None = None
    resident: float | None = None


def group_offload(setting: Setting, cap: float | None) -> dict:
    """diffusers' own, block by block, in bf16."""

    def work() -> dict:
        model = make_model(replace(setting, dtype=torch.bfloat16), None)
        model.enable_group_offload(
            onload_device=setting.device, offload_device=torch.device("cpu"), offload_type="block_level",
            num_blocks_per_group=1, use_stream=setting.device.type == "cuda",
        )  # fmt: skip
        return {"seconds_a_step": round(seconds_a_step(model, setting, A2Options()), 3)}

    return under(setting, cap, work)


def setting_of(name: str, asked: argparse.Namespace) -> Setting:
    """What is measured for a model of that name."""
    model = next(each for each in RELEASES if each.title == _MODELS[name])
    config = dict(model.transformer)
    if asked.small:
        config |= _SMALL | ({"added_kv_proj_dim": 256, "image_dim": 64} if model.spec.in_channels else {})
        return Setting(torch.device("cpu"), torch.float32, config, model.spec, clip_of(model, 64, 64, 5), asked.steps)
    clip = clip_of(model, 832, 480, 81)
    return Setting(torch.device("cuda"), torch.bfloat16, config, model.spec, clip, asked.steps)


def measured(name: str, asked: argparse.Namespace, known: Known) -> dict:
    """All lines of one model."""
    setting, found = setting_of(name, asked), {}
    caps = [float(cap) for cap in asked.caps.split(",")]
    for way in asked.ways.split(","):
        for attention in asked.attention.split(","):
            now = replace(setting, attention=attention)
            first = streamed(now, way, None, known)
            lines = [first]
            if way != "bf16" and attention == "native":
                resident = replace(known, resident=first.get("seconds_a_step"))
                lines += [streamed(now, way, cap, resident) for cap in caps]
            found[f"{way}, {attention}"] = lines
            print(name, way, attention, lines, file=sys.stderr, flush=True)
    if not asked.no_offload:
        found["group_offload"] = [group_offload(setting, cap) for cap in caps]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="small models on the processor")
    parser.add_argument("--models", default="a2,v3,1.3b")
    parser.add_argument("--ways", default="bf16,int8,int8+w8a8,fp8+w8a8")
    parser.add_argument("--attention", default="native,cudnn")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--caps", default="6,8,12,16,24")
    parser.add_argument("--no-offload", action="store_true", help="leave diffusers' group offload out")
    asked = parser.parse_args()
    if not (asked.small or torch.cuda.is_available()):
        sys.exit("gpu.py: torch sees no CUDA card here. With --small it runs on the processor.")
    if asked.small:
        torch.set_num_threads(1)  # so little work only waits for more of them on a busy machine
        asked.attention = "native"
    one = setting_of("a2", asked)
    known = Known(peak(one), bandwidth(one))
    results = {name: measured(name, asked, known) for name in asked.models.split(",")}
    card = not asked.small
    print(json.dumps({
        "bench": "gpu", "small": asked.small, "device": torch.cuda.get_device_name() if card else "cpu",
        "note": "" if card else "no card was used: caps are not kept, and the times say nothing about one",
        "clip": f"{one.clip.width}x{one.clip.height}x{one.clip.frames}", "steps": asked.steps,
        "peak_tflops": round(known.peak / 1e12, 1) if known.peak else None,
        "copy_gb_a_second": round(known.copy / GB, 2) if known.copy else None, "results": results,
        "torch": torch.__version__, "cpus": os.cpu_count(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
