"""The tools `backdrops.py` paints with: light, lens, film and floors, on a 1664 x 960 canvas.

A picture is built as light, not as colour: scene-linear floats in which a lamp may be a hundred times as bright as a
wall. What stands behind the actors is thrown out of focus with a disc the shape of a lens's aperture, so that lamps
turn into bokeh by themselves; floors are real planes in perspective that mirror what stands on them; a filmic curve,
a little grain and dither come last.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

W, H = 1664, 960
Light = np.ndarray  # (H, W, 3) float32, scene-linear RGB

YY, XX = np.mgrid[0:H, 0:W].astype(np.float32)


# ---------------------------------------------------------------------------
# Light, lens and film


def rgb(code: str, power: float = 1.0) -> np.ndarray:
    """A colour written as on the web ("ff8800"), as scene-linear light."""
    values = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255
    return (values**2.2 * power).astype(np.float32)


def fill(colour: np.ndarray) -> Light:
    return np.broadcast_to(colour, (H, W, 3)).astype(np.float32).copy()


def ramp(values: np.ndarray, *stops: tuple[float, np.ndarray]) -> Light:
    """Map (H, W) numbers to light through colour stops, eased between them."""
    places = [place for place, _ in stops]
    return np.dstack([np.interp(values, places, [c[i] for _, c in stops]).astype(np.float32) for i in range(3)])


def glow(x: float, y: float, rx: float, ry: float | None = None) -> np.ndarray:
    """A soft pool, 1 in the middle."""
    return np.exp(-(((XX - x) / rx) ** 2) - ((YY - y) / (ry or rx)) ** 2)[..., None]


def noise(rng: np.random.Generator, cells: float, octaves: int = 4, stretch: float = 1.0) -> np.ndarray:
    """Value noise in 0..1 (H, W): `cells` across the width, halved in size each octave."""
    total, weight = np.zeros((H, W), np.float32), 0.0
    for octave in range(octaves):
        columns = max(2, int(cells * 2**octave))
        rows = max(2, int(columns * H / W * stretch))
        grain = rng.random((min(rows, H) + 3, min(columns, W) + 3), np.float32)
        total += cv2.resize(grain, (W, H), interpolation=cv2.INTER_CUBIC) * 0.5**octave
        weight += 0.5**octave
    return np.clip(total / weight, 0, 1)


def drawn(draw: Callable[[np.ndarray, int], None], soft: float = 0) -> np.ndarray:
    """An antialiased mask (H, W, 1): `draw(canvas, 2)` paints 255 at twice the size."""
    canvas = np.zeros((H * 2, W * 2), np.uint8)
    draw(canvas, 2)
    mask = cv2.resize(canvas, (W, H), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return (cv2.GaussianBlur(mask, (0, 0), soft) if soft else mask)[..., None]


def polygon(*points: tuple[float, float], soft: float = 0) -> np.ndarray:
    """An antialiased, filled polygon as a mask."""

    def draw(canvas: np.ndarray, k: int) -> None:
        cv2.fillPoly(canvas, [(np.array(points) * k).round().astype(np.int32)], 255)

    return drawn(draw, soft)


def box(x: float, y: float, w: float, h: float, soft: float = 0) -> np.ndarray:
    return polygon((x, y), (x + w, y), (x + w, y + h), (x, y + h), soft=soft)


def mix(under: Light, over: Light | np.ndarray, mask: np.ndarray) -> Light:
    return under + (over - under) * mask


def defocus(light: Light, radius: int) -> Light:
    """A lens out of focus: every point becomes a disc, brighter towards its rim."""
    y, x = np.mgrid[-radius - 1 : radius + 2, -radius - 1 : radius + 2]
    distance = np.hypot(x, y)
    disc = np.clip(radius + 0.5 - distance, 0, 1) * (0.8 + 0.35 * (distance / radius) ** 4)
    return cv2.filter2D(light, -1, (disc / disc.sum()).astype(np.float32), borderType=cv2.BORDER_REFLECT)


def bloom(light: Light, strength: float = 0.08, sigma: float = 40) -> Light:
    small = cv2.resize(np.minimum(light, 8), (W // 4, H // 4), interpolation=cv2.INTER_AREA)
    halo = cv2.GaussianBlur(small, (0, 0), sigma / 4) * 0.6 + cv2.GaussianBlur(small, (0, 0), sigma) * 0.4
    return light + cv2.resize(halo, (W, H), interpolation=cv2.INTER_CUBIC) * strength


def develop(light: Light) -> Image.Image:
    """Vignette, a filmic curve (Narkowicz's fit of ACES), grain, dither, 8 bits."""
    rng = np.random.default_rng(1)
    light = np.maximum(light, 0) * (1 - 0.26 * (np.hypot((XX - W / 2) / W, (YY - H / 2) / H) * 1.6) ** 2)[..., None]
    light = light * 0.85
    film = np.clip(light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14), 0, 1)
    film = film ** (1 / 2.2)
    grain = cv2.GaussianBlur(rng.standard_normal((H, W)).astype(np.float32), (0, 0), 0.8)
    film = film + (grain * 0.011)[..., None] + (rng.random((H, W, 3), np.float32) - 0.5) / 255
    return Image.fromarray((np.clip(film, 0, 1) * 255 + 0.5).astype(np.uint8))


# ---------------------------------------------------------------------------
# Ground


def ground(horizon: float, lens: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """World coordinates of a floor seen from one unit above it: X to the right, Z away; Z is huge at the horizon."""
    down = np.maximum(YY - horizon, 0.25) / (W * lens)
    return (XX - W / 2) / (W * lens) / down, 1 / down


def below(horizon: float, soft: float = 1.0) -> np.ndarray:
    """A mask (H, W, 1) of what lies under a horizontal line."""
    return np.clip((YY - horizon) / soft + 0.5, 0, 1)[..., None]


def mirrored(light: Light, horizon: float, ripple: np.ndarray | None = None, smear: float = 14) -> Light:
    """What a rough, wet or polished floor shows of the light above it: upside down, smeared along the sight line."""
    source = 2 * horizon - YY
    if ripple is not None:
        source = source + (ripple - 0.5) * (YY - horizon) * 0.7
    shift = (ripple - 0.5) * 26 if ripple is not None else 0
    flipped = cv2.remap(light, XX + shift, np.clip(source, 0, H - 1), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return cv2.GaussianBlur(np.minimum(flipped, 12), (0, 0), sigmaX=smear / 3, sigmaY=smear)


def planks(rng: np.random.Generator, across: np.ndarray, along: np.ndarray, width: float) -> np.ndarray:
    """Wood seen from above, 0..1 (H, W): boards of slightly different tone with grain along them and thin joints."""
    board = np.floor(across / width)
    tone = np.modf(np.abs(np.sin(board * 12.9898)) * 43758.547)[0]
    shifted = along + tone * 7
    joint_along = np.abs(np.modf(np.abs(shifted) / 4.2)[0] - 0.5) > 0.494
    edge = np.abs(across / width - board - 0.5)
    texture = rng.random((512, 512), np.float32)
    texture = cv2.GaussianBlur(texture, (0, 0), sigmaX=1.2, sigmaY=22, borderType=cv2.BORDER_REFLECT)
    texture = (texture - texture.mean()) / texture.std()
    u = np.mod(across * 240 + tone * 190, 511).astype(np.float32)
    v = np.mod(shifted * 60, 511).astype(np.float32)
    grain = cv2.remap(texture, u, v, cv2.INTER_LINEAR)
    wood = 0.5 + 0.22 * (tone - 0.5) + 0.06 * grain
    wood = np.where((edge > 0.485) | joint_along, wood * 0.62, wood)
    return cv2.GaussianBlur(wood.astype(np.float32), (0, 0), 0.9)


def plane_noise(rng: np.random.Generator, across: np.ndarray, away: np.ndarray, cells: float) -> np.ndarray:
    """Noise in 0..1 (H, W) that lies on the ground plane: `cells` to one unit, coarse and fine together."""
    texture = rng.random((256, 256), np.float32)
    texture = cv2.GaussianBlur(np.tile(texture, (3, 3)), (0, 0), 1.0)[256:512, 256:512]
    total = np.zeros((H, W), np.float32)
    for k in (1.0, 0.31, 0.09):
        u = np.mod(across * cells * k, 255).astype(np.float32)
        v = np.mod(away * cells * k, 255).astype(np.float32)
        total += cv2.remap(texture, u, v, cv2.INTER_LINEAR)
    total = (total - total.mean()) / (total.std() + 1e-6)
    return np.clip(0.5 + 0.17 * total, 0, 1)


def beam(x: float, y: float, angle: float, width: float, colour: np.ndarray) -> Light:
    """A cone of light from (x, y), pointing down at angle 0, seen in haze: it fades as it widens."""
    dx, dy = XX - x, YY - y
    distance = np.hypot(dx, dy) + 1
    off = np.arctan2(dx, dy) - angle
    off = (off + np.pi) % (2 * np.pi) - np.pi
    core = np.exp(-((off / width) ** 2)) * 0.75 + np.exp(-((off / (width * 2.2)) ** 2)) * 0.25
    fade = 1 / (1 + distance / 240) * np.clip(distance / 12, 0, 1)
    return (core * fade)[..., None] * colour
