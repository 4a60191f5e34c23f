"""Metrics: numbers that are measured on a finished clip, kept with its job and shown in the gallery.

A new one takes its own room, with a module that has a `METRIC`, and an entry below. It is loaded when a clip is made,
in the process that made it, or when its number is shown; so what is heavy is imported inside `measure`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from engine.scene.scene import Scene

METRICS: dict[str, str] = {
    # by name: the module that has its `METRIC`
}


class Metric:
    """A metric. `name` is what it is kept under, `title` what people read before its number."""

    name: ClassVar[str]
    title: ClassVar[str]

    def measure(self, clip: Path, scene: Scene) -> float | None:
        """Measure a finished clip; None where the metric does not apply to it. Raises TroupeError."""
        raise NotImplementedError

    def said(self, value: float) -> str:
        """Write a number as people read it."""
        return f"{value:.3g}"


def all_metrics() -> tuple[Metric, ...]:
    """Return every metric, in the order in which they are shown."""
    return tuple(importlib.import_module(module).METRIC for module in METRICS.values())


def known_metric(name: str) -> Metric | None:
    """Return the metric of that name; None for one that this version does not have, such as of an older clip."""
    return importlib.import_module(METRICS[name]).METRIC if name in METRICS else None
