"""A picture's file: opened with care, and shown to a decoder without what it does not need."""

from __future__ import annotations

import io
import os
import stat
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from engine.errors import ImageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_BYTES = 400_000_000  # an uncompressed 16-bit scan of 60 megapixels still passes

Piece = bytes | tuple[int, int]  # given bytes, or a range of the file as (start, length)


class Pieces(io.RawIOBase):
    """Bytes and ranges of a file as one seekable stream; nothing is copied ahead."""

    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        self._file, self._at = file, 0
        self._pieces = list(_merged(pieces))
        lengths = [len(piece) if isinstance(piece, bytes) else piece[1] for piece in self._pieces]
        self._starts = [0, *accumulate(lengths)]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._starts[-1]}[whence])
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:  # may give less than was asked for, as RawIOBase allows
        if self._at >= self._starts[-1]:
            return 0
        number = bisect_right(self._starts, self._at) - 1
        piece, skip = self._pieces[number], self._at - self._starts[number]
        room = memoryview(buffer)
        wanted = min(len(room), self._starts[number + 1] - self._at)
        if isinstance(piece, bytes):
            found = piece[skip : skip + wanted]
        else:
            self._file.seek(piece[0] + skip)
            found = self._file.read(wanted)
        room[: len(found)] = found
        self._at += len(found)
        return len(found)


def _merged(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield the pieces, with adjacent ranges of the file merged and empty ones left out."""
    held: tuple[int, int] | None = None
    for piece in pieces:
        if not isinstance(piece, bytes) and held and sum(held) == piece[0]:
            held = (held[0], held[1] + piece[1])
            continue
        if held and held[1]:
            yield held
        held = None if isinstance(piece, bytes) else piece
        if isinstance(piece, bytes) and piece:
            yield piece
    if held and held[1]:
        yield held


def stream(file: BinaryIO, pieces: Sequence[Piece]) -> io.BufferedReader:
    """Return the pieces of a file as one buffered stream for a decoder."""
    return io.BufferedReader(Pieces(file, pieces), 1 << 16)


def shown_name(path: str | Path) -> str:
    """Return the file's name as it is shown: printable, at most 80 letters, and without its folders.

    Pages show it, and nobody needs the folders of this machine on a page.
    """
    name = Path(path).name.encode("utf-8", "replace").decode("utf-8")
    name = "".join(letter if letter.isprintable() else "?" for letter in name) or "the picture"
    return name if len(name) <= 80 else f"{name[:50]}…{name[-20:]}"


def open_file(path: str | Path, name: str) -> tuple[BinaryIO, int]:
    """Open a file for reading, and return it with its size in bytes.

    Raises ImageError for what is no file of a usable size.
    """
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name} is a folder", "Choose a picture in it.")
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would never end
            raise ImageError(f"{name} is not a file", "Choose a picture file.")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{name} is {status.st_size // 1_000_000} MB large", "Save it smaller, as JPEG or PNG.")
        if not status.st_size:
            raise ImageError(f"{name} is empty", "Save or download it again.")
        return Path(path).open("rb"), status.st_size
    except FileNotFoundError:
        raise ImageError(f"There is no picture {name}", "Check its name and folder.") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or "not a usable file name"
        raise ImageError(f"{name} cannot be read ({reason})", "Check its name and permissions.") from None
