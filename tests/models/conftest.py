"""A hub on this machine for every test of a download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.models import download as downloads
from tests.hub import FakeHub, serving_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub, and an empty cache of this test's own; no pauses between tries."""
    from huggingface_hub import constants

    monkeypatch.setattr(downloads, "PAUSES", (0.0,) * 4)  # one more than a hub is ever busy: one file may meet all
    monkeypatch.setattr(downloads, "MARGIN", 0)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving_hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield found
