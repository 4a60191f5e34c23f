"""Shoot the presets' card pictures again: `python assets/make/cards.py [preset …]` (all by default).

Each card is a frame of the preset's sample scene, as the draft engine makes it today; upright and square scenes show
several moments side by side. 480 x 270 WebP beside the preset's file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run as a script, from anywhere

from engine import draft  # noqa: E402
from engine.media.images import cover, open_image  # noqa: E402
from engine.scene.cast import Member  # noqa: E402
from engine.scene.presets import load_presets  # noqa: E402
from engine.scene.scene import load_scene  # noqa: E402

CARD = (480, 270)
GAP = 6
# The moment of each card as a part of the clip's length; the middle where nothing is said.
MOMENTS = {
    "performance_wide": (0.95,),
    "dream_walk": (0.45,),
    "close_up_push_in": (0.7,),
    "neon_night": (0.35,),
    "unboxing": (0.02, 0.95),
    "vertical_ad": (0.1, 0.45, 0.8),
}


def main(names: list[str]) -> None:
    """Shoot the named cards, or all."""
    for preset in load_presets(ROOT / "presets").presets:
        if not names or preset.name in names:
            card = shoot(ROOT / "assets" / "samples" / f"{preset.name}.json", MOMENTS.get(preset.name, (0.5,)))
            path = preset.folder / preset.picture
            card.save(path, quality=86, method=6)
            print(f"{path.relative_to(ROOT)}  {path.stat().st_size // 1024} KB")


def shoot(path: Path, moments: tuple[float, ...]) -> Image.Image:
    """The frames of a scene at these moments, side by side."""
    scene = load_scene(path)
    members = [Member(element, open_image(path.parent / element.image)) for element in scene.cast]
    frames: list[np.ndarray] = list(draft.frames(scene, members))
    card = Image.new("RGB", CARD, "#17131f")
    width = (CARD[0] - GAP * (len(moments) - 1)) // len(moments)
    for column, moment in enumerate(moments):
        frame = Image.fromarray(frames[round(moment * (len(frames) - 1))])
        card.paste(cover(frame, (width, CARD[1])), (column * (width + GAP), 0))
    return card


if __name__ == "__main__":
    main(sys.argv[1:])
