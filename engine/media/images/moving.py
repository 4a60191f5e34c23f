"""Which frame of an animation shows something: many begin with nothing, from which the picture fades in."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

A_PIXEL = 25.0  # bytes a pixel while the frames are examined: the decoder's state, an RGBA frame, and the first picture
_MOST_FRAMES = 60
_MOST_PIXELS = 300_000_000  # of all frames that are examined
_SEEN = 0.02  # share of solid pixels with which the first frame shows something
_SOLID = 128  # of 255
_AS_GOOD = 0.9  # of the fullest frame's share: a frame that shows nearly as much
_SIDE = 128  # pixels at which a frame is judged


def better(frames: Callable[[], Image.Image], first: Image.Image) -> tuple[Image.Image, str] | None:
    """Return the first frame that shows nearly as much as any does, and a sentence about it.

    None where the first one shows something, or no other does.
    """
    there, solid = _shows(first)
    if solid >= _SEEN:
        return None
    try:
        film = frames()
        frames_of_it = getattr(film, "n_frames", 1)
        count = min(frames_of_it, _MOST_FRAMES, max(1, _MOST_PIXELS // (film.width * film.height)))
        shown = []
        for index in range(count):
            film.seek(index)
            film.load()
            shown.append(_shows(film)[0])
        fullest = max(shown)
        if there >= _AS_GOOD * fullest:
            return None
        index = next(number for number, share in enumerate(shown) if share >= _AS_GOOD * fullest)
        film.seek(index)
        film.load()
        found = film.copy()
    except (OSError, ValueError, SyntaxError, EOFError, IndexError):  # it breaks off: keep the first frame
        return None
    return found, f"It is an animation that begins with nothing to see: its frame {index + 1} is used."


def _shows(frame: Image.Image) -> tuple[float, float]:
    """Measure how much of a frame can be seen, from 0 to 1: its mean alpha, and the share of solid pixels.

    Both are 0 where it is of one colour throughout.
    """
    small = frame.convert("RGBA")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    if all(low == high for low, high in (band.getextrema() for band in small.split())):
        return 0.0, 0.0
    counts = small.getchannel("A").histogram()
    seen = sum(level * count for level, count in enumerate(counts)) / 255
    return seen / sum(counts), sum(counts[_SOLID:]) / sum(counts)
