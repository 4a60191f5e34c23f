"""Predicted over measured bytes of every stage's tensors, each in a process of its own.

    python tests/bench/plan.py            on the processor, or on the card where torch sees one
    python tests/bench/plan.py --large    with the real model's widths; takes minutes and some GB

Prints one JSON line. Random models: `denoise` one forward of the transformer, whole and in pieces; `text`, `image` the
encoders; `encode`, `decode` the VAE. On a card measured by torch's own peak counter, else as the peak of what the
processor's allocator was asked for (torch's profiler). Weights are not in it: their bytes are known exactly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

GOAL = 0.15
STAGES = ("denoise", "denoise_pieces", "denoise_bf16", "text", "image", "encode", "decode", "decode_tiles")


def measure(work: Callable[[], object], device: str) -> int:
    """Peak bytes of one run after a first one."""
    import torch

    work()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def denoise(device: str, large: bool, dtype_name: str = "float32", chunk: int = 0) -> tuple[int, int]:
    import torch
    from diffusers import WanTransformer3DModel

    from engine.a2.chunking import chunked
    from engine.a2.geometry import ClipSize
    from engine.a2.plan.footprint import Forward, denoise_bytes
    from engine.a2.plan.shapes import DEFAULT_CONFIGS, shapes_from

    heads, ffn = (40, 13824) if large else (6, 2074)
    config = {**DEFAULT_CONFIGS["transformer"], "num_attention_heads": heads, "ffn_dim": ffn, "num_layers": 2,
              "added_kv_proj_dim": heads * 128, "text_dim": 512}  # fmt: skip
    dtype, clip = getattr(torch, dtype_name), ClipSize(448, 256, 25)
    model = WanTransformer3DModel(**config)
    for name, parameter in model.named_parameters():
        if not {"time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"} & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)
    model.to(device).eval()

    def work() -> None:
        def some(*shape: int) -> torch.Tensor:
            return torch.zeros(1, *shape, dtype=dtype, device=device)

        with torch.no_grad(), chunked(model, chunk):
            model(some(36, *clip.latent), torch.tensor([500], device=device), some(512, 512), some(771, 1280))

    told = (512 * 512 + 771 * 1280) * dtype.itemsize  # the embeddings themselves, which `work` makes anew
    shape = shapes_from({**DEFAULT_CONFIGS, "transformer": config}).transformer
    return denoise_bytes(shape, clip, Forward(dtype.itemsize, 1, chunk)) + told, measure(work, device)


def text(device: str, large: bool) -> tuple[int, int]:
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    from engine.a2.plan.footprint import text_bytes
    from engine.a2.plan.shapes import DEFAULT_CONFIGS, shapes_from

    config = {**DEFAULT_CONFIGS["text_encoder"], "num_layers": 2, "vocab_size": 1000}
    config |= {} if large else {"d_model": 1024, "d_ff": 2560, "num_heads": 16}
    model = UMT5EncoderModel(UMT5Config(**config, feed_forward_proj="gated-gelu")).to(device, torch.bfloat16).eval()
    ids = torch.ones(1, 512, dtype=torch.long, device=device)

    def work() -> None:
        with torch.no_grad():
            model(ids, ids)

    return text_bytes(shapes_from({**DEFAULT_CONFIGS, "text_encoder": config}).text, 2), measure(work, device)


def image(device: str, large: bool) -> tuple[int, int]:
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from engine.a2.plan.footprint import image_bytes
    from engine.a2.plan.shapes import DEFAULT_CONFIGS, shapes_from

    config = {**DEFAULT_CONFIGS["image_encoder"], "num_hidden_layers": 8}
    config |= {} if large else {"hidden_size": 320, "intermediate_size": 1280}
    model = CLIPVisionModel(CLIPVisionConfig(**config)).to(device).eval()
    pixels = torch.zeros(3, 3, 224, 224, device=device)

    def work() -> None:
        with torch.no_grad():
            model(pixels, output_hidden_states=True)

    return image_bytes(shapes_from({**DEFAULT_CONFIGS, "image_encoder": config}).image, 3), measure(work, device)


def vae(device: str, large: bool, how: str) -> tuple[int, int]:
    import torch
    from diffusers import AutoencoderKLWan

    from engine.a2.decoding import decode
    from engine.a2.geometry import ClipSize, Tiling
    from engine.a2.plan.footprint import decode_bytes, encode_bytes
    from engine.a2.plan.shapes import DEFAULT_CONFIGS, shapes_from

    # Large enough for the convolutions that a real size gets: for small ones the processor unfolds its input.
    config = {**DEFAULT_CONFIGS["vae"], "base_dim": 96 if large else 32}
    model, clip = AutoencoderKLWan(**config).to(device).eval(), ClipSize(416, 240, 9)
    shape = shapes_from({**DEFAULT_CONFIGS, "vae": config}).vae
    tiling = Tiling(28, 12) if how == "tiles" else None

    def work() -> None:
        with torch.no_grad():
            if how == "encode":
                model.encode(torch.zeros(1, 3, clip.frames, clip.height, clip.width, device=device))
            else:
                list(decode(model, torch.zeros(1, 16, *clip.latent), tiling))

    predicted = encode_bytes(shape, clip) if how == "encode" else decode_bytes(shape, clip, tiling)
    return predicted, measure(work, device)


def one(stage: str, device: str, large: bool) -> None:
    """In a process of its own."""
    works = {
        "denoise": lambda: denoise(device, large), "denoise_pieces": lambda: denoise(device, large, chunk=512),
        "denoise_bf16": lambda: denoise(device, large, "bfloat16"), "text": lambda: text(device, large),
        "image": lambda: image(device, large), "encode": lambda: vae(device, large, "encode"),
        "decode": lambda: vae(device, large, "whole"), "decode_tiles": lambda: vae(device, large, "tiles"),
    }  # fmt: skip
    predicted, measured = works[stage]()
    print(json.dumps({"predicted_mb": round(predicted / 1e6, 1), "measured_mb": round(measured / 1e6, 1),
                      "ratio": round(predicted / measured, 3)}))  # fmt: skip


def main() -> None:
    import torch

    device, large, result = "cuda" if torch.cuda.is_available() else "cpu", "--large" in sys.argv, {}
    for stage in STAGES:
        command = [sys.executable, __file__, "--stage", stage, device, str(int(large))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result[stage] = json.loads(done.stdout.splitlines()[-1])
    worst = max(abs(stage["ratio"] - 1) for stage in result.values())
    print(json.dumps({"bench": "plan", "device": device, "large": large, **result, "worst": round(worst, 3),
                      "goal": GOAL, "torch": torch.__version__, "cpus": os.cpu_count()}))  # fmt: skip


if __name__ == "__main__":
    one(sys.argv[2], sys.argv[3], sys.argv[4] == "1") if "--stage" in sys.argv else main()
