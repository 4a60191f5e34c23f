"""Studios and rooms for `backdrops.py`; each function is one place."""

from __future__ import annotations

import cv2
import numpy as np
from darkroom import (
    XX,
    YY,
    H,
    Light,
    W,
    below,
    bloom,
    box,
    defocus,
    drawn,
    fill,
    glow,
    ground,
    mirrored,
    mix,
    noise,
    planks,
    polygon,
    ramp,
    rgb,
)  # fmt: skip

# ---------------------------------------------------------------------------
# Studios


def studio(wall: str, sweep: str, key: str) -> Light:
    """A seamless paper sweep: one soft key from the left, the floor brighter than the wall, no corner."""
    fold = H * 0.665
    light = ramp(YY / H, (0, rgb(wall, 0.9)), (0.45, rgb(wall, 1.25)), (0.69, rgb(sweep, 1.5)), (1, rgb(sweep, 1.25)))
    light *= 0.5 + 0.85 * glow(W * 0.4, H * 0.42, W * 0.5, H * 0.75)
    light += glow(W * 0.47, H * 0.86, W * 0.36, H * 0.13) * rgb(key, 0.55)
    light *= 1 - 0.12 * np.exp(-(((YY - fold) / 50) ** 2))[..., None]  # the sweep's gentle fold
    return light * (1 - 0.3 * np.clip((XX - W * 0.55) / (W * 0.6), 0, 1) ** 1.4)[..., None]


def studio_ivory(rng: np.random.Generator) -> Light:
    """A warm white sweep with the slanting light of a high window across the wall."""
    light = studio("dcb98e", "f0d3a8", "ffe0b4") * 0.72
    slats = np.zeros((H, W, 1), np.float32)
    for i in range(5):
        x = 330 + i * 210
        slats = np.maximum(slats, polygon((x, -20), (x + 130, -20), (x - 170, 640), (x - 330, 640)))
    slats = cv2.GaussianBlur(slats, (0, 0), 26)[..., None] * np.clip(1.1 - YY / 640, 0, 1)[..., None]
    return light + slats * rgb("ffe2b0", 0.55)


def studio_blush(rng: np.random.Generator) -> Light:
    """A pink sweep with an arched niche behind, as cosmetics are shown."""
    light = studio("e29a90", "f2b5a2", "ffd2b4")

    def arch(x: float, y: float, soft: float = 0) -> np.ndarray:
        return drawn(lambda c, k: [
            cv2.rectangle(c, (int(570 + x) * k, int(330 + y) * k), (int(1094 + x) * k, 640 * k), 255, -1),
            cv2.ellipse(c, (int(832 + x) * k, int(330 + y) * k), (262 * k, 262 * k), 0, 180, 360, 255, -1),
        ], soft)  # fmt: skip

    opening = arch(0, 0)
    back = ramp(YY / 640, (0, rgb("c9766c", 0.8)), (1, rgb("e59a88", 1.25)))
    reveal = ramp(YY / 640, (0, rgb("8a4644", 0.7)), (1, rgb("c07468", 0.9)))  # the wall's thickness, turned from light
    niche = mix(reveal, back, arch(46, 26) * opening)
    niche *= 1 - 0.5 * (1 - arch(120, 74, soft=30)) * arch(46, 26)  # the shadow the wall throws on the niche's back
    light = mix(light, niche, opening)
    return light * (1 - 0.22 * glow(832, 648, 330, 22))


def studio_midnight(rng: np.random.Generator) -> Light:
    """A dark, glossy product table with a cool rim of light behind it and a warm one low on the right."""
    horizon = 620
    light = ramp(YY / H, (0, rgb("04060c")), (0.64, rgb("101a30")), (1, rgb("101a30")))
    light += glow(W * 0.5, horizon - 110, 520, 300) * rgb("2f62d8", 0.26)
    light += glow(W * 0.5, horizon - 10, 360, 90) * rgb("9fc4ff", 0.24)
    light += glow(W * 0.93, horizon - 60, 300, 260) * rgb("ff6a2a", 0.16)
    strips = box(250, 90, 26, 430, soft=9) + box(1390, 90, 26, 430, soft=9) * 0.8  # two strip softboxes
    light *= 0.85 + 0.3 * noise(rng, 4, 5)[..., None]
    shine = mirrored(light, horizon, None, 30)
    fresnel = np.clip(1 - (YY - horizon) / 420, 0.12, 1)[..., None]
    floor = shine * fresnel * 0.7 + rgb("0a0f1c", 0.6) + glow(W * 0.5, 850, 430, 60) * rgb("8fb4ff", 0.12)
    light = mix(light, floor, below(horizon, 30))
    return bloom(
        light + strips * rgb("cfe0ff", 1.7), 0.12, 60
    )  # strips last: their mirror images would look like doors


# ---------------------------------------------------------------------------
# Rooms


def cafe(rng: np.random.Generator) -> Light:
    """A wooden table in front of a café out of focus: pendant lamps, a shelf of bottles, a bright window."""
    room = ramp(XX / W, (0, rgb("8a5230", 0.7)), (0.5, rgb("4a2a18", 0.9)), (1, rgb("2c1a14", 0.9)))
    room *= (0.6 + 0.6 * noise(rng, 5, 3))[..., None]
    day = ramp(YY / 560, (0, rgb("eaf2ff", 2.6)), (0.5, rgb("ffeec8", 1.9)), (0.9, rgb("a8b878", 0.7)))
    day *= (0.55 + 0.8 * noise(rng, 9, 3, 1.5))[..., None]
    for x, w in ((-40, 150), (150, 150), (340, 150)):
        room = mix(room, day, box(x, 40, w, 250) + box(x, 320, w, 220))
    for shelf in (210, 330, 450):
        room = mix(room, rgb("2a160c"), box(760, shelf, 800, 12))
        x = 775
        while x < 1520:
            w, h = int(rng.integers(14, 34)), int(rng.integers(44, 92))
            hue = rng.choice(["c46a2c", "6d7a3a", "e8d3a8", "7a2f24", "3f5a5c", "d9a45a"])
            room = mix(room, rgb(str(hue), 0.35 + rng.random() * 0.7), box(x, shelf - h, w, h))
            x += w + int(rng.integers(6, 30))
    lamps = fill(np.zeros(3))
    for x, y, size in ((560, 150, 15), (800, 110, 15), (1060, 150, 15), (1330, 105, 15)):
        cv2.circle(lamps, (x, y), size, rgb("ffc777", 17).tolist(), -1, cv2.LINE_AA)
    for _ in range(46):
        spot = (int(rng.integers(380, W)), int(rng.integers(60, 560)))
        hue = rgb(str(rng.choice(["ffb45e", "ffd79a", "ff8a4a"])), 2 + 9 * rng.random() ** 3)
        cv2.circle(lamps, spot, 5, hue.tolist(), -1, cv2.LINE_AA)
    light = defocus(room, 26) + defocus(lamps, 30) * 1.15
    light *= 0.85
    horizon = 600  # where the table ends, also in the distance: its far edge is soft
    across, away = ground(430, 0.72)
    wood = planks(rng, across, away * 1.1, 0.36)
    table = ramp(wood, (0.2, rgb("2c1408")), (0.5, rgb("8a4f26")), (0.75, rgb("c08048")))
    table = table * (0.42 + 0.7 * glow(W * 0.34, 760, 900, 330)) + mirrored(light, horizon, None, 34) * 0.16
    table = mix(table, defocus(table, 9), np.clip((720 - YY) / 110, 0, 1)[..., None])
    table = table + np.exp(-(((YY - horizon - 6) / 5) ** 2))[..., None] * rgb("ffc88a", 0.22)
    return bloom(mix(light, table, below(horizon, 12)), 0.12, 50)


def loft(rng: np.random.Generator) -> Light:
    """A plaster wall with the low sun of a large window on it, and a light oak floor."""
    horizon = 640
    wall = fill(rgb("b9ac9c", 0.42)) * (0.9 + 0.16 * noise(rng, 6, 6))[..., None]
    wall *= ramp(XX / W, (0, rgb("ffffff", 0.8)), (1, rgb("ffeede", 1.15)))
    panes = np.zeros((H, W, 1), np.float32)
    for column in range(4):
        for row in range(3):
            x, y = 560 + column * 152, 40 + row * 168 + column * 26
            panes = np.maximum(panes, polygon((x, y), (x + 138, y + 24), (x + 138, y + 178), (x, y + 154)))
    panes = cv2.GaussianBlur(panes, (0, 0), 7)[..., None]
    leaves = np.zeros((H, W), np.uint8)
    for _ in range(70):
        centre = (int(rng.normal(1120, 130)), int(rng.normal(170, 100)))
        axes = (int(rng.integers(26, 62)), int(rng.integers(7, 15)))
        cv2.ellipse(leaves, centre, axes, float(rng.integers(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
    shade = cv2.GaussianBlur(leaves.astype(np.float32) / 255, (0, 0), 9)[..., None]
    wall += panes * (1 - 0.72 * shade) * rgb("ffc98a", 1.35)
    wall *= (0.72 + 0.4 * np.clip(YY / horizon, 0, 1))[..., None]
    wall = mix(wall, rgb("ded6cb", 0.6), box(0, horizon - 34, W, 34, soft=0.6))
    wall *= 1 - 0.4 * box(0, horizon - 37, W, 3, soft=1.2)
    across, away = ground(430, 0.8)
    wood = planks(rng, across, away, 0.24)
    floor = ramp(wood, (0.2, rgb("5a3d26")), (0.5, rgb("a87b50")), (0.75, rgb("d8ae7c")))
    sun = cv2.GaussianBlur(polygon((640, 650), (1240, 650), (1560, 960), (560, 960)), (0, 0), 26)[..., None]
    floor = floor * (0.5 + 0.3 * sun) + sun * rgb("ffc98a", 0.10) + mirrored(wall, horizon, None, 20) * 0.1
    floor *= 1 - 0.45 * np.exp(-((YY - horizon) / 14).clip(0))[..., None]
    floor = mix(floor, cv2.GaussianBlur(floor, (0, 0), 2.2), np.clip((740 - YY) / 100, 0, 1)[..., None])
    return bloom(mix(cv2.GaussianBlur(wall, (0, 0), 1.5), floor, below(horizon, 2)), 0.1, 50)


def boutique(rng: np.random.Generator) -> Light:
    """A shop of arches and lit shelves out of focus, and a pale stone floor."""
    horizon = 600
    room = ramp(YY / horizon, (0, rgb("8a5a46", 0.42)), (1, rgb("b98468", 0.6)))
    for x in (90, 510, 930, 1350):
        niche = drawn(lambda c, k, x=x: [
            cv2.rectangle(c, (x * k, 230 * k), ((x + 260) * k, 560 * k), 255, -1),
            cv2.ellipse(c, ((x + 130) * k, 230 * k), (130 * k, 130 * k), 0, 180, 360, 255, -1),
        ])  # fmt: skip
        room = mix(room, ramp(YY / 560, (0, rgb("ffc98a", 2.2)), (1, rgb("b8703c", 0.75))), niche)
        for shelf in (270, 400, 530):
            room = mix(room, rgb("ffe6c0", 2.4), niche * box(x, shelf, 260, 7))
            for slot in range(3):
                hue = rgb(str(rng.choice(["7c2f3a", "2f4a4f", "d8c3a8", "b5613c", "3a2a2a", "e9ded0"])), 0.8)
                w, h = int(rng.integers(40, 62)), int(rng.integers(44, 90))
                left = x + 22 + slot * 78
                room = mix(room, hue, niche * box(left, shelf - h, w, h, soft=3))
    lamps = fill(np.zeros(3))
    for i in range(13):
        cv2.circle(lamps, (64 + i * 128, 44 + 8 * (i % 2)), 7, rgb("ffe2b4", 22).tolist(), -1, cv2.LINE_AA)
    light = defocus(room, 17) + defocus(lamps, 20)
    across, away = ground(470, 0.8)
    u, v = across * 0.8, away * 0.8
    seam = np.maximum(np.abs(u - np.floor(u) - 0.5), np.abs(v - np.floor(v) - 0.5))
    stone = 0.86 + 0.2 * (noise(rng, 14, 5, 2.5) - 0.5)
    stone = np.where(seam > 0.494, stone * 0.86, stone)[..., None]
    floor = cv2.GaussianBlur(rgb("e0bf9c", 0.78) * stone.astype(np.float32), (0, 0), 1.3)
    floor = floor * (0.42 + 0.5 * glow(W / 2, 810, 760, 230)) + mirrored(light, horizon, None, 36) * 0.26
    floor = mix(floor, cv2.GaussianBlur(floor, (0, 0), 6), np.clip((740 - YY) / 130, 0, 1)[..., None])
    return bloom(mix(light, floor, below(horizon, 16)), 0.12, 50)
