"""One of the cast on the desk, and its pictures as the page needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image


@dataclass
class FurtherView:
    """A further picture of one of the cast, from another side. It is cut out as its card is; the brush does not reach
    it. `id` names its files, as a card's does."""

    id: str
    doubts: tuple[str, ...] = ()  # about its cut-out
    told: str = ""  # about its file


@dataclass
class Card:
    """One of the cast on the desk. `mode`: `auto` (cut out), `none` (photo as it is), `mask` (changed with the brush).
    `sample`: it came with a preset and has not been changed, so the next preset may replace it."""

    id: str
    role: str
    name: str
    mode: str = "auto"
    source: str = ""
    doubts: tuple[str, ...] = ()
    notice: str = ""
    told: str = ""  # about its file: it is truncated, or its colour profile cannot be used
    motion: str | None = None
    placement: dict[str, Any] | None = None
    rest: dict[str, Any] | None = None  # its place when another was moved, kept until the cast or format changes
    description: str = ""
    sample: bool = False
    version: int = 0  # grows with every change of the picture: the key by which previews are cached
    views: tuple[FurtherView, ...] = ()

    @property
    def pictures(self) -> tuple[str, ...]:
        """The ids of its pictures: its own first, then its further views'."""
        return (self.id, *(view.id for view in self.views))


@dataclass(frozen=True)
class Preview:
    """A card's picture as the page needs it: data URLs for its card and for the stage, the stage picture's width over
    its height, and a small copy for computing placements (they do not depend on the resolution, and dragging must be
    fast)."""

    thumb: str
    stage: str
    aspect: float
    sketch: Image.Image
