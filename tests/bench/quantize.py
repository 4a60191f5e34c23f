"""What quantising while loading costs in memory and time, on a random transformer of about 1.3 B parameters.

    python tests/bench/quantize.py [int8|fp8]

Prints one JSON line. Every load is a process of its own that loads the checkpoint, reads every weight once, and tells
its peak of resident memory, libraries and mapped files included: `first` quantises and keeps the result, `second` maps
what was kept, `unkept` quantises with nowhere to keep it, `float` is the same model in bf16. `limit` is 1.15 times the
quantised size plus 1 GB; the `_of_` values are ratios. Needs about 5 GB of disk, which it frees.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

TINY = ROOT / "tests/fixtures/a2_tiny"
SHARDS = 4
CONFIG = {
    "num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 36, "out_channels": 16, "text_dim": 4096,
    "ffn_dim": 8960, "num_layers": 25, "image_dim": 1280, "added_kv_proj_dim": 1536,
}  # fmt: skip


def make_checkpoint(folder: Path) -> int:
    """The tests' tiny checkpoint with a large transformer; its parameters."""
    import torch
    from accelerate import init_empty_weights
    from diffusers import WanTransformer3DModel
    from safetensors.torch import save_file

    shutil.copytree(TINY, folder)
    target = folder / "transformer"
    for path in target.iterdir():
        path.unlink()
    with init_empty_weights():
        hollow = WanTransformer3DModel(**CONFIG)
    hollow.save_config(target)
    names, index = list(hollow.state_dict()), {}
    for shard in range(SHARDS):
        file = f"diffusion_pytorch_model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        part = names[shard * len(names) // SHARDS : (shard + 1) * len(names) // SHARDS]
        tensors = {name: torch.randn(hollow.state_dict()[name].shape).mul_(0.02).bfloat16() for name in part}
        save_file(tensors, target / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    listing = json.dumps({"metadata": {}, "weight_map": index})
    (target / "diffusion_pytorch_model.safetensors.index.json").write_text(listing)
    return sum(parameter.numel() for parameter in hollow.parameters())


def load(folder: Path, cache: Path, precision: str) -> None:
    """Load in this process, and print what it took."""
    import resource

    import torch

    from engine.a2.compute import choose_compute
    from engine.a2.loading import load_checkpoint
    from engine.a2.options import A2Options

    compute = choose_compute(A2Options(device="cpu", precision=precision))
    load_checkpoint(TINY, compute, cache=cache / "tiny")  # the libraries are imported now
    begun = time.perf_counter()
    checkpoint = load_checkpoint(folder, compute, cache=cache)
    seconds = time.perf_counter() - begun
    size = 0
    for component in (checkpoint.transformer, checkpoint.text_encoder):
        for weight in component.parameters():
            for tensor in (weight._data, weight._scale) if hasattr(weight, "_data") else (weight,):
                tensor.contiguous().view(-1).view(torch.uint8).max()  # read, so that all of it is resident
                size += tensor.nbytes
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({"seconds": round(seconds, 2), "peak": peak, "bytes": size, "notices": checkpoint.notices}))


def alone(*arguments: object) -> dict | int:
    """Run this file in a process of its own. This one stays small: a process begins with its parent's peak."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=3600)
    return json.loads(done.stdout.splitlines()[-1])


def main(precision: str = "int8") -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch) / "model", Path(scratch) / "cache"
        parameters = alone("--make", folder)
        nowhere = Path(scratch) / "file"
        nowhere.write_text("")
        runs = {
            "first": (cache, precision),
            "second": (cache, precision),
            "unkept": (nowhere, precision),
            "float": (cache, "bf16"),
        }
        took = {name: alone("--load", folder, *how) for name, how in runs.items()}
    size = took["first"]["bytes"]
    assert [bool(took[name]["notices"]) for name in took] == [False, False, True, False]
    limit = 1.15 * size + 1e9
    print(json.dumps({
        "bench": "quantize",
        "precision": precision,
        "parameters": parameters,
        "quantised_gb": round(size / 1e9, 3),
        "float_gb": round(took["float"]["bytes"] / 1e9, 3),
        "limit_gb": round(limit / 1e9, 3),
        "peak_gb": {name: round(each["peak"] / 1e9, 3) for name, each in took.items()},
        "peak_of_limit": {name: round(each["peak"] / limit, 3) for name, each in took.items() if name != "float"},
        "seconds": {name: each["seconds"] for name, each in took.items()},
        "second_of_first": round(took["second"]["seconds"] / took["first"]["seconds"], 3),
        "cpus": os.cpu_count(),
    }))  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        load(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    elif sys.argv[1:2] == ["--make"]:
        print(make_checkpoint(Path(sys.argv[2])))
    else:
        main(*sys.argv[1:])
