"""A cache of one loaded model between jobs, so that the same one need not be loaded twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from engine.memory.shortage import give_back


class ModelCache:
    """Holds one loaded model, and the key of what it was loaded from. For one thread at a time."""

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Any] | None = None

    def fetch(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """Return the model that is kept under an equal key; else release the one kept (two would not fit), and load and
        keep another."""
        if self._kept is None or self._kept[0] != key:
            self.release()
            self._kept = key, load()
        return self._kept[1]

    @property
    def kept(self) -> Any:
        """The model that is kept; None where none is."""
        return self._kept[1] if self._kept is not None else None

    @property
    def held(self) -> tuple[int, int]:
        """What processes of its own hold for it, bytes of card and memory; 0 where it has none."""
        found: tuple[int, int] = getattr(self.kept, "held", (0, 0))
        return found

    @property
    def is_empty(self) -> bool:
        return self._kept is None

    def release(self) -> None:
        """Close the model, if one is kept, and free its memory."""
        if self._kept is None:
            return
        (_, model), self._kept = self._kept, None
        if hasattr(model, "close"):
            model.close()
        del model
        give_back()
