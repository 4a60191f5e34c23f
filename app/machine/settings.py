"""What the owner of this machine has chosen for all desks: a small file beside the outputs."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from engine.a2.models import Family, family_called, release_of
from engine.disk import atomic
from engine.models import installed_release

_FRESH = 5.0  # seconds that what was found on the disk is cached


@dataclass(frozen=True)
class Choices:
    """`model` is the checkpoint of the video model: a folder, or a hub id that is on this machine (empty: the usual
    one); `family` the family of models that it is of, where its name does not say. Clips older than `clips_days`, and
    those beyond `clips_gb`, may go to the trash (0: none), at each start if `tidy_at_start`."""

    model: str = ""
    family: str = ""
    clips_days: int = 0
    clips_gb: float = 0.0
    tidy_at_start: bool = False


class OwnerSettings:
    """The owner's choices, read from the file each time: another process may have changed them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._here = (float("-inf"), "")  # when that was looked up, and the release that was found

    def get(self) -> Choices:
        """Read the choices; what is missing or unreadable has its default."""
        try:
            data = json.loads(self._file.read_text(encoding="utf-8"))
            return Choices(**{name: data[name] for name, kind in _KINDS.items() if _is(kind, data.get(name))})
        except (OSError, ValueError, AttributeError, RecursionError):
            return Choices()

    def model_in_use(self) -> tuple[str, Family | None]:
        """Return the checkpoint that clips are made with, and its family where the owner had to say it: the one that
        was chosen, else the first that is whole here, else none (empty)."""
        chosen = self.get()
        if not chosen.model:
            return self._first_here(), None
        return chosen.model, family_called(chosen.family) if release_of(chosen.model) is None else None

    def _first_here(self) -> str:
        at, found = self._here
        if time.monotonic() - at > _FRESH:
            found = installed_release()
            self._here = time.monotonic(), found
        return found

    def put(self, **changes: Any) -> Choices:
        """Change some of the fields of `Choices` and save them. Raises OSError."""
        choices = replace(self.get(), **changes)
        with atomic.whole(self._file) as growing:
            growing.write_text(json.dumps(asdict(choices), indent=1), encoding="utf-8")
        return choices


_KINDS = {each.name: type(each.default) for each in fields(Choices)}


def _is(kind: type, value: object) -> bool:
    """Return whether a value from the file, which a person may have edited, fits a field of this type; numbers must be
    0 or more."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return type(value) is kind and (not isinstance(value, int) or value >= 0)
