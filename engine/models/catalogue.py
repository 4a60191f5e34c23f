"""What the a2 engine can use on this machine, and how much of it is here. Asks the disk only."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine import surroundings
from engine.a2.files import find_checkpoint, is_hub_id, read_checkpoint
from engine.a2.options import DEFAULT_MODEL
from engine.errors import EngineUnavailable, TroupeError
from engine.models.store import ModelStore

TITLES = {DEFAULT_MODEL: "SkyReels-A2"}


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
        return self.folder.name or self.model if self.local else TITLES.get(self.model, self.model)


def look(model: str = DEFAULT_MODEL) -> ModelState:
    """Read how much of a checkpoint (a hub id or a local folder) is on this machine. Raises TroupeError where `model`
    is neither."""
    try:
        folder = surroundings.expanded(model)
        local = folder.is_dir()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, ~ of nobody, a zero byte
        local = False
    if local:
        return _judged(model, folder, local=True)
    if not is_hub_id(model):
        raise TroupeError(
            f"there is no folder {model:.200}, and it is not a name on the hub", "Write owner/name, or a folder."
        )
    store = ModelStore(model)
    listing = store.listing()
    if listing is None:
        return _left_by_others(store)
    here, damaged = store.bytes_here(listing), store.damaged()
    missing = listing.bytes - here
    if not missing and store.commit() == listing.commit:
        return ModelState(model, "installed", here, 0, store.snapshot(listing.commit))
    if store.commit() != listing.commit and (other := _left_by_others(store)).state == "installed":
        return other  # another tool has fetched another commit
    note = f"damaged: {', '.join(sorted(damaged))}" if damaged else ""
    return ModelState(model, "partly" if here else "absent", here, missing, store.root, note)


def _left_by_others(store: ModelStore) -> ModelState:
    """Read what another tool has downloaded: it is installed if the files' headers say that it is whole."""
    try:
        folder = find_checkpoint(store.model)
    except EngineUnavailable:
        there = store.bytes_on_disk()
        return ModelState(store.model, "partly" if there else "absent", there, None, store.root)
    return _judged(store.model, folder, local=False)


def _judged(model: str, folder: Path, local: bool) -> ModelState:
    try:
        found = read_checkpoint(folder)
    except EngineUnavailable as error:
        there = 0
        with contextlib.suppress(OSError):  # others may write and delete there meanwhile
            for path in folder.glob("*/*"):
                with contextlib.suppress(OSError):
                    there += path.stat().st_size if path.is_file() else 0
        return ModelState(model, "partly" if there else "absent", there, None, folder, error.problem, local)
    return ModelState(model, "installed", sum(each.bytes for each in found.values()), 0, folder, local=local)
