"""The sample cast on offer: pictures that ship with Troupe, by role."""

from __future__ import annotations

import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any

from app.ui.pictures import data_url, shrunk
from engine.errors import SceneError
from engine.media.images import open_image

THUMB = 112  # pixels: 56 CSS pixels on a dense screen
TITLES = {"character": "Sample characters", "object": "Sample objects", "background": "Sample backgrounds"}


class Tray:
    """The pictures that `tray.toml` in the samples' folder lists."""

    def __init__(self, samples: Path) -> None:
        self._samples = samples

    @cached_property
    def _roles(self) -> dict[str, str]:
        table = tomllib.loads((self._samples / "tray.toml").read_text(encoding="utf-8"))
        return {key: role for role in TITLES for key in table[role]}

    @cached_property
    def value(self) -> dict[str, Any]:
        """The data that tray.js draws; cached."""
        parts = []
        for role, title in TITLES.items():
            samples = [self._sample(key) for key, part in self._roles.items() if part == role]
            parts.append({"role": role, "title": title, "samples": samples})
        return {"parts": parts}

    def _sample(self, key: str) -> dict[str, str]:
        thumb = shrunk(open_image(self._samples / key), 2 * THUMB, THUMB)
        return {"key": key, "name": spoken(key), "url": data_url(thumb)}

    def pick(self, key: str) -> tuple[str, Path, str]:
        """Return role, picture and name of a sample. Raises SceneError for a key that is not in the tray."""
        if key not in self._roles:
            raise SceneError("", f"there is no sample {key!r}", "Pick one of those shown.")
        return self._roles[key], self._samples / key, spoken(key)


def spoken(key: str) -> str:
    """Return a sample's name: "bubble tea" for `cast/bubble_tea.webp`."""
    return Path(key).stem.replace("_", " ")
