"""The show: everything prepared, played frame by frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from engine.draft.backdrop import Backdrop
from engine.draft.camera import Camera, View
from engine.draft.easing import glide
from engine.draft.light import Tile
from engine.draft.motion import Mover, Pose
from engine.draft.puppet import Stance, cast_shadow, darken, glint, lay_over, place_point, warp

TURN_RELIEF = {True: 0.1, False: 0.02}  # thing or somebody: how far relief moves at yaw 1, in actor heights
AIRBORNE = 0.2  # of the frame: what stands this much higher than the ground line is in the air
SLANT = 0.07  # of a turning thing at yaw 1: how much taller its near side is than its middle
ORBIT_RELIEF = 0.035  # shift of the actors' relief at an orbit of one frame height, in actor heights
FOCUS = (0.55, 1.0)  # share of the depth of field at a clip's start and end: the focus settles on the actors


@dataclass(frozen=True)
class Actor:
    """One of the cast, ready to be played: its tile, where it stands in world pixels, how it moves. A held object has
    its holder's index among the actors, and its grip (x right of the holder's foot, height above it) in world
    pixels."""

    tile: Tile
    foot: tuple[float, float]
    size: float  # the box's height in world pixels
    mover: Mover
    rooted: bool
    holder: int | None = None
    grip: tuple[float, float] = (0.0, 0.0)
    stroke: float = 0.0
    behind: bool = False  # held behind the holder


@dataclass(frozen=True)
class Show:
    """Everything that the frames are drawn from."""

    camera: Camera
    backdrop: Backdrop
    actors: dict[int, Actor]
    order: list[int]
    vignette: np.ndarray
    grade: np.ndarray

    def frame(self, seconds: float) -> np.ndarray:
        """Draw the frame at that time, (height, width, 3) uint8 RGB."""
        view = self.camera.view(seconds)
        frame = self._background(view, seconds)
        stances: dict[int, Stance] = {}
        seen: dict[int, tuple[np.ndarray, tuple[slice, slice]]] = {}
        for i in sorted(self.order, key=lambda i: self.actors[i].holder is not None):
            stances[i] = self._stance(self.actors[i], view, seconds, stances)  # holders first
        for i in self.order:
            actor = self.actors[i]
            if actor.holder is None:
                self._shadow(frame, actor, stances[i])
            layer = warp(actor.tile, stances[i], (self.camera.width, self.camera.height))
            if layer is None:
                continue
            for j in seen:
                if j == actor.holder or (actor.mover.thing and self.actors[j].rooted):
                    _shade_body(frame, layer, seen[j], actor.size)
            seen[i] = layer
            lay_over(frame, _shaded(layer[0], stances[i]), layer[1])
        return cv2.LUT(cv2.multiply(frame, self.vignette, frame, 1 / 255), self.grade)

    def _shadow(self, frame: np.ndarray, actor: Actor, stance: Stance) -> None:
        """Draw an actor's shadow, in place: the higher the actor is above the ground, the smaller and fainter."""
        rise = max((stance.ground[1] - stance.foot[1]) / (stance.scale * actor.tile.height), 0.0)
        cast_shadow(frame, actor.tile, stance, 1 / (1 + 3.2 * rise), 1 - 0.5 * min(rise, 0.6))

    def _background(self, view: View, seconds: float) -> np.ndarray:
        y, offset, factor = self.camera.rows(view)
        ox, oy = self.backdrop.origin
        x = np.arange(self.camera.width, dtype=np.float32)
        map_x = factor.astype(np.float32)[:, None] * x + (offset + ox).astype(np.float32)[:, None]
        map_y = np.repeat((y + oy).astype(np.float32)[:, None], self.camera.width, axis=1)
        if view.roll:
            fx, fy = self.camera.focus
            map_x += np.float32(view.roll) * (np.arange(self.camera.height, dtype=np.float32)[:, None] - np.float32(fy))
            map_y -= np.float32(view.roll) * (x - np.float32(fx))
        blur = FOCUS[0] + (FOCUS[1] - FOCUS[0]) * glide(seconds / self.camera.seconds)
        seen = cv2.addWeighted(self.backdrop.sharp, 1 - blur, self.backdrop.soft, blur, 0)
        return cv2.remap(seen, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    def _stance(self, actor: Actor, view: View, seconds: float, stances: dict[int, Stance]) -> Stance:
        pose = actor.mover.pose(seconds)
        slim = _slimness(actor.tile)
        relief = slim * (pose.yaw * TURN_RELIEF[actor.mover.thing] + ORBIT_RELIEF * view.orbit / self.camera.height)
        slant = slim * SLANT * pose.yaw if actor.mover.thing else 0.0
        if actor.holder is not None and actor.holder in stances:
            return _held(actor, pose, (relief, slant), self.actors[actor.holder], stances[actor.holder])
        world_x = actor.foot[0] + pose.travel * self.camera.height
        world_y = actor.foot[1] + 0.12 * pose.near * self.camera.height
        k = float(self.camera.depth(world_y))
        size = actor.size * (1 + pose.near) * view.scale(k)
        ground = self.camera.project(view, world_x, world_y, k)
        foot = (ground[0], ground[1] - pose.rise * size)
        if actor.foot[1] < self.camera.ground - AIRBORNE * self.camera.height:  # its shadow falls on the ground line
            ground = self.camera.project(view, world_x, self.camera.ground, 1.0)
        scale = size / actor.tile.height
        angle = math.radians(pose.tilt + pose.roll) + view.roll
        if pose.roll:  # about the middle, not about the foot
            half, roll = 0.5 * size, math.radians(pose.roll)
            foot = (foot[0] - half * math.sin(roll), foot[1] - half * (1 - math.cos(roll)))
        if actor.rooted:
            lowest = self.camera.height + 1 - actor.tile.overscan * scale * 0.9
            foot = (foot[0], max(foot[1], lowest))
        return Stance(foot, ground, scale, angle, pose, relief, slant)


def _held(thing: Actor, pose: Pose, depth: tuple[float, float], holder: Actor, stance: Stance) -> Stance:
    """Compute the stance of a held thing from its holder's, `stance`; `depth` is the thing's relief and slant."""
    unit = holder.tile.height / holder.size  # the holder's tile pixels per world pixel
    mx, my = place_point(stance, thing.grip[0] * unit, thing.grip[1] * unit, holder.tile.height)
    scale = stance.scale * unit * thing.size / thing.tile.height
    angle = 0.7 * stance.angle + math.radians(pose.tilt + pose.roll)
    half = 0.5 * thing.tile.height * scale
    rise = pose.rise / 0.3 * thing.stroke if thing.mover.motion == "lift" else pose.rise
    foot = (mx - half * math.sin(angle), my + half * math.cos(angle) - rise * 2 * half)
    return Stance(foot, foot, scale, angle, pose, *depth)


def _slimness(tile: Tile) -> float:
    """Return the factor for a tile's relief and slant: below 1 for a slim one, which they would squeeze or shear.

    They are in heights, and what is slim has less depth than that.
    """
    width: int = tile.pixels.shape[1]
    return min(1.0, width / tile.height)


def _shaded(seen: np.ndarray, stance: Stance) -> np.ndarray:
    """Light a turning tile: a glint on a thing, and less light on a turning puppet the more it is seen edge-on."""
    if stance.pose.glint:
        seen = glint(seen, stance.pose.yaw, stance.pose.glint)
    if stance.pose.spin == 0:
        return seen
    flat = abs(math.cos(2 * math.pi * stance.pose.spin))
    if flat > 0.999:
        return seen
    light = (*[0.72 + 0.28 * flat] * 3, 1.0)
    shaded: np.ndarray = cv2.multiply(seen, light)  # type: ignore[call-overload]  # its types know no scalar
    return shaded


def _shade_body(
    frame: np.ndarray,
    thing: tuple[np.ndarray, tuple[slice, slice]],
    behind: tuple[np.ndarray, tuple[slice, slice]],
    size: float,
) -> None:
    """Draw an object's soft shadow, in place, on its holder or a bust right behind it, and on nothing else."""
    off = max(1, round(0.04 * size))
    (ty, tx), (hy, hx) = thing[1], behind[1]
    y0, y1 = max(ty.start + off - 2 * off, hy.start), min(ty.stop + 3 * off, hy.stop)
    x0, x1 = max(tx.start - 2 * off, hx.start), min(tx.stop + 2 * off, hx.stop)
    if y1 <= y0 or x1 <= x0:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    sy0, sx0 = max(ty.start + off, y0), max(tx.start, x0)
    sy1, sx1 = min(ty.stop + off, y1), min(tx.stop, x1)
    if sy1 <= sy0 or sx1 <= sx0:
        return
    mask[sy0 - y0 : sy1 - y0, sx0 - x0 : sx1 - x0] = thing[0][
        sy0 - off - ty.start : sy1 - off - ty.start, sx0 - tx.start : sx1 - tx.start, 3
    ]
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.8, 0.045 * size))
    body = behind[0][y0 - hy.start : y1 - hy.start, x0 - hx.start : x1 - hx.start, 3]
    mask = cv2.multiply(mask, np.ascontiguousarray(body), scale=1 / 255)
    darken(frame[y0:y1, x0:x1], mask, 0.42)
