"""Cut-outs kept by content: the same photo in the same quality is not cut out twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from PIL import Image

from engine.disk import atomic

_VERSION = 2  # raise it when cut-outs come out differently
_MAX_BYTES = 500_000_000
_FILE = "cutout-{}.png"  # files of other names in the folder are not touched


def key(photo: Image.Image, model: str) -> str:
    """Compute the cache key, a SHA-256 hash, of what `model` makes of a photo's pixels."""
    head = f"{_VERSION} {model} {photo.mode} {photo.width}x{photo.height}\n".encode()
    return hashlib.sha256(head + photo.tobytes()).hexdigest()


def get(folder: Path, name: str, size: tuple[int, int]) -> Image.Image | None:
    """Read a picture from the cache; None where there is none, or it is damaged or of another size."""
    path = folder / _FILE.format(name)
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            if opened.mode != "RGBA" or opened.size != size:
                return None
            picture = opened.copy()
        picture.info = {}
        os.utime(path)  # `prune` drops what was not used for longest
        return picture
    except Exception:  # damaged in whatever way: it is made again
        return None


def put(folder: Path, name: str, picture: Image.Image) -> None:
    """Write a picture to the cache, atomically. Does nothing where the disk is full or read-only."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.whole(folder / _FILE.format(name), even_protected=True) as growing:
            growing.touch(mode=0o600)  # a photo of somebody's: other accounts of this machine need not see it
            with growing.open("wb") as file:
                picture.save(file, "PNG", compress_level=1)
        prune(folder)


def prune(folder: Path, max_bytes: int = _MAX_BYTES) -> None:
    """Delete the least recently used cut-outs until the rest fits into `max_bytes`, and killed writers' files."""
    atomic.sweep_folder(folder)
    entries = []
    for path in folder.glob(_FILE.format("*")):
        with contextlib.suppress(OSError):
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries, key=lambda entry: entry[0]):
        if total <= max_bytes:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
