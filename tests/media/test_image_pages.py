"""Of a file with several pictures the main one is taken; kinds of TIFF that the decoder lacks are read or named."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from engine.media.images import open_image, open_with_notices
from tests.patches import COLOURS, PIXELS, error_of, patches, refusal, saved

tifffile = pytest.importorskip("tifffile")

DEEP = PIXELS.astype(np.uint16) * 257
FLOATS = PIXELS / 255
ALPHA = np.full(PIXELS.shape[:2], 200, np.uint8)
CMYK = np.asarray(patches().convert("CMYK"))
LARGE = np.repeat(np.repeat(COLOURS.astype(np.uint8), 300, 0), 300, 1)
SMALL = np.zeros((120, 160, 3), np.uint8)


def apart(pixels: np.ndarray) -> np.ndarray:
    return np.moveaxis(pixels, 2, 0).copy()


RGB, SEPARATE = {"photometric": "rgb"}, {"photometric": "rgb", "planarconfig": "separate"}
CLEAR = {"extrasamples": ["unassalpha"]}
READ = {
    "16 bits, plane by plane": (apart(DEEP), SEPARATE),
    "16 bits, plane by plane, big-endian": (apart(DEEP), {**SEPARATE, "byteorder": ">"}),
    "16 bits, plane by plane, ZIP": (apart(DEEP), {**SEPARATE, "compression": "zlib"}),
    "16 bits, plane by plane, ZIP and differences": (
        apart(DEEP), {**SEPARATE, "compression": "zlib", "predictor": True},
    ),
    "16 bits, plane by plane, in strips": (apart(DEEP), {**SEPARATE, "rowsperstrip": 7}),
    "16 bits, plane by plane, in tiles": (apart(DEEP), {**SEPARATE, "tile": (32, 32)}),
    "16 bits and alpha, plane by plane": (apart(np.dstack([DEEP, ALPHA.astype(np.uint16) * 257])), SEPARATE | CLEAR),
    "16 bits CMYK, plane by plane": (
        apart(CMYK.astype(np.uint16) * 257), {"photometric": "separated", "planarconfig": "separate"},
    ),
    "floats": (FLOATS.astype(np.float32), RGB),
    "floats, ZIP": (FLOATS.astype(np.float32), {**RGB, "compression": "zlib"}),
    "floats, plane by plane": (apart(FLOATS.astype(np.float32)), SEPARATE),
    "floats in tiles": (FLOATS.astype(np.float32), {**RGB, "tile": (32, 32)}),
    "half floats": (FLOATS.astype(np.float16), RGB),
    "double floats": (FLOATS, RGB),
    "32 bits": (PIXELS.astype(np.uint32) * 16843009, RGB),
    "CMYK and alpha": (np.dstack([CMYK, ALPHA]), {"photometric": "separated"} | CLEAR),
    "16 bits": (DEEP, RGB),
    "8 bits, plane by plane": (apart(PIXELS), SEPARATE),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_kinds_of_tiff_that_are_read(tmp_path, kind):
    data, options = READ[kind]
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    assert error_of(tmp_path / "a.tif") < 1
    assert open_image(tmp_path / "a.tif").mode == ("RGBA" if "alpha" in kind else "RGB")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_whose_zero_is_white(tmp_path, kind):
    grey = np.asarray(patches().convert("L"))
    white = np.iinfo(kind).max
    tifffile.imwrite(tmp_path / "a.tif", (white - grey.astype(kind) * (white // 255)), photometric="miniswhite")
    assert error_of(tmp_path / "a.tif", np.repeat(grey[..., None], 3, axis=2)) < 1


def test_grey_with_alpha_and_16_bits(tmp_path):
    grey = np.asarray(patches().convert("L")).astype(np.uint16) * 257
    both = np.dstack([grey, ALPHA.astype(np.uint16) * 257])
    tifffile.imwrite(tmp_path / "a.tif", both, photometric="minisblack", extrasamples=["unassalpha"])
    opened = open_image(tmp_path / "a.tif")
    assert opened.getpixel((5, 5)) == (*[round(grey[5, 5] / 257)] * 3, 200)


@pytest.mark.parametrize("kind", ["8 bits", "ZIP", "16 bits, plane by plane", "floats"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_stands_upright(tmp_path, orientation, kind):
    back = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
            7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    stored = patches().transpose(Image.Transpose[back[orientation]]) if orientation > 1 else patches()
    pixels, options = np.asarray(stored), dict(RGB)
    if kind == "ZIP":
        options["compression"] = "zlib"
    elif kind == "floats":
        pixels = (pixels / 255).astype(np.float32)
    elif kind != "8 bits":
        pixels, options = apart(pixels.astype(np.uint16) * 257), dict(SEPARATE)
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=[(274, 3, 1, orientation, True)], **options)
    assert error_of(tmp_path / "a.tif") < 1


def by_hand(path, data: bytes, *entries: tuple[int, int, int, int], tail: bytes = b"") -> None:
    """A TIFF of one strip. The value of an entry of several is a place in `tail`."""
    table = 8 + len(data)
    behind = table + 2 + 12 * (len(entries) + 2) + 4
    whole = sorted([*entries, (273, 4, 1, 8), (279, 4, 1, len(data))])
    packed = b"".join(
        struct.pack("<HHII", tag, kind, count, value + (behind if count > 1 else 0))
        for tag, kind, count, value in whole
    )
    head = b"II*\0" + struct.pack("<I", table) + data + struct.pack("<H", len(whole))
    path.write_bytes(head + packed + bytes(4) + tail)


def test_floats_whose_bytes_are_stored_as_differences(tmp_path):
    rows = []
    for row in FLOATS.astype(">f4"):
        ordered = np.frombuffer(row.tobytes(), np.uint8).reshape(-1, 4).T.reshape(-1)  # the highest bytes first
        rows.append(np.concatenate([ordered[:3], ordered[3:] - ordered[:-3]]).tobytes())
    entries = [(256, 4, 1, 120), (257, 4, 1, 80), (258, 3, 3, 0), (259, 3, 1, 8), (262, 3, 1, 2), (277, 3, 1, 3),
               (278, 4, 1, 80), (317, 3, 1, 3), (339, 3, 3, 6)]  # fmt: skip
    by_hand(tmp_path / "a.tif", zlib.compress(b"".join(rows)), *entries, tail=struct.pack("<6H", 32, 32, 32, 3, 3, 3))
    assert error_of(tmp_path / "a.tif") < 1


def test_twelve_bits_are_as_bright_as_eight(tmp_path):
    grey = np.asarray(patches().convert("L")).astype(int)
    deep = (grey << 4 | grey >> 4).reshape(-1, 2)
    packed = np.stack([deep[:, 0] >> 4, (deep[:, 0] & 15) << 4 | deep[:, 1] >> 8, deep[:, 1] & 255], axis=1)
    entries = [(256, 4, 1, 120), (257, 4, 1, 80), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1),
               (278, 4, 1, 80)]  # fmt: skip
    by_hand(tmp_path / "a.tif", packed.astype(np.uint8).tobytes(), *entries)
    assert error_of(tmp_path / "a.tif", np.repeat(grey[..., None], 3, axis=2)) < 1


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        (PIXELS.astype(np.int8), RGB, "signed"),
        (PIXELS.astype(np.int32), RGB, "signed"),
        (FLOATS.astype(np.complex64), RGB, "complex"),
        (PIXELS[..., 0].astype(np.uint64), {"photometric": "minisblack"}, "64 bits"),
    ],
)
def test_kinds_of_tiff_that_are_not_read_are_named(tmp_path, data, options, says):
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    said = refusal(tmp_path / "a.tif")
    assert says in said
    assert "damaged" not in said
    assert "Save it as" in said


# ---------------------------------------------------------------------------
# Which page


def pages(path, *written: tuple[np.ndarray, dict]) -> None:
    with tifffile.TiffWriter(path) as file:
        for data, options in written:
            file.write(data, photometric="rgb", metadata=None, **options)


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_thumbnail_in_front_is_passed_over(tmp_path, marked, compression):
    small = {"subfiletype": 1} if marked else {}
    pages(tmp_path / "a.tif", (SMALL, small), (LARGE, {"compression": compression}))
    assert error_of(tmp_path / "a.tif", LARGE) < 1


def test_a_picture_below_its_thumbnail_is_found(tmp_path):
    pages(tmp_path / "a.tif", (SMALL, {"subfiletype": 1, "subifds": 1}), (LARGE, {"subfiletype": 0}))
    assert error_of(tmp_path / "a.tif", LARGE) < 1


def test_smaller_copies_behind_the_picture_change_nothing(tmp_path):
    half = {"subfiletype": 1}
    pages(tmp_path / "a.tif", (LARGE, {"subifds": 2}), (LARGE[::2, ::2], half), (LARGE[::4, ::4], half))
    assert error_of(tmp_path / "a.tif", LARGE) < 1
    assert open_with_notices(tmp_path / "a.tif").notices == ()


def test_of_a_document_the_first_page_is_taken_and_it_is_told(tmp_path):
    pages(tmp_path / "a.tif", (LARGE, {}), (np.zeros_like(LARGE), {}), (np.zeros((700, 1000, 3), np.uint8), {}))
    assert error_of(tmp_path / "a.tif", LARGE) < 1
    assert "3 pictures" in " ".join(open_with_notices(tmp_path / "a.tif").notices)


def test_a_page_that_leads_back_to_itself_ends(tmp_path):
    data = bytearray(saved(patches(), "TIFF"))
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    data[start + 2 + 12 * count : start + 6 + 12 * count] = start.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(data)
    assert error_of(tmp_path / "a.tif") < 1


def test_of_a_phones_file_with_several_pictures_the_first_is_taken(tmp_path):
    other = Image.new("RGB", (120, 80))
    patches().save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[other], quality=95, subsampling=0)
    assert error_of(tmp_path / "a.jpg") < 1


def test_of_a_heic_with_several_pictures_the_main_one_is_taken(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    burst = heif.from_pillow(Image.new("RGB", (120, 80)))
    burst.add_from_pillow(patches())
    burst.save(tmp_path / "a.heic", quality=95, chroma=444, primary_index=1)
    assert error_of(tmp_path / "a.heic") < 3


# ---------------------------------------------------------------------------
# Which frame


def fading(steps: int = 6) -> list[Image.Image]:
    frames = []
    for number in range(steps):
        frame = patches().convert("RGBA")
        frame.putalpha(255 * number // (steps - 1))
        frames.append(frame)
    return frames


@pytest.mark.parametrize("suffix", ["webp", "png", "gif"])
def test_an_animation_that_fades_in_shows_its_picture(tmp_path, suffix):
    frames = fading()
    options = {"lossless": True} if suffix == "webp" else {"disposal": 2} if suffix == "gif" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=80, **options)
    opened = open_with_notices(tmp_path / f"a.{suffix}")
    assert np.abs(np.asarray(opened.picture.convert("RGB")).astype(int) - PIXELS).mean() < 4
    assert opened.picture.mode == "RGB"
    assert "frame" in " ".join(opened.notices)


@pytest.mark.parametrize("suffix", ["webp", "png", "gif"])
def test_an_animation_that_begins_black_shows_its_picture(tmp_path, suffix):
    black = Image.new("RGB", (120, 80))
    options = {"lossless": True} if suffix == "webp" else {}
    black.save(
        tmp_path / f"a.{suffix}", save_all=True, append_images=[black, patches()], duration=[80, 90, 100], **options
    )
    assert error_of(tmp_path / f"a.{suffix}") < 4


def test_an_animation_that_never_shows_anything_is_what_it_is(tmp_path):
    clear = Image.new("RGBA", (120, 80), (0, 0, 0, 0))
    other = clear.copy()
    other.putpixel((3, 3), (0, 0, 0, 1))
    clear.save(tmp_path / "a.webp", save_all=True, append_images=[other, clear], duration=80, lossless=True)
    assert open_with_notices(tmp_path / "a.webp").picture.size == (120, 80)
