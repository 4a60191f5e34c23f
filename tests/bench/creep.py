"""Whether the engine's process grows from job to job.

    python tests/bench/creep.py [JOBS]

Prints one JSON line. Ten clips (or JOBS) on a random SkyReels-A2 of about 100 M parameters, one after the other in one
engine process that keeps the model. `rss_mb` is its resident memory after each job; `ratio` is the last one's over the
second's: the first still imports and warms up. Linux's /proc tells it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.a2.options import A2Options
from engine.door.render import RenderRequest
from engine.process.client import EngineProcess
from engine.scene.scene_file import load_scene

FIXTURES = ROOT / "tests/fixtures"
CONFIG = {"num_attention_heads": 6, "attention_head_dim": 128, "ffn_dim": 3072, "num_layers": 8,
          "added_kv_proj_dim": 768}  # fmt: skip
GOAL = 1.05


def make_checkpoint(folder: Path) -> int:
    """The tests' tiny one with a larger transformer; its parameters."""
    import torch
    from diffusers import WanTransformer3DModel

    shutil.copytree(FIXTURES / "a2_tiny", folder)
    config = WanTransformer3DModel.load_config(folder / "transformer")
    shutil.rmtree(folder / "transformer")
    torch.manual_seed(0)
    model = WanTransformer3DModel.from_config({**config, **CONFIG})
    model.save_pretrained(folder / "transformer")
    return sum(parameter.numel() for parameter in model.parameters())


def resident_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return round(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024, 1)


def main(jobs: int = 10) -> None:
    scene = load_scene(FIXTURES / "golden/three_references.json")
    small = scene.model_copy(update={
        "video": scene.video.model_copy(update={"width": 128, "height": 96, "frames": 17, "trim_head": 4}),
        "sampling": scene.sampling.model_copy(update={"steps": 3}),
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        parameters = make_checkpoint(place / "model")
        engine, taken, seconds = EngineProcess(), [], []
        try:
            for job in range(jobs):
                options = A2Options(model=str(place / "model"), device="cpu", state=place / f"{job}.safetensors")
                # Another prompt and seed each time: what is kept from job to job should not grow with them.
                asked = replace(
                    RenderRequest(small, FIXTURES / "golden", place / f"{job}.mp4", poster=False, options=options),
                    scene=small.model_copy(update={"prompt": f"{small.prompt} {job}"}),
                )
                begun = time.perf_counter()
                engine.render(asked)
                seconds.append(round(time.perf_counter() - begun, 2))
                taken.append(resident_mb(engine._child.pid))
        finally:
            engine.close(5)
    ratio = taken[-1] / taken[1]
    print(json.dumps({
        "bench": "creep", "jobs": jobs, "parameters": parameters, "rss_mb": taken, "ratio": round(ratio, 4),
        "goal": GOAL, "ok": ratio <= GOAL, "seconds": seconds, "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
