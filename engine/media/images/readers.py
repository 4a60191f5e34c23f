"""For each kind of file: what decoding it will cost, and how it is done.

The costs, in bytes a pixel, were measured with Pillow 12.3, pillow-heif 1.8 and OpenCV 5.0: `tests/bench/pictures.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin, features

from engine.errors import ImageError
from engine.media.images import boxes, jpeg, kinds, png, strips, tiff, webp
from engine.media.images.colour import way_of
from engine.media.images.gate import DECODING, KEPT_PIXELS
from engine.media.images.pixels import Deep
from engine.media.images.plan import TWO_BYTES, DecodePlan, by_opencv, bytes_a_pixel, loaded, open_header, rewound
from engine.media.images.survey import Colour, with_exif

_OPTIONAL = {"AVIF": "AVIF", "WEBP": "WebP"}  # some builds of Pillow lack them
_CUT_AT_MOST = 0.05  # of the height may be missing
_ROWS_AT_MOST = 16  # so many may be missing from any picture: one row of blocks
_DEEP_PNG = 4.2  # a channel, in OpenCV
_WEBP, _LARGE_WEBP, _LARGE = 16.4, 8.6, 14_000_000  # by Pillow; by OpenCV (stills only), from so many pixels
_AVIF, _SEE_THROUGH_AVIF = 8.2, 2.7  # beside its planes (1.5 to 6); more with alpha
_HEIF, _TILED_HEIF = 7.0, 4.8
_SEE_THROUGH_HEIF = 2.4  # more with alpha
_DEEP_HEIF = 9.0  # more with over 8 bits a channel


def plan(file: BinaryIO, size: int, name: str) -> DecodePlan:
    """Plan how to decode a file, without decoding it. Raises ImageError where it cannot be used."""
    file.seek(0)
    head = file.read(kinds.SNIFF)
    kind = kinds.kind_of(head)
    if not kind:
        raise kinds.not_a_picture(head, name)
    if kind in _OPTIONAL and not features.check(kind.lower()):
        raise kinds.unsupported(name, f"a picture in {_OPTIONAL[kind]}", "Save it as JPEG or PNG.")
    return _PLANS[kind](file, size, name)


# ---------------------------------------------------------------------------


def _jpeg(file: BinaryIO, size: int, name: str) -> DecodePlan:
    found, scan = jpeg.survey(file, size, name)
    picture = jpeg.open_stream(found.stream)
    stored = picture.size
    told: list[str] = []
    jpeg.reduce_to(picture, KEPT_PIXELS)
    cost = 4 * picture.width * picture.height + scan.coefficients * stored[0] * stored[1]

    def decode() -> Image.Image:
        if not found.whole:
            share = jpeg.missing(found, scan)
            rough = jpeg.missing(found, scan, rough=True) if share and scan.coefficients else share
            if rough > max(_CUT_AT_MOST, _ROWS_AT_MOST / stored[1]):
                raise kinds.cut_off(name, f"the lowest {rough:.0%} of it is missing")
            if share:
                what = "a little of the picture's lower edge" if rough else "a part of the picture's fine detail"
                told.append(f"The file is cut off: {what} is missing.")
        return loaded(picture)

    what = "a progressive JPEG" if scan.coefficients else "a JPEG"
    instead = "a JPEG that is not progressive"
    return DecodePlan(stored, cost, what, decode, way_of(found.colour), found.orientation, told, True, instead)


def _png(file: BinaryIO, size: int, name: str) -> DecodePlan:
    found, header = png.survey(file, size, name)
    picture, way = open_header("PNG", found.stream), way_of(found.colour)
    told: list[str] = []
    pixels = header.width * header.height
    deep_cost = _DEEP_PNG * header.channels * pixels + 2 * size
    deep = header.depth == 16 and header.channels > 1 and way.deep and deep_cost <= DECODING

    def decode() -> Image.Image | Deep:
        if deep and (read := by_opencv(found.stream, np.uint16)) is not None:
            return read
        try:
            return _with_clear_grey(loaded(picture), header)
        except (OSError, SyntaxError, ValueError, IndexError):
            picture.close()  # frees its pixels, which take as much as the new ones will
            if cost + 1.2 * size > DECODING:
                raise (kinds.damaged(name) if found.whole else kinds.cut_off(name)) from None
            stream, missing = png.repaired(file, header)
        if missing > _CUT_AT_MOST:
            if found.whole:
                raise kinds.damaged(name)
            raise kinds.cut_off(name, f"{missing:.0%} of its rows are missing")
        if missing:
            told.append("The file is cut off: a little of the picture is missing.")
        return _with_clear_grey(loaded(open_header("PNG", stream)), header)

    cost = deep_cost if deep else bytes_a_pixel(picture.mode) * pixels
    bits = f"a PNG with {header.depth} bits a channel" if header.depth == 16 else "a PNG"
    moving = header.moving
    frames = (lambda: open_header("PNG", moving)) if moving else None
    is_deep = deep or picture.mode in TWO_BYTES
    return DecodePlan(
        picture.size, cost, bits, decode, way, found.orientation, told, deep=is_deep and way.deep, frames=frames
    )


def _with_clear_grey(picture: Image.Image, header: png.Header) -> Image.Image:
    """Scale the value of the transparent grey, in place, as the decoder scales greys of 2 and 4 bits but not it."""
    clear = picture.info.get("transparency")
    if header.channels == 1 and header.kind == 0 and header.depth in (2, 4) and isinstance(clear, int):
        picture.info["transparency"] = clear * 255 // (2**header.depth - 1)
    return picture


def _webp(file: BinaryIO, size: int, name: str) -> DecodePlan:
    found, coding = webp.survey(file, size, name)
    picture = open_header("WEBP", found.stream)
    pixels = picture.width * picture.height
    large = coding.still and pixels > _LARGE

    def decode() -> Image.Image | Deep:
        if large:
            read = by_opencv(found.stream, np.uint8)
            if read is None:
                raise kinds.damaged(name)
            return read
        return loaded(picture)

    cost = (_LARGE_WEBP if large else _WEBP) * pixels + size
    frames = None
    if not coding.still:
        frames = lambda: open_header("WEBP", rewound(found.stream))  # noqa: E731
    return DecodePlan(picture.size, cost, "a WebP", decode, way_of(found.colour), found.orientation, frames=frames)


def _avif(file: BinaryIO, size: int, name: str) -> DecodePlan:
    meta = boxes.meta_of(file, size, name)
    file.seek(0)
    picture = open_header("AVIF", file)
    colour = Colour(icc=picture.info.get("icc_profile"), cicp=boxes.cicp_of(meta))
    if colour.icc:  # the profile describes the colours better; nclx is for the decoder
        colour = Colour(icc=colour.icc)
    colour, turned = with_exif(colour, picture.info.get("exif"))
    a_pixel = _AVIF + boxes.planes_of(meta) + (_SEE_THROUGH_AVIF if picture.mode == "RGBA" else 0)
    cost = a_pixel * picture.width * picture.height + 2 * size
    frames = None
    if getattr(picture, "is_animated", False):
        frames = lambda: open_header("AVIF", rewound(file))  # noqa: E731
    return DecodePlan(picture.size, cost, "an AVIF", lambda: loaded(picture), way_of(colour), turned, frames=frames)


def _heif(file: BinaryIO, size: int, name: str) -> DecodePlan:
    import pillow_heif  # here, because importing it loads a codec that most people never need

    boxes.meta_of(file, size, name)
    container = pillow_heif.open_heif(rewound(file), convert_hdr_to_8bit=True, remove_stride=False)
    main = container[container.primary_index]
    info: dict[str, Any] = main.info
    nclx = info.get("nclx_profile")
    cicp = boxes.as_still(nclx["color_primaries"], nclx["transfer_characteristics"]) if nclx else None
    colour, _ = with_exif(Colour(icc=info.get("icc_profile"), cicp=None), info.get("exif"))
    way = way_of(colour if colour.icc else Colour(cicp=cicp, adobe=colour.adobe))
    deep = info.get("bit_depth", 8) > 8 and way.deep
    if deep:
        container = pillow_heif.open_heif(rewound(file), convert_hdr_to_8bit=False, remove_stride=False)
        main = container[container.primary_index]
    a_pixel = _TILED_HEIF if "tiling" in main.info else _HEIF
    a_pixel += (_SEE_THROUGH_HEIF if main.has_alpha else 0) + (_DEEP_HEIF if deep else 0)

    def decode() -> Deep:
        rows = np.frombuffer(main.data, np.uint8).reshape(-1, main.stride)[: main.size[1]]
        bands = {"L": 1, "LA": 2, "La": 2}.get(main.mode.partition(";")[0], 4 if main.has_alpha else 3)
        kind = np.uint16 if ";16" in main.mode else np.uint8
        samples = rows[:, : main.size[0] * bands * np.dtype(kind).itemsize].view(kind)
        samples = samples.reshape(main.size[1], main.size[0], bands)
        return Deep(samples, "RGB" if bands > 2 else "L", main.has_alpha, main.premultiplied_alpha)

    cost = a_pixel * main.size[0] * main.size[1] + 2 * size
    # libheif has applied the rotation of the file's box, which counts, and not EXIF's
    return DecodePlan(main.size, cost, "a HEIC", decode, way, 1, deep=deep)


def _tiff(file: BinaryIO, size: int, name: str) -> DecodePlan:
    page, count = tiff.choose(file, size, name)
    told = [f"The file holds {count} pictures; one of them is used."] if count > 1 else []
    icc = tiff.blob(file, page, tiff.ICC)
    way = way_of(Colour(icc=icc, broken=icc is None and (tiff.ICC in page.tags or tiff.ICC in page.long)))
    picture = None if strips.pillow_is_wrong(page) else _page_by_pillow(file, page)
    pixels = page.pixels
    if picture is None or (way.deep and picture.mode in ("RGB", "RGBA") and max(page.tags.get(tiff.BITS, (8,))) > 8):
        try:
            samples = strips.samples_of(page, name)
        except ImageError:
            if picture is None:
                raise
        else:
            cost = samples.bytes_a_pixel * pixels + strips.copies(page, size, samples)

            def decode() -> Deep:
                read = strips.read(file, page, samples, name)
                return Deep(read, samples.mode, samples.alpha, samples.associated, samples.inverted)

            turned = page.one(tiff.ORIENTATION, 1)
            bits = f"a TIFF with {samples.kind.itemsize * 8} bits a channel"
            return DecodePlan(page.size, cost, bits, decode, way, turned, told, deep=way.deep)

    def by_pillow() -> Image.Image | Deep:
        try:
            found = loaded(picture)
            if page.one(tiff.BITS, 1) == 12:  # Pillow leaves them as they are, a sixteenth of white at most
                return Deep(np.asarray(found)[..., None] * 16 + np.asarray(found)[..., None] // 256, "L")
            return found
        except OSError:
            if tiff.is_cut(file, page, size):
                raise kinds.cut_off(name, "some of its rows are missing") from None
            raise

    a_pixel = max(1, page.one(tiff.SAMPLES, 1)) * max(page.tags.get(tiff.BITS, (8,)), default=8) / 8
    packed = page.one(tiff.COMPRESSION, 1) != 1
    cost = bytes_a_pixel(picture.mode) * pixels + packed * tiff.piece_bytes(page, a_pixel)
    deep = picture.mode in TWO_BYTES and way.deep
    # Pillow has turned it by the end of `load`
    return DecodePlan(picture.size, cost, "a TIFF", by_pillow, way, 1, told, deep=deep)


def _page_by_pillow(file: BinaryIO, page: tiff.TiffPage) -> Image.Image | None:
    """Open a page with Pillow; None where Pillow lacks the kind."""
    file.seek(0)
    try:
        picture = TiffImagePlugin.TiffImageFile(file, "")
        picture._frame_pos = [page.offset]  # what its own `get_child_images` does for a page below another
        picture._seek(0)
        return picture
    except (SyntaxError, KeyError, ValueError, TypeError, EOFError):
        return None


def _plain(kind: str, what: str, a_pixel: float) -> Callable[[BinaryIO, int, str], DecodePlan]:
    def make(file: BinaryIO, size: int, name: str) -> DecodePlan:
        file.seek(0)
        picture = open_header(kind, file)
        colour, turned = with_exif(Colour(icc=picture.info.get("icc_profile")), None)
        cost = max(a_pixel, bytes_a_pixel(picture.mode)) * picture.width * picture.height
        frames = None
        if getattr(picture, "is_animated", False):
            frames = lambda: open_header(kind, rewound(file))  # noqa: E731
        way = way_of(colour)
        return DecodePlan(picture.size, cost, what, lambda: loaded(picture), way, turned, frames=frames)

    return make


_PLANS = {
    "JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "AVIF": _avif, "HEIF": _heif, "TIFF": _tiff,
    "GIF": _plain("GIF", "a GIF", 2), "BMP": _plain("BMP", "a BMP", 4),
}  # fmt: skip
