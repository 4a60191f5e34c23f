"""What the a2 engine can use on this machine, and how much of it is here. Asks the disk only."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engine import surroundings
from engine.a2.files import borrowable, find_checkpoint, is_hub_id, locate, read_checkpoint, read_own, split_hub
from engine.a2.models import DIFFUSERS_WAN, I2V_WAN, RELEASES, Family, release_of
from engine.a2.needed import sources_of
from engine.a2.options import DEFAULT_MODEL
from engine.errors import EngineUnavailable, TroupeError
from engine.models.store import ModelStore

_SHARED_TITLES = {DIFFUSERS_WAN: "Wan2.1's text encoder and VAE", I2V_WAN: "Wan2.1's text and image encoder and VAE"}


@dataclass(frozen=True)
class ModelState:
    """One checkpoint. `bytes` are here, `missing` are not (None: only the hub knows, and it is asked when a download
    begins); `folder` is where they lie or will; `note` says what is wrong with what is here."""

    model: str
    state: Literal["installed", "partly", "absent"]
    bytes: int
    missing: int | None
    folder: Path
    note: str = ""
    local: bool = False  # a folder of the person's own: never fetched into, never deleted

    @property
    def title(self) -> str:
        """Its name for a person."""
        if self.local:
            return self.folder.name or self.model
        release = release_of(self.model)
        return release.title if release is not None else _SHARED_TITLES.get(self.model, self.model)


def look(model: str = DEFAULT_MODEL, family: Family | None = None) -> ModelState:
    """Read how much of a checkpoint (a hub id, a file of one, or a local folder or file) is on this machine, with what
    it shares with others. Raises TroupeError where `model` is none of these."""
    try:
        place = surroundings.expanded(model)
        local = place.is_dir() or (place.suffix.lower() == ".safetensors" and place.is_file())
    except (OSError, RuntimeError, ValueError):  # a name that is too long, ~ of nobody, a zero byte
        local = False
    if local:
        return _local(model, place, family)
    if not is_hub_id(split_hub(model)[0]):
        raise TroupeError(
            f"there is no folder {model:.200}, and it is not a name on the hub", "Write owner/name, or a folder."
        )
    own, *others = [_look_in(ModelStore(source)) for source in own_sources(model)]
    return _together(own, others) if others else own


def installed_release() -> str:
    """Return the first release that is whole on this machine, SkyReels-A2 before all others; empty where none is."""
    names = dict.fromkeys((DEFAULT_MODEL, *(each.model for each in RELEASES)))
    return next((model for model in names if look(model).state == "installed"), "")


def own_sources(model: str) -> tuple[str, ...]:
    """Return the repositories that a model's files come from; what it shares with others only where no other model
    here has it."""
    own, *shared = sources_of(model)
    return own, *(each for each in shared if ModelStore(each).listing() is not None or not borrowable())


def missing_sources(model: str) -> tuple[str, ...]:
    """Return those of them that are not whole."""
    return tuple(source for source in own_sources(model) if _look_in(ModelStore(source)).state != "installed")


def _together(own: ModelState, others: list[ModelState]) -> ModelState:
    """Return the state of a model with what it shares with others, which alone is no part of it."""
    every = [own, *others]
    missing = None if any(each.missing is None for each in every) else sum(each.missing or 0 for each in every)
    whole = all(each.state == "installed" for each in every)
    return replace(
        own, state="installed" if whole else "absent" if own.state == "absent" else "partly", missing=missing,
        bytes=sum(each.bytes for each in every), note="; ".join(each.note for each in every if each.note),
    )  # fmt: skip


def _look_in(store: ModelStore) -> ModelState:
    model, listing = store.model, store.listing()
    if listing is None:
        return _left_by_others(store)
    here, damaged = store.bytes_here(listing), store.damaged()
    missing = listing.bytes - here
    if not missing and (store.commit() == listing.commit or (store.holds_others and store.is_placed(listing))):
        return ModelState(model, "installed", here, 0, store.snapshot(listing.commit))
    if store.commit() != listing.commit and (other := _left_by_others(store)).state == "installed":
        return other  # another tool has fetched another commit
    note = f"damaged: {', '.join(sorted(damaged))}" if damaged else ""
    return ModelState(model, "partly" if here else "absent", here, missing, store.root, note)


def _left_by_others(store: ModelStore) -> ModelState:
    """Read what another tool has downloaded: it is installed if the files' headers say that it is whole."""
    try:
        root = find_checkpoint(store.model)
    except EngineUnavailable:
        there = store.bytes_on_disk()
        return ModelState(store.model, "partly" if there else "absent", there, None, store.root)
    try:
        found = read_own(store.model, root)
    except EngineUnavailable as error:
        return _partly(store.model, root, error, local=False)
    return ModelState(store.model, "installed", sum(each.bytes for each in found), 0, root)


def _local(model: str, place: Path, family: Family | None) -> ModelState:
    try:
        found = read_checkpoint(locate(model, family))
    except EngineUnavailable as error:
        return _partly(model, place, error, local=True)
    return ModelState(model, "installed", sum(each.bytes for each in found.values()), 0, place, local=True)


def _partly(model: str, root: Path, error: EngineUnavailable, local: bool) -> ModelState:
    """Return the state of what is not whole, with the reason."""
    there = 0
    with contextlib.suppress(OSError):  # others may write and delete there meanwhile
        for path in (*root.glob("*/*"), *root.glob("*.safetensors")) if root.is_dir() else (root,):
            with contextlib.suppress(OSError):
                there += path.stat().st_size if path.is_file() else 0
    return ModelState(model, "partly" if there else "absent", there, None, root, error.problem, local)
