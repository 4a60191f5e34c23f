"""Pictures as people have them are opened upright and in the right colours; everything else is refused clearly."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from engine.errors import ImageError
from engine.media.images import MAX_PIXELS, cover, flatten, has_real_alpha, open_image, within

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 60), (40, 60, 210)


def two_tone(width: int = 96, height: int = 64) -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def close(pixel: tuple[int, ...], colour: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


def refused(path: Path, **options) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_image(path, **options)
    message = str(caught.value)
    assert caught.value.remedy
    assert "\n" not in message
    assert str(path.parent) not in message, "pages show this line: no folders of this machine"
    return caught.value


# ---------------------------------------------------------------------------
# What people have


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "bmp", "avif", "heic"])
def test_every_format_people_have_opens_as_8_bit_rgb(tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    if suffix == "heic":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(two_tone()).save(path, quality=95)
    elif suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    else:
        two_tone().save(path)
    picture = open_image(path)
    assert picture.mode == "RGB"
    assert picture.size == (96, 64)
    assert close(picture.getpixel((10, 30)), RED, 25)
    assert close(picture.getpixel((85, 30)), BLUE, 25)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_phone_photo_stands_upright(tmp_path, orientation):
    upright = Image.new("RGB", (64, 96), GREEN)
    upright.paste(RED, (0, 0, 32, 24))  # a mark in the upper left corner
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    picture = open_image(tmp_path / "phone.jpg")
    assert picture.size == (64, 96)
    assert close(picture.getpixel((12, 8)), RED, 25)
    assert close(picture.getpixel((50, 80)), GREEN, 25)


def test_a_rotated_iphone_heic_stands_upright(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    upright = two_tone(64, 96)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(stored).save(tmp_path / "IMG_0001.HEIC", exif=exif.tobytes(), quality=95)
    picture = open_image(tmp_path / "IMG_0001.HEIC")
    assert picture.size == (64, 96)
    assert close(picture.getpixel((10, 48)), RED, 25)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_stop_a_photo(tmp_path):
    two_tone().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert open_image(tmp_path / "a.jpg").size == (96, 64)


def test_where_a_photo_was_taken_is_forgotten(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    exif[0x010E] = "at home"
    two_tone().save(tmp_path / "a.jpg", exif=exif)
    picture = open_image(tmp_path / "a.jpg")
    picture.save(tmp_path / "b.png")
    assert picture.info == {}
    assert not Image.open(tmp_path / "b.png").getexif()


def test_a_16_bit_grey_png_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (32, 1))).save(tmp_path / "scan.png")
    picture = np.asarray(open_image(tmp_path / "scan.png"))
    assert picture.shape == (32, 256, 3)
    assert np.abs(picture[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_a_16_bit_colour_png_keeps_its_colours(tmp_path):
    rows = np.zeros((32, 32, 3), ">u2")
    rows[:] = [c * 257 for c in GREEN]
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    (tmp_path / "deep.png").write_bytes(png(32, 32, depth=16, kind=2, raw=raw))
    assert close(open_image(tmp_path / "deep.png").getpixel((5, 5)), GREEN, 1)


@pytest.mark.parametrize(("white", "kind"), [(1.0, np.float32), (255, np.int32), (65535, np.int32)])
def test_float_and_32_bit_tiffs_are_scaled(tmp_path, white, kind):
    ramp = np.tile(np.linspace(0, white, 64), (32, 1)).astype(kind)
    Image.fromarray(ramp).save(tmp_path / "deep.tif")
    picture = np.asarray(open_image(tmp_path / "deep.tif"))
    assert picture[0, 0, 0] == 0
    assert picture[0, -1, 0] == 255
    assert 120 <= picture[0, 32, 0] <= 136


def test_a_float_tiff_with_holes_opens(tmp_path):
    values = np.full((32, 32), 0.5, np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "holes.tif")
    assert open_image(tmp_path / "holes.tif").getpixel((10, 10)) == (128, 128, 128)


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    red, green, blue = open_image(tmp_path / "print.jpg").getpixel((20, 20))
    assert red > 180
    assert max(green, blue) < 80


def test_a_wide_gamut_profile_is_applied(tmp_path):
    swapped = rgb_profile(red=(0.265, 0.690), green=(0.680, 0.320), blue=(0.150, 0.060))  # red and green change places
    Image.new("RGB", (64, 64), (230, 20, 20)).save(tmp_path / "wide.png", icc_profile=swapped)
    red, green, _ = open_image(tmp_path / "wide.png").getpixel((5, 5))
    assert green > 180
    assert red < 120


def test_a_profile_leaves_the_alpha_alone(tmp_path):
    swapped = rgb_profile(red=(0.265, 0.690), green=(0.680, 0.320), blue=(0.150, 0.060))
    picture = Image.new("RGBA", (64, 64), (230, 20, 20, 255))
    picture.putalpha(Image.linear_gradient("L").resize((64, 64)))
    picture.save(tmp_path / "wide.png", icc_profile=swapped)
    opened = open_image(tmp_path / "wide.png")
    assert opened.mode == "RGBA"
    assert opened.getchannel("A").tobytes() == picture.getchannel("A").tobytes()
    assert opened.getpixel((5, 40))[1] > 180


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 200])
def test_a_broken_profile_does_not_stop_a_photo(tmp_path, profile):
    two_tone().save(tmp_path / "a.png", icc_profile=profile)
    assert close(open_image(tmp_path / "a.png").getpixel((5, 5)), RED, 1)


def test_an_srgb_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    two_tone().save(tmp_path / "a.png", icc_profile=profile)
    assert open_image(tmp_path / "a.png").tobytes() == two_tone().tobytes()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_an_animation_the_first_frame_is_taken_where_it_shows_something(tmp_path, suffix):
    first, second = Image.new("RGB", (64, 64), RED), Image.new("RGB", (64, 64), BLUE)
    path = tmp_path / f"moving.{suffix}"
    first.save(path, save_all=True, append_images=[second], duration=100)
    assert close(open_image(path).convert("RGB").getpixel((30, 30)), RED)


def test_a_palette_png_with_a_see_through_colour_keeps_it_see_through(tmp_path):
    picture = Image.new("P", (64, 64), 0)
    picture.putpalette([255, 255, 255, *RED])
    picture.paste(1, (16, 16, 48, 48))
    picture.save(tmp_path / "icon.png", transparency=0)
    opened = open_image(tmp_path / "icon.png")
    assert opened.mode == "RGBA"
    assert opened.getpixel((2, 2))[3] == 0
    assert opened.getpixel((30, 30)) == (*RED, 255)
    assert has_real_alpha(opened)


def test_grey_with_alpha_keeps_its_alpha(tmp_path):
    picture = Image.new("LA", (64, 64), (200, 0))
    picture.paste((100, 255), (16, 16, 48, 48))
    picture.save(tmp_path / "grey.png")
    opened = open_image(tmp_path / "grey.png")
    assert opened.getpixel((30, 30)) == (100, 100, 100, 255)
    assert opened.getpixel((2, 2))[3] == 0


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_black_and_white_and_grey_and_palette_become_rgb(tmp_path, mode):
    two_tone().convert(mode).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").mode == "RGB"


def test_a_fully_opaque_alpha_is_not_a_cut_out(tmp_path):
    two_tone().convert("RGBA").save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert opened.mode == "RGB"
    assert not has_real_alpha(opened)


def test_rounded_corners_are_not_a_cut_out():
    picture = two_tone(400, 300).convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 8, 8))
    assert not has_real_alpha(picture)
    picture.paste((0, 0, 0, 0), (0, 0, 100, 100))
    assert has_real_alpha(picture)


# ---------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a --><svg/>', "SVG"),
        (b"hello, I am not a picture\n", "text"),
        ("grüße".encode(), "text"),
        (b"", "empty"),
        (b"%PDF-1.7 ...", "document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "document"),
        (b"8BPS\0\1" + bytes(40), "Photoshop"),
        (b"\0\0\0\x18ftypisom" + bytes(40), "video"),
        (bytes(range(256)), "not a picture"),
    ],
)
def test_a_file_that_is_no_picture_is_named_and_refused(tmp_path, content, says):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    error = refused(path)
    assert "photo.png" in error.problem
    assert says in error.problem


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "avif", "heic"])
def test_a_picture_of_which_much_is_missing_is_refused(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (128, 128, 3), dtype=np.uint8))
    if suffix == "heic":
        pytest.importorskip("pillow_heif").from_pillow(noise).save(whole)
    elif suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    else:
        noise.save(whole)
    data = whole.read_bytes()
    for share in (0.02, 0.3, 0.6):
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(data[: max(16, int(len(data) * share))])
        assert refused(path).problem.startswith((f"cut.{suffix} is cut off", f"cut.{suffix} is damaged"))


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "holiday.png").mkdir()
    assert "folder" in refused(tmp_path / "holiday.png").problem
    assert "no picture gone.jpg" in refused(tmp_path / "gone.jpg").problem


def test_impossible_paths_are_refused(tmp_path):
    refused(tmp_path / "a\0b.png")
    refused(tmp_path / ("x" * 5000 + ".png"))
    refused(tmp_path / "line\nbreak.png")
    str(refused(tmp_path / "half\udc80name.png")).encode()  # can be printed


def test_a_file_of_gigabytes_is_refused_unread(tmp_path):
    with (tmp_path / "film.png").open("wb") as file:
        file.truncate(3_000_000_000)  # sparse: takes no room
    assert "3000 MB" in refused(tmp_path / "film.png").problem


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a file" in refused(tmp_path / "pipe.png").problem


def test_an_unreadable_file_is_refused(tmp_path, modes_count):
    two_tone().save(tmp_path / "mine.png")
    (tmp_path / "mine.png").chmod(0)
    assert "cannot be read" in refused(tmp_path / "mine.png").problem


def png(width: int, height: int, *, depth: int = 8, kind: int = 0, raw: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [15_700, 15_900, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, side, monkeypatch):
    def decode(self):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    (tmp_path / "bomb.png").write_bytes(png(side, side))
    error = refused(tmp_path / "bomb.png")
    assert "245 megapixels" in error.remedy if side == 15_700 else "250 megapixels" in error.remedy


def test_the_pixel_cap_can_be_set_and_lies_where_it_is_said(tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png", max_pixels=10_000).size == (100, 100)
    assert "100 × 100" in refused(tmp_path / "a.png", max_pixels=9_999).problem
    assert MAX_PIXELS == 250_000_000


@pytest.mark.parametrize(("size", "says"), [((900, 100), "strip"), ((100, 900), "strip"), ((15, 40), "small")])
def test_strips_and_specks_are_refused(tmp_path, size, says):
    Image.new("RGB", size).save(tmp_path / "a.png")
    error = refused(tmp_path / "a.png")
    assert says in error.problem
    assert f"{size[0]} × {size[1]}" in error.problem


def test_eight_to_one_is_still_a_picture(tmp_path):
    Image.new("RGB", (800, 100)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").size == (800, 100)


def test_a_picture_under_a_wrong_name_opens(tmp_path):
    two_tone().save(tmp_path / "photo.jpg", format="PNG")
    assert open_image(tmp_path / "photo.jpg").size == (96, 64)


SEEDS = {}
for _kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
    _buffer = io.BytesIO()
    two_tone(32, 32).save(_buffer, _kind)
    SEEDS[_kind] = _buffer.getvalue()


@settings(max_examples=150)
@given(st.sampled_from(sorted(SEEDS)), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8))
def test_damage_anywhere_gives_a_picture_or_a_clear_error(tmp_path, kind, damage):
    data = bytearray(SEEDS[kind])
    for where, value in damage:
        data[where % len(data)] = value
    path = tmp_path / "fuzz.png"
    path.write_bytes(data)
    try:
        said, mode = "", open_image(path, max_pixels=1_000_000).mode
    except ImageError as error:
        said, mode = str(error), ""
    assert mode in ("RGB", "RGBA") or "fuzz.png" in said


# ---------------------------------------------------------------------------
# Fitting


def test_cover_fills_the_frame_and_crops_evenly():
    picture = Image.new("RGB", (300, 100), GREEN)
    picture.paste(RED, (0, 0, 100, 100))
    picture.paste(BLUE, (200, 0, 300, 100))
    covered = np.asarray(cover(picture, (50, 50)))
    assert covered.shape == (50, 50, 3)
    assert (np.abs(covered[:, 4:-4].astype(int) - GREEN) <= 3).all()


@settings(max_examples=60)
@given(*(st.integers(16, 200) for _ in range(4)))
def test_every_fit_has_the_asked_size(width, height, to_width, to_height):
    picture = Image.new("RGB", (width, height), RED)
    assert cover(picture, (to_width, to_height)).size == (to_width, to_height)
    assert max(within(picture, to_width).size) <= max(to_width, 1)


def test_within_never_enlarges_and_keeps_the_shape():
    assert within(two_tone(100, 50), 400).size == (100, 50)
    assert within(two_tone(1000, 500), 100).size == (100, 50)


def test_flatten_fills_what_is_see_through():
    assert flatten(Image.new("RGBA", (20, 20), (0, 0, 0, 0))).getpixel((3, 3)) == (255, 255, 255)


# ---------------------------------------------------------------------------


def rgb_profile(**primaries: tuple[float, float]) -> bytes:
    """A minimal ICC matrix profile with the given primaries (xy), gamma 1.8 and D50 white."""
    white = np.array([0.9642, 1.0, 0.8249])
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries.values()]).T
    columns = columns * np.linalg.solve(columns, white)

    def fixed(values) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)

    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(1.8 * 256)) + b"\0\0"
    tags = {b"desc": text, b"wtpt": fixed(white), b"cprt": b"text\0\0\0\0none\0"}
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True):
        tags[name] = fixed(column)
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += b"".join(struct.pack(">i", round(v * 65536)) for v in white)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
