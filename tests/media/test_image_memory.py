"""Pictures as large as cameras make them are taken, and none takes more memory than is said, also not four at once."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.media.images import KEPT_PIXELS, open_image
from engine.media.images.gate import DECODING, TOGETHER, Gate
from tests.patches import chunk, patches, refusal

LIMIT = 300  # MB above the idle process

# Opens what it is given, all at once, and prints the peak above what it held before, in MB.
OPENER = """
import json, sys, threading
from pathlib import Path
from PIL import Image
from engine.media import images
from engine.errors import ImageError

def held(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what))) / 1000

def work(path):
    try:
        said.append(images.open_image(path).size)
    except ImageError as error:
        said.append(str(error))

said = []
work(sys.argv[1])  # libraries and decoders are there
said.clear()
idle = held("VmHWM")
threads = [threading.Thread(target=work, args=(path,)) for path in sys.argv[2:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps({"peak": held("VmHWM") - idle, "said": said}))
"""


def bomb(path: Path, side: int, bits: int, sample_format: int) -> Path:
    """A TIFF of zeros, deflated to a thousandth."""
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(side * bits // 8)) for _ in range(side)]
    data = b"".join((*rows, packer.flush()))
    entries = [(256, 4, side), (257, 4, side), (258, 3, bits), (259, 3, 8), (262, 3, 1), (273, 4, 8), (277, 3, 1),
               (278, 4, side), (279, 4, len(data)), (339, 3, sample_format)]  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", 10) + table + bytes(4))
    return path


def empty_png(path: Path, size: tuple[int, int], depth: int, kind: int, channels: int, *chunks: bytes) -> Path:
    packer = zlib.compressobj(1)
    row = bytes(1 + size[0] * channels * depth // 8)
    data = b"".join([*(packer.compress(row) for _ in range(size[1])), packer.flush()])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


@pytest.fixture
def opened(tmp_path, repo):
    """`opened(paths)`: what a fresh process needs to open them all at once, in MB, and what came of each."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak is read from /proc")
    (tmp_path / "small").mkdir()
    patches().save(tmp_path / "small" / "a.png")

    def run(*paths: Path) -> tuple[float, list]:
        command = [sys.executable, "-c", OPENER, str(tmp_path / "small" / "a.png"), *map(str, paths)]
        answer = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=600, check=True)
        found = json.loads(answer.stdout)
        return found["peak"], found["said"]

    return run


def test_bombs_of_every_mode_cost_what_is_allowed(opened, tmp_path):
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    files = [
        bomb(tmp_path / "float, refused.tif", 7000, 32, 3),
        bomb(tmp_path / "float.tif", 5400, 32, 3),
        bomb(tmp_path / "whole numbers.tif", 5400, 32, 2),
        bomb(tmp_path / "double.tif", 2800, 64, 3),
        bomb(tmp_path / "16 bits.tif", 7000, 16, 1),
        empty_png(tmp_path / "16 bits RGBA.png", (7700, 7700), 16, 6, 4),
        empty_png(tmp_path / "light.png", (3900, 3000), 16, 2, 3, gamma),
        empty_png(tmp_path / "grey.png", (15_000, 15_000), 8, 0, 1),
    ]
    for file in files:
        peak, said = opened(file)
        assert peak <= LIMIT, file.name
        assert isinstance(said[0], str) == ("refused" in file.name), file.name


def test_four_at_once_cost_no_more_than_one(opened, tmp_path):
    peak, said = opened(*[bomb(tmp_path / "float.tif", 5400, 32, 3)] * 4)
    assert peak <= LIMIT
    assert len(said) == 4
    assert all(not isinstance(each, str) for each in said)


@pytest.mark.parametrize(
    "size", [(8160, 6144), (8192, 6144), (8688, 5792), (9504, 6336), (16_000, 4000), (16_320, 12_240)]
)
def test_what_cameras_and_phones_make_is_taken(opened, tmp_path, size):
    mode = "RGB" if size[0] * size[1] < 10**8 else "L"  # this process, too, has to hold it
    Image.new(mode, size, 90).save(tmp_path / "a.jpg", quality=50)
    peak, said = opened(tmp_path / "a.jpg")
    assert peak <= LIMIT
    width, height = said[0]
    assert width * height <= KEPT_PIXELS
    assert width / height == pytest.approx(size[0] / size[1], rel=0.01)
    assert max(width, height) >= 3000


def test_an_ordinary_photo_is_not_made_smaller(tmp_path):
    Image.new("RGB", (4080, 3072)).save(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").size == (4080, 3072)


@pytest.mark.parametrize(("kind", "size"), [("png", (8192, 6144)), ("tif", (8192, 6144)), ("webp", (5200, 4000))])
def test_what_cannot_be_decoded_small_is_made_smaller_in_right_colours(tmp_path, kind, size):
    options = {"quality": 20, "method": 0} if kind == "webp" else {}
    wide = patches().resize(size, Image.Resampling.NEAREST)
    wide.save(tmp_path / f"a.{kind}", **options)
    found = open_image(tmp_path / f"a.{kind}").resize((120, 80), Image.Resampling.BOX)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(patches())).mean() < 3


def test_what_is_see_through_keeps_its_colours_when_it_is_made_smaller(tmp_path):
    picture = Image.new("RGBA", (6000, 4000), (0, 0, 0, 0))
    picture.paste((200, 40, 40, 255), (1001, 1001, 5001, 3001))
    picture.save(tmp_path / "a.png")
    found = np.asarray(open_image(tmp_path / "a.png"))
    seen = found[found[..., 3] > 0]
    assert len(seen)
    assert np.abs(seen[:, :3].astype(int) - (200, 40, 40)).max() <= 1


def test_the_limit_that_is_named_is_the_limit(tmp_path):
    said = refusal(empty_png(tmp_path / "a.png", (10_000, 7000), 8, 2, 3))
    assert "280 MB" in said
    most = int(said.split("at most ")[1].split(" ")[0])
    side = int((most * 1e6) ** 0.5)
    assert open_image(empty_png(tmp_path / "b.png", (side, side), 8, 2, 3)).size
    assert "at most" in refusal(empty_png(tmp_path / "c.png", (side + 100, side + 100), 8, 2, 3))


def test_a_progressive_jpeg_is_counted_with_what_its_decoder_holds(tmp_path):
    Image.new("RGB", (7300, 5475)).save(tmp_path / "a.jpg", progressive=True, subsampling=0)
    said = refusal(tmp_path / "a.jpg")
    assert "not progressive" in said
    Image.new("RGB", (7300, 5475)).save(tmp_path / "a.jpg", subsampling=0)
    assert open_image(tmp_path / "a.jpg").size


# ---------------------------------------------------------------------------
# The gate


def test_the_gate_lets_through_what_fits_together():
    gate, inside, leave = Gate(100), threading.Semaphore(0), threading.Event()
    order: list[int] = []

    def hold(size: int) -> None:
        with gate.holding(size):
            order.append(size)
            inside.release()
            assert leave.wait(120)

    threads = [threading.Thread(target=hold, args=(size,)) for size in (60, 40)]
    for thread in threads:
        thread.start()
    assert all(inside.acquire(timeout=120) for _ in threads)
    late = threading.Thread(target=hold, args=(1,))
    late.start()
    assert not inside.acquire(timeout=0.2), "there is no room left"
    leave.set()
    assert inside.acquire(timeout=120)
    for thread in (*threads, late):
        thread.join(120)
    assert order[2] == 1


def test_more_than_there_is_passes_alone_and_an_error_gives_back():
    gate = Gate(100)
    with pytest.raises(ZeroDivisionError), gate.holding(10**12):
        raise ZeroDivisionError
    with gate.holding(100):
        pass
    assert DECODING < TOGETHER <= LIMIT * 10**6
