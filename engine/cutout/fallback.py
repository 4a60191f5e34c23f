"""Without a model: a key for plain backgrounds, and GrabCut for the rest."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from engine.cutout.matte import as_floats, clean, compose, estimate_foreground, grown, refine, spread

_PLAIN_SHARE = 0.8  # of the border's pixels must lie on one smooth colour
_NEAR = 7.0  # CIE76 colour difference within which a border pixel counts as that colour
_GRABCUT_SIDE = 384  # pixels; GrabCut's time grows with the area, its edge is refined at full size

_GRABCUT_HOLE = 0.05  # of the subject's area: GrabCut tears larger holes than a model does


def key_plain_background(photo: Image.Image) -> Image.Image | None:
    """Key out the plain or evenly shaded backdrop of an RGB photo; None where the backdrop is not plain.

    The backdrop is a plane in Lab fitted to the border (studio light falls off). It is removed from the border inwards,
    so that the same colour inside the subject stays.
    """
    colours = as_floats(photo)
    lab = cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)
    backdrop, noise = _fit_backdrop(lab)
    if backdrop is None:
        return None
    outside = _flood(lab, backdrop, near=max(6.0, 3 * noise))
    solid = clean(~outside)
    behind = spread(lab * (~solid)[..., None], (~solid).astype(np.float32))  # with shadows, unlike the plane
    rim = grown(solid, 2) - grown(solid, -2)
    contrast = np.linalg.norm(lab - behind, axis=2)
    alpha = np.where(rim > 0, np.clip((contrast - 3) / 17, 0, 1), solid).astype(np.float32)
    return compose(estimate_foreground(colours, alpha), alpha)


def _flood(lab: np.ndarray, backdrop: np.ndarray, near: float) -> np.ndarray:
    """Flood the background from the border, boolean (H, W): pixels like the backdrop or in its soft shadows.

    A shadow is darker than the backdrop, hardly differs in hue, and has no edge. Gaps of a few pixels do not connect:
    they are where a white rim meets a white backdrop.
    """
    smoothed = cv2.GaussianBlur(lab, (0, 0), 1.2)
    difference = smoothed - backdrop
    hue = np.linalg.norm(difference[..., 1:], axis=2)
    slope = cv2.magnitude(*(cv2.Sobel(smoothed[..., 0], cv2.CV_32F, x, 1 - x, scale=1 / 8) for x in (1, 0)))
    shadow = (hue < 5) & (difference[..., 0] < 0) & (difference[..., 0] > -45) & (slope < 1.0)
    passable = (np.linalg.norm(difference, axis=2) < near) | shadow
    gap = max(1, max(passable.shape) // 250)
    wide = grown(passable, -gap).astype(np.uint8)
    _, labels = cv2.connectedComponents(wide, connectivity=4)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    reached = np.isin(labels, np.unique(edge[edge > 0]))
    background: np.ndarray = (grown(reached, gap) > 0) & passable
    return background


def _fit_backdrop(lab: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Fit the backdrop to the border, as its Lab colour at every pixel (H, W, 3); None where it is not plain.

    Returns also how far the border's pixels lie from the fit on average.
    """
    height, width = lab.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    terms = np.dstack([np.ones_like(rows), columns / width - 0.5, rows / height - 0.5])
    margin = max(1, min(height, width) // 100)
    ring = np.ones((height, width), bool)
    ring[margin:-margin, margin:-margin] = False
    x, y = terms[ring], lab[ring]
    inliers = np.linalg.norm(y - np.median(y, axis=0), axis=1) < 3 * _NEAR
    for _ in range(4):  # a subject cropped by the border would pull the plane: fit again without it
        if inliers.mean() < 0.5:
            return None, 0.0
        plane = np.linalg.lstsq(x[inliers], y[inliers], rcond=None)[0]
        distance = np.linalg.norm(y - x @ plane, axis=1)
        inliers = distance < _NEAR
    if inliers.mean() < _PLAIN_SHARE and not _three_sides_plain(inliers, ring):
        return None, 0.0
    return terms @ plane, float(distance[inliers].mean())


def _three_sides_plain(inliers: np.ndarray, ring: np.ndarray) -> bool:
    """Check whether three of the four borders are plain: a bust fills much of the lower one."""
    plain = np.zeros(ring.shape, bool)
    plain[ring] = inliers
    shares = sorted(float(side.mean()) for side in (plain[0], plain[-1], plain[:, 0], plain[:, -1]))
    return shares[1] > _PLAIN_SHARE


def grabcut(photo: Image.Image) -> Image.Image:
    """Guess the subject of an RGB photo: what is not like the top and the sides (GrabCut, Rother et al. 2004)."""
    colours = as_floats(photo)
    height, width = colours.shape[:2]
    scale = min(1.0, _GRABCUT_SIDE / max(height, width))
    small = cv2.resize(np.asarray(photo), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rows, columns = small.shape[:2]
    labels = np.full((rows, columns), cv2.GC_PR_BGD, np.uint8)
    centre, axes = (columns // 2, round(rows * 0.55)), (round(columns * 0.34), round(rows * 0.45))
    cv2.ellipse(labels, centre, axes, 0, 0, 360, cv2.GC_PR_FGD, -1)
    margin = max(1, min(rows, columns) // 40)
    labels[:margin] = labels[:, :margin] = labels[:, -margin:] = cv2.GC_BGD  # not the foot: busts are cropped there
    cv2.setRNGSeed(0)  # its clustering draws at random
    try:
        nowhere = (0, 0, 0, 0)  # the labels say where, not a rectangle
        cv2.grabCut(small, labels, nowhere, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # a picture of one colour has nothing to cluster
        labels[:] = cv2.GC_BGD
    solid = clean(np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)), pinhole=_GRABCUT_HOLE).astype(np.float32)
    alpha = refine(colours, cv2.resize(solid, (width, height)))
    return compose(estimate_foreground(colours, alpha), alpha)
