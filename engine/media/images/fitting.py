"""Ways to look at a picture and to fit it."""

from __future__ import annotations

from PIL import Image

ALPHA_FLOOR = 16  # of 255: fainter than this is matting haze, not the subject
_REAL_ALPHA_SHARE = 0.005  # of the pixels; rounded corners of a screenshot stay below it


def has_real_alpha(image: Image.Image) -> bool:
    """Check whether the picture brings its own cut-out: an alpha channel with a real share of transparent pixels.

    A channel that is opaque throughout, or nearly so, is a habit of export dialogs and says nothing.
    """
    if image.mode != "RGBA":
        return False
    histogram = image.getchannel("A").histogram()
    return sum(histogram[:128]) >= _REAL_ALPHA_SHARE * image.width * image.height


def lowest(channel: Image.Image) -> float:
    """Return the lowest value of a single-channel picture."""
    low, _ = channel.getextrema()
    return low[0] if isinstance(low, tuple) else low


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale the picture until it covers `size` (width, height), and crop the overhang evenly. Keeps the mode."""
    scale = max(size[0] / image.width, size[1] / image.height)
    width, height = size[0] / scale, size[1] / scale  # the part of the picture that is kept
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (max(left, 0), max(top, 0), min(left + width, image.width), min(top + height, image.height))
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def bounding_box(picture: Image.Image) -> tuple[int, int, int, int]:
    """Return the bounding box of the alpha in pixels (left, top, right, bottom), matting haze left out.

    The whole picture where there is no alpha or nothing in it.
    """
    whole = (0, 0, picture.width, picture.height)
    if "A" not in picture.getbands():
        return whole
    solid = picture.getchannel("A").point([0] * ALPHA_FLOOR + [255] * (256 - ALPHA_FLOOR))
    return solid.getbbox() or whole


def within(image: Image.Image, longest: int) -> Image.Image:
    """Scale the picture down to at most `longest` pixels on its longer side. Never enlarges; keeps the mode."""
    scale = longest / max(image.size)
    return _scaled(image, scale) if scale < 1 else image


def flatten(image: Image.Image, fill: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Composite the picture over a plain `fill` where it is transparent. Returns RGB."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    frame = Image.new("RGB", image.size, fill)
    frame.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return frame


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)  # Pillow weighs the colours by alpha here
