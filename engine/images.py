"""Pictures as people have them -> 8-bit RGB or RGBA that stands upright, or one clear refusal.

`open_image` is the only door: it looks at the header before it decodes, so a small file that would unpack to
gigabytes is refused for free. Below it are the ways to look at a picture and to fit it.
"""

from __future__ import annotations

import io
import stat
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from engine.errors import ImageError

MAX_PIXELS = 50_000_000  # above the largest phone cameras' everyday mode; 150 MB once decoded
MAX_BYTES = 400_000_000  # an uncompressed 16-bit scan of that size still passes
MAX_ASPECT = 8.0
MIN_SIDE = 16  # pixels
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "TIFF", "BMP")  # and none of the document formats
_KINDS = "JPEG, PNG, WebP, AVIF, HEIC, GIF, TIFF or BMP"

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"BM")  # how pictures begin
ALPHA_FLOOR = 16  # of 255: fainter than this is matting haze, not the subject
_SNIFF = 4096  # bytes looked at to name a file that is no picture
_REAL_ALPHA_SHARE = 0.005  # of the pixels; rounded corners of a screenshot stay below it


def open_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture: upright (EXIF), 8-bit sRGB, mode RGB, or RGBA with straight alpha where something is see-through.

    16-bit and float pictures are scaled, CMYK and wide-gamut ones go through their ICC profile, of animations the first
    frame is taken. All metadata is dropped (a phone photo tells where it was taken). Raises ImageError, which names the
    file and says what to do.
    """
    name = _shown_name(path)
    data = _read(path, name)
    try:
        with _open_header(data, name, max_pixels) as opened:
            _check_shape(opened.size, name, max_pixels)
            return _decode(opened, name)
    except MemoryError:
        raise ImageError(f"{name} does not fit into memory", "Save it smaller and try again.") from None


def check_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise the ImageError that `open_image` would raise for what the file's header shows. Decodes nothing."""
    name = _shown_name(path)
    with _open_header(_read(path, name), name, max_pixels) as opened:
        _check_shape(opened.size, name, max_pixels)


def has_real_alpha(image: Image.Image) -> bool:
    """Whether the picture brings its own cut-out: an alpha channel in which a real share of the pixels is see-through.

    A channel that is opaque throughout, or nearly so, is a habit of export dialogs and says nothing.
    """
    if image.mode != "RGBA":
        return False
    histogram = image.getchannel("A").histogram()
    return sum(histogram[:128]) >= _REAL_ALPHA_SHARE * image.width * image.height


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture scaled until it covers `size` (width, height), the overhang cropped evenly. Keeps the mode."""
    scale = max(size[0] / image.width, size[1] / image.height)
    width, height = size[0] / scale, size[1] / scale  # what of the picture is seen
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (max(left, 0), max(top, 0), min(left + width, image.width), min(top + height, image.height))
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def bounding_box(picture: Image.Image) -> tuple[int, int, int, int]:
    """The alpha bounding box in pixels (left, top, right, bottom), matting haze left out; the whole picture where
    there is no alpha or nothing in it."""
    whole = (0, 0, picture.width, picture.height)
    if "A" not in picture.getbands():
        return whole
    solid = picture.getchannel("A").point([0] * ALPHA_FLOOR + [255] * (256 - ALPHA_FLOOR))
    return solid.getbbox() or whole


def within(image: Image.Image, longest: int) -> Image.Image:
    """The picture, made smaller where its longer side has more than `longest` pixels. Never larger; keeps the mode."""
    scale = longest / max(image.size)
    return _scaled(image, scale) if scale < 1 else image


def flatten(image: Image.Image, fill: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """RGB: the picture over a plain `fill` where it is see-through."""
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


# ---------------------------------------------------------------------------
# From a path to a header


def _shown_name(path: str | Path) -> str:
    """The file's own name: pages show it, and nobody needs the folders of this machine on a page."""
    name = Path(path).name.encode("utf-8", "replace").decode("utf-8")
    name = "".join(letter if letter.isprintable() else "?" for letter in name) or "the picture"
    return name if len(name) <= 80 else f"{name[:50]}…{name[-20:]}"


def _read(path: str | Path, name: str) -> io.BytesIO:
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name} is a folder", "Choose a picture in it.")
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would never end
            raise ImageError(f"{name} is not a file", "Choose a picture file.")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{name} is {status.st_size // 1_000_000} MB large", "Save it smaller, as JPEG or PNG.")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"There is no picture {name}", "Check its name and folder.") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or "not a usable file name"
        raise ImageError(f"{name} cannot be read ({reason})", "Check its name and permissions.") from None
    if not data:
        raise ImageError(f"{name} is empty", "Save or download it again.")
    return io.BytesIO(data)


def _open_header(data: io.BytesIO, name: str, max_pixels: int) -> Image.Image:
    """Read the header only. Pillow decodes nothing before `load`."""
    import pillow_heif  # here, because importing it loads a codec that most people never need

    pillow_heif.register_heif_opener()  # idempotent
    try:
        Image.init()  # until then Pillow knows only a handful of formats
        return Image.open(data, formats=[kind for kind in FORMATS if kind in Image.OPEN])  # some builds lack AVIF
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = max_pixels // 1_000_000
        raise ImageError(f"{name} has far too many pixels", f"Save it with fewer than {limit} megapixels.") from None
    except UnidentifiedImageError:
        raise _not_a_picture(data.getvalue()[:_SNIFF], name) from None
    except MemoryError:
        raise
    except Exception:  # a hostile file makes decoders raise nearly anything
        raise _damaged(name) from None


def _check_shape(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    measures = f"{width} × {height} pixels"
    if min(size) < MIN_SIDE:
        raise ImageError(f"{name} is too small ({measures})", f"Use one of at least {MIN_SIDE} pixels a side.")
    if width * height > max_pixels:
        limit = f"{max_pixels / 1e6:g}"
        raise ImageError(f"{name} is too large ({measures})", f"Save it with fewer than {limit} megapixels.")
    if max(size) > MAX_ASPECT * min(size):
        raise ImageError(f"{name} is a strip ({measures})", f"Crop it: at most {MAX_ASPECT:g} times as long as wide.")


def _not_a_picture(head: bytes, name: str) -> ImageError:
    """Say what the file is instead, from its first bytes."""
    text = head.decode("utf-8", "ignore").lstrip("\ufeff \t\r\n").lower()
    if head.startswith(_MAGIC) or head[8:12] in (b"WEBP", b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"):
        return _damaged(name)
    if "<svg" in text:
        return ImageError(f"{name} is an SVG drawing", "Export it as PNG and use that.")
    if head.startswith(b"%PDF") or head.startswith(b"%!PS"):
        return ImageError(f"{name} is a document", "Export the page as PNG and use that.")
    if head.startswith(b"8BPS"):
        return ImageError(f"{name} is a Photoshop file", "Export it as PNG and use that.")
    if head[4:8] == b"ftyp" or head.startswith(b"\x1aE\xdf\xa3") or head[8:12] == b"AVI ":
        return ImageError(f"{name} is a video", "Save one frame of it as PNG and use that.")
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return ImageError(f"{name} is text, not a picture, whatever its name says", f"Use a {_KINDS} file.")
    return ImageError(f"{name} is not a picture that can be read here", f"Save it as {_KINDS}.")


def _damaged(name: str) -> ImageError:
    return ImageError(f"{name} is damaged or incomplete", "Save or download it again.")


# ---------------------------------------------------------------------------
# From whatever the decoder gives to 8-bit sRGB


def _decode(opened: Image.Image, name: str) -> Image.Image:
    try:
        opened.load()  # the first frame; a truncated file fails here
        profile = opened.info.get("icc_profile")
        image = _to_8_bit(_upright(opened))
    except MemoryError:
        raise
    except Exception:
        raise _damaged(name) from None
    image = _to_srgb(image, profile)
    if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] == 255:
        image = image.convert("RGB")
    image = image.copy()
    image.info = {}
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF is common and no reason to refuse a picture
        return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """To L, CMYK, LAB, RGB or RGBA with 8 bits a channel. More bits are scaled: Pillow's own conversion would clip."""
    mode = image.mode
    if mode.startswith("I;16"):
        return Image.fromarray(_quantised(np.asarray(image), 65535.0))
    if mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
        peak = float(values.max(initial=0.0))
        white = next((w for w in ((1.0,) if mode == "F" else ()) + (255.0, 65535.0) if peak <= w), peak)
        return Image.fromarray(_quantised(values, white))
    if "transparency" in image.info or mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return image.convert("LA").convert("RGBA") if mode == "La" else image.convert("RGBA")
    return image if mode in ("L", "CMYK", "LAB", "RGB") else image.convert("RGB")


def _quantised(values: np.ndarray, white: float) -> np.ndarray:
    return np.clip(np.rint(values * (255.0 / white)), 0, 255).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Phones write Display P3, printers CMYK: shown without their profile such pictures look dull or wrong."""
    source: ImageCms.ImageCmsProfile | None = None
    try:
        if profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        elif image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        if source is not None and not (image.mode.startswith("RGB") and _is_srgb(source)):
            colours = image.convert("RGB") if image.mode == "RGBA" else image
            converted = ImageCms.profileToProfile(
                colours,
                source,
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            if image.mode == "RGBA":
                converted.putalpha(image.getchannel("A"))
            return converted
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        pass  # a broken profile, or one of another colour space: the plain conversion is the best that is left
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    return "srgb" in ImageCms.getProfileDescription(profile).lower()
