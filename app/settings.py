"""What the owner of this machine has chosen for all desks: a small file beside the outputs."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from engine import part
from engine.a2.options import DEFAULT_MODEL


@dataclass(frozen=True)
class Choices:
    """`model` is the checkpoint of the a2 engine: a folder, or a hub id that is on this machine."""

    model: str = DEFAULT_MODEL


class Settings:
    """The owner's choices, read anew each time: another window may have changed them."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get(self) -> Choices:
        """The choices; what is missing or unreadable is as it is by default."""
        try:
            data = json.loads(self._file.read_text(encoding="utf-8"))
            known = {each.name for each in fields(Choices)}
            return Choices(**{key: value for key, value in data.items() if key in known and isinstance(value, str)})
        except (OSError, ValueError, AttributeError):
            return Choices()

    def put(self, **changes: str) -> Choices:
        """Change some of them and keep them. Raises OSError."""
        choices = replace(self.get(), **changes)
        growing, _ = part.beside(self._file)
        try:
            growing.write_text(json.dumps(asdict(choices), indent=1), encoding="utf-8")
            os.replace(growing, self._file)
        finally:
            part.remove(growing)
        return choices
