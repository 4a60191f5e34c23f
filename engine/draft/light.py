"""Light: what makes a cut-out belong to its background. Colour harmony, a soft edge, light wrap, shadows, relief.

All of it is computed once per clip and baked into an actor's tile: a frame then only warps tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from engine.draft.measure import Shape

OVERSCAN = 0.14  # of its height: how far a cropped side is continued, so that its cut line never shows
HARMONY = {"character": (0.26, 0.1), "object": (0.12, 0.04)}  # pull towards the background: luminance, chroma
WRAP = {"character": 0.6, "object": 0.4}  # strength of the light wrap
LIMIT = {
    "character": (9.0, 4.5),
    "object": (4.0, 2.0),
}  # Lab units that colours are moved at most: people keep their skin, brands their colours
SHADOW_SHRINK = 2  # shadows are soft: half the resolution does


@dataclass(frozen=True)
class Shadow:
    """A shadow on the ground: `mask` (h, w) uint8 and where the actor's foot is in it, in its pixels."""

    mask: np.ndarray
    foot: tuple[float, float]


@dataclass(frozen=True)
class Tile:
    """A cut-out ready to be warped: `pixels` (h, w, 4) uint8 RGB premultiplied by alpha, `relief` (h, w) uint8, a
    guess at how far each pixel stands out; `foot` the middle of the box's lower edge and `height` the box's height,
    in tile pixels; `overscan` how many pixels the tile goes on below the foot."""

    pixels: np.ndarray
    relief: np.ndarray
    foot: tuple[float, float]
    height: float
    overscan: int
    shadow: Shadow | None


@dataclass(frozen=True)
class Surroundings:
    """An actor's surroundings: the background behind it, (h, w, 3) uint8 RGB of any size (its light), and the side the
    light comes from, -1 left to 1 right."""

    behind: np.ndarray
    light: float


def make_tile(picture: Image.Image, shape: Shape, height: int, flip: bool, role: str, around: Surroundings) -> Tile:
    """Crop, scale and light a cut-out so that its box is `height` pixels high."""
    straight, alpha = _scaled(picture, shape, height)
    if shape.kind == "card":
        straight, alpha = _as_print(straight, alpha)
    alpha = _soft_edge(alpha, shape)
    cropped, facing_light = shape.cropped, around.light
    if flip:
        straight, alpha = straight[:, ::-1], alpha[:, ::-1]
        swap = {"left": "right", "right": "left"}
        cropped = frozenset(swap.get(side, side) for side in cropped)
    lit = _harmonise(straight, alpha, around.behind, role)
    lit = _shade(lit, facing_light, rooted="bottom" in cropped)
    over = max(2, round(OVERSCAN * height))
    pad = {side: over if side in cropped else 2 for side in ("left", "top", "right", "bottom")}
    lit, alpha = _extend(lit, pad, None), _extend(alpha, pad, cropped)
    lit = _wrap_light(lit, alpha, around.behind, height, WRAP[role])
    pixels = np.dstack([lit * alpha[..., None], alpha * 255])
    foot = (pad["left"] + straight.shape[1] / 2, float(pad["top"] + straight.shape[0]))
    shadow = None if "bottom" in cropped or shape.kind == "bust" else _shadow(alpha, foot, around.light)
    overscan = pad["bottom"] if "bottom" in cropped else 0
    rounded = np.ascontiguousarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
    return Tile(rounded, _relief(alpha, height, role), foot, float(height), overscan, shadow)


# ---------------------------------------------------------------------------
# Edges


def _scaled(picture: Image.Image, shape: Shape, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale the box to `height`: straight RGB (h, w, 3) float32 0..255, alpha (h, w) float32 0..1.

    Resampled with premultiplied alpha, so that hidden colours do not bleed into the edge.
    """
    width = max(2, round(height * shape.aspect))
    cut = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    cut = cut.crop(shape.box).convert("RGBa")
    cut = cut.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    pixels = np.asarray(cut, np.float32) if cut.mode == "RGBa" else np.zeros((height, width, 4), np.float32)
    alpha = pixels[..., 3] / 255
    straight = np.minimum(pixels[..., :3] / np.maximum(alpha, 1 / 255)[..., None], 255)
    return _bleed(straight, alpha), alpha


def _bleed(straight: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give the nearly transparent pixels the colours of their opaque neighbours: a softened edge shows them."""
    solid = np.clip(alpha * 4 - 2.6, 0, 1)[..., None]
    near = cv2.blur(straight * solid, (9, 9)) / np.maximum(cv2.blur(solid, (9, 9))[..., None], 1e-3)
    weight = cv2.blur(solid, (9, 9))[..., None]
    mix = (1 - solid) * np.minimum(weight * 8, 1)
    bled: np.ndarray = straight + (near - straight) * mix
    return bled


def _soft_edge(alpha: np.ndarray, shape: Shape) -> np.ndarray:
    """Remove faint alpha, shrink the edge slightly and blur it; fade out where the photo's border grazes it."""
    rows, columns = alpha.shape
    if min(rows, columns) < 24:
        return alpha
    padded = cv2.copyMakeBorder(alpha, 4, 4, 4, 4, cv2.BORDER_REPLICATE)
    soft = cv2.GaussianBlur(padded, (0, 0), 0.7)[4:-4, 4:-4]
    alpha = np.clip((soft - 0.16) / 0.8, 0, 1)
    for side in shape.grazed:
        # A hat that touches the photo's edge is cut there, and would seem to dissolve; feet may sink into the ground.
        ramp = max(4, round(0.05 * min(rows, columns))) if side == "bottom" else 4
        fade = np.clip((np.arange(ramp) + 0.5) / ramp, 0, 1).astype(np.float32)
        fade = fade * fade * (3 - 2 * fade)
        inwards = {"left": alpha.T, "right": alpha.T[::-1], "top": alpha, "bottom": alpha[::-1]}[side][:ramp]
        inwards *= fade[: len(inwards), None]
    return alpha


def _as_print(straight: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a photo that was not cut out into a print, with a white border and rounded corners; not a tiny one."""
    rows, columns = alpha.shape
    border = max(2, round(0.028 * min(rows, columns)))
    if min(rows, columns) < 4 * border:  # nothing would be left of it
        return straight, alpha
    inner = cv2.resize(straight, (columns - 2 * border, rows - 2 * border), interpolation=cv2.INTER_AREA)
    paper = np.full_like(straight, 246.0)
    paper[border:-border, border:-border] = inner
    mask = Image.new("L", (columns * 3, rows * 3), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, columns * 3 - 1, rows * 3 - 1), radius=border * 4, fill=255)
    corners = np.asarray(mask.resize((columns, rows), Image.Resampling.BOX), np.float32) / 255
    return paper, corners


def _extend(image: np.ndarray, pad: dict[str, int], cropped: frozenset[str] | None) -> np.ndarray:
    """Pad an image beyond its box by its mirror image; an alpha only on `cropped` sides, with zeros on the others."""
    amounts = (pad["top"], pad["bottom"], pad["left"], pad["right"])
    grown = cv2.copyMakeBorder(np.ascontiguousarray(image), *amounts, cv2.BORDER_REFLECT)
    if cropped is None:
        return grown
    top, bottom, left, right = amounts
    rows, columns = grown.shape[:2]
    edges = {"top": np.s_[:top, :], "bottom": np.s_[rows - bottom :, :],
             "left": np.s_[:, :left], "right": np.s_[:, columns - right :]}  # fmt: skip
    for side, edge in edges.items():
        if side not in cropped:
            grown[edge] = 0
    return grown


# ---------------------------------------------------------------------------
# Colour


def _lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(rgb, np.float32) / 255, cv2.COLOR_RGB2LAB)


def _harmonise(straight: np.ndarray, alpha: np.ndarray, behind: np.ndarray, role: str) -> np.ndarray:
    """Match mean and spread in Lab part of the way to the background's (Reinhard et al. 2001), within LIMIT."""
    lab, there = _lab(straight), _lab(behind).reshape(-1, 3)
    weight = alpha / max(float(alpha.sum()), 1e-3)
    mean = (lab * weight[..., None]).sum((0, 1))
    spread = np.sqrt((((lab - mean) ** 2) * weight[..., None]).sum((0, 1))) + 1e-3
    target, target_spread = there.mean(0), there.std(0) + 1e-3
    amount, limit = (np.array([of[role][0], of[role][1], of[role][1]], np.float32) for of in (HARMONY, LIMIT))
    shift = np.clip(amount * (target - mean), -limit, limit)
    gain = 1 + amount * np.clip(np.log(target_spread / spread), -0.35, 0.35) * np.array([0.8, 0.5, 0.5])
    lab = mean + shift + (lab - mean) * gain
    harmonised: np.ndarray = np.clip(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB), 0, 1) * 255
    return harmonised


def _shade(lit: np.ndarray, light: float, rooted: bool) -> np.ndarray:
    """Shade a cut-out slightly: brighter towards the light, darker towards the ground, less so if `rooted`."""
    rows, columns = lit.shape[:2]
    across = 1 + 0.07 * light * np.linspace(-1, 1, columns, dtype=np.float32)
    height = np.linspace(1, 0, rows, dtype=np.float32)
    down = 1 - (0.05 if rooted else 0.13) * np.clip(1 - height / 0.35, 0, 1) ** 2
    shaded: np.ndarray = np.clip(lit * across[None, :, None] * down[:, None, None], 0, 255)
    return shaded


def _wrap_light(lit: np.ndarray, alpha: np.ndarray, behind: np.ndarray, height: int, strength: float) -> np.ndarray:
    """Blend the blurred background over the edge (light wrap): more where it is bright, less near the ground."""
    rows, columns = alpha.shape
    glow = cv2.resize(cv2.GaussianBlur(behind, (0, 0), max(1.0, 0.06 * behind.shape[0])), (columns, rows))
    glow = glow.astype(np.float32)
    sigma = max(1.0, 0.014 * height)
    pad = round(3 * sigma)
    grown = cv2.copyMakeBorder(alpha, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    rim = 1 - cv2.GaussianBlur(grown, (0, 0), sigma)[pad:-pad, pad:-pad]
    brightness = glow.mean(2) / 255
    weight = np.clip(rim * 1.1, 0, 1) * (0.12 + 0.5 * brightness)
    above = np.clip((rows - np.arange(rows, dtype=np.float32)) / (0.3 * height), 0.15, 1)[:, None]
    wrapped: np.ndarray = lit + (glow - lit) * (weight * above * strength)[..., None]
    return wrapped


# ---------------------------------------------------------------------------
# Shadows and relief


def _shadow(alpha: np.ndarray, foot: tuple[float, float], light: float) -> Shadow:
    """Compute a contact shadow and a cast shadow: the silhouette laid on the ground, away from the light.

    The cast shadow becomes softer and fainter with its distance.
    """
    small_h, small_w = max(2, round(foot[1] / SHADOW_SHRINK)), max(2, round(alpha.shape[1] / SHADOW_SHRINK))
    body = cv2.resize(alpha[: round(foot[1])], (small_w, small_h), interpolation=cv2.INTER_AREA)
    flat = max(2, round(0.26 * small_h))
    slant = (-0.55 * light if abs(light) > 0.15 else 0.2) * small_h
    side = round(abs(slant) + 0.12 * small_h) + 4
    below = round(0.07 * small_h) + 4
    size = (small_w + 2 * side, flat + 2 * below)
    foot_x, foot_y = foot[0] / SHADOW_SHRINK + side, float(flat + below)
    shear = np.array([[1, -slant / small_h, side + slant], [0, flat / small_h, below]], np.float32)
    cast = cv2.warpAffine(body, shear, size)
    near, far = (cv2.GaussianBlur(cast, (0, 0), s * small_h + 0.5) for s in (0.008, 0.03))
    away = np.clip((foot_y - np.arange(size[1], dtype=np.float32)) / flat, 0, 1)[:, None]
    cast = (near * (1 - away) + far * away) * (0.42 - 0.34 * away)
    mask = 1 - (1 - np.clip(cast, 0, 1)) * (1 - _contact(body, size, (side, foot_y)))
    return Shadow(np.clip(mask * 255 + 0.5, 0, 255).astype(np.uint8), (foot_x, foot_y))


def _contact(body: np.ndarray, size: tuple[int, int], at: tuple[int, float]) -> np.ndarray:
    """Compute the contact shadow: the silhouette's lowest part blurred along the ground, with a wide faint rim."""
    rows, columns = body.shape
    touching = np.zeros((1, size[0]), np.float32)
    weight = np.linspace(0.2, 1, max(2, round(0.06 * rows)), dtype=np.float32)[:, None]
    touching[0, at[0] : at[0] + columns] = (body[-len(weight) :] * weight).max(0)
    below = np.arange(size[1], dtype=np.float32)[:, None] - at[1]
    total = np.zeros((size[1], size[0]), np.float32)
    for spread, thick, dark in ((0.012, 0.012, 0.6), (0.05, 0.03, 0.28)):
        along = cv2.GaussianBlur(touching, (0, 0), spread * rows + 0.5)
        across = np.exp(-(((below + 0.3 * thick * rows) / (thick * rows + 1)) ** 2))
        total = 1 - (1 - total) * (1 - dark * along * across)
    return total


def _relief(alpha: np.ndarray, height: int, role: str) -> np.ndarray:
    """Estimate how far each pixel stands out, 0..255.

    A character is its silhouette inflated by its distance transform, an object a cylinder, so that its straight parts
    stay straight.
    """
    if role == "object":
        across = np.linspace(-1, 1, alpha.shape[1])
        return np.repeat((255 * (1 - across**2)).astype(np.uint8)[None], alpha.shape[0], axis=0)
    solid = (alpha > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(solid, cv2.DIST_L2, 3)
    depth = np.clip(depth / max(min(float(depth.max()), 0.22 * height), 1.0), 0, 1)
    dome = cv2.GaussianBlur(np.sqrt(1 - (1 - depth) ** 2), (0, 0), max(1.0, 0.03 * height))
    return (dome * 255).astype(np.uint8)
