"""Where a model waits for the next job, so that the same one need not be loaded twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from engine.memory.shortage import give_back


class ModelCache:
    """Holds one loaded model, and what it was loaded from. For one thread at a time."""

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Any] | None = None

    def fetch(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """Return what is kept under an equal key; else what is kept is let go first (two would not fit) and `load`
        asked."""
        if self._kept is None or self._kept[0] != key:
            self.release()
            self._kept = key, load()
        return self._kept[1]

    @property
    def is_empty(self) -> bool:
        return self._kept is None

    def release(self) -> None:
        """Let go of the model, and give its memory back."""
        if self._kept is None:
            return
        (_, model), self._kept = self._kept, None
        if hasattr(model, "close"):
            model.close()
        del model
        give_back()
