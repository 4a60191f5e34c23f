"""The camera: an eased path, and parallax by depth.

World coordinates are the frame's pixels as they are with a camera at rest. A point of depth factor k (1 at the ground
line where actors stand, less behind it, more in front) appears at

    focus + (world - focus) * (1 + (zoom - 1) k) + (shift_x, shift_y) k + (orbit (k - 1), 0)

so that what is far moves less. The background's factor grows from its horizon down to the ground line: the floor moves
with the feet that stand on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.draft.easing import glide, wave
from engine.scene.scene import Video

FAR = 0.72  # the depth factor of the background above its horizon
HORIZON = 0.58  # of the frame's height
NEAREST = 1.25
CLOSER = (0.055, 0.17)  # how far a push in goes, at least and at most
ROLL = math.radians(0.3)
ACROSS = (0.025, 0.07)  # of the frame's shorter side: how far a pan goes to either side, at least and at most
PAN_ZOOM = 1.04  # pans are taken a little closer


@dataclass(frozen=True)
class View:
    """The camera at one moment: zoom, shifts and orbit in pixels, roll in radians."""

    zoom: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    orbit: float = 0.0
    roll: float = 0.0

    def scale(self, k: float) -> float:
        return 1 + (self.zoom - 1) * k


@dataclass(frozen=True)
class Aim:
    """What the camera looks at, in fractions of the frame; `closer`, how far it may push in, 0.1 for a tenth; `across`,
    how far it may pan to either side, over the frame's shorter side."""

    x: float
    y: float
    closer: float
    across: float = ACROSS[1]


Box = tuple[float, float, float, float]  # left, top, right, bottom in fractions of the frame


def aim_at(wish: tuple[float, float], boxes: Sequence[Box]) -> Aim:
    """Choose the point near the wished one about which the picture can be enlarged most without cutting off a box.

    Sides that lie outside the frame already do not count.
    """
    best = (-1.0, Aim(*wish, CLOSER[0]))
    for x in np.linspace(0.3, 0.7, 17):
        for y in np.linspace(0.36, 0.72, 19):
            closer = min((_until_cut(float(x), float(y), box) for box in boxes), default=1.0)
            closer = min(max(closer, CLOSER[0]), CLOSER[1])
            worth = closer - 0.12 * (abs(x - wish[0]) + 0.6 * abs(y - wish[1]))
            if worth > best[0] + 1e-9:
                best = (worth, Aim(float(x), float(y), closer))
    return best[1]


def _until_cut(x: float, y: float, box: Box) -> float:
    """Compute how far one can zoom in at (x, y), 0.1 for a tenth, until a side of the box leaves the frame."""
    left, top, right, bottom = box
    room = []
    for near, centre, edge in ((left, x, 0.01), (top, y, 0.01), (1 - right, 1 - x, 0.01), (1 - bottom, 1 - y, 0.015)):
        if 0 <= near < centre:
            room.append(max(centre - edge, 1e-3) / (centre - near) - 1)
    return min(room, default=1.0)


@dataclass(frozen=True)
class Camera:
    """A camera move through a clip. `focus` is what it looks at, in pixels; `ground` the ground line, in pixels."""

    move: str
    width: int
    height: int
    seconds: float
    focus: tuple[float, float]
    ground: float
    phases: tuple[float, ...] = (0.0,) * 9
    closer: float = 0.17  # how far it pushes in or pulls out
    across: float = ACROSS[1]  # how far it pans to either side, over the shorter side

    def view(self, seconds: float) -> View:
        """Return the view at that time."""
        way = glide(seconds / self.seconds) if self.seconds > 0 else 0.0
        side = min(self.width, self.height)
        across = (2 * way - 1) * self.across * side
        match self.move:
            case "push_in":
                return View(zoom=1 + self.closer * way)
            case "pull_out":
                return View(zoom=1 + self.closer * (1 - way))
            case "pan_left":
                return View(zoom=PAN_ZOOM, shift_x=across)
            case "pan_right":
                return View(zoom=PAN_ZOOM, shift_x=-across)
            case "tilt_up":
                return View(zoom=PAN_ZOOM, shift_y=0.8 * across)
            case "tilt_down":
                return View(zoom=PAN_ZOOM, shift_y=-0.8 * across)
            case "orbit":
                return View(zoom=1.02 + 0.05 * way, orbit=-1.5 * across)
            case "handheld":
                return self._handheld(seconds, way, side)
        return View()

    def _handheld(self, seconds: float, way: float, side: int) -> View:
        """Compute a slow wander with a slight tremor: three sines an axis, with phases drawn from the seed."""
        slow, mid, quick = 0.19, 0.43, 0.97  # cycles a second; no common period within a clip

        def wander(first: int) -> float:
            a, b, c = self.phases[first : first + 3]
            return 0.6 * wave(slow * seconds + a) + 0.3 * wave(mid * seconds + b) + 0.12 * wave(quick * seconds + c)

        return View(1.04 + 0.05 * way, 0.016 * side * wander(0), 0.012 * side * wander(3), 0.0, ROLL * wander(6))

    def depth(self, y: np.ndarray | float) -> np.ndarray:
        """Return the depth factor of the ground at world rows y (of the background above the horizon)."""
        horizon = HORIZON * self.height
        down = np.clip((np.asarray(y, np.float64) - horizon) / max(self.ground - horizon, 1.0), 0, None)
        return np.minimum(FAR + (1 - FAR) * down**1.4, NEAREST)

    def project(self, view: View, x: float, y: float, k: float) -> tuple[float, float]:
        """Project a world point of depth factor k to a pixel of the frame."""
        scale = view.scale(k)
        px = (x - self.focus[0]) * scale + view.shift_x * k + view.orbit * (k - 1)
        py = (y - self.focus[1]) * scale + view.shift_y * k
        return self.focus[0] + px - view.roll * py, self.focus[1] + py + view.roll * px

    def rows(self, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute for every row of the frame the background's world row, and offset and factor of its world columns.

        x_world = offset + factor * x. Each (height,) float64. Roll is left out.
        """
        world = np.linspace(-0.5 * self.height, 1.5 * self.height, 2 * self.height + 1)
        k = self.depth(world)
        seen = self.focus[1] + (world - self.focus[1]) * (1 + (view.zoom - 1) * k) + view.shift_y * k
        y = np.interp(np.arange(self.height), seen, world)  # the projection is monotonic in y: invert it
        k = self.depth(y)
        factor = 1 / (1 + (view.zoom - 1) * k)
        offset = self.focus[0] - factor * (self.focus[0] + view.shift_x * k + view.orbit * (k - 1))
        return y, offset, factor

    def reach(self) -> float:
        """Compute how many times the frame's size the background needs, for the camera never to see its edge."""
        margin = 0.0
        for step in range(33):
            view = self.view(self.seconds * step / 32)
            y, offset, factor = self.rows(view)
            lean = abs(view.roll) * max(self.width, self.height)
            right = offset + factor * self.width
            across = max(float(-offset.min()), float(right.max()) - self.width) + lean
            along = max(float(-y.min()), float(y.max()) + 1 - self.height) + lean
            margin = max(margin, 2 * across / self.width, 2 * along / self.height)
        return 1 + margin


def inset_of(move: str, aspect: float) -> float:
    """Return how much of the frame a move may cut off at the left and at the right, in frame heights.

    Actors that travel stay clear of it.
    """
    shift = min(aspect, 1.0)
    match move:
        case "still":
            return 0.0
        case "pan_left" | "pan_right":
            return 0.55 * (PAN_ZOOM - 1) * aspect + 0.05 * shift
        case "handheld":
            return 0.045 * aspect + 0.012 * shift
        case "tilt_up" | "tilt_down":
            return 0.55 * (PAN_ZOOM - 1) * aspect
    return 0.6 * CLOSER[0] * aspect


def camera_of(move: str, video: Video, seed: int, aim: Aim, ground: float) -> Camera:
    """Create the camera of a clip; `ground` in fractions of the frame's height."""
    phases = tuple(float(p) for p in np.random.default_rng([seed, 7]).random(9))
    seconds = max(video.frames - 1, 1) / video.fps
    at = (aim.x * video.width, aim.y * video.height)
    return Camera(move, video.width, video.height, seconds, at, ground * video.height, phases, aim.closer, aim.across)
