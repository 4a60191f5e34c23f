"""Colours come out as a browser shows them, wherever a file says what they are and whatever it calls that."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, features

from engine.media.images import open_image, open_with_notices
from tests.patches import (
    PIXELS,
    chunk,
    eight,
    encoded,
    error_of,
    gamma_curve,
    grey_profile,
    light,
    patches,
    rgb_profile,
    saved,
    srgb_curve,
    stored,
    with_chunks,
)

GREY = np.repeat(np.asarray(patches().convert("L"))[..., None], 3, axis=2)
P3_CHROMA = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
P3 = chunk(b"cICP", bytes((12, 13, 0, 1)))


def gama(exponent: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(exponent * 100_000)))


def linear(value: np.ndarray) -> np.ndarray:
    return value


def pq(value: np.ndarray) -> np.ndarray:
    """Light, 1 being the white of ordinary pictures at 203 cd/m², as SMPTE ST 2084 stores it."""
    power = (value * 203 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


@pytest.mark.parametrize(
    ("space", "curve", "table", "name"),
    [
        ("sRGB", linear, gamma_curve(1), "GIMP built-in Linear sRGB"),
        ("sRGB", linear, b"curv\0\0\0\0\0\0\0\0", "sRGB-elle-V2-g10.icc"),
        ("2020", stored, srgb_curve(), "Rec2020-elle-V2-srgbtrc.icc"),
        ("P3", stored, srgb_curve(), "not sRGB at all"),
        ("Adobe", lambda value: value ** (256 / 563), gamma_curve(563 / 256), "srgb"),
        ("sRGB", stored, srgb_curve(), "some monitor"),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_profile_counts_by_what_it_holds_not_by_its_name(tmp_path, kind, space, curve, table, name):
    options = {"lossless": True} if kind == "WEBP" else {}
    profile = rgb_profile(space, table, name)
    (tmp_path / "a").write_bytes(saved(eight(encoded(space, curve)), kind, icc_profile=profile, **options))
    assert error_of(tmp_path / "a") < 1.5


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "P"])
@pytest.mark.parametrize("exponent", [1.0, 1.8])
def test_grey_goes_through_its_profile_with_alpha_too(tmp_path, mode, exponent):
    grey = eight(light(GREY[..., 0] / 255) ** (1 / exponent))
    picture = grey.convert("RGB") if mode == "RGB" else grey.convert("P") if mode == "P" else grey
    if mode == "LA":
        alpha = Image.new("L", grey.size, 255)
        alpha.paste(0, (0, 0, 9, 9))
        picture = Image.merge("LA", (grey, alpha))
    picture.save(tmp_path / "a.png", icc_profile=grey_profile(gamma_curve(exponent)))
    assert error_of(tmp_path / "a.png", GREY) < 1.5


def test_grey_with_a_profile_for_colours_goes_through_that(tmp_path):
    grey = eight(light(GREY[..., 0] / 255))
    grey.save(tmp_path / "a.png", icc_profile=rgb_profile("sRGB", gamma_curve(1), "linear"))
    assert error_of(tmp_path / "a.png", GREY) < 1.5


SAID = {
    "cICP, Display P3": (encoded("P3"), [P3]),
    "cICP, linear": (encoded("sRGB", linear), [chunk(b"cICP", bytes((1, 8, 0, 1)))]),
    "cICP, Rec. 2020 under sRGB's curve": (encoded("2020"), [chunk(b"cICP", bytes((9, 13, 0, 1)))]),
    "cICP of nothing known": (PIXELS / 255, [chunk(b"cICP", bytes((2, 2, 0, 1)))]),
    "gAMA 1": (encoded("sRGB", linear), [gama(1)]),
    "gAMA of sRGB": (PIXELS / 255, [gama(0.45455)]),
    "gAMA 0": (PIXELS / 255, [gama(0)]),
    "gAMA and cHRM of Display P3": (encoded("P3"), [gama(0.45455), P3_CHROMA]),
    "cHRM alone says nothing": (PIXELS / 255, [P3_CHROMA]),
    "sRGB before gAMA": (PIXELS / 255, [chunk(b"sRGB", b"\0"), gama(1)]),
    "cICP before gAMA and sRGB": (encoded("P3"), [P3, chunk(b"sRGB", b"\0"), gama(1)]),
}


@pytest.mark.parametrize("what", SAID)
def test_a_png_that_says_its_colours_in_numbers(tmp_path, what):
    values, chunks = SAID[what]
    (tmp_path / "a.png").write_bytes(with_chunks(saved(eight(values), "PNG"), *chunks))
    assert error_of(tmp_path / "a.png") < 1.5


def test_of_what_a_png_says_the_better_description_counts(tmp_path):
    profile = {"icc_profile": rgb_profile("sRGB", gamma_curve(1), "linear")}
    data = with_chunks(saved(eight(encoded("P3")), "PNG", **profile), P3)
    (tmp_path / "a.png").write_bytes(data)
    assert error_of(tmp_path / "a.png") < 1.5, "cICP before the profile"
    data = with_chunks(saved(eight(encoded("sRGB", linear)), "PNG", **profile), chunk(b"sRGB", b"\0"))
    (tmp_path / "b.png").write_bytes(data)
    assert error_of(tmp_path / "b.png") < 1.5, "the profile before sRGB"


@pytest.mark.parametrize("said", [gama(1), chunk(b"cICP", bytes((1, 8, 0, 1))), "profile"])
def test_sixteen_bits_of_light_keep_the_dark_parts_apart(tmp_path, said):
    dark = np.linspace(0, 0.1, 256)[None].repeat(32, axis=0)  # of what a page shows: 26 levels
    rows = np.rint(light(dark) * 65535).astype(">u2")[..., None].repeat(3, axis=2)
    data = deep_png(rows, *([] if said == "profile" else [said]))
    if said == "profile":
        packed = saved(patches(), "PNG", icc_profile=rgb_profile("sRGB", gamma_curve(1), "linear"))
        at = packed.index(b"iCCP") - 4
        data = with_chunks(data, packed[at : at + 12 + int.from_bytes(packed[at : at + 4], "big")])
    (tmp_path / "a.png").write_bytes(data)
    found = np.asarray(open_image(tmp_path / "a.png"))[0, :, 0].astype(int)
    assert np.abs(found - dark[0] * 255).max() <= 1
    assert len(np.unique(found)) == 27


def deep_png(rows: np.ndarray, *chunks: bytes) -> bytes:
    import zlib

    height, width, _ = rows.shape
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("how", ["gAMA", "profile"])
def test_sixteen_bits_of_grey_light_keep_the_dark_parts_apart(tmp_path, how):
    dark = np.linspace(0, 0.1, 256)[None].repeat(32, axis=0)
    picture = Image.fromarray(np.rint(light(dark) * 65535).astype(np.uint16))
    options = {"icc_profile": grey_profile(gamma_curve(1))} if how == "profile" else {}
    data = saved(picture, "PNG", **options)
    (tmp_path / "a.png").write_bytes(data if options else with_chunks(data, gama(1)))
    found = np.asarray(open_image(tmp_path / "a.png"))[0, :, 0].astype(int)
    assert np.abs(found - dark[0] * 255).max() <= 1
    assert len(np.unique(found)) == 27


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_grey_that_a_png_calls_see_through_is(tmp_path, bits):
    import zlib

    steps = np.tile(np.arange(32) // 16, (32, 1)) * (2**bits - 1)
    binary = (steps[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(32, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in np.packbits(binary, axis=1))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, bits, 0, 0, 0, 0))
    clear = chunk(b"tRNS", struct.pack(">H", 2**bits - 1))
    body = head + clear + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    alpha = np.asarray(open_image(tmp_path / "a.png").getchannel("A"))
    assert (alpha[:, :16] == 255).all()
    assert (alpha[:, 16:] == 0).all()


@pytest.mark.parametrize("bits", [8, 10])
def test_a_heic_that_says_its_colours_in_numbers(tmp_path, bits):
    heif = pytest.importorskip("pillow_heif")
    said = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6, "full_range_flag": 1}
    values = encoded("P3")
    if bits == 8:
        heif.from_pillow(eight(values)).save(tmp_path / "a.heic", quality=95, chroma=444, **said)
    else:
        deep = np.rint(values * 65535).astype("<u2")
        image = heif.from_bytes("RGB;16", (120, 80), deep.tobytes())
        image.save(tmp_path / "a.heic", quality=95, chroma=444, **said)
    assert error_of(tmp_path / "a.heic") < 3


@pytest.mark.parametrize(("said", "values"), [((12, 13), encoded("P3")), ((1, 1), PIXELS / 255), ((1, 8), None)])
def test_an_avif_that_says_its_colours_in_numbers(tmp_path, said, values):
    if not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    values = encoded("sRGB", linear) if values is None else values
    data = bytearray(saved(eight(values), "AVIF", quality=98, subsampling="4:4:4"))
    at = data.index(b"nclx") + 4
    data[at : at + 4] = struct.pack(">HH", *said)
    (tmp_path / "a.avif").write_bytes(data)
    assert error_of(tmp_path / "a.avif") < 3


@pytest.mark.parametrize("kind", ["png", "heic"])
def test_an_hdr_picture_looks_like_an_ordinary_one_and_it_is_told(tmp_path, kind):
    values = encoded("2020", pq)
    if kind == "heic":
        heif = pytest.importorskip("pillow_heif")
        image = heif.from_bytes("RGB;16", (120, 80), np.rint(values * 65535).astype("<u2").tobytes())
        said = {"color_primaries": 9, "transfer_characteristics": 16, "matrix_coefficients": 9, "full_range_flag": 1}
        image.save(tmp_path / "a.heic", quality=95, chroma=444, **said)
    else:
        rows = np.rint(values * 65535).astype(">u2")
        (tmp_path / "a.png").write_bytes(deep_png(rows, chunk(b"cICP", bytes((9, 16, 0, 1)))))
    assert error_of(tmp_path / f"a.{kind}") < 12, "as bright, but for the highlights"
    assert "HDR" in " ".join(open_with_notices(tmp_path / f"a.{kind}").notices)


def camera_exif(space: int, interop: bytes) -> bytes:
    """EXIF with a colour space and an interoperability index, as DCF has them."""
    first = struct.pack(">HHHII", 1, 0x8769, 4, 1, 26) + bytes(4)
    camera = struct.pack(">HHHIHH", 2, 0xA001, 3, 1, space, 0) + struct.pack(">HHII", 0xA005, 4, 1, 56) + bytes(4)
    inter = struct.pack(">HHHI4s", 1, 1, 2, 4, interop + b"\0") + bytes(4)
    return b"Exif\0\0MM\0*\0\0\0\x08" + first + camera + inter


@pytest.mark.parametrize(
    ("space", "interop", "adobe"),
    [(0xFFFF, b"R03", True), (2, b"R98", True), (1, b"R98", False), (0xFFFF, b"R98", False), (1, b"R03", False)],
)
def test_adobe_rgb_as_cameras_say_it(tmp_path, space, interop, adobe):
    values = encoded("Adobe", lambda value: value ** (256 / 563)) if adobe else PIXELS / 255
    eight(values).save(tmp_path / "a.jpg", quality=98, subsampling=0, exif=camera_exif(space, interop))
    assert error_of(tmp_path / "a.jpg") < 2


def test_a_profile_counts_before_what_the_camera_says(tmp_path):
    options = {"exif": camera_exif(0xFFFF, b"R03"), "icc_profile": rgb_profile("P3", srgb_curve(), "P3")}
    eight(encoded("P3")).save(tmp_path / "a.jpg", quality=98, subsampling=0, **options)
    assert error_of(tmp_path / "a.jpg") < 2


def test_a_profile_for_other_colours_than_the_pictures_is_told(tmp_path):
    patches().save(tmp_path / "a.jpg", quality=98, subsampling=0, icc_profile=cmyk_like())
    opened = open_with_notices(tmp_path / "a.jpg")
    assert "colour profile" in " ".join(opened.notices)
    assert np.abs(np.asarray(opened.picture).astype(int) - PIXELS).mean() < 2


def cmyk_like() -> bytes:
    profile = bytearray(rgb_profile("sRGB", srgb_curve(), "press"))
    profile[16:20] = b"CMYK"
    return bytes(profile)
