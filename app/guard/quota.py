"""The disk quota of a guest: desks, clips and exports together, over all of their cookies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from app.guard.limits import MB, Limits
from engine.disk.room import free_bytes
from engine.disk.walk import files_below
from engine.errors import TroupeError

_PLACES = ("desks", "clips", "trash", "trash/desks", "exports")
_ID = 32  # hex digits that the name of each folder ends with: a desk's or a job's


class Quota:
    """The quotas in one outputs folder."""

    def __init__(self, limits: Limits, outputs: Path) -> None:
        self._limits, self._outputs = limits, outputs

    def check_disk(self) -> None:
        """Check the free disk space, raising TroupeError where only the owner's reserve is left."""
        free, _ = free_bytes(self._outputs)
        if free is not None and free < self._limits.free_disk:
            raise TroupeError("The disk of this Troupe is nearly full", "Tell its owner.")

    def check(self, is_theirs: Callable[[str], bool]) -> None:
        """Check a visitor's quota, raising TroupeError where it is used up. `is_theirs`: whether a desk or job, by its
        id, is theirs."""
        self.check_disk()
        used = sum(self._sizes(is_theirs))
        if used >= self._limits.disk_bytes:
            problem = f"Your clips and pictures take {used // MB} MB here; {self._limits.disk_bytes // MB} MB are yours"
            raise TroupeError(problem, "Ask the owner of this Troupe to remove some.")

    def _sizes(self, is_theirs: Callable[[str], bool]) -> Iterator[int]:
        for place in _PLACES:
            for folder in _children(self._outputs / place):
                if is_theirs(folder.name[-_ID:]):
                    yield sum(status.st_size for _, status in files_below(folder))


def _children(folder: Path) -> Collection[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
