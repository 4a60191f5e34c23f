"""Weight files on disk, read by their headers only: what they hold, whether they are whole.

A safetensors file is an 8-byte length, that many bytes of JSON (name -> dtype, shape, offsets), then the data. So its
true size stands in its first kilobytes, and a download that was cut off can be told before 30 GB are read.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import EngineUnavailable

AGAIN = "Download or copy this file again."

SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")  # a file of several: their stem, its number, how many
_MOST_SHARDS = 1000
_MAX_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True)
class ComponentFiles:
    """The weight files of one component. `tensors` maps a tensor's name to its shape and the file that holds it;
    `names` maps those that are called otherwise in their file to what they are called there. `numbers` is how most of
    them are stored, in safetensors' word. `component` is what it is called (empty: as its folder)."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], Path]]
    bytes: int
    numbers: str = ""
    component: str = ""
    names: dict[str, str] = field(default_factory=dict)

    @property
    def called(self) -> str:
        return self.component or self.folder.name

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors, by their names."""
        return {name: shape for name, (shape, _) in self.tensors.items()}

    def stored_as(self, name: str) -> str:
        """Return what a tensor is called in its file."""
        return self.names.get(name, name)


def read_component(root: Path, component: str, stem: str) -> ComponentFiles:
    """Read the headers of the weight files of `root/component`, one `stem`.safetensors or the shards that its index
    lists, and its config.json. Raises EngineUnavailable, which names the file that is missing, cut off or not what its
    name says."""
    return read_files(root, component, stem, read_json(root, f"{component}/config.json"))


def read_files(root: Path, inside: str, stem: str, config: dict[str, Any], component: str = "") -> ComponentFiles:
    """Read the headers of the weight files in a folder below `root` (empty: in it), as read_component does, with a
    configuration that is known."""
    folder, below = root / inside, f"{inside}/" if inside else ""
    if (folder / f"{stem}.safetensors.index.json").is_file():
        index = read_json(root, f"{below}{stem}.safetensors.index.json").get("weight_map")
        if not isinstance(index, dict):
            raise EngineUnavailable(f"{below}{stem}.safetensors.index.json of the model lists no files", AGAIN)
        names: Sequence[str] = sorted(set(map(str, index.values())))
    else:
        names = _shards(folder, stem) if not (folder / f"{stem}.safetensors").is_file() and not inside else []
        names = names or [f"{stem}.safetensors"]
    tensors: dict[str, tuple[tuple[int, ...], Path]] = {}
    sizes: Counter[str] = Counter()
    for name in names:
        for tensor, (numbers, shape) in read_header(root, f"{below}{name}").items():
            tensors[tensor] = shape, folder / name
            sizes[numbers] += math.prod(shape)
    size = sum((folder / name).stat().st_size for name in names)
    most = max(sizes, key=lambda numbers: sizes[numbers], default="")
    return ComponentFiles(folder, config, tensors, size, most, component)


def _shards(folder: Path, stem: str) -> Sequence[str]:
    """Return the files of weights that came in several without an index, all that the name of one of them promises;
    empty where there are none."""
    for path in sorted(folder.glob("*.safetensors")):
        found = SHARD.fullmatch(path.name)
        if found and found[1] == stem and (last := int(found[3])) < _MOST_SHARDS:
            width = len(found[2])
            return [f"{stem}-{number:0{width}}-of-{last:0{width}}.safetensors" for number in range(1, last + 1)]
    return []


def read_header(root: Path, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Read how a safetensors file stores its tensors (safetensors' word), and their shapes. Raises EngineUnavailable
    where it is missing or not whole."""
    path = root / name
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            known = size >= 8 and 0 < length <= min(size - 8, _MAX_HEADER)
            header: Any = json.loads(file.read(length)) if known else None
    except FileNotFoundError:
        raise missing_file(root, name) from None
    except OSError as error:
        raise EngineUnavailable(f"{name} of the model cannot be read ({error.strerror})", f"Look at {path}.") from None
    except (ValueError, RecursionError):
        header = None
    try:
        header = {key: entry for key, entry in header.items() if key != "__metadata__"}
        whole = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        found = {key: (str(entry["dtype"]), tuple(entry["shape"])) for key, entry in header.items()}
    except (AttributeError, KeyError, TypeError, IndexError):
        raise EngineUnavailable(f"{name} of the model is damaged, or not a safetensors file", AGAIN) from None
    if size < whole:
        raise EngineUnavailable(f"{name} of the model is cut off ({size} of {whole} bytes)", AGAIN)
    return found


def read_note(path: Path) -> dict[str, Any]:
    """Read the note (JSON, in the header's metadata) of a safetensors file that Troupe has written; {} where there is
    none, or the file cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(length if length < path.stat().st_size else 0))
        note = json.loads(head["__metadata__"]["troupe"])
        return note if isinstance(note, dict) else {}
    return {}


def read_places(path: Path) -> dict[str, tuple[str, tuple[int, ...], tuple[int, int]]]:
    """Read each tensor's type (safetensors' word), shape, and the bytes of the file where it begins and ends. The file
    is known to be whole (`read_header`)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: (entry["dtype"], tuple(entry["shape"]), tuple(8 + length + offset for offset in entry["data_offsets"]))
        for name, entry in header.items()
        if name != "__metadata__"
    }


def check_shapes(weights: ComponentFiles, expected: dict[str, tuple[int, ...]]) -> None:
    """Compare the tensors' shapes with what the component's config asks for. Raises EngineUnavailable, which names the
    file."""
    for tensor, (shape, file) in weights.tensors.items():
        if tensor in expected and shape != expected[tensor]:
            raise EngineUnavailable(
                f"{weights.called}/{file.name} of the model is another model's: {tensor} is {list(shape)}, "
                f"not {list(expected[tensor])}",
                f"Take this file and {weights.called}/config.json from the same checkpoint.",
            )


def missing_tensors(weights: ComponentFiles, missing: list[str]) -> EngineUnavailable:
    """Return the error for a component that lacks tensors."""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return EngineUnavailable(
        f"the model's {weights.called} lacks {missing[0]}{more}",
        f"Download or copy the folder {weights.called} again.",
    )


def missing_file(root: Path, name: str) -> EngineUnavailable:
    """Return the error for a file that a checkpoint lacks."""
    return EngineUnavailable(f"{name} is missing from the model in {root}", AGAIN)


def read_json(root: Path, name: str) -> dict[str, Any]:
    """Read an object from a checkpoint's JSON file. Raises EngineUnavailable where it is missing or damaged."""
    try:
        data = json.loads((root / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing_file(root, name) from None
    except (OSError, ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise EngineUnavailable(f"{name} of the model is damaged", AGAIN)
    return data
