"""A checkpoint on disk: where it is, which files it takes, whether they are whole (engine/memory/weights.py).

Most lie in one folder, in diffusers' layout. Some are one file with a transformer in Wan's own names; text encoder,
tokenizer and VAE are the same for all of Wan2.1, so those of another checkpoint on this machine serve.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import surroundings
from engine.a2.models import (
    A2,
    DIFFUSERS_WAN,
    FAMILIES,
    I2V_WAN,
    RELEASES,
    SHARED,
    SPECS,
    Family,
    ModelSpec,
    known_release,
    release_of,
    released_as,
    shared_parts,
)
from engine.a2.options import DEFAULT_MODEL
from engine.a2.wan_names import config_of, is_wan
from engine.errors import EngineUnavailable
from engine.memory.weights import SHARD, ComponentFiles, missing_file, read_component, read_files, read_json
from engine.words import USE_THE_DRAFT, listed

_STEMS = {"text_encoder": "model", "image_encoder": "model"}
_DIFFUSERS_STEM = "diffusion_pytorch_model"
SMALL_FILES = {"tokenizer": ("tokenizer.json", "spiece.model"), "image_processor": ("preprocessor_config.json",)}
_SINGLE = ("model", "diffusion_pytorch_model")  # what a transformer's own file is called where there are several
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_OTHER_KINDS = {
    **dict.fromkeys((".pth", ".pt", ".ckpt", ".bin"), "what was pickled can run code on this machine"),
    ".gguf": "it is another program's",
}
_LONGEST = 200  # characters of a file's path in a repository: it is part of a folder's name on the disk
_HUB_FILE = re.compile(r"([^/]+/[^/]+)/((?:[\w.-]+/)*[\w.-]+\.safetensors)")


@dataclass(frozen=True)
class Place:
    """Where a checkpoint is: `root` is its folder, or the one file of its transformer; `parts` the folder of each
    component, tokenizer and image processor included, or that file; `borrowed` those of them that are another
    checkpoint's."""

    spec: ModelSpec
    root: Path
    parts: dict[str, Path]
    borrowed: tuple[str, ...] = ()

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know of where its parts come from."""
        if not self.borrowed:
            return ()
        named = listed([name.replace("_", " ") for name in self.borrowed])
        return (f"The {named} came from {self.parts[self.borrowed[0]].parent}: they are the same for all of Wan2.1.",)


# ---------------------------------------------------------------------------
# Where


def find_checkpoint(model: str) -> Path:
    """Find a checkpoint: a local folder or file, or what an earlier download has left of a hub id on this machine.
    Downloads nothing. Raises EngineUnavailable."""
    try:
        place = surroundings.expanded(model)
        there, is_folder = place.exists(), place.is_dir()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, ~ of nobody, a zero byte
        place, there, is_folder = Path(), False, False
    if is_folder or (there and place.suffix.lower() == ".safetensors"):
        return place
    repository, file = split_hub(model)
    if there and place.suffix.lower() in _OTHER_KINDS:
        raise EngineUnavailable(
            f"Troupe does not read weights as {place.name:.200} has them: {_OTHER_KINDS[place.suffix.lower()]}",
            "Take the .safetensors file of the same model.",
        )
    if there or not is_hub_id(repository):
        problem = "is a file" if there else "is not there"
        raise EngineUnavailable(
            f"the model folder {model:.200} {problem}", f"Name the checkpoint's folder with --model, {USE_THE_DRAFT}."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError as error:
        partial = getattr(error, "snapshot_path", "")  # what it lacks may be the demo videos: not needed
        found = Path(partial) if partial else Path()
    if found.name and (not file or (found / file).is_file()):
        return found / file
    if found.name and (others := [path for path in found.parent.glob(f"*/{file}") if path.is_file()]):
        return max(others, key=lambda path: path.stat().st_mtime)  # of another commit than the one that came last
    release = release_of(model)
    named = f"the {release.title} model" if release else f"the model {model}"
    which = "" if model == DEFAULT_MODEL else f" {model}"
    raise EngineUnavailable(
        f"{named} is not on this machine",
        f"Get it on the Models page or with: python launch.py models download{which}; name a checkpoint's folder "
        f"with --model, {USE_THE_DRAFT}.",
    )


def is_hub_id(model: str) -> bool:
    """Return whether this can be the name of a repository on the hub, such as owner/name."""
    return len(model) <= 96 and bool(_HUB_ID.fullmatch(model)) and ".." not in model and not model.endswith(".git")


def split_hub(model: str) -> tuple[str, str]:
    """Split owner/name/FILE.safetensors, one file of a repository, into the repository and the file; the file is empty
    for anything else. A release's name is spelt as the hub spells it: on disk letters' case counts."""
    release = release_of(model)
    model = release.model if release is not None else model
    found = _HUB_FILE.fullmatch(model)
    return (found[1], found[2]) if found and ".." not in model and len(found[2]) <= _LONGEST else (model, "")


def locate(model: str, family: Family | None = None) -> Place:
    """Find a checkpoint and all of its parts. Its family is what the person says, or its name on the hub; a folder of
    SkyReels-A2's layout with none of this is taken for one. Raises EngineUnavailable, also where the family is not
    known: a plain Wan2.1 has the same shapes, and would ignore the cast."""
    root = find_checkpoint(model)
    spec = _family_of(model, root, family)
    inside = root if root.is_dir() else root.parent
    parts: dict[str, Path] = {}
    for name in spec.parts:
        if (inside / name).is_dir():
            parts[name] = inside / name
    if "transformer" in parts and not spec.in_channels and root.is_dir():
        _check_only_one(root)
    if root.is_file() or "transformer" not in parts:
        single = root if root.is_file() else _own_file(root)
        if single is not None:
            parts["transformer"] = single
    wanted = [name for name in spec.parts if name not in parts]
    borrowed = _borrow(wanted) if "transformer" in parts else {}
    for name in wanted:
        parts[name] = borrowed.get(name, inside / name)
    return Place(spec, root, parts, tuple(name for name in wanted if name in borrowed and name not in SMALL_FILES))


def _check_only_one(folder: Path) -> None:
    """Raise EngineUnavailable where another transformer lies beside the folder `transformer`: it would be left unread,
    and a plain Wan2.1 in its place ignores the cast."""
    single = _own_file(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    if single is not None:
        with contextlib.suppress(EngineUnavailable):  # a damaged file is no model
            shapes = _headers(single).shapes
    if single is not None and is_wan(shapes):
        raise EngineUnavailable(
            f"{folder.name} holds two models, {single.name} and the folder transformer",
            f"Name the one that is meant (--model .../{single.name}), or move the other one away.",
        )


def _family_of(model: str, root: Path, said: Family | None) -> ModelSpec:
    known, release = known_release(model) or released_as(str(root)), release_of(model)
    if said is not None and release is not None and said != release.family:
        raise EngineUnavailable(
            f"{release.title} is of the family {release.family}, not {said}", "Leave the family out: its name says it."
        )
    if said is not None:
        return SPECS[said]
    if known is not None:
        return known.spec
    channels = _in_channels(root)
    if all(channels != spec.channels for spec in SPECS.values() if not spec.in_channels):
        return A2  # or no model at all: what is wrong with it is told of when it is read
    raise EngineUnavailable(
        f"{root.name} does not say which family of models it is of, and its weights could be those of several",
        f"Say it with --family {'|'.join(FAMILIES)} (on the page: on the Models tab).",
    )


def _in_channels(root: Path) -> int | None:
    """Return how many channels its transformer takes, as its configuration or its tensors say; None where neither is
    there."""
    if (root / "transformer" / "config.json").is_file():
        channels: int | None = read_json(root, "transformer/config.json").get("in_channels")
        return channels
    single = root if root.is_file() else _own_file(root)
    if single is None:
        return None
    shapes = _headers(single).shapes
    return next((shape[1] for name, shape in shapes.items() if name.endswith("patch_embedding.weight")), None)


def _headers(file: Path) -> ComponentFiles:
    """Read the headers of a transformer's file and of the shards beside it, without a configuration. Raises
    EngineUnavailable."""
    return read_files(file.parent, "", _stem(file.name), {}, "transformer")


def _own_file(folder: Path) -> Path | None:
    """Find the transformer's file at the top of a folder; of shards the first, where it is not there in one piece,
    too."""
    files = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    stem = own_stem(path.name for path in files)
    own = [path for path in files if stem and _stem(path.name) == stem]
    return next((path for path in own if path.stem == stem), own[0] if own else None)


def own_stem(names: Iterable[str]) -> str:
    """Return what the transformer's own file, or shards, are called among the .safetensors files at the top of a folder
    or repository, without number and ending; empty where that cannot be told."""
    stems = {_stem(name) for name in names}
    return next((stem for stem in _SINGLE if stem in stems), stems.pop() if len(stems) == 1 else "")


def _stem(name: str) -> str:
    shard = SHARD.fullmatch(name)
    return shard[1] if shard else Path(name).stem


def borrowable() -> bool:
    """Return whether text encoder, tokenizer and VAE are on this machine, in whichever checkpoint."""
    return len(_borrow(SHARED)) == len(SHARED)


def _borrow(names: Sequence[str]) -> dict[str, Path]:
    """Find these parts in the other checkpoints on this machine, all of them in one where that can be."""
    found: dict[str, Path] = {}
    if not names:
        return found
    repositories = dict.fromkeys((DIFFUSERS_WAN, I2V_WAN, *(split_hub(each.model)[0] for each in RELEASES)))
    for repository in repositories:
        try:
            folder = find_checkpoint(repository)
        except EngineUnavailable:
            continue
        there = {name: folder / name for name in names if _is_whole(folder, name)}
        if len(there) == len(names):
            return there
        found = {**there, **found}
    return found


def _is_whole(folder: Path, part: str) -> bool:
    if part in SMALL_FILES:
        return any((folder / part / name).is_file() for name in SMALL_FILES[part])
    try:
        read_component(folder, part, stem_of(part))
    except EngineUnavailable:
        return False
    return True


# ---------------------------------------------------------------------------
# What is read


def stem_of(component: str) -> str:
    """Return what a component's weight files are called, without number and ending."""
    return _STEMS.get(component, _DIFFUSERS_STEM)


def read_checkpoint(place: Place | Path) -> dict[str, ComponentFiles]:
    """Read the headers of every component's weight files; a folder is SkyReels-A2's. Raises EngineUnavailable, which
    names the file that is missing, cut off or not what its name says, and what to do."""
    place = place if isinstance(place, Place) else locate(str(place))
    _check_small(place)
    return {name: _read(place, name) for name in place.spec.components}


def read_own(model: str, root: Path) -> list[ComponentFiles]:
    """Read the headers of what a download of this model brings, whatever else it needs of other repositories; `root` is
    where find_checkpoint found it. Raises EngineUnavailable where something is missing or not whole."""
    release = release_of(model)
    if root.is_file() or (release is not None and release.shared):
        file = root if root.is_file() else _own_file(root)
        if file is None:
            raise missing_file(root, "model.safetensors")
        return [_read_single(file)]
    if shared := shared_parts(model):
        return [read_component(root, name, stem_of(name)) for name in shared if name not in SMALL_FILES]
    return list(read_checkpoint(locate(str(root), release.family if release else None)).values())


def _read(place: Place, name: str) -> ComponentFiles:
    part = place.parts[name]
    if name == "transformer" and (part.is_file() or part == place.root):
        return _read_single(part)
    return read_component(part.parent, part.name, stem_of(name))


def _read_single(file: Path) -> ComponentFiles:
    """Read a transformer that is one file, or shards, in Wan's own names."""
    said = read_json(file.parent, "config.json") if (file.parent / "config.json").is_file() else {}
    found = _headers(file)
    if not is_wan(found.shapes):
        raise EngineUnavailable(
            f"{file.name} holds no transformer in Wan's own names",
            "Choose the .safetensors file of the model; one of diffusers lies in a folder called transformer.",
        )
    return ComponentFiles(
        found.folder, config_of(found.shapes, said, file), found.tensors, found.bytes, found.numbers, "transformer"
    )


def _check_small(place: Place) -> None:
    """Raise EngineUnavailable where a tokenizer or image processor is missing."""
    for part, names in SMALL_FILES.items():
        if part not in place.parts or any((place.parts[part] / name).is_file() for name in names):
            continue
        name, root = f"{part}/{names[0]}", place.root if place.root.is_dir() else place.root.parent
        if place.parts["transformer"].is_file():
            raise EngineUnavailable(
                f"{place.root.name} is a transformer alone: its {part.replace('_', ' ')} is not on this machine",
                f"Get what all of Wan2.1 share with: python launch.py models download {DIFFUSERS_WAN}, or put "
                "text_encoder, tokenizer and vae beside it.",
            )
        if any((root / component).is_dir() for component in place.spec.components):
            raise missing_file(root, name)
        raise EngineUnavailable(
            f"{root} is not a checkpoint: it has no {name}", "Name a folder with transformer, vae and the others in it."
        )
