"""The Models page in a real browser: a download seen, stopped, found again, finished and deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.models import look
from engine.models.store import ModelStore
from tests.hub import MODEL, FakeHub, serving_hub
from tests.live import Live, serving

LONG = 180_000  # milliseconds: CI shares two cores


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub for the processes that download, and an empty cache for them and for this one."""
    from huggingface_hub import constants

    cache = str(tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
    with serving_hub() as found:
        for name, value in {"HF_ENDPOINT": found.url, "HF_HUB_CACHE": cache, "HF_HUB_OFFLINE": "0"}.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def live(tmp_path: Path, hub: FakeHub) -> Iterator[Live]:
    with serving(tmp_path / "outputs") as found:
        yield found


def opened(context: Any, live: Live) -> Any:
    page = context.new_page()
    page.set_default_timeout(LONG)
    page.goto(live.url)
    page.get_by_role("tab", name="Models").click()
    page.locator("#tr-chosen h3").wait_for()
    return page


def checkpoint(page: Any, text: str) -> None:
    page.locator("#tr-checkpoint", has_text=text).wait_for()


def name_it(page: Any, model: str) -> None:
    """Type another checkpoint's name. The box has just been unfolded, and once in many runs did not hear the key."""
    box, shown = page.locator("#tr-checkpoint-name textarea, #tr-checkpoint-name input"), page.locator("#tr-chosen")
    for _ in range(4):
        box.fill(model)
        box.press("Enter")
        deadline = time.monotonic() + LONG / 4000
        while time.monotonic() < deadline:
            if model in shown.inner_text():
                return
            page.wait_for_timeout(100)
    raise AssertionError(f"the name did not arrive: {shown.inner_text()}")


def test_a_download_is_seen_stopped_found_again_finished_and_deleted(browser, hub, live):
    hub.gate = threading.Event()
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = opened(context, live)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    checkpoint(page, "Not on this machine")
    assert hub.asked == [], "looking asks nothing of the network"

    page.get_by_label("Another", exact=True).click()
    page.locator("#tr-checkpoint-name").wait_for()
    assert page.get_by_label("Another", exact=True).is_checked()
    name_it(page, MODEL)
    page.locator("#tr-download-model").click()
    checkpoint(page, "Fetching")
    page.wait_for_function(
        "() => +document.querySelector('#tr-checkpoint [role=progressbar]')?.getAttribute('aria-valuenow') > 30"
    )

    box = page.locator("#tr-checkpoint-name textarea, #tr-checkpoint-name input")
    box.fill("somebody/else")
    second = opened(context, live)
    checkpoint(second, "Fetching")
    second.locator("#tr-download-stop").click()
    for each in (second, page):
        checkpoint(each, "Stopped. What has come is kept")
        checkpoint(each, "Partly here")
    assert box.input_value() == "somebody/else", "what is typed stays while the page looks how far the download is"
    assert not ModelStore(MODEL).work.running()
    second.close()

    page.reload()
    page.get_by_role("tab", name="Models").click()
    checkpoint(page, "Partly here")
    sent = hub.sent.copy()
    hub.gate.set()
    page.get_by_role("button", name="Go on with the download").click()
    page.locator("#tr-chosen", has_text="ready").wait_for()
    assert look(MODEL).state == "installed"
    kept = [path for path in sent if sent[path] == len(hub.needed[path])]
    assert kept
    assert all(hub.sent[path] == sent[path] for path in kept)

    page.locator("#tr-verify").click()
    checkpoint(page, "is sound")
    page.locator("#tr-delete").click()
    page.locator("#tr-keep").click()
    page.locator("#tr-confirm").wait_for(state="hidden")
    assert look(MODEL).state == "installed"
    page.locator("#tr-delete").click()
    page.locator("#tr-delete-now").click()
    checkpoint(page, "Not on this machine")
    assert not ModelStore(MODEL).root.exists()
    assert faults == []
    context.close()


def test_a_refusal_is_said_on_the_page(browser, hub, live):
    hub.refuse = (403, "GatedRepo")
    context = browser.new_context()
    page = opened(context, live)
    page.locator("#tr-download-model").click()
    page.locator("#tr-checkpoint [role=alert]", has_text="accepted its terms").wait_for()
    page.locator("#tr-download-model").wait_for()
    context.close()


def test_on_a_phone_nothing_sticks_out(browser, live):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = opened(context, live)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_a_guest_sees_nothing_and_can_do_nothing(tmp_path, hub, browser, monkeypatch):
    from app.guard.guard import Guard

    monkeypatch.setattr(Guard, "is_owner", lambda self: False)
    with serving(tmp_path / "shared") as found:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(LONG)
        page.goto(found.url)
        page.get_by_role("tab", name="Models").click()
        page.locator("#tr-not-yours", has_text="Only the owner").wait_for()
        assert page.locator("#tr-models").count() == 0 or not page.locator("#tr-models").is_visible()
        handlers = [each for each in found.blocks.fns.values() if str(each.api_name).startswith("models_")]
        for each in handlers:
            each.fn(*[str(tmp_path)] * len(each.inputs))
        assert len(handlers) == 18
        assert hub.asked == []
        assert not (tmp_path / "shared" / "settings.json").exists()
        context.close()


def test_no_client_is_offered_the_rooms_handlers(live):
    import json
    import urllib.request

    with urllib.request.urlopen(f"{live.url}gradio_api/info", timeout=60) as answer:
        named = json.load(answer)["named_endpoints"]
    assert not [name for name in named if "models" in name]
