"""What opening a picture costs in memory: pictures of every kind near and beyond what is taken, each in a process of
its own; four of the dearest at once; and cutting out.

    python tests/bench/pictures.py [--only NAME]

On Linux. Makes the pictures in a temporary folder (up to 3 GB of memory, two minutes). Prints a line for each to stderr
and one JSON line: the worst peak above the idle process, in MB.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
from PIL import Image

from tests.places import a_place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--open", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--cut", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(opened([Path(path) for path in options.open], options.cut)))
        return 0
    peaks: dict[str, float] = {}
    with a_place() as folder:
        for name, make in PICTURES.items():
            if options.only in name:
                path = folder / name
                make(path)
                peaks[name] = _measure(name, [path])
                if "12 MP photo" not in name:
                    path.unlink()
        if not options.only:
            photo = folder / "12 MP photo.jpg"
            peaks["cut out"] = _measure("cut out", [photo], "--cut")
            peaks["four cut out at once"] = _measure("four cut out at once", [photo] * 4, "--cut")
            dear = folder / "61 MP.png"
            PICTURES[dear.name](dear)
            peaks["four of 61 MP.png at once"] = _measure("four of 61 MP.png at once", [dear] * 4)
    decoding = {name: peak for name, peak in peaks.items() if name in PICTURES}
    worst = max(decoding, key=decoding.get)
    result = {
        "bench": "pictures", "pictures": len(decoding), "worst_mb": decoding[worst], "worst": worst,
        "four_at_once_mb": peaks.get("four of 61 MP.png at once"), "cut_out_mb": peaks.get("cut out"),
        "four_cut_outs_mb": peaks.get("four cut out at once"),
    }  # fmt: skip
    print(json.dumps(result))
    return 0 if decoding[worst] <= 300 else 1


def _measure(name: str, paths: list[Path], *more: str) -> float:
    command = [sys.executable, __file__, *more, "--open", *map(str, paths)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    found = json.loads(answer)
    print(f"{found['peak_mb']:7.1f} MB {found['seconds']:5.1f} s  {name}: {found['said']}", file=sys.stderr)
    return found["peak_mb"]


def opened(paths: list[Path], cut: bool) -> dict:
    """Open all at once, in this process, after one small picture of each decoder; the peak above that, in MB."""
    import time

    from engine import cutout
    from engine.errors import TroupeError
    from engine.media.images import open_image

    with a_place() as folder:
        for suffix in ("png", "jpg", "webp", "tif", "gif", "avif", "heic"):
            import pillow_heif

            pillow_heif.register_heif_opener()
            Image.new("RGB", (64, 64)).save(folder / f"a.{suffix}")
            open_image(folder / f"a.{suffix}")
    if cut:
        cutout.cut_out(Image.fromarray(pattern(200, 150)))  # the model is loaded once, however many pictures there are
    idle, said, begun = _peak(), [], time.perf_counter()

    def work(path: Path) -> None:
        try:
            picture = open_image(path)
            said.append(f"{picture.mode} {picture.width}x{picture.height}")
            if cut:
                said.append(cutout.cut_out(picture).source)
        except TroupeError as error:
            said.append(str(error))

    threads = [threading.Thread(target=work, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"peak_mb": round((_peak() - idle) / 1e6, 1), "said": said[0], "seconds": time.perf_counter() - begun}


def _peak() -> int:
    """The most memory that this process has held, in bytes. Not by `getrusage`: that counts what the process that
    started this one held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


# ---------------------------------------------------------------------------
# The pictures


def pattern(width: int, height: int, channels: int = 3, kind: type = np.uint8) -> np.ndarray:
    """Ramps with some texture: neither the best nor the worst for a coder."""
    top = np.iinfo(kind).max
    across = np.linspace(0, top, width, dtype=np.float32)[None]
    down = np.linspace(0, top, height, dtype=np.float32)[:, None]
    picture = np.empty((height, width, channels), kind)
    for channel in range(channels):
        picture[..., channel] = ((across if channel % 2 else 0) + (down if channel < 2 else top / 2)) / 2
    picture[::3, ::5] //= 2
    return picture


def saved(width: int, height: int, channels: int = 3, mode: str | None = None, **options) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        if path.suffix == ".heic":
            import pillow_heif

            pillow_heif.register_heif_opener()
            pillow_heif.options.GRID_TILE_SIZE = options.pop("tile", 0)
        picture = Image.fromarray(pattern(width, height, channels))
        (picture.convert(mode) if mode else picture).save(path, **options)

    return make


def bomb(width: int, height: int, bits: int, sample_format: int, photometric: int = 1, samples: int = 1):
    """A TIFF of zeros in one deflated strip."""

    def make(path: Path) -> None:
        packer, packed = zlib.compressobj(9), []
        left = width * height * samples * bits // 8
        while left > 0:
            packed.append(packer.compress(bytes(min(left, 1 << 24))))
            left -= 1 << 24
        data = b"".join((*packed, packer.flush()))
        entries = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 8), (262, 3, photometric), (273, 4, 8),
                   (277, 3, samples), (278, 4, height), (279, 4, len(data)), (339, 3, sample_format)]  # fmt: skip
        table = struct.pack("<H", len(entries))
        table += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + bytes(4)
        path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + table)

    return make


def png(width: int, height: int, depth: int, kind: int, *, gamma: bool = False) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
        row = b"\0" + np.random.default_rng(0).integers(0, 255, width * channels * depth // 8, np.uint8).tobytes()
        packer = zlib.compressobj(1)
        data = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])

        def chunk(name: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
        light = chunk(b"gAMA", struct.pack(">I", 100_000)) if gamma else b""
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + light + chunk(b"IDAT", data) + chunk(b"IEND", b""))

    return make


def cut(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """The last hundredth is missing."""

    def shortened(path: Path) -> None:
        make(path)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size * 99 // 100)

    return shortened


def planes(width: int, height: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        size = 2 * width * height
        lists = (
            struct.pack("<3H", 16, 16, 16)
            + bytes(2)
            + struct.pack("<6I", *(8 + n * size for n in range(3)), *[size] * 3)
        )
        at = 8 + 3 * size
        entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, at), (259, 3, 1, 1), (262, 3, 1, 2)]
        entries += [(273, 4, 3, at + 8), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 3, at + 20), (284, 3, 1, 2)]
        table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
        data = pattern(width, height, 3, np.uint16).transpose(2, 0, 1).tobytes()
        path.write_bytes(b"II*\0" + struct.pack("<I", at + len(lists)) + data + lists + table)

    return make


def film(width: int, height: int, frames: int) -> Callable[[Path], None]:
    """It fades in from nothing."""

    def make(path: Path) -> None:
        picture = Image.fromarray(pattern(width, height)).convert("RGBA")
        shown = []
        for number in range(frames):
            picture.putalpha(255 * number // (frames - 1))
            shown.append(picture.copy())
        shown[0].save(path, save_all=True, append_images=shown[1:], duration=50)

    return make


PICTURES: dict[str, Callable[[Path], None]] = {
    "12 MP photo.jpg": saved(4032, 3024),
    "50 MP.jpg": saved(8160, 6144),
    "200 MP.jpg": saved(16320, 12240),
    "50 MP CMYK.jpg": saved(8160, 6144, mode="CMYK"),
    "40 MP progressive 4:4:4.jpg": saved(7300, 5475, progressive=True, subsampling=0),
    "61 MP progressive.jpg": saved(9504, 6336, progressive=True),
    "panorama.jpg": saved(16000, 4000),
    "50 MP.png": saved(8192, 6144, compress_level=1),
    "61 MP.png": png(9504, 6336, 8, 2),
    "80 MP.png": png(10000, 8000, 8, 2),
    "61 MP RGBA 16 bit.png": png(9504, 6336, 16, 6),
    "12 MP linear 16 bit.png": png(4000, 3000, 16, 2, gamma=True),
    "14 MP linear RGBA 16 bit.png": png(4400, 3300, 16, 6, gamma=True),
    "120 MP grey 16 bit.png": png(11000, 10900, 16, 0),
    "240 MP grey.png": png(16000, 15000, 8, 0),
    "12 MP RGBA.png": png(4100, 3070, 8, 6),
    "14 MP.webp": saved(4300, 3200),
    "14 MP lossless.webp": saved(4300, 3200, lossless=True, quality=0, method=0),
    "28 MP RGBA.webp": saved(6000, 4600, 4, method=0),
    "28 MP lossless.webp": saved(6000, 4600, lossless=True, quality=0, method=0),
    "24 MP.avif": saved(6000, 4000, speed=10),
    "21 MP 4:4:4.avif": saved(5300, 4000, speed=10, subsampling="4:4:4"),
    "19 MP RGBA.avif": saved(5000, 3800, 4, speed=10),
    "48 MP tiles.heic": saved(8064, 6048, tile=512),
    "34 MP.heic": saved(6700, 5000),
    "12 MP RGBA.heic": saved(4000, 3000, 4),
    "100 MP.gif": saved(10000, 10000, mode="P"),
    "fading.gif": film(2000, 1500, 5),
    "fading.webp": film(2000, 1500, 5),
    "fading.png": film(2000, 1500, 5),
    "9 MP fading.gif": film(3500, 2700, 3),
    "9 MP fading.webp": film(3500, 2700, 3),
    "9 MP fading.png": film(3500, 2700, 3),
    "14 MP fading.png": film(4300, 3200, 3),
    "cut 50 MP.png": cut(saved(8192, 6144, compress_level=1)),
    "cut 40 MP.jpg": cut(saved(7300, 5475, progressive=True)),
    "12 MP 16 bit plane by plane.tif": planes(4000, 3000),
    "61 MP.bmp": saved(9504, 6336),
    "50 MP.tif": saved(8192, 6144),
    "50 MP LAB.tif": saved(8192, 6144, mode="LAB"),
    "50 MP CMYK.tif": saved(8192, 6144, mode="CMYK"),
    "float bomb.tif": bomb(7000, 7100, 32, 3),
    "whole number bomb.tif": bomb(7000, 7100, 32, 2),
    "small float bomb.tif": bomb(5400, 5400, 32, 3),
    "16 bit bomb.tif": bomb(7000, 7100, 16, 1),
    "double bomb.tif": bomb(4000, 3800, 64, 3),
    "float RGB bomb.tif": bomb(4000, 3000, 32, 3, 2, 3),
}


if __name__ == "__main__":
    sys.exit(main())
