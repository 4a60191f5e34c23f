"""Peak memory and seconds of loading a large random transformer in 8 bits and streaming it, with a LoRA and without.

    python tests/bench/lora_memory.py                 a transformer of 1.4 billion parameters (3 GB in bf16)
    python tests/bench/lora_memory.py --layers 4      a smaller one

Prints one JSON line. Each way in a process of its own, on the processor, after the 8-bit copy is on the disk: `anon_mb`
is the peak of memory that is the process's own, without mapped files, over what it was before; `rss_mb` the same with
them. `of_without` is a way's `anon_mb` over the one without a LoRA. Blocks wait in memory, as where they are pinned.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

RANK = 64
CONFIG = {
    "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30, "in_channels": 36,
    "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "image_dim": 1280, "added_kv_proj_dim": 1536,
}  # fmt: skip


def write_model(folder: Path, layers: int) -> None:
    """Write a random transformer in bf16, and a LoRA for all of its blocks' linear layers."""
    import torch
    from diffusers import WanTransformer3DModel
    from safetensors.torch import save_file

    with torch.device("meta"):
        model = WanTransformer3DModel(**{**CONFIG, "num_layers": layers})
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: (torch.randn(tensor.shape, generator=generator) * 0.02).to(torch.bfloat16)
        for name, tensor in model.named_parameters()
    }
    (folder / "transformer").mkdir(parents=True)
    save_file(tensors, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    (folder / "transformer" / "config.json").write_text(
        json.dumps({**model.config, "_class_name": "WanTransformer3DModel"})
    )
    lora = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.startswith("blocks."):
            lora[f"transformer.{name}.lora_A.weight"] = torch.zeros(RANK, module.in_features, dtype=torch.bfloat16)
            lora[f"transformer.{name}.lora_B.weight"] = torch.zeros(module.out_features, RANK, dtype=torch.bfloat16)
    save_file(lora, folder / "lora.safetensors")


def memory(kind: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) // 1024
    return 0


def measure(folder: Path, how: str) -> None:
    """In a process of its own: load, stream, run once."""
    import torch
    from diffusers import WanTransformer3DModel

    from engine.a2.adapters import Fused, adapters_of, refit
    from engine.a2.loading import _hollow
    from engine.memory.homes import Waiting
    from engine.memory.loading import Quantisation, load_quantised
    from engine.memory.slabs import stream_blocks
    from engine.memory.weights import read_component
    from engine.scene.engine import Lora

    cpu, peaks, done = torch.device("cpu"), {"RssAnon": 0, "VmRSS": 0}, threading.Event()
    before = {kind: memory(kind) for kind in peaks}

    def watch() -> None:
        while not done.wait(0.01):
            for kind in peaks:
                peaks[kind] = max(peaks[kind], memory(kind))

    watching = threading.Thread(target=watch)
    watching.start()
    begun = time.perf_counter()
    weights = read_component(folder, "transformer", "diffusion_pytorch_model")
    model = _hollow(WanTransformer3DModel, weights)
    loaded = load_quantised(model, weights, Quantisation("int8", "blocks.", torch.float32, cpu, folder / "cache"))
    if how == "lora":
        refit(model, weights, Fused(), adapters_of([Lora(folder / "lora.safetensors", 0.7)]), "int8")
    slabs = stream_blocks(model, model.blocks, cpu, 0, waiting=Waiting("pinned", loaded.in_memory == 0))
    seconds = time.perf_counter() - begun
    with torch.no_grad():
        model(torch.zeros(1, 36, 1, 4, 4), torch.tensor([500]), torch.zeros(1, 8, 4096), torch.zeros(1, 8, 1280))
    slabs.close()
    done.set()
    watching.join()
    told = {f"{name}_mb": peaks[kind] - before[kind] for name, kind in (("anon", "RssAnon"), ("rss", "VmRSS"))}
    print(json.dumps({**told, "seconds": round(seconds, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=CONFIG["num_layers"])
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "HOW"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        measure(Path(asked.measure[0]), asked.measure[1])
        return
    with tempfile.TemporaryDirectory(dir=ROOT) as place:
        folder, found = Path(place), {}
        write_model(folder, asked.layers)
        size = sum(file.stat().st_size for file in (folder / "transformer").glob("*.safetensors"))
        for way in ("first", "without", "lora"):  # the first writes the 8-bit copy
            command = [sys.executable, __file__, "--measure", str(folder), way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way] = json.loads(done.stdout.splitlines()[-1])
    found["lora"]["of_without"] = round(found["lora"]["anon_mb"] / found["without"]["anon_mb"], 3)
    print(
        json.dumps({"bench": "lora_memory", "model_mb": size // 2**20, "rank": RANK, **found, "cpus": os.cpu_count()})
    )


if __name__ == "__main__":
    main()
