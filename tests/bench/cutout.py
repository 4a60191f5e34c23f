"""How long a cut-out of a 1024-pixel photo takes, by stage, beside plain `rembg.remove` with the same model.

    python tests/bench/cutout.py [fast|standard]

Prints one JSON line; times are medians in seconds. `ratio` is ours over rembg's; ours refines the edge and frees
its colours of the old background's, which plain rembg leaves out.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image

from engine.cutout import QUALITIES, cut_out
from engine.cutout.matte import as_floats, compose, estimate_foreground, refine
from engine.cutout.models import Models, load_session, model_view

SIDE = 1024
REPEATS = 5


def medians(*works: Callable[[], object]) -> list[float]:
    """Median seconds of each, taken in turns, so that a busy machine slows all of them alike."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(REPEATS + 1):
        for work, taken in zip(works, times, strict=True):
            begun = time.perf_counter()
            work()
            if turn:  # the first run allocates
                taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) for taken in times]


def main(quality: str) -> dict[str, object]:
    begun = time.perf_counter()
    session = load_session(QUALITIES[quality])
    loading = time.perf_counter() - begun
    import rembg  # after our session, which imports it without its compiler
    from skimage import data

    photo = Image.fromarray(data.astronaut()).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    models = Models(lambda model: session)
    view = model_view(photo)
    mask = np.asarray(session.predict(view)[0].resize(photo.size), dtype=np.float32) / 255
    colours = as_floats(photo)
    alpha = refine(colours, mask)
    own = estimate_foreground(colours, alpha)
    large = photo.resize((4000, 3000))
    whole, plain, model, edge, foreground, composing, twelve = medians(
        lambda: cut_out(photo, quality=quality, models=models),
        lambda: rembg.remove(photo, session=session),
        lambda: session.predict(model_view(photo)),
        lambda: refine(colours, mask),
        lambda: estimate_foreground(colours, alpha),
        lambda: compose(own, alpha),
        lambda: cut_out(large, quality=quality, models=models),
    )
    begun = time.process_time()
    cut_out(photo, quality=quality, models=models)
    result = {
        "seconds": whole,
        "cpu_seconds": time.process_time() - begun,
        "model": model,
        "matte": edge,
        "foreground": foreground,
        "compose": composing,
        "rembg_remove": plain,
        "ratio": whole / plain,
        "seconds_12_megapixels": twelve,
        "seconds_loading_once": loading,
    }
    return {"bench": "cutout", "quality": quality, "side": SIDE} | {k: round(v, 3) for k, v in result.items()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1] if len(sys.argv) > 1 else "fast")))
