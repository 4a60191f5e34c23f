"""A third engine: stripes that walk. All that an engine needs, and nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from engine.scene.engine import Engine, EngineOptions, Footage, Stage
from engine.scene.settings import Setting


@dataclass(frozen=True)
class StripesOptions(EngineOptions):
    engine = "stripes"
    width: Annotated[
        int, Field(ge=1, le=32), Setting("Stripe width", "In pixels.", "slider", flag="in pixels", metavar="PIXELS")
    ] = 8
    slanted: Annotated[bool, Setting("Slanted", control="checkbox", flag="not upright")] = False


class Stripes(Engine):
    name, title, about, note = "stripes", "Stripes", "Stripes take no time", "Painted by a test."
    stages = (
        Stage("mixing", "Mixing the paint", "pot", weight=0.2),
        Stage("painting", "Painting", "stripe", weight=0.8),
    )
    options = StripesOptions

    def shoot(self, scene, members, context):
        x, y = np.arange(scene.video.width), np.arange(scene.video.height)[:, None] * context.options.slanted
        grey = (((x + y + i) // context.options.width % 2 * 255).astype(np.uint8) for i in range(scene.video.frames))
        tall = (np.broadcast_to(row[..., None], (scene.video.height, scene.video.width, 3)) for row in grey)
        return Footage((frame.copy() for frame in tall), scene.video.frames, "painting")


ENGINE = Stripes()
