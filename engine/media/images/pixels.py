"""Whatever a decoder gives -> 8 bits a channel, in strips, made smaller on the way where it is larger than needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

_STRIP = 1_000_000  # pixels looked at at once: float32 and its copies then take some 30 MB
_COLOURS = ("L", "RGB", "CMYK", "LAB")
_PLAIN = np.rint(np.arange(65536) / 257).astype(np.uint8)  # 16 bits to 8


@dataclass(frozen=True)
class Deep:
    """Samples as they are stored: (H, W, C) of 16 bits or more, or floats. `mode` L, RGB or CMYK; `alpha`: the last
    channel is one; `associated`: the colours are premultiplied by it; `backwards`: blue comes first; `inverted`: 0 is
    white."""

    samples: np.ndarray
    mode: str
    alpha: bool = False
    associated: bool = False
    inverted: bool = False
    backwards: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return self.samples.shape[1], self.samples.shape[0]


@dataclass(frozen=True)
class Layers:
    """A picture of 8 bits a channel, in the file's own colours (L, RGB, CMYK or LAB), and its alpha (L)."""

    colours: Image.Image
    alpha: Image.Image | None = None


def layers(pixels: Image.Image | Deep, factor: int = 1, curve: np.ndarray | None = None) -> Layers:
    """Convert decoded pixels to 8 bits a channel, at 1/`factor` of their sides.

    More bits than 8 are scaled: Pillow's own conversion would clip. `curve`, (65536,) uint8, maps 16-bit values on the
    way: without one they are scaled evenly. Eight bits are too few for colours that are stored in proportion to light.
    """
    if isinstance(pixels, Image.Image) and factor == 1 and pixels.mode in _COLOURS and not _see_through(pixels):
        return Layers(pixels)
    if isinstance(pixels, Deep) and pixels.mode == "CMYK" and pixels.alpha:  # Pillow has no such mode
        apart = Deep(pixels.samples[..., 4:], "L")
        return Layers(layers(replace(pixels, alpha=False), factor).colours, layers(apart, factor).colours)
    width, height = pixels.size
    size = (-(-width // factor), -(-height // factor))
    rows = max(1, _STRIP // (width * factor)) * factor
    white = _white(pixels, rows)
    for top in range(0, height, rows):
        strip = _strip(pixels, top, min(top + rows, height), white, curve if curve is not None else _PLAIN)
        strip = strip.reduce(factor) if factor > 1 else strip
        seen = strip.mode in ("LA", "RGBA")
        plain = strip.convert(strip.mode[:-1]) if seen else strip
        if top == 0:  # the first strip's mode is that of all
            colours = Image.new(plain.mode, size)
            alpha = Image.new("L", size) if seen else None
        colours.paste(plain, (0, top // factor))
        if alpha is not None:
            alpha.paste(strip.getchannel("A"), (0, top // factor))
    return Layers(colours, alpha)


def _see_through(image: Image.Image) -> bool:
    return "transparency" in image.info


def _strip(pixels: Image.Image | Deep, top: int, bottom: int, white: float, curve: np.ndarray) -> Image.Image:
    if isinstance(pixels, Deep):
        return _of_samples(pixels, pixels.samples[top:bottom], white, curve)
    image = pixels.crop((0, top, pixels.width, bottom))
    mode = image.mode
    if mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        grey = Image.fromarray(curve[values])
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey = Image.merge("LA", (grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))))
        return grey
    if mode in ("I", "F"):
        return Image.fromarray(curve[_sixteen(np.asarray(image), white)])
    if _see_through(image):
        return image.convert("LA" if mode in ("1", "L") else "RGBA")
    if mode in ("La", "LA"):
        return image.convert("LA")
    if mode in ("RGBa", "RGBA", "PA"):
        return image.convert("RGBA")
    if mode == "1":
        return image.convert("L")
    return image if mode in _COLOURS else image.convert("RGB")


def _of_samples(pixels: Deep, samples: np.ndarray, white: float, curve: np.ndarray) -> Image.Image:
    values = _sixteen(samples, white)
    if pixels.backwards:
        values[..., :3] = values[..., 2::-1].copy()
    if pixels.inverted:
        values[..., : len(pixels.mode)] = 65535 - values[..., : len(pixels.mode)]
    own = len(pixels.mode)
    colours = values[..., :own]
    if pixels.associated:
        share = np.maximum(values[..., own:], 1).astype(np.float32) / 65535
        colours = np.minimum(colours / share, 65535).astype(np.uint16)
    colours = curve[colours] if pixels.mode != "CMYK" else _PLAIN[colours]
    flat = Image.fromarray(colours[..., 0] if own == 1 else colours, pixels.mode if own == 4 else None)
    if not pixels.alpha:
        return flat
    return Image.merge(pixels.mode + "A", (*flat.split(), Image.fromarray(_PLAIN[values[..., own]])))


def _sixteen(values: np.ndarray, white: float) -> np.ndarray:
    """Convert values to 16-bit whole numbers, `white` becoming 65535."""
    if values.dtype == np.uint16 and white == 65535:
        return values.copy()
    values = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    return np.clip(np.rint(values * np.float32(65535 / white)), 0, 65535).astype(np.uint16)


def _white(pixels: Image.Image | Deep, rows: int) -> float:
    """Return the number that is white: an unsigned type's largest; for floats and Pillow's 32 bits, by the peak."""
    kind = pixels.samples.dtype if isinstance(pixels, Deep) else np.dtype("i4" if pixels.mode == "I" else "f4")
    if kind.kind == "u":
        return float(np.iinfo(kind).max)
    if not isinstance(pixels, Deep) and pixels.mode not in ("I", "F"):
        return 65535.0
    peak = max(_peaks(pixels, rows), default=0.0)
    if kind.kind == "f" and peak <= 1:
        return 1.0
    return next((white for white in (255.0, 65535.0) if peak <= white), peak)


def _peaks(pixels: Image.Image | Deep, rows: int) -> Iterator[float]:
    for top in range(0, pixels.size[1], rows):
        bottom = min(top + rows, pixels.size[1])
        if isinstance(pixels, Deep):
            values = pixels.samples[top:bottom]
        else:
            values = np.asarray(pixels.crop((0, top, pixels.width, bottom)))
        yield float(np.max(values, initial=0.0, where=np.isfinite(values)))
