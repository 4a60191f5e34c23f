"""What the owner of this machine has chosen for all desks: a small file beside the outputs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from engine.disk import atomic


@dataclass(frozen=True)
class Choices:
    """`model` is the checkpoint of the video model: a folder, or a hub id that is on this machine (empty: the usual
    one). Clips older than `clips_days`, and those beyond `clips_gb`, may go to the trash (0: none), at each start if
    `tidy_at_start`."""

    model: str = ""
    clips_days: int = 0
    clips_gb: float = 0.0
    tidy_at_start: bool = False


class OwnerSettings:
    """The owner's choices, read from the file each time: another process may have changed them."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get(self) -> Choices:
        """Read the choices; what is missing or unreadable has its default."""
        try:
            data = json.loads(self._file.read_text(encoding="utf-8"))
            return Choices(**{name: data[name] for name, kind in _KINDS.items() if _is(kind, data.get(name))})
        except (OSError, ValueError, AttributeError):
            return Choices()

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
