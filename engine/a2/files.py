"""A checkpoint on disk: where it is, whether it is whole. Reads headers only, never the weights.

A safetensors file is an 8-byte length, that many bytes of JSON (name -> dtype, shape, offsets), then the data. So its
true size stands in its first kilobytes, and a download that was cut off can be told before 30 GB are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import surroundings
from engine.a2.options import DEFAULT_MODEL, USE_THE_DRAFT
from engine.errors import EngineUnavailable

COMPONENTS = ("text_encoder", "image_encoder", "vae", "transformer")
AGAIN = "Download or copy this file again."

_STEMS = {"text_encoder": "model", "image_encoder": "model"}
_DIFFUSERS_STEM = "diffusion_pytorch_model"
_SMALL_FILES = (
    ("tokenizer", ("tokenizer.json", "spiece.model")),
    ("image_processor", ("preprocessor_config.json",)),
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MAX_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True)
class Weights:
    """The weight files of one component: `tensors` maps a tensor's name to its shape and the file that holds it."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], Path]]
    bytes: int


def find_checkpoint(model: str) -> Path:
    """The folder of a checkpoint: a local one, or that of a hub id which an earlier download has left on this machine.
    Downloads nothing. Raises EngineUnavailable."""
    try:
        folder = surroundings.expanded(model)
        there, is_folder = folder.exists(), folder.is_dir()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, ~ of nobody, a zero byte
        folder, there, is_folder = Path(), False, False
    if is_folder:
        return folder
    if there or not is_hub_id(model):
        problem = "is a file" if there else "is not there"
        raise EngineUnavailable(
            f"the model folder {model:.200} {problem}", f"Name the checkpoint's folder with --model, {USE_THE_DRAFT}."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except LocalEntryNotFoundError as error:
        if partial := getattr(error, "snapshot_path", ""):  # it misses the demo videos, perhaps; we do not
            return Path(partial)
        named, which = ("the SkyReels-A2 model", "") if model == DEFAULT_MODEL else (f"the model {model}", f" {model}")
        raise EngineUnavailable(
            f"{named} is not on this machine",
            f"Get it on the Models page or with: python launch.py models download{which}; name a checkpoint's folder "
            f"with --model, {USE_THE_DRAFT}.",
        ) from None


def is_hub_id(model: str) -> bool:
    """Whether this can be the name of a repository on the hub, such as owner/name."""
    return len(model) <= 96 and bool(_HUB_ID.fullmatch(model)) and ".." not in model and not model.endswith(".git")


def needed_files(names: Iterable[str]) -> list[str]:
    """Of a repository's files, by path, those that the engine reads: no demo videos, no second format. Raises
    EngineUnavailable where a component has none."""
    there, found = set(names), []
    for component in COMPONENTS:
        stem = _STEMS.get(component, _DIFFUSERS_STEM)
        index, single = f"{component}/{stem}.safetensors.index.json", f"{component}/{stem}.safetensors"
        shard = re.compile(re.escape(f"{component}/{stem}") + r"-\d+-of-\d+\.safetensors")
        weights = [index, *filter(shard.fullmatch, there)] if index in there else [single]
        found += [f"{component}/config.json", *weights]
    for folder, one_of in _SMALL_FILES:
        small = re.compile(re.escape(folder) + r"/[^/]+\.(json|model|txt)")
        known = any(f"{folder}/{name}" in there for name in one_of)
        found += filter(small.fullmatch, there) if known else [f"{folder}/{one_of[0]}"]
    if lacking := sorted(set(found) - there):
        raise EngineUnavailable(
            f"this is not a checkpoint of SkyReels-A2's kind: it has no {lacking[0]}", "Choose another one."
        )
    return sorted(found)


def read_checkpoint(folder: Path) -> dict[str, Weights]:
    """What the weight files of every component hold. Raises EngineUnavailable, which names the file that is missing,
    cut off or not what its name says, and what to do."""
    for component, names in _SMALL_FILES:
        if not any((folder / component / name).is_file() for name in names):
            raise _missing(folder, f"{component}/{names[0]}")
    return {component: _read_component(folder, component) for component in COMPONENTS}


def _read_component(root: Path, component: str) -> Weights:
    folder, stem = root / component, _STEMS.get(component, _DIFFUSERS_STEM)
    config = _read_json(root, f"{component}/config.json")
    if (folder / f"{stem}.safetensors.index.json").is_file():
        index = _read_json(root, f"{component}/{stem}.safetensors.index.json").get("weight_map")
        if not isinstance(index, dict):
            raise EngineUnavailable(f"{component}/{stem}.safetensors.index.json of the model lists no files", AGAIN)
        names = sorted(set(map(str, index.values())))
    else:
        names = [f"{stem}.safetensors"]
    tensors: dict[str, tuple[tuple[int, ...], Path]] = {}
    for name in names:
        tensors |= {
            tensor: (shape, folder / name) for tensor, shape in read_shapes(root, f"{component}/{name}").items()
        }
    return Weights(folder, config, tensors, sum((folder / name).stat().st_size for name in names))


def read_shapes(root: Path, name: str) -> dict[str, tuple[int, ...]]:
    """The shapes in a safetensors file, by tensor. Raises EngineUnavailable where it is missing or not whole."""
    path = root / name
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            known = size >= 8 and 0 < length <= min(size - 8, _MAX_HEADER)
            header: Any = json.loads(file.read(length)) if known else None
    except FileNotFoundError:
        raise _missing(root, name) from None
    except OSError as error:
        raise EngineUnavailable(f"{name} of the model cannot be read ({error.strerror})", f"Look at {path}.") from None
    except (ValueError, RecursionError):
        header = None
    try:
        header = {key: entry for key, entry in header.items() if key != "__metadata__"}
        whole = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
    except (AttributeError, KeyError, TypeError, IndexError):
        raise EngineUnavailable(f"{name} of the model is damaged, or not a safetensors file", AGAIN) from None
    if size < whole:
        raise EngineUnavailable(f"{name} of the model is cut off ({size} of {whole} bytes)", AGAIN)
    return shapes


def check_shapes(weights: Weights, expected: dict[str, tuple[int, ...]]) -> None:
    """Compare with what the component's config asks for. Raises EngineUnavailable, which names the file."""
    for tensor, (shape, file) in weights.tensors.items():
        if tensor in expected and shape != expected[tensor]:
            name = f"{weights.folder.name}/{file.name}"
            raise EngineUnavailable(
                f"{name} of the model is another model's: {tensor} is {list(shape)}, not {list(expected[tensor])}",
                f"Take this file and {weights.folder.name}/config.json from the same checkpoint.",
            )


def missing_tensors(weights: Weights, missing: list[str]) -> EngineUnavailable:
    """The error for a component that lacks tensors."""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return EngineUnavailable(
        f"the model's {weights.folder.name} lacks {missing[0]}{more}",
        f"Download or copy the folder {weights.folder.name} again.",
    )


def _read_json(root: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads((root / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(root, name) from None
    except (OSError, ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise EngineUnavailable(f"{name} of the model is damaged", AGAIN)
    return data


def _missing(root: Path, name: str) -> EngineUnavailable:
    if not any((root / component).is_dir() for component in COMPONENTS):
        return EngineUnavailable(
            f"{root} is not a checkpoint: it has no {name}", "Name a folder with transformer, vae and the others in it."
        )
    return EngineUnavailable(f"{name} is missing from the model in {root}", AGAIN)
