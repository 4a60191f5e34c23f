"""Paint the sample backdrops: `paint("concert_stage")` gives a 1664 x 960 picture, the same one each time.

Each function below is one place: it takes a seeded random generator and returns light (`darkroom.py` explains how).
The lower third of every place is calm ground where a cast can stand.
"""

from __future__ import annotations

import cv2
import numpy as np
from darkroom import (
    XX,
    YY,
    H,
    Light,
    W,
    beam,
    below,
    bloom,
    box,
    defocus,
    develop,
    drawn,
    fill,
    glow,
    ground,
    mirrored,
    mix,
    noise,
    plane_noise,
    polygon,
    ramp,
    rgb,
)  # fmt: skip
from PIL import Image
from rooms import boutique, cafe, loft, studio_blush, studio_ivory, studio_midnight


def paint(name: str) -> Image.Image:
    """Paint one of BACKDROPS."""
    return develop(BACKDROPS[name](np.random.default_rng(7)))


# ---------------------------------------------------------------------------
# Stages


def concert_stage(rng: np.random.Generator) -> Light:
    """A big stage seen from its front edge: coloured beams through haze, lamps out of focus, a glossy black floor."""
    horizon = 640
    light = ramp(YY / H, (0, rgb("0a0618", 0.5)), (0.5, rgb("2a1248", 0.9)), (0.68, rgb("5a2a70", 0.9)))
    smoke = noise(rng, 5, 5)[..., None]
    light *= 0.5 + smoke
    lamps = fill(np.zeros(3))
    hues = ("ff2fa0", "7a3cff", "2f8bff", "ff2fa0", "ffb066", "2f8bff", "7a3cff", "ff2fa0")
    for i, hue in enumerate(hues):
        x = W * (i + 0.5) / len(hues)
        lean = (i - 3.5) * -0.16 + (0.1 if i % 2 else -0.1)
        light += beam(x, 96, lean, 0.075, rgb(hue, 1.6)) * (0.35 + 0.9 * smoke)
        cv2.circle(lamps, (int(x), 92), 9, (rgb(hue, 5) + rgb("ffffff", 10)).tolist(), -1, cv2.LINE_AA)
    for i in range(7):  # low lamps at the back, shining at us
        x = W * (0.14 + 0.12 * i)
        light += beam(x, horizon - 34, (i - 3) * 0.22 + np.pi, 0.07, rgb(hues[(i + 2) % 8], 0.55)) * (0.4 + smoke)
        cv2.circle(lamps, (int(x), horizon - 34), 7, (rgb(hues[(i + 2) % 8], 14)).tolist(), -1, cv2.LINE_AA)
    truss = drawn(lambda c, k: [
        cv2.rectangle(c, (0, 58 * k), (W * k, 64 * k), 255, -1),
        cv2.rectangle(c, (0, 88 * k), (W * k, 93 * k), 255, -1),
        *[cv2.line(c, (x * k, 61 * k), ((x + 15) * k, 90 * k), 255, 3 * k) for x in range(0, W, 30)],
    ])  # fmt: skip
    light = mix(light, rgb("06040c"), truss)
    light = defocus(light, 5) + defocus(lamps, 15)
    light += glow(W / 2, horizon, 620, 120) * rgb("ff6fc0", 0.5) + glow(W / 2, 250, 700, 300) * rgb("4a3aff", 0.12)
    shine = mirrored(light, horizon, noise(rng, 40, 3, 0.3), 26)
    fresnel = np.clip(1.1 - (YY - horizon) / (H - horizon) * 0.72, 0.2, 1)[..., None]
    floor = shine * fresnel * 0.5 + rgb("120c1c", 0.6)
    floor += glow(W / 2, 835, 520, 80) * rgb("ffc8e8", 0.34)  # the follow spot
    light = mix(light, floor, below(horizon, 3))
    drift = np.clip((noise(rng, 4, 5, 2) - 0.35) * 2.4, 0, 1)
    haze = np.exp(-(((YY - horizon + 20) / (60 + 90 * drift)) ** 2)) * (0.25 + drift)
    return bloom(light + haze[..., None] * rgb("b858d8", 0.3), 0.2, 60)


def dance_floor(rng: np.random.Generator) -> Light:
    """A club: a floor of lit tiles in perspective, a wall of soft lamps, a mirror ball's sparks."""
    horizon = 500
    light = ramp(YY / H, (0, rgb("090420")), (0.52, rgb("33105a")), (1, rgb("33105a")))
    light *= 0.6 + 0.8 * noise(rng, 6, 4)[..., None]
    lamps = fill(np.zeros(3))
    hues = ("ff3d9a", "ff8a3d", "8a3dff", "2fc4ff")
    for row in range(5):
        for column in range(27):
            power = rng.random() ** 3 * 9 + 0.5
            spot = (int((column + 0.5 * (row % 2) + 0.25) * 62), 150 + row * 70)
            cv2.circle(lamps, spot, 6, rgb(hues[int((column + row) / 3.4) % 4], power).tolist(), -1, cv2.LINE_AA)
    light += defocus(lamps, 22)
    for i, hue in enumerate(("ff3d9a", "2fc4ff", "8a3dff", "ff8a3d", "ff3d9a")):
        light += beam(W * (0.1 + 0.2 * i), -60, (2 - i) * 0.22, 0.09, rgb(hue, 0.7))
    light += glow(W / 2, horizon - 10, 900, 90) * rgb("ff5fc0", 0.35)
    across, away = ground(horizon, 0.8)
    u, v = across * 1.5 + 0.5, away * 1.5
    tile_x, tile_z = np.floor(u), np.floor(v)
    edge = np.maximum(np.abs(u - tile_x - 0.5), np.abs(v - tile_z - 0.5))
    pick = np.modf(np.abs(np.sin(tile_x * 127.1 + tile_z * 311.7)) * 43758.5)[0]
    palette = np.stack([rgb(h) for h in ("ff2f8f", "7a2fff", "1fa0ff", "ff7a2f", "b02fff", "16122e", "16122e")])
    colour = palette[(pick * len(palette)).astype(int)] * (0.35 + 0.5 * np.modf(pick * 17)[0])[..., None]
    far = np.clip(away / 14, 0, 1)[..., None]
    sharp = np.clip((0.47 - edge) / np.clip(away * 0.006, 0.012, 0.4), 0, 1)[..., None]
    inner = (1.15 - 1.3 * edge**2)[..., None]
    tiles = mix(fill(rgb("0a0714")), colour * inner, sharp)
    shine = mirrored(light, horizon, None, 22)
    tiles = cv2.GaussianBlur(tiles, (0, 0), 1.6) + shine * 0.2
    tiles = mix(tiles, shine * 0.8, far**0.7)
    light = mix(light, tiles, below(horizon, 16))
    drift = np.clip((noise(rng, 4, 5, 2) - 0.35) * 2.4, 0, 1)
    haze = np.exp(-(((YY - horizon) / (50 + 80 * drift)) ** 2)) * (0.3 + 0.7 * drift)
    return bloom(light + haze[..., None] * rgb("d050c0", 0.3), 0.2, 60)


# ---------------------------------------------------------------------------
# Outdoors


def neon_street(rng: np.random.Generator) -> Light:
    """A wet street at night: two walls of windows running away, signs as blurred colour, the whole of it mirrored."""
    horizon, vanish = 560, W * 0.5
    light = ramp(YY / horizon, (0, rgb("050716")), (0.6, rgb("161a44")), (1, rgb("4a2a66")))
    light += glow(vanish, horizon - 40, 260, 240) * rgb("ff5fa8", 0.5)
    lamps = fill(np.zeros(3))
    depth = np.abs(XX - vanish) / (W * 0.5)  # the walls: nearer towards the sides
    near = np.clip((depth - 0.13) / 0.02, 0, 1)[..., None]
    facade = ramp(depth, (0.1, rgb("6a3f90", 0.7)), (0.3, rgb("262250", 0.65)), (1, rgb("12122a", 0.7)))
    facade *= (0.6 + 0.8 * noise(rng, 16, 4, 1.6))[..., None]
    light = mix(light, facade, near)
    for side in (-1, 1):
        light = windows_and_signs(rng, light, side, vanish, horizon)
    for _ in range(60):
        z = rng.uniform(1.4, 9)
        spot = (int(vanish + rng.choice([-1, 1]) * rng.uniform(120, 620) / z), int(horizon - rng.uniform(10, 260) / z))
        hue = rgb(str(rng.choice(["ffb45e", "ff4a6a", "ffffff", "5ac8ff"])), 3 + 9 * rng.random() ** 2)
        cv2.circle(lamps, spot, 4, hue.tolist(), -1, cv2.LINE_AA)
    fog = np.exp(-((depth / 0.34) ** 2))[..., None] * np.clip(YY / horizon, 0, 1)[..., None] ** 2
    light = mix(light, rgb("a04a98", 0.8), fog * 0.5)
    light = bloom(defocus(light, 11), 0.3, 70) + defocus(lamps, 17)
    wet = noise(rng, 26, 5, 0.25)
    shine = mirrored(light, horizon, wet, 30)
    puddle = np.clip((noise(rng, 5, 4, 0.6) - 0.36) * 3.2, 0.25, 1)[..., None]
    far = np.exp(-(YY - horizon).clip(0) / 60)[..., None]
    road = rgb("1a1a30", 0.8) + shine * puddle * np.clip(1.15 - (YY - horizon) / 700, 0.45, 1)[..., None] * 0.85
    road = mix(road + glow(vanish, 800, 560, 130) * rgb("7a4aa0", 0.12), shine, far)
    light = mix(light, road, below(horizon, 14))
    haze = np.exp(-(((YY - horizon) / 70) ** 2) - (depth / 0.6) ** 2)[..., None]
    return bloom(light + haze * rgb("c0509a", 0.3), 0.25, 60)


def windows_and_signs(rng: np.random.Generator, light: Light, side: int, vanish: float, horizon: float) -> Light:
    """One wall of the street: lit windows in perspective, then signs that stand out from it."""
    for z in np.arange(1.0, 7.6, 0.42):
        for floor in range(-1, 7):
            if rng.random() < 0.5:
                continue
            x0, x1 = vanish + side * 800 / z, vanish + side * 800 / (z + 0.24)
            y0, y1 = horizon - (190 + floor * 160) / z, horizon - (190 + floor * 160) / (z + 0.24)
            h0, h1 = 84 / z, 84 / (z + 0.24)
            hue = rgb(str(rng.choice(["ffcf8a", "ffe7c0", "8ad4ff", "ffb45e"])), 0.25 + 1.3 * rng.random() ** 2)
            light = mix(light, hue, polygon((x0, y0), (x1, y1), (x1, y1 - h1), (x0, y0 - h0)) * 0.9)
    for z in (1.05, 1.5, 2.1, 3.0, 4.2):
        hue = rgb(str(rng.choice(["ff2f8f", "22e0ff", "b04aff", "ff6a2f", "2fffb0"])), 5.5)
        x, y = vanish + side * (760 - rng.integers(0, 60)) / z, horizon - rng.integers(150, 520) / z
        w, h = rng.integers(70, 120) / z, rng.integers(190, 330) / z
        light = mix(light, hue * 0.25, box(x - w / 2, y - h / 2, w, h))
        for bar in range(3):
            light = mix(light, hue, box(x - w * 0.36, y - h * (0.38 - 0.28 * bar), w * 0.72, h * 0.13))
    return light


def dream_dunes(rng: np.random.Generator) -> Light:
    """Layers of misty hills under a rose and gold evening sky, a large soft sun, smooth sand in front."""
    horizon = 560
    dusk = (rgb("3a3f8f", 0.8), rgb("9a6fb8", 0.95), rgb("f2a0a8", 1.1), rgb("ffd9a0", 1.5))
    light = ramp(YY / horizon, *zip((0, 0.35, 0.65, 1), dusk, strict=True))
    clouds = noise(rng, 3, 6, 3.4)
    veil = np.clip((clouds - 0.5) * 4.2, 0, 1) * np.clip(1 - np.abs(YY - 210) / 300, 0, 1)
    light = mix(light, ramp(YY / horizon, (0, rgb("c89ad8", 1.0)), (1, rgb("fff0d0", 1.7))), veil[..., None] * 0.75)
    light += glow(1130, 400, 420, 330) * rgb("ffb070", 0.7)
    disc = np.clip((66 - np.hypot(XX - 1130, YY - 385)) / 8, 0, 1)[..., None]
    light = mix(light, rgb("ffe8b8", 4), disc)
    light = mist_hills(rng, light)
    top = 690 + 34 * np.sin(XX[0] / 420 + 0.6) + 14 * np.sin(XX[0] / 170)
    mask = np.clip((YY - top[None]) / 2, 0, 1)[..., None]
    sand = ramp((YY - top[None]) / 270, (0, rgb("f4b48a", 1.0)), (0.3, rgb("c07f80", 0.8)), (1, rgb("7a4f78", 0.62)))
    across, away = ground(600, 0.9)
    waves = np.sin(away * 34 + 3.2 * np.sin(across * 3) + 9 * noise(rng, 4, 3)) * np.clip((YY - 700) / 150, 0, 1)
    sand *= 1 + 0.045 * cv2.GaussianBlur(waves.astype(np.float32), (0, 0), 1.5)[..., None]
    sand += glow(1130, 740, 520, 90) * rgb("ffc890", 0.35)
    return bloom(mix(cv2.GaussianBlur(light, (0, 0), 1.2), sand, mask), 0.14, 70)


def mist_hills(rng: np.random.Generator, light: Light) -> Light:
    """Six ridges one behind the other, each dark at its crest and lost in lit mist at its foot."""
    glowing = ramp(XX / W, (0, rgb("e8a8b8")), (0.68, rgb("ffd0a0", 1.15)), (1, rgb("f0b0a8")))
    for k in np.linspace(0, 1, 6):
        ridge = np.zeros(W, np.float32)
        for octave in range(1, 6):
            points = rng.random(3 + int(octave**1.8 * (2 + 2 * (1 - k))))
            line = cv2.resize(points.astype(np.float32)[None], (W, 1), interpolation=cv2.INTER_CUBIC)[0]
            ridge += (line - 0.5) * (150 - 60 * k) / octave**1.9
        top = 420 + 190 * k**1.15 + ridge * (1 - 0.35 * k)
        mask = np.clip(YY - top[None], 0, 1)[..., None]
        mist = np.clip((YY - top[None]) / (170 - 40 * k), 0, 1)[..., None] ** 0.8
        crest = ramp(
            np.full((H, W), k, np.float32), (0, rgb("d59ab8")), (0.5, rgb("8a5fa0", 0.75)), (1, rgb("5a3a78", 0.55))
        )
        light = mix(light, mix(crest, glowing, mist * (0.85 - 0.3 * k)), mask)
    return light


def garden(rng: np.random.Generator) -> Light:
    """A park in the morning: leaves and sun out of focus, a sandy path to stand on."""
    horizon = 600
    light = ramp(YY / horizon, (0, rgb("6f8f3a", 0.8)), (0.55, rgb("a8b860", 0.85)), (1, rgb("d8d890", 0.95)))
    light *= (0.1 + 1.5 * noise(rng, 7, 4, 1.2) ** 1.3)[..., None]
    light *= ramp(XX / W, (0, rgb("ffffff", 0.5)), (0.7, rgb("fff6d0", 1.25)), (1, rgb("ffffff", 0.9)))
    for x, w in ((170, 54), (420, 34), (1270, 46), (1500, 64), (960, 22)):
        light = mix(light, rgb("3a2e1c", 0.4), box(x, 0, w, horizon - 40, soft=2))
    light = defocus(light, 30)
    leaves = fill(np.zeros(3))
    for _ in range(420):
        spot = (int(rng.integers(0, W)), int(abs(rng.normal(0, 250))))
        hue = rgb(str(rng.choice(["9fc23c", "d8e070", "5f8f2c", "fff3b0"])), 0.3 + 7 * rng.random() ** 7)
        cv2.circle(leaves, spot, int(rng.integers(4, 8)), hue.tolist(), -1, cv2.LINE_AA)
    light += defocus(leaves, 26) * 1.7 + glow(1180, 150, 520, 380) * rgb("fff0a8", 0.9)
    across, away = ground(500, 0.8)
    blades, grit = plane_noise(rng, across, away, 26), plane_noise(rng, across, away, 40)
    grass = ramp(blades, (0.25, rgb("55802c", 0.5)), (0.75, rgb("8fae44", 0.66)))
    near = np.clip((YY - horizon) / (H - horizon), 0, 1)
    middle = 0.25 * np.sin(away * 0.8 + 0.4)
    path = np.clip((1.0 - np.abs(across - middle) + 0.16 * (blades - 0.5)) / 0.12 + 0.5, 0, 1)[..., None]
    sand = ramp(grit, (0.25, rgb("c0a078", 0.66)), (0.75, rgb("e2c89c", 0.8)))
    dapple = np.clip((noise(rng, 9, 3, 0.5) - 0.42) * 5, 0, 1)
    field = mix(grass, sand, path) * (0.55 + 0.5 * cv2.GaussianBlur(dapple, (0, 0), 10))[..., None]
    soft = cv2.GaussianBlur(field, (0, 0), 9)
    field = mix(field, soft, np.clip(1.1 - near * 1.5, 0, 1)[..., None])
    field += glow(1080, horizon, 600, 120) * rgb("fff0b0", 0.3)
    return bloom(mix(light, field, below(horizon, 70)), 0.16, 60)


BACKDROPS = {
    place.__name__: place
    for place in (
        concert_stage, dance_floor, studio_ivory, studio_blush, studio_midnight, cafe, loft, boutique, neon_street,
        dream_dunes, garden,
    )
}  # fmt: skip
