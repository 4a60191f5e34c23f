"""The background: a photo made to cover the frame with room to move, or, where there is none, a painted studio."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

FAR_BLUR = 0.0038  # of the frame's height: depth of field behind standing people
CLOSE_BLUR = 0.009  # and behind people close to the camera


@dataclass(frozen=True)
class Backdrop:
    """The background in world pixels: `sharp` and `soft` (blurred far away), (h, w, 3) uint8 RGB, larger than the frame
    by `origin` pixels (x, y) on each side; `light` the side its light comes from, -1 left to 1 right."""

    sharp: np.ndarray
    soft: np.ndarray
    origin: tuple[float, float]
    light: float

    def behind(self, box: tuple[float, float, float, float]) -> np.ndarray:
        """Crop the part behind a box (left, top, right, bottom in frame pixels), with a margin.

        Where that is only a few pixels, all of it.
        """
        left, top, right, bottom = box
        more_x, more_y = 0.35 * (right - left), 0.15 * (bottom - top)
        rows, columns = self.sharp.shape[:2]
        x0, x1 = (int(np.clip(x + self.origin[0], 0, columns)) for x in (left - more_x, right + more_x))
        y0, y1 = (int(np.clip(y + self.origin[1], 0, rows)) for y in (top - more_y, bottom + more_y))
        if x1 - x0 < 8 or y1 - y0 < 8:
            return self.sharp
        return self.sharp[y0:y1, x0:x1]


def backdrop_of(picture: Image.Image, size: tuple[int, int], reach: float, blur: float, ground: float) -> Backdrop:
    """Scale a picture to cover `size` times `reach`, centred, and prepare its depth of field.

    `blur` is the blur far away, as a fraction of the frame's height; it fades out towards the ground line (`ground`,
    also a fraction of that height).
    """
    width, height = round(size[0] * reach), round(size[1] * reach)
    picture = picture.convert("RGB")
    factor = max(width / picture.width, height / picture.height)
    across, along = width / factor, height / factor
    left, top = (picture.width - across) / 2, (picture.height - along) / 2
    box = (max(left, 0), max(top, 0), min(left + across, picture.width), min(top + along, picture.height))
    scaled = picture.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    sharp = np.ascontiguousarray(np.asarray(scaled))
    origin = ((width - size[0]) / 2, (height - size[1]) / 2)
    soft = _depth_of_field(sharp, blur * size[1], ground * size[1] + origin[1]) if blur else sharp
    return Backdrop(sharp, soft, origin, _light_side(sharp))


def _depth_of_field(sharp: np.ndarray, sigma: float, ground: float) -> np.ndarray:
    """Blur the background far away, by `sigma` pixels, fading to sharp at the row `ground`, the actors' feet."""
    soft = cv2.GaussianBlur(sharp, (0, 0), max(sigma, 0.3))
    far = np.clip((ground - np.arange(sharp.shape[0], dtype=np.float32)) / (0.35 * ground), 0, 1)
    far = (far * far * (3 - 2 * far))[:, None, None]
    mixed: np.ndarray = (sharp + (soft.astype(np.float32) - sharp) * far + 0.5).astype(np.uint8)
    return mixed


def _light_side(sharp: np.ndarray) -> float:
    """Estimate the side that the light comes from, -1 left to 1 right, by where the bright parts are."""
    small = cv2.resize(cv2.cvtColor(sharp, cv2.COLOR_RGB2GRAY), (32, 18), interpolation=cv2.INTER_AREA)
    bright = np.clip(small.astype(np.float32) - small.mean(), 0, None) ** 1.5
    if bright.sum() < 1:
        return 0.0
    return float(np.clip((bright.sum(0) @ np.linspace(-1, 1, 32)) / bright.sum() * 2.2, -1, 1))


def studio(size: tuple[int, int], colours: list[np.ndarray], seed: int) -> Image.Image:
    """Paint a paper backdrop: a wall that curves into the floor, lit from one side, in a tint that suits the cast.

    `colours` are Lab means of the cast's cut-outs; the seed chooses between a tint of their own hue and its complement,
    and the side of the light.
    """
    rng = np.random.default_rng([seed, 11])
    own = np.mean(colours, axis=0) if colours else np.array([60.0, 4.0, 12.0])
    chroma = float(np.hypot(own[1], own[2]))
    hue = np.arctan2(own[2], own[1]) if chroma > 4 else rng.uniform(-np.pi, np.pi)
    hue += float(rng.choice([0.0, np.pi, np.pi * 0.85, 0.25]))
    strength = float(np.clip(chroma * 0.5, 7, 15))
    base = 78.0 if own[0] < 72 else 62.0  # pale things want a darker wall
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width * 2 - 1, y / height
    side = float(rng.choice([-1.0, 1.0])) * 0.35
    bend = 1 / (1 + np.exp(-(y - 0.72) * 26))  # the cove between wall and floor
    spot = np.exp(-(((x - side) / 1.05) ** 2 + ((y - 0.42) / 0.6) ** 2))
    pool = np.exp(-(((x - side * 0.5) / 0.9) ** 2 + ((y - 0.9) / 0.3) ** 2))
    light = base - 13 + 20 * spot * (1 - bend) + bend * (9 + 8 * pool) - 5 * np.exp(-(((y - 0.715) / 0.05) ** 2))
    lab = np.dstack([light, np.full_like(light, strength * np.cos(hue)), np.full_like(light, strength * np.sin(hue))])
    rgb = cv2.cvtColor(np.clip(lab, [0, -90, -90], [97, 90, 90]).astype(np.float32), cv2.COLOR_LAB2RGB) * 255
    grain = rng.uniform(0, 1, rgb.shape[:2])[..., None]  # dither: eight bits would show bands
    return Image.fromarray(np.clip(np.floor(rgb + grain), 0, 255).astype(np.uint8))
