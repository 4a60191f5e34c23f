"""A checkpoint on disk: where it is, which files it takes, whether they are whole (engine/memory/weights.py)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from engine import surroundings
from engine.a2.options import DEFAULT_MODEL
from engine.errors import EngineUnavailable
from engine.memory.weights import ComponentFiles, missing_file, read_component
from engine.words import USE_THE_DRAFT

COMPONENTS = ("text_encoder", "image_encoder", "vae", "transformer")

_STEMS = {"text_encoder": "model", "image_encoder": "model"}
_DIFFUSERS_STEM = "diffusion_pytorch_model"
_SMALL_FILES = (
    ("tokenizer", ("tokenizer.json", "spiece.model")),
    ("image_processor", ("preprocessor_config.json",)),
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_checkpoint(model: str) -> Path:
    """Find the folder of a checkpoint: a local one, or that of a hub id which an earlier download has left on this
    machine. Downloads nothing. Raises EngineUnavailable."""
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
        if partial := getattr(error, "snapshot_path", ""):  # what it lacks may be the demo videos: not needed
            return Path(partial)
        named, which = ("the SkyReels-A2 model", "") if model == DEFAULT_MODEL else (f"the model {model}", f" {model}")
        raise EngineUnavailable(
            f"{named} is not on this machine",
            f"Get it on the Models page or with: python launch.py models download{which}; name a checkpoint's folder "
            f"with --model, {USE_THE_DRAFT}.",
        ) from None


def is_hub_id(model: str) -> bool:
    """Return whether this can be the name of a repository on the hub, such as owner/name."""
    return len(model) <= 96 and bool(_HUB_ID.fullmatch(model)) and ".." not in model and not model.endswith(".git")


def needed_files(names: Iterable[str]) -> list[str]:
    """Choose from a repository's files, by path, those that the engine reads: no demo videos, no second format. Raises
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


def read_checkpoint(folder: Path) -> dict[str, ComponentFiles]:
    """Read the headers of every component's weight files. Raises EngineUnavailable, which names the file that is
    missing, cut off or not what its name says, and what to do."""
    for component, names in _SMALL_FILES:
        if not any((folder / component / name).is_file() for name in names):
            name = f"{component}/{names[0]}"
            if any((folder / component).is_dir() for component in COMPONENTS):
                raise missing_file(folder, name)
            raise EngineUnavailable(
                f"{folder} is not a checkpoint: it has no {name}",
                "Name a folder with transformer, vae and the others in it.",
            )
    return {
        component: read_component(folder, component, _STEMS.get(component, _DIFFUSERS_STEM)) for component in COMPONENTS
    }
