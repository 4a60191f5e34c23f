"""Whether the memory of decoding grows with the length: 33 against 81 frames of 832x480, streamed to the encoder.

    python tests/bench/decode.py

Prints one JSON line. For each length, of a fresh process: its peak memory (MB), what it held before the first latent
frame was decoded, and the seconds; `growth` is the peak of the longest over that of the shortest. `at_once` is the
library's own decode of the whole clip, for comparison. The VAE is the tiny one of the tests: its weights are nothing,
so that what is seen is the frames.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

WIDTH, HEIGHT = 832, 480
LENGTHS = (33, 81)


def peak_mb() -> float:
    import resource  # not on Windows, where this bench does not run

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def decode_one(frames: int, how: str) -> None:
    """In a process of its own: prints what it measured."""
    import torch
    from diffusers import AutoencoderKLWan

    from engine.a2.conditioning import latent_statistics
    from engine.a2.decoding import decode
    from engine.a2.geometry import tiling_for
    from engine.media.video import write_video
    from engine.scene.scene import Video

    vae = AutoencoderKLWan.from_pretrained(ROOT / "tests" / "fixtures" / "a2_tiny" / "vae").eval()
    video = Video(width=WIDTH, height=HEIGHT, frames=frames)
    latents = torch.randn(1, 16, (frames - 1) // 4 + 1, HEIGHT // 8, WIDTH // 8)
    list(decode(vae, latents[:, :, :1, :8, :8]))  # the libraries' own warming up
    before, begun = peak_mb(), time.perf_counter()
    if how == "streamed":
        with tempfile.TemporaryDirectory() as folder:
            shots = decode(vae, latents, tiling_for(HEIGHT // 8, WIDTH // 8))
            count = write_video(shots, Path(folder) / "clip.mp4", video)
    else:
        mean, std = latent_statistics(vae)
        with torch.no_grad():
            count = vae.decode(latents * std + mean).sample.shape[2]
    assert count == frames
    print(json.dumps({"peak_mb": round(peak_mb(), 1), "before_mb": round(before, 1),
                      "seconds": round(time.perf_counter() - begun, 1)}))  # fmt: skip


def measure(frames: int, how: str) -> dict[str, float]:
    command = [sys.executable, __file__, str(frames), how]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    result = {how: {str(frames): measure(frames, how) for frames in LENGTHS} for how in ("streamed", "at_once")}
    for lengths in result.values():
        lengths["growth"] = round(lengths["81"]["peak_mb"] / lengths["33"]["peak_mb"], 3)
    print(json.dumps({"bench": "decode", "size": f"{WIDTH}x{HEIGHT}", **result, "cpus": os.cpu_count()}))


if __name__ == "__main__":
    decode_one(int(sys.argv[1]), sys.argv[2]) if len(sys.argv) > 1 else main()
