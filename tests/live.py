"""A running Troupe for the tests, and a browser to look at it with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.served import kept_port

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
QUIET = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip


@dataclass
class Live:
    """Where a served Troupe is: its address, its outputs and its Blocks."""

    url: str
    outputs: Path
    blocks: Any

    @property
    def guard(self) -> Any:
        return next(each.kwargs["guard"] for each in self.blocks.app.user_middleware if "guard" in each.kwargs)


@contextmanager
def serving(outputs: Path, **more: Any) -> Iterator[Live]:
    """Serve the page on a free port, in this process, until the block ends. `more` goes to `app.server.launch`."""
    from app.server import launch, open_house

    before = Path.cwd()
    kept = {key: os.environ.get(key) for key in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED")}
    house = open_house(outputs)
    with kept_port() as port:  # Gradio's own search leaves a socket open at each taken port
        own = {"server_name": "127.0.0.1", "server_port": port, "inbrowser": False}
        blocks = launch(outputs, house, _frontend=False, **own, **more)  # else it gives its own page three seconds
    try:
        yield Live(blocks.local_url, outputs, blocks)
    finally:
        blocks.close(verbose=False)
        house.close()
        os.chdir(before)
        for key, value in kept.items():
            os.environ.pop(key, None) if value is None else os.environ.__setitem__(key, value)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium. Without one the test is skipped, except under CI, where that is a failure."""
    found = next((path for path in CHROMIUM if Path(path).exists()), None)
    if found is None:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("no Chromium here: install Debian's `chromium` to run the browser tests")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET, timeout=180_000)
        try:
            yield browser
        finally:
            browser.close()
