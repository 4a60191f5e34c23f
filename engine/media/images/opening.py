"""The entry: a path -> a picture in sRGB that stands upright, and what a person should know of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engine.errors import ImageError
from engine.media.images import kinds, moving
from engine.media.images.colour import ColourConversion, to_srgb
from engine.media.images.files import open_file, shown_name
from engine.media.images.fitting import lowest
from engine.media.images.gate import DECODING, KEPT_PIXELS, shared_gate
from engine.media.images.pixels import Layers, layers
from engine.media.images.plan import DecodePlan
from engine.media.images.readers import plan

MAX_PIXELS = 250_000_000  # above the largest cameras' and phones' 200 megapixels
MAX_ASPECT = 8.0
MIN_SIDE = 16  # pixels

_PEAK = 275_000_000  # bytes while decoded pixels and the picture made of them are both there
_A_PIXEL = 4  # bytes, in Pillow's pictures in colour
_MAKING = 3  # pictures of the result's size that exist at once: turned, in other colours, with alpha

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """A picture as `open_image` gives it. `notices`: sentences about what was done or could not be done with it."""

    picture: Image.Image
    notices: tuple[str, ...] = ()


def open_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture: upright (EXIF), 8-bit sRGB, mode RGB, or RGBA with straight alpha where something is transparent.

    16-bit and float pictures are scaled, other colour spaces converted; of animations the first frame that shows
    something is taken, of files with several pictures the main one. One of more than `KEPT_PIXELS` is scaled down, by a
    whole factor. All metadata is dropped (a phone photo tells where it was taken). Thread-safe: all threads together
    stay within the memory of `gate.TOGETHER`. Raises ImageError, which names the file and says what to do.
    """
    return open_with_notices(path, max_pixels=max_pixels).picture


def open_with_notices(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Opened:
    """Open a picture as `open_image` does, with what a person should know of it: that a part is missing, say."""
    with _looked_through(path, max_pixels) as found:
        factor = _factor(found)
        making = _MAKING * _A_PIXEL * found.pixels // factor**2
        looking = min(moving.A_PIXEL * found.pixels, DECODING) if found.frames else 0
        with shared_gate().holding(int(max(found.cost, making, looking))):
            return _opened(found, factor)


def check_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise the ImageError that `open_image` would raise for what the file's header shows. Decodes nothing."""
    with _looked_through(path, max_pixels):
        pass


@contextmanager
def _looked_through(path: str | Path, max_pixels: int) -> Iterator[DecodePlan]:
    """Plan how a file is decoded, check the plan, and keep the file open, as a context manager.

    Whatever is raised inside it comes out as an ImageError.
    """
    name = shown_name(path)
    file, size = open_file(path, name)
    with file:
        try:
            found = plan(file, size, name)
            _check(found, name, max_pixels)
            yield found
        except ImageError:
            raise
        except MemoryError:
            raise ImageError(f"{name} does not fit into memory", "Save it smaller and try again.") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            remedy = f"Save it with at most {max_pixels // 1_000_000} megapixels."
            raise ImageError(f"{name} has far too many pixels", remedy) from None
        except Exception as error:  # a hostile file makes decoders raise nearly anything
            cut = isinstance(error, OSError) and "truncated" in str(error)
            raise (kinds.cut_off(name) if cut else kinds.damaged(name)) from None


def _check(found: DecodePlan, name: str, max_pixels: int) -> None:
    width, height = found.size
    measures = f"{width} × {height} pixels"
    if min(found.size) < MIN_SIDE:
        raise ImageError(f"{name} is too small ({measures})", f"Use one of at least {MIN_SIDE} pixels a side.")
    if found.pixels > max_pixels:
        limit = f"{max_pixels / 1e6:g}"
        raise ImageError(f"{name} is too large ({measures})", f"Save it with at most {limit} megapixels.")
    if found.cost > DECODING:
        most = min(max_pixels, found.pixels * DECODING / found.cost) / 1e6
        remedy = f"Save it with at most {int(most)} megapixels, or as {found.instead}"
        problem = f"{name} would take {found.cost / 1e6:,.0f} MB of memory to open ({measures}, {found.what})"
        raise ImageError(problem, f"{remedy}.")
    if max(found.size) > MAX_ASPECT * min(found.size):
        raise ImageError(f"{name} is a strip ({measures})", f"Crop it: at most {MAX_ASPECT:g} times as long as wide.")


def _factor(found: DecodePlan) -> int:
    """Compute by how much to divide the picture's sides, so that it fits into memory beside the decoded pixels."""
    if found.smallest:  # the decoder does it
        return 1
    room = max(_A_PIXEL, min(_A_PIXEL * KEPT_PIXELS, _PEAK - found.cost))
    factor = 1
    while _A_PIXEL * found.pixels > room * factor**2:
        factor += 1
    return factor


def _opened(found: DecodePlan, factor: int) -> Opened:
    pixels, way = found.decoded(), found.way
    table = way.table() if found.deep else None
    parts, told = layers(pixels, factor, table), list(found.told)
    del pixels
    picture, notice = _finished(parts, way.after() if table is not None else way, found.orientation)
    del parts
    if better := found.another_frame(picture):
        frame, which = better
        picture, notice = _finished(layers(frame, factor), way, found.orientation)
        told.append(which)
    return Opened(picture, tuple(filter(None, (*told, notice))))


def _finished(parts: Layers, way: ColourConversion, orientation: int) -> tuple[Image.Image, str]:
    colours, notice = to_srgb(parts.colours, way)
    if parts.alpha is not None and lowest(parts.alpha) < 255:
        colours.putalpha(parts.alpha)
    if orientation in _TURNS:
        colours = colours.transpose(_TURNS[orientation])
    picture = colours.copy() if colours is parts.colours else colours
    picture.info = {}
    return picture, notice
