"""Quantised weights on disk: where they lie, whether they can be trusted, how they are written, shown and deleted.

A file is plain safetensors. What it must hold is known before it is opened, so its header is compared byte for byte
with the one expected. Only the checksums come from the file; they are checked against the data. A file that differs is
made again. No torch here: the page lists and deletes these files.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine import surroundings
from engine.disk.atomic import beside, remove, replace, sweep_folder
from engine.disk.room import free_bytes
from engine.errors import TroupeError
from engine.memory.weights import ComponentFiles, read_note

Layout = dict[str, tuple[str, tuple[int, ...]]]  # a tensor's name -> its type (safetensors' word) and shape

_FORMAT = 1  # raise it when the same weights come out differently
_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "I8": 1, "F8_E4M3": 1}
_ALIGNMENT = 64
_SPARE = 1_000_000_000  # bytes that are left on the disk for the clips
_SAMPLE = 4096  # bytes
_NAME = re.compile(r"([a-z_]+)-(int8|fp8)-\w+-[0-9a-f]{16}\.safetensors")


class Unusable(Exception):
    """A file that is not what it should be; the message says why in a few words. Never leaves this package."""


class Unwritable(Exception):
    """A file that cannot be kept; the message says why in a few words. Never leaves this package."""


@dataclass(frozen=True)
class CacheEntry:
    """A file of quantised weights. `model` is the checkpoint's folder as it was called, empty where the file is
    damaged; `bytes` is what deleting it frees."""

    path: Path
    component: str
    precision: str
    model: str
    bytes: int


@dataclass(frozen=True)
class Source:
    """What quantised weights were made from: the checkpoint's name, a `digest` that identifies the weights, and when
    their files were last written (`times`, in nanoseconds)."""

    model: str
    digest: str
    times: tuple[int, ...]


def cache_folder() -> Path:
    """Return the default folder of quantised weights: `$TROUPE_CACHE/quantised`, or `quantised` in the user's cache
    folder."""
    return surroundings.cache_folder() / "quantised"


def cached(folder: Path, components: Collection[str]) -> tuple[CacheEntry, ...]:
    """List the quantised weights of these components in a folder, damaged ones too, sorted by name. Deletes the partial
    files that killed writers have left."""
    sweep_folder(folder)
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            with contextlib.suppress(OSError):
                if match and match[1] in components and path.is_file():
                    model = read_note(path).get("model", "")
                    found.append(CacheEntry(path, match[1], match[2], str(model), path.stat().st_size))
    return tuple(found)


def delete(entry: CacheEntry) -> None:
    """Delete an entry's file; it is made again when it is needed. Raises TroupeError where the system refuses."""
    try:
        entry.path.unlink(missing_ok=True)
    except OSError as error:
        raise TroupeError(
            f"{entry.path} cannot be deleted ({error.strerror})", "Try again when no video is being made."
        ) from None


def identify(weights: ComponentFiles) -> Source:
    """Compute what identifies these weights. Hashing all of them would mean reading them all before every start, so the
    digest is of the files' names, sizes and headers and of 4096 bytes from the middle of every tensor. The times of the
    last writing are kept apart, because a copy changes them."""
    digest, times = hashlib.sha256(), []
    for path in sorted({path for _, path in weights.tensors.values()}):
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            times.append(status.st_mtime_ns)
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length)
            digest.update(f"{path.name} {status.st_size}\n".encode() + header)
            for key, entry in json.loads(header).items():
                if key != "__metadata__":
                    begin, end = entry["data_offsets"]
                    file.seek(8 + length + max(begin, (begin + end - _SAMPLE) // 2))
                    digest.update(file.read(min(_SAMPLE, end - begin)))
    place = weights.folder if weights.component else weights.folder.parent
    return Source(_called(place), digest.hexdigest(), tuple(times))


@dataclass(frozen=True)
class CacheFile:
    """A cache file, which need not exist yet. `layout` is what it must hold; `note` (JSON) says what it must be made
    from."""

    path: Path
    layout: Layout
    note: str

    @property
    def bytes(self) -> int:
        return len(self._head("")) + sum(end - begin for begin, end in self._offsets().values())

    def places(self) -> dict[str, tuple[int, int]]:
        """Return at which bytes of the file each tensor begins and ends."""
        head = len(self._head(""))
        return {name: (head + begin, head + end) for name, (begin, end) in self._offsets().items()}

    def check(self) -> dict[str, int] | None:
        """Check the header and the size, and return the checksums (CRC-32) of the data, by tensor; None where there is
        no file. Raises Unusable where anything but the checksums differs."""
        length = len(self._head(""))
        try:
            with self.path.open("rb") as file:
                found, size = file.read(length), os.fstat(file.fileno()).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Unusable(f"cannot be read ({error.strerror})") from None
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            sums = json.loads(found[8:])["__metadata__"]["checksums"]
            if found == self._head(sums) and size == self.bytes:
                return {name: int(sums[8 * i : 8 * i + 8], 16) for i, name in enumerate(self._offsets())}
        other = read_note(self.path) not in ({}, json.loads(self.note))
        raise Unusable("was made by another version, or the model has changed" if other else "was damaged")

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        """Open a writer of the whole file. On exit the file is moved into place, or, after an exception, deleted.
        Raises Unwritable; exceptions of the body pass through."""
        part = None
        try:
            with _telling():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                sweep_folder(self.path.parent)
                self._check_room()
                part, _ = beside(self.path)
                writer = Writer(part, self.places())
            try:
                yield writer
                with _telling():
                    writer.finish(self._head)
            finally:
                writer.close()
            with _telling():
                replace(part, self.path)
        finally:
            if part is not None:
                remove(part)

    def _check_room(self) -> None:
        free, _ = free_bytes(self.path.parent)
        if free is None:
            return
        with contextlib.suppress(OSError):
            free += self.path.stat().st_size if self.path.exists() else 0
        needed = self.bytes + _SPARE
        if free < needed:
            raise Unwritable(f"{free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB are needed")

    def _offsets(self) -> dict[str, tuple[int, int]]:
        """Compute at which bytes of the data each tensor begins and ends: wide types first, so that all of them are
        aligned."""
        offsets, end = {}, 0
        for name, (kind, shape) in sorted(self.layout.items(), key=lambda item: (-_BYTES[item[1][0]], item[0])):
            begin, end = end, end + _BYTES[kind] * math.prod(shape)
            offsets[name] = begin, end
        return offsets

    def _head(self, sums: str) -> builtins.bytes:  # the class has `bytes` of its own
        """Build all that comes before the data: length and header. `sums` are the checksums, 8 hex digits each; empty:
        zeros."""
        offsets = self._offsets()
        entries: dict[str, object] = {
            "__metadata__": {"troupe": self.note, "checksums": sums or "0" * 8 * len(offsets)}
        }
        for name, (begin, end) in offsets.items():
            kind, shape = self.layout[name]
            entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % _ALIGNMENT)
        return len(text).to_bytes(8, "little") + text


class Writer:
    """Writes tensors at their places in the file, in any order."""

    def __init__(self, part: Path, places: dict[str, tuple[int, int]]) -> None:
        self._file = part.open("xb")
        self._places = places
        self._sums: dict[str, int] = {}

    def put(self, name: str, data: memoryview) -> None:
        """Write a tensor's bytes. Raises Unwritable."""
        begin, end = self._places[name]
        assert data.nbytes == end - begin, name
        with _telling():
            self._file.seek(begin)
            self._file.write(data)
        self._sums[name] = zlib.crc32(data)

    def finish(self, head: Callable[[str], bytes]) -> None:
        """Write the header. There is no fsync: what a power cut spoils, the checksums find."""
        self._file.seek(0)
        self._file.write(head("".join(f"{self._sums[name]:08x}" for name in self._places)))
        self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def make_cache_file(folder: Path, source: Source, kind: tuple[str, str, str], layout: Layout) -> CacheFile:
    """Return the cache file of these weights. `kind` is the component, the precision and the type that is computed in.
    Another model has another path, one with the same weights too: two models in turn would each write the other's copy
    anew. Another version of Troupe or of the library writes this one anew."""
    from importlib.metadata import version

    which = hashlib.sha256(f"{source.model}\n{source.digest}".encode()).hexdigest()[:16]
    note = {"format": _FORMAT, "quanto": version("optimum-quanto"), "model": source.model, "source": source.digest,
            "times": source.times}  # fmt: skip
    return CacheFile(folder / f"{'-'.join(kind)}-{which}.safetensors", layout, json.dumps(note))


def _called(checkpoint: Path) -> str:
    """Return a checkpoint's name: author/name for one of the hub's downloads, whose folder is called
    models--author--name/snapshots/revision; else its folder's name."""
    _, author, name = ([*checkpoint.parent.parent.name.split("--", 2), "", ""])[:3]
    return f"{author}/{name}" if checkpoint.parent.name == "snapshots" and name else checkpoint.resolve().name


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(error.strerror or str(error)) from None
