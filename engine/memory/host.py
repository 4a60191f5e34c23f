"""The machine's own memory, as far as this process may use it. A container has less than its host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

Reading = tuple[int | None, str]  # bytes, and where they are from or why they are not known

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_STATUS = Path("/proc/self/status")
_UNLIMITED = 2**60  # version 1 says "no limit" with a number of about this size


def physical_memory(root: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> tuple[Reading, Reading]:
    """Read total and free memory: of what the machine has and what the container allows, the lesser. Free is what can
    be had without swapping."""
    total: Reading
    free: Reading
    try:
        import psutil

        memory = psutil.virtual_memory()
        total, free = (memory.total, "the machine's"), (memory.available, "what the machine has free")
    except (ImportError, OSError, RuntimeError):
        total = free = (None, "not known: psutil is not installed, or cannot read it")
    for limit, used in container_limits(root, membership):
        left = max(0, limit - used)
        if total[0] is None or limit < total[0]:
            total = (limit, "the container's limit")
        if free[0] is None or left < free[0]:
            free = (left, "what the container's limit leaves")
    return total, free


def own_bytes(status: Path = _STATUS) -> int:
    """Return what this process holds of the memory, without mapped files, which the system can have back; 0 where that
    cannot be read."""
    try:
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import psutil
    except ImportError:
        return 0
    try:
        return int(psutil.Process().memory_full_info().uss)
    except (OSError, RuntimeError, psutil.Error):
        return 0


def free_for_us() -> int | None:
    """Return what this process could hold in all: what is free, and what is its own already. None where that is not
    known. What mapped files hold counts as free, since the system can have it back."""
    _, (free, _) = physical_memory()
    return free + own_bytes() if free is not None else None


def container_limits(root: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> Iterator[tuple[int, int]]:
    """Yield (limit, used), in bytes, of every control group, version 1 or 2, that this process is in and that has a
    limit: a group is bound by all those above it. Used is without the file cache, which the system gives back when
    memory is asked for."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        if line.count(":") < 2:
            continue
        number, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if "memory" in names:
            base, files = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif number == "0":
            base, files = root, ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        folder = base / path.strip().strip("/")
        # Inside a container the path may be the host's, which is not seen here: the group's files are at the root.
        for group in (folder, *folder.parents):
            if (found := _limit(group, *files)) is not None:
                yield found
            if group == base:
                break


def _limit(group: Path, limit_file: str, used_file: str, cache: str) -> tuple[int, int] | None:
    try:
        limit = int((group / limit_file).read_text())  # "max" where there is none
        used = int((group / used_file).read_text())
    except (OSError, ValueError):
        return None
    if limit >= _UNLIMITED:
        return None
    try:
        words = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used -= int(words.get(cache, 0))
    except (OSError, ValueError):
        pass
    return limit, max(0, used)


def pinned_limit(ram_total: int | None) -> Reading:
    """Return how many bytes can be pinned for copies to a card."""
    if sys.platform == "win32":
        if ram_total is None:
            return None, "not known: neither is the memory"
        return 2 * ram_total // 5, "Windows lets a card's driver pin half of the memory, and others pin some of it, too"
    if sys.platform == "darwin":
        return None, "not needed: memory is shared with the card"
    return None, "no limit of the system's; what is free bounds it"
