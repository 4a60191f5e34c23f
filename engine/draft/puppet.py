"""A tile on the frame: the warp of a pose and a camera, its alpha, its shadow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from engine.draft.light import SHADOW_SHRINK, Tile
from engine.draft.motion import Pose

THICKNESS = 0.16  # of its width: how much of a turning puppet is still seen edge-on
NARROW = 4  # tiles that are squeezed a lot are first shrunk this much, or their texture would flicker


@dataclass(frozen=True)
class Stance:
    """A pose seen by the camera: where the foot and the ground below it appear in frame pixels, frame pixels per tile
    pixel, the rotation in radians about the foot, the pose for the bending, how far the relief is shifted, in actor
    heights, and the slant of perspective: by how much one side is taller than the middle."""

    foot: tuple[float, float]
    ground: tuple[float, float]
    scale: float
    angle: float
    pose: Pose
    relief: float
    slant: float = 0.0

    def wide(self) -> float:
        """Return the horizontal stretch; negative where a turning puppet shows its back.

        Never near zero: seen edge-on, paper has a thickness.
        """
        flat = math.cos(2 * math.pi * self.pose.spin)
        return self.pose.wide * math.copysign(THICKNESS + (1 - THICKNESS) * abs(flat), flat)

    def bend(self, height: np.ndarray | float) -> np.ndarray | float:
        """Compute the sideways shift at a height over the foot (1 = head), in actor heights.

        The lean grows with the square of the height, as a cantilever's, the hip is a parabola that is zero at foot and
        head, and the nod grows with the fourth power.
        """
        h = height
        pose = self.pose
        return h * (4 * pose.hip + h * (pose.lean - 4 * pose.hip + pose.nod * h * h))


def place_point(stance: Stance, x: float, height: float, actor: float) -> tuple[float, float]:
    """Compute where a point of the actor appears in the frame, in pixels.

    x right of the foot's middle and height over the foot at rest, both in tile pixels; `actor` the tile's height.
    """
    lx = (x * stance.wide() + float(stance.bend(height / actor)) * actor) * stance.scale
    ly = -height * stance.pose.tall * stance.scale
    cos, sin = math.cos(stance.angle), math.sin(stance.angle)
    return stance.foot[0] + cos * lx - sin * ly, stance.foot[1] + sin * lx + cos * ly


def warp(tile: Tile, stance: Stance, size: tuple[int, int]) -> tuple[np.ndarray, tuple[slice, slice]] | None:
    """Warp the tile to its stance: (h, w, 4) uint8 premultiplied, and where in the frame; None if out of sight."""
    box = _bounds(tile, stance, size)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    cos, sin = math.cos(stance.angle), math.sin(stance.angle)
    dx = np.arange(x0, x1, dtype=np.float32) - np.float32(stance.foot[0])
    dy = (np.arange(y0, y1, dtype=np.float32) - np.float32(stance.foot[1]))[:, None]
    across, up = 1 / (stance.scale * stance.wide()), 1 / (stance.scale * stance.pose.tall)
    v = dx * np.float32(-sin * up) + dy * np.float32(cos * up)  # tile pixels below the foot, (h, w)
    u = dx * np.float32(cos * across) + dy * np.float32(sin * across)
    if stance.slant:
        middle = np.float32(-0.12 * tile.height)  # scaled about a row near the foot, so that it keeps standing
        v = middle + (v - middle) * (1 + u * np.float32(2 * stance.slant / tile.pixels.shape[1]))
    height = np.clip(v * np.float32(-1 / tile.height), 0, 1.3)
    u -= stance.bend(height) * np.float32(tile.height / stance.wide())
    u += np.float32(tile.foot[0])
    v += np.float32(tile.foot[1])
    if abs(stance.relief) > 2e-4:
        out = cv2.remap(tile.relief, u, v, cv2.INTER_LINEAR)
        u -= out * np.float32(stance.relief * tile.height / 255)
    pixels = tile.pixels
    if abs(stance.wide()) < 0.5:
        rows, columns = pixels.shape[:2]
        narrow = max(1, columns // NARROW)
        pixels = cv2.resize(pixels, (narrow, rows), interpolation=cv2.INTER_AREA)
        u = (u + np.float32(0.5)) * np.float32(narrow / columns) - np.float32(0.5)
    return cv2.remap(pixels, u, v, cv2.INTER_LINEAR), (slice(y0, y1), slice(x0, x1))


def _bounds(tile: Tile, stance: Stance, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Compute the part of the frame (left, top, right, bottom) in which the tile can appear; None where it cannot."""
    rows, columns = tile.pixels.shape[:2]
    slack = tile.height * (abs(stance.pose.hip) + abs(stance.pose.lean) + abs(stance.pose.nod)) * stance.scale + 2
    rise = 0.5 * tile.height * abs(stance.slant) * stance.scale + 2
    xs, ys = [], []
    for u in (-tile.foot[0], columns - tile.foot[0]):
        for v in (-tile.foot[1], rows - tile.foot[1]):
            lx, ly = u * stance.wide() * stance.scale, v * stance.pose.tall * stance.scale
            cos, sin = math.cos(stance.angle), math.sin(stance.angle)
            xs.append(stance.foot[0] + cos * lx - sin * ly)
            ys.append(stance.foot[1] + sin * lx + cos * ly)
    x0, x1 = max(0, math.floor(min(xs) - slack)), min(size[0], math.ceil(max(xs) + slack) + 1)
    y0, y1 = max(0, math.floor(min(ys) - rise)), min(size[1], math.ceil(max(ys) + rise) + 1)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def glint(seen: np.ndarray, yaw: float, strength: float) -> np.ndarray:
    """Draw a soft slanted highlight that moves over a turning thing: at most 56 levels lighter, within its alpha."""
    rows, columns = seen.shape[:2]
    x = np.linspace(-1, 1, columns, dtype=np.float32) + np.linspace(0.25, -0.25, rows, dtype=np.float32)[:, None]
    bar = np.exp(-(((x - np.float32(1.3 * yaw)) / np.float32(0.22)) ** 2)) * np.float32(56 * strength)
    light = cv2.multiply(bar.astype(np.uint8), np.ascontiguousarray(seen[..., 3]), scale=1 / 255)
    lit = cv2.add(np.ascontiguousarray(seen[..., :3]), cv2.merge([light] * 3))
    alpha = np.ascontiguousarray(seen[..., 3])
    return cv2.merge([cv2.min(lit, cv2.merge([alpha] * 3)), alpha])


def lay_over(frame: np.ndarray, seen: np.ndarray, where: tuple[slice, slice]) -> None:
    """Composite premultiplied RGBA over RGB (Porter-Duff over), in place."""
    part = frame[where]
    clear = cv2.bitwise_not(seen[..., 3])
    cv2.multiply(part, cv2.merge([clear, clear, clear]), part, 1 / 255)
    cv2.add(part, np.ascontiguousarray(seen[..., :3]), part)


def cast_shadow(frame: np.ndarray, tile: Tile, stance: Stance, strength: float, spread: float) -> None:
    """Darken the ground under an actor, in place. `spread` scales the shadow about the point below the foot."""
    if tile.shadow is None or strength <= 0:
        return
    scale = stance.scale * SHADOW_SHRINK * spread
    across = scale * max(abs(stance.wide()), 0.3)
    fx, fy = tile.shadow.foot
    rows, columns = tile.shadow.mask.shape
    gx, gy = stance.ground
    x0, x1 = max(0, math.floor(gx - fx * across)), min(frame.shape[1], math.ceil(gx + (columns - fx) * across))
    y0, y1 = max(0, math.floor(gy - fy * scale)), min(frame.shape[0], math.ceil(gy + (rows - fy) * scale))
    if x1 <= x0 or y1 <= y0:
        return
    matrix = np.array([[across, 0, gx - fx * across - x0], [0, scale, gy - fy * scale - y0]], np.float32)
    mask = cv2.warpAffine(tile.shadow.mask, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    darken(frame[y0:y1, x0:x1], mask, strength)


def darken(part: np.ndarray, mask: np.ndarray, strength: float) -> None:
    """Multiply by a shadow, in place; shadows are a little blue, as the light that fills them is the sky's."""
    keep = [cv2.convertScaleAbs(mask, alpha=-strength * tint, beta=255) for tint in (1.0, 0.97, 0.9)]
    cv2.multiply(part, cv2.merge(keep), part, 1 / 255)
