"""Which of a repository's files the engine reads: no demo videos, no second format, and of Wan2.1's own repositories
only what all models share."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from engine.a2.files import SMALL_FILES, own_stem, split_hub, stem_of
from engine.a2.models import A2, SHARED, V3, release_of, shared_parts
from engine.errors import EngineUnavailable
from engine.memory.weights import SHARD


def sources_of(model: str) -> tuple[str, ...]:
    """Return the repositories, or files in one, that a model on the hub is made of, its own first."""
    release = release_of(model)
    return (model, release.shared) if release is not None and release.shared else (model,)


def needed_files(names: Iterable[str], model: str = "") -> list[str]:
    """Choose from a repository's files, by path, those that the engine reads of this model. Raises EngineUnavailable
    where one is missing."""
    there = set(names)
    _, file = split_hub(model)
    if file:
        found = {file}
    else:
        found = set()
        for part in _parts_of(model, there):
            found |= _single(there) if part == "" else _of_part(part, there)
    if lacking := sorted(found - there):
        raise EngineUnavailable(
            f"this is no checkpoint that Troupe can read: it has no {lacking[0]}", "Choose another one."
        )
    return sorted(found)


def _parts_of(model: str, there: Collection[str]) -> Sequence[str]:
    """Return the folders that are read of a repository; "" stands for a transformer's file at its top."""
    if shared := shared_parts(model):
        return shared
    if (release := release_of(model)) is not None:
        return ("",) if release.shared else release.spec.parts
    if "transformer/config.json" not in there and any(_is_top(path) for path in there):
        return ("", *(part for part in SHARED if any(path.startswith(f"{part}/") for path in there)))
    pictured = any(path.startswith("image_encoder/") for path in there) or "model_index.json" not in there
    return (A2 if pictured else V3).parts


def _of_part(part: str, there: Collection[str]) -> set[str]:
    if part in SMALL_FILES:
        small = re.compile(re.escape(part) + r"/[^/]+\.(json|model|txt)")
        known = any(f"{part}/{name}" in there for name in SMALL_FILES[part])
        return set(filter(small.fullmatch, there)) if known else {f"{part}/{SMALL_FILES[part][0]}"}
    return {f"{part}/config.json", *_weights(f"{part}/{stem_of(part)}", there)}


def _weights(stem: str, there: Collection[str]) -> set[str]:
    index = f"{stem}.safetensors.index.json"
    shards = {path for path in there if (shard := SHARD.fullmatch(path)) and shard[1] == stem}
    if index in there:
        return {index, *shards}
    return shards if shards and f"{stem}.safetensors" not in there else {f"{stem}.safetensors"}


def _single(there: Collection[str]) -> set[str]:
    """Choose a transformer's file at the top of a repository, with its configuration where there is one."""
    stem = own_stem(filter(_is_top, there)) or "model"
    return _weights(stem, there) | ({"config.json"} & set(there))


def _is_top(path: str) -> bool:
    return "/" not in path and path.endswith(".safetensors")
