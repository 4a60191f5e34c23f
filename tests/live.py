"""A running Troupe for the tests, and a browser to look at it with."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest.mock import patch

import pytest

from tests.served import kept_port

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
OPEN = "#tr-prompt textarea:not([disabled])"  # the desk has been opened: what is on the page is the desk's
QUIET = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip


@dataclass
class Live:
    """Where a served Troupe is: its address, its outputs, its Blocks, and what works behind them."""

    url: str
    outputs: Path
    blocks: Any
    house: Any = None

    @property
    def guard(self) -> Any:
        return next(each.kwargs["guard"] for each in self.blocks.app.user_middleware if "guard" in each.kwargs)


@contextmanager
def serving(outputs: Path, **more: Any) -> Iterator[Live]:
    """Serve the page on a free port, in this process, until the block ends. `more` goes to `app.server.launch`."""
    from app.server import _prepare_environment, launch, open_house

    before = Path.cwd()
    kept = {key: os.environ.get(key) for key in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED")}
    house, blocks = open_house(outputs), None
    try:
        _prepare_environment(Path(outputs).resolve())  # before Gradio is imported, which a_slow_start does
        with kept_port() as port, a_slow_start():  # Gradio's own search leaves a socket open at each taken port
            own = {"server_name": "127.0.0.1", "server_port": port, "inbrowser": False}
            blocks = launch(outputs, house, **own, **more)
        yield Live(blocks.local_url, outputs, blocks, house)
    finally:
        if blocks is not None:
            blocks.close(verbose=False)
        house.close()
        os.chdir(before)
        for key, value in kept.items():
            os.environ.pop(key, None) if value is None else os.environ.__setitem__(key, value)


def a_slow_start() -> Any:
    """Two minutes for Gradio's server to begin to listen, where Gradio gives it five seconds."""
    return patch("gradio.http_server.time", SimpleNamespace(time=lambda: time.monotonic() / 24, sleep=time.sleep))


def lacking(what: str) -> NoReturn:
    """Leave a test out and say what it lacks here; under CI, where it is to be had, that is a failure."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium. Without one the test is skipped, except under CI, where that is a failure."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        lacking("no Chromium here: install Debian's `chromium` to run the browser tests")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        spoken = {**os.environ, "LC_ALL": "C.UTF-8"}  # or it opens no file with a letter beyond ASCII in its path
        browser = playwright.chromium.launch(executable_path=found, args=QUIET, timeout=180_000, env=spoken)
        try:
            yield browser
        finally:
            browser.close()


def forget(tab: Any, url: str) -> None:
    """Leave the page at `url`, and make the tab one of a browser that was never there: nothing is kept but the scripts
    that it has read."""
    for other in tab.context.pages:
        if other is not tab:
            other.close()
    tab.unroute_all(behavior="ignoreErrors")
    tab.goto("about:blank")
    line = tab.context.new_cdp_session(tab)
    line.send("Storage.clearDataForOrigin", {"origin": url.rstrip("/"), "storageTypes": "all"})
    line.detach()


def upload(page: Any, role: str, *paths: Path) -> None:
    """Choose pictures for the section of that role, as the file dialog does."""
    page.locator(f'input[data-testid="Upload {role}-upload-button"]').set_input_files([str(path) for path in paths])
