"""What the layout works with: players, the stage they stand on, placements that keep to the model's limits.

Sizes are fractions of the frame's height, positions fractions of the frame, as in `Placement`: (x, y) is the middle of
the cut-out's foot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.draft.direct import Act
from engine.draft.measure import Shape
from engine.scene.scene import Element, Placement, Video

HEAD = 0.27  # of a character's height, from the top
MARGIN = 0.055  # left and right of a line: people sway, and the camera comes closer
SMALLEST, LARGEST = 0.0101, 4.0  # what `Placement.scale` takes
BODY_HEIGHTS = {"bust": 1.75, "figure": 1.0, "mascot": 1.35, "card": 1.0}  # a whole person's height over the box's


@dataclass(frozen=True)
class Player:
    """One of the cast to be placed: its element, its measured cut-out, its act, its explicit placement if any."""

    element: Element
    shape: Shape
    act: Act

    @property
    def leading(self) -> bool:
        return self.element.role == "character"


@dataclass(frozen=True)
class StageFrame:
    """The frame's proportions, and the ground line as a fraction of its height."""

    aspect: float  # width over height
    ground: float

    def width(self, shape: Shape, scale: float) -> float:
        """Return the width of a cut-out of that scale, as a fraction of the frame's width."""
        return scale * shape.aspect / self.aspect

    def scale(self, shape: Shape, width: float) -> float:
        """Return the scale at which a cut-out has that width."""
        return width * self.aspect / shape.aspect


def stage_of(video: Video) -> StageFrame:
    """Return the stage of a video.

    The ground lies lower in a wide frame than in an upright one, where the eye wants room below the feet.
    """
    aspect = video.width / video.height
    return StageFrame(aspect, 0.92 if aspect > 1.2 else 0.9 if aspect > 0.8 else 0.86)


def placement_at(x: float, y: float, scale: float) -> Placement:
    """Create a placement, clamped to what `Placement` takes: flat things can be very low in an upright frame."""
    x, y = (round(min(max(value, -1.0), 2.0), 4) for value in (x, y))
    return Placement(x=x, y=y, scale=round(min(max(scale, SMALLEST), LARGEST), 4))


def unit_of(player: Player, placement: Placement) -> float:
    """Return the height that a standing person would have beside this character, in frame heights."""
    return placement.scale * BODY_HEIGHTS[player.shape.kind]


def head_of(shape: Shape, placement: Placement, stage: StageFrame) -> tuple[float, float, float, float]:
    """Return the box of a character's head (left, top, right, bottom), in fractions of the frame."""
    width, top = stage.width(shape, placement.scale), placement.y - placement.scale
    left, right = (placement.x + (side - 0.5) * width for side in shape.head)
    return left, top, right, top + HEAD * placement.scale


def spread(widths: Sequence[float], start: float, end: float, pinned: frozenset[str] = frozenset()) -> list[float]:
    """Compute the centres of a line between `start` and `end`, with even gaps; one that is wider than that overlaps.

    Everybody overlaps by the same part of the own width. A line that is `pinned` to no side is centred.
    """
    if not widths:
        return []
    total, count = sum(widths), len(widths)
    free = end - start - total
    gap, part, first = 0.0, 1.0, start
    if free >= 0 and pinned:
        gap = free / max(count - 1 + (len(pinned) == 1), 1)
        first = start if "left" in pinned else start + gap
        first = end - total if count == 1 and "left" not in pinned else first
    elif free >= 0:
        gap = min(free / (count - 1), 0.1) if count > 1 else 0.0
        first = (start + end - total - gap * (count - 1)) / 2
    elif count > 1:
        ends = (widths[0] + widths[-1]) / 2
        part = max((end - start - ends) / max(total - ends, 1e-6), 0.2)  # of the way from centre to centre
    middles = [0.0]
    for one, other in pairwise(widths):
        middles.append(middles[-1] + part * (one + other) / 2 + gap)
    if free < 0 and not pinned:  # too wide for the line: as much is lost at the left as at the right
        first = (start + end - middles[-1] - (widths[0] + widths[-1]) / 2) / 2
    elif free < 0 and "left" not in pinned:
        first = end - middles[-1] - (widths[0] + widths[-1]) / 2
    return [first + widths[0] / 2 + middle for middle in middles]
