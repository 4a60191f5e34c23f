"""A metric for the tests: how many frames a clip has."""

from __future__ import annotations

from engine.errors import VideoError
from engine.media.video import probe
from engine.scene.metrics import Metric


class Length(Metric):
    name, title = "length", "Length"

    def measure(self, clip, scene):
        if "sleeps" in scene.prompt:
            return None
        if "explodes" in scene.prompt:
            raise VideoError("it cannot be counted", "Use fingers.")
        if "stumbles" in scene.prompt:
            raise ValueError("a fault of the metric's own")
        return float("nan") if "vanishes" in scene.prompt else probe(clip).frames

    def said(self, value):
        return f"{value:.0f} frames"


METRIC = Length()
