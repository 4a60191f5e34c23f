"""What a file says about its picture never decides whether there is one; what is wrong with it is said as it is."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from engine.media.images import open_image, open_with_notices
from tests.patches import (
    PIXELS,
    chunk,
    error_of,
    patches,
    refusal,
    rgb_profile,
    saved,
    segment,
    srgb_curve,
    with_chunks,
    with_segments,
)


def noisy() -> Image.Image:
    """Patches with texture: their file has some length to cut from."""
    texture = np.random.default_rng(3).integers(-12, 12, PIXELS.shape)
    return Image.fromarray((PIXELS + texture).clip(0, 255).astype(np.uint8))


PNG, JPEG = saved(patches(), "PNG"), saved(patches(), "JPEG", quality=95, subsampling=0)
EXIF_TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def workflow() -> bytes:
    said = PngImagePlugin.PngInfo()
    said.add_itxt("workflow", "node " * 400_000, zip=True)
    said.add_text("parameters", "steps " * 400_000, zip=True)
    return saved(patches(), "PNG", pnginfo=said)


FAULTY_PNGS = {
    "a long compressed workflow": workflow(),
    "a monitor's profile of 1.3 MB": saved(
        patches(), "PNG", icc_profile=rgb_profile("sRGB", srgb_curve(), "Monitor", 1_300_000)
    ),
    "70 MB of text": with_chunks(PNG, *[chunk(b"tEXt", b"k\0" + b"x" * 1_000_000)] * 70),
    "a wrong checksum in a text": with_chunks(PNG, chunk(b"tEXt", b"Software\0x", sound=False)),
    "a wrong checksum in see-through colours": with_chunks(PNG, chunk(b"tRNS", bytes(6), sound=False)),
    "a wrong checksum in a profile": with_chunks(PNG, chunk(b"iCCP", b"x\0\0nonsense", sound=False)),
    "no profile in its profile": with_chunks(PNG, chunk(b"iCCP", b"x\0\0nonsense")),
    "no name to its text": with_chunks(PNG, chunk(b"iTXt", b""), chunk(b"zTXt", b"k\0\5xx"), chunk(b"tEXt", b"")),
    "a short time, a short gamma": with_chunks(PNG, chunk(b"tIME", b"\0"), chunk(b"gAMA", b"\0"), chunk(b"cHRM", b"1")),
    "short measures": with_chunks(PNG, chunk(b"pHYs", b"\0\0")),
    "broken EXIF": with_chunks(PNG, chunk(b"eXIf", b"MM")),
    "broken animation": with_chunks(PNG, chunk(b"acTL", b"\0\0")),
    "an unknown chunk that is broken": with_chunks(PNG, chunk(b"ruSt", b"x", sound=False)),
    "a broken text behind the picture": PNG[:-12] + chunk(b"tEXt", b"k\0v", sound=False) + PNG[-12:],
    "no end": PNG[:-12],
    "no checksum of its pixels": PNG[:-16] + b"\0\0\0\0" + PNG[-12:],
    "something behind its end": PNG + b"more" * 1000,
}
FAULTY_JPEGS = {
    "no end": JPEG[:-2],
    "half an end": JPEG[:-1],
    "zeros behind it": JPEG + bytes(5000),
    "zeros instead of its end": JPEG[:-2] + bytes(5000),
    "a short JFIF": with_segments(JPEG[:2] + JPEG[20:], segment(0xE0, b"JF")),
    "no JFIF": JPEG[:2] + JPEG[20:],
    "13 MB of metadata": with_segments(JPEG, *[segment(0xE1, b"x" * 65_000)] * 200),
    "a part of a profile": with_segments(JPEG, segment(0xE2, b"ICC_PROFILE\0\2\3abc")),
    "broken EXIF": with_segments(JPEG, segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")),
    "a broken list of pictures": with_segments(JPEG, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\0\xb0")),
    "a short Adobe": with_segments(JPEG, segment(0xEE, b"Adob")),
    "a broken Photoshop block": with_segments(JPEG, segment(0xED, b"Photoshop 3.0\x008BIM")),
    "a segment of no length": with_segments(JPEG, b"\xff\xe5\0\0"),
    "fill bytes": with_segments(JPEG, b"\xff\xff\xff"),
    "stray bytes between segments": JPEG[:20] + b"abc\0" + JPEG[20:],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fault", FAULTY_PNGS)
def test_a_png_with_odd_metadata_is_the_picture_it_is(tmp_path, fault):
    (tmp_path / "a.png").write_bytes(FAULTY_PNGS[fault])
    assert error_of(tmp_path / "a.png") == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fault", FAULTY_JPEGS)
def test_a_jpeg_with_odd_metadata_is_the_picture_it_is(tmp_path, fault):
    (tmp_path / "a.jpg").write_bytes(FAULTY_JPEGS[fault])
    assert error_of(tmp_path / "a.jpg") < 0.5


@pytest.mark.filterwarnings("error")
def test_odd_metadata_of_other_kinds_of_file(tmp_path):
    webp = saved(patches(), "WEBP", lossless=True, exif=EXIF_TURNED[:-9], icc_profile=b"nonsense" * 9, xmp=b"<x/>")
    gif = saved(patches().quantize(16), "GIF")
    palette = 13 + 3 * 2 ** ((gif[10] & 7) + 1)
    files = {"a.webp": webp[:-3], "b.webp": webp + b"more", "a.gif": gif[:-1], "b.gif": gif + b"more",
             "c.gif": gif[:palette] + b"\x21\xff\x02ab\0" + gif[palette:]}  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert error_of(tmp_path / name) < 2, name


def test_a_profile_that_cannot_be_used_is_told(tmp_path):
    saved_as = {"a.png": FAULTY_PNGS["no profile in its profile"], "a.jpg": FAULTY_JPEGS["a part of a profile"],
                "a.webp": saved(patches(), "WEBP", icc_profile=b"nonsense" * 9)}  # fmt: skip
    for name, data in saved_as.items():
        (tmp_path / name).write_bytes(data)
        assert "colour profile cannot be used" in " ".join(open_with_notices(tmp_path / name).notices), name
    (tmp_path / "fine.png").write_bytes(FAULTY_PNGS["a long compressed workflow"])
    assert open_with_notices(tmp_path / "fine.png").notices == ()


@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_png_is_turned_as_its_exif_says(tmp_path, where):
    exif = chunk(b"eXIf", EXIF_TURNED)
    data = with_chunks(PNG, exif) if where == "before" else PNG[:-12] + exif + PNG[-12:]
    (tmp_path / "a.png").write_bytes(data)
    assert open_image(tmp_path / "a.png").size == (80, 120)


# ---------------------------------------------------------------------------
# Cut off


@pytest.mark.parametrize("progressive", [False, True])
def test_of_a_jpeg_that_lacks_a_little_the_rest_is_taken_and_it_is_told(tmp_path, progressive):
    large = noisy().resize((960, 640))
    data = saved(large, "JPEG", quality=90, progressive=progressive)
    (tmp_path / "a.jpg").write_bytes(data[: -len(data) // 60])
    opened = open_with_notices(tmp_path / "a.jpg")
    assert opened.picture.size == (960, 640)
    assert "cut off" in " ".join(opened.notices)
    upper = np.asarray(opened.picture)[:500].astype(int)
    assert np.abs(upper - np.asarray(large)[:500]).mean() < 6


def test_of_a_png_that_lacks_a_little_the_rest_is_taken_and_it_is_told(tmp_path):
    data = saved(noisy().resize((960, 640)), "PNG")
    (tmp_path / "a.png").write_bytes(data[: -len(data) // 60])
    opened = open_with_notices(tmp_path / "a.png")
    assert "cut off" in " ".join(opened.notices)
    assert np.array_equal(np.asarray(opened.picture)[:600], np.asarray(noisy().resize((960, 640)))[:600])


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "gif", "tif", "bmp", "avif", "heic"])
def test_what_is_cut_off_is_called_so(tmp_path, kind):
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    noisy().save(tmp_path / f"whole.{kind}")
    data = (tmp_path / f"whole.{kind}").read_bytes()
    for share in (0.5, 0.8):
        (tmp_path / f"a.{kind}").write_bytes(data[: int(len(data) * share)])
        said = refusal(tmp_path / f"a.{kind}")
        assert "cut off" in said
        assert "again" in said


def test_damage_in_the_middle_is_called_so(tmp_path):
    data = bytearray(saved(noisy(), "PNG"))
    data[len(data) // 3 : len(data) // 3 + 40] = bytes(40)
    (tmp_path / "a.png").write_bytes(data)
    assert "damaged" in refusal(tmp_path / "a.png")


def test_a_sound_file_of_a_kind_that_is_not_read_is_not_called_damaged(tmp_path):
    frame = JPEG.index(b"\xff\xc0")
    (tmp_path / "deep.jpg").write_bytes(JPEG[: frame + 4] + b"\x0c" + JPEG[frame + 5 :])
    (tmp_path / "lossless.jpg").write_bytes(JPEG[: frame + 1] + b"\xc3" + JPEG[frame + 2 :])
    for name, what in {"deep.jpg": "12 bits", "lossless.jpg": "lossless"}.items():
        said = refusal(tmp_path / name)
        assert what in said
        assert "damaged" not in said
        assert "Save it as" in said


def test_a_kind_that_this_pillow_lacks_is_not_called_damaged(tmp_path, monkeypatch):
    (tmp_path / "a.webp").write_bytes(saved(patches(), "WEBP"))
    monkeypatch.setattr("PIL.features.check", lambda feature: False)
    assert "WebP, which cannot be read here" in refusal(tmp_path / "a.webp")


# ---------------------------------------------------------------------------
# Camera raw


def tiff(*pages: list[tuple[int, int, int]], below: int = 0) -> bytes:
    """A TIFF of empty pages, each a list of (tag, type, value); `below`: the second hangs on the first."""
    data, places = b"", []
    for page in pages:
        places.append(8 + len(data))
        entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in page)
        data += struct.pack("<H", len(page)) + entries + bytes(4)
    whole = bytearray(b"II*\0\x08\0\0\0" + data)
    if below:
        whole[8 + 2 + 12 * len(pages[0]) - 4 : 8 + 2 + 12 * len(pages[0])] = struct.pack("<I", places[1])
    return bytes(whole)


PREVIEW = [(254, 4, 1), (256, 4, 160), (257, 4, 120), (259, 3, 1), (262, 3, 2)]
RAWS = {
    "photo.dng": tiff([*PREVIEW, (50706, 4, 0x0401)]),
    "photo.nef": tiff([*PREVIEW, (330, 4, 0)], [(256, 4, 6000), (257, 4, 4000), (262, 3, 32803)], below=1),
    "photo.arw": tiff([*PREVIEW, (330, 4, 0)], [(256, 4, 6000), (257, 4, 4000), (259, 3, 32767)], below=1),
    "photo.pef": tiff([(256, 4, 6000), (257, 4, 4000), (259, 3, 65535)]),
    "photo.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(200),
    "photo.cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40),
    "photo.raf": b"FUJIFILMCCD-RAW 0201FF383501" + bytes(100),
    "photo.orf": b"IIRO\x08\0\0\0" + bytes(100),
    "photo.rw2": b"IIU\0\x18\0\0\0" + bytes(100),
}


@pytest.mark.parametrize("name", RAWS)
def test_a_cameras_raw_file_is_called_so(tmp_path, name):
    (tmp_path / name).write_bytes(RAWS[name])
    said = refusal(tmp_path / name)
    assert "raw file" in said
    assert "JPEG" in said
