"""The key that signs visitors' cookies: kept beside the outputs, so that guests find their clips after a restart."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from engine.disk import atomic

log = logging.getLogger("troupe.guard")

_BYTES = 32


def visitors_key(file: Path) -> bytes:
    """Read the key in `file`; generate and save a new one where there is none that can be read."""
    try:
        key = file.read_bytes()
        if len(key) == _BYTES:
            return key
    except OSError:
        pass
    key = secrets.token_bytes(_BYTES)
    try:
        with atomic.whole(file) as growing:
            growing.touch(mode=0o600)
            growing.write_bytes(key)
    except OSError:  # it is still valid until the server ends
        log.warning("the key of visitors' cookies cannot be written down: %s", file)
    return key
