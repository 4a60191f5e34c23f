"""How fast the draft is: three actors, 81 frames, in the three formats, from cut-outs in hand.

    python tests/bench/draft.py

Prints one JSON line. For each format the frames per second composed alone and with encoding, and the seconds for the
whole clip; best of REPEATS, wall clock and processor time (encoder included). `rss_mb`: peak memory of a process that
composes 81 and 321 frames.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from PIL import Image

from engine.draft.render import frames
from engine.media.video import write_video
from engine.scene.cast import Member
from engine.scene.scene import Scene
from engine.scene.scene_file import scene_from_data

REPEATS = 3
FORMATS = ((832, 480), (480, 832), (640, 640))
SAMPLES = ROOT / "assets" / "samples"
CAST = (
    ("character", "Rosa", "cast/dancer_woman.webp"),
    ("character", "Ken", "cast/walker_man.webp"),
    ("object", "handbag", "cast/handbag.webp"),
    ("background", "stage", "backdrops/concert_stage.jpg"),
)
PROMPT = "Rosa dances while Ken walks and carries the handbag. Handheld."


def make(width: int, height: int, count: int) -> tuple[Scene, list[Member]]:
    cast = [{"role": role, "name": name, "image": image} for role, name, image in CAST]
    video = {"width": width, "height": height, "frames": count}
    scene = scene_from_data({"cast": cast, "prompt": PROMPT, "video": video})
    members = []
    for element in scene.cast:
        picture = Image.open(SAMPLES / element.image)
        members.append(Member(element, picture.convert("RGB" if element.role == "background" else "RGBA")))
    return scene, members


def spent() -> float:
    """Processor seconds of this process and of the encoders that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def best(work: Callable[[], object]) -> tuple[float, float]:
    """The least wall and processor seconds."""
    walls, works = [], []
    for _ in range(REPEATS):
        begun, used = time.perf_counter(), spent()
        work()
        walls.append(time.perf_counter() - begun)
        works.append(spent() - used)
    return min(walls), min(works)


def measure(width: int, height: int, folder: Path) -> dict[str, float]:
    scene, members = make(width, height, 81)

    def compose() -> None:
        for _ in frames(scene, members):
            pass

    alone, alone_cpu = best(compose)
    whole, whole_cpu = best(lambda: write_video(frames(scene, members), folder / "clip.mp4", scene.video))
    return {
        "fps_composed": round(81 / alone, 1),
        "fps_encoded": round(81 / whole, 1),
        "seconds": round(whole, 2),
        "cpu_composed": round(alone_cpu, 2),
        "cpu_encoded": round(whole_cpu, 2),
    }


def peak_rss(count: int) -> float | None:
    """Peak memory in megabytes of a fresh process that composes `count` frames; None where it cannot be read."""
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]; import draft, resource;"
        f"scene, members = draft.make(832, 480, {count});"
        "[None for _ in draft.frames(scene, members)];"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == 'darwin' else 1 / 1024))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return round(float(run.stdout) / 2**20, 1) if run.returncode == 0 else None


def main() -> None:
    # Memory first: on Linux a child's peak starts at its parent's size, and this process is still small.
    memory = {str(count): peak_rss(count) for count in (81, 321)}
    with tempfile.TemporaryDirectory() as folder:
        result = {f"{w}x{h}": measure(w, h, Path(folder)) for w, h in FORMATS}
    print(json.dumps({"bench": "draft", "frames": 81, **result, "rss_mb": memory, "cpus": os.cpu_count()}))


if __name__ == "__main__":
    main()
