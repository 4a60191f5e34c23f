"""The page is never mute: pictures on their way, a clip that is ready, a desk that does not come, a prompt that nobody
understands; and nobody moves who was not touched. In a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app import server
from tests.clips_room import Gate
from tests.live import OPEN, Live, forget, serving, upload
from tests.served import hero

LONG = 120_000  # milliseconds


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    """An engine of small clips; what is under way stays so while it is shut."""
    found = Gate()
    found.open.set()
    yield found
    found.open.set()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> Iterator[Live]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server, "_engine_of", lambda outputs: gate)
        with serving(tmp_path_factory.mktemp("outputs")) as found:
            yield found


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    made = browser.new_context(viewport={"width": 1280, "height": 860})
    made.set_default_timeout(LONG)
    yield made
    made.close()


@pytest.fixture
def page(tab: Any, live: Live) -> Iterator[Any]:
    tab.goto(live.url)
    tab.locator(OPEN).wait_for()
    yield tab
    forget(tab, live.url)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture of 900 kB that is its own cut-out."""
    noise = np.random.default_rng(5).integers(0, 255, (500, 400, 4), np.uint8)
    noise[..., 3] = 0
    noise[60:440, 100:300, 3] = 255
    Image.fromarray(noise).save(tmp_path / "mia.png")
    assert (tmp_path / "mia.png").stat().st_size > 500_000
    return tmp_path / "mia.png"


def slow_page(context: Any, live: Live, bytes_per_second: int) -> Any:
    """A page, in a tab of its own, that sends no faster than that."""
    page = context.new_page()
    page.goto(live.url)
    page.locator(OPEN).wait_for()
    line = context.new_cdp_session(page)
    line.send("Network.enable")
    line.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 20, "downloadThroughput": 10**7, "uploadThroughput": bytes_per_second},
    )
    return page


# ---------------------------------------------------------------------------
# Pictures on their way


def test_a_picture_shows_itself_at_once_and_tells_how_far_it_is(context, live, photo, tmp_path):
    page = slow_page(context, live, 150_000)
    upload(page, "character", photo, hero(tmp_path / "ann.png"))
    coming = page.locator(".tr-character .tr-coming")
    coming.nth(1).wait_for()
    assert coming.nth(0).locator("img").get_attribute("src").startswith("blob:")
    page.locator(".tr-coming .tr-note", has_text="On its way · ").first.wait_for()
    assert coming.nth(1).locator(".tr-note").inner_text() == "Waiting for the others"
    page.wait_for_function(
        "() => { const bar = document.querySelector('.tr-coming [role=progressbar]');"
        " return !bar || (+bar.getAttribute('aria-valuenow') > 0) }"
    )
    page.locator(".tr-character .tr-card").nth(1).wait_for()
    page.locator(".tr-coming").wait_for(state="detached")
    assert [each.input_value() for each in page.locator(".tr-character .tr-name").all()] == ["Mia", "Ann"]


def test_a_picture_on_its_way_can_be_called_back_and_the_next_one_comes(context, live, photo, tmp_path):
    page = slow_page(context, live, 40_000)
    upload(page, "object", photo, hero(tmp_path / "cup.png"))
    page.locator(".tr-coming .tr-note", has_text="On its way · ").first.wait_for()
    page.get_by_role("button", name="Do not bring mia.png").click()
    page.locator(".tr-object .tr-card").wait_for()
    assert page.locator(".tr-object .tr-name").input_value() == "Cup"
    assert page.locator(".tr-coming").count() == 0


def test_a_picture_that_did_not_arrive_says_so_and_comes_when_asked_again(page, tmp_path):
    broken = []

    def break_once(route: Any) -> None:
        broken.append(1)
        route.abort() if len(broken) == 1 else route.continue_()

    page.route("**/gradio_api/upload*", break_once)
    upload(page, "character", hero(tmp_path / "mia.png"))
    page.locator(".tr-coming", has_text="It did not arrive. The connection broke.").wait_for()
    page.get_by_role("button", name="Try again to bring mia.png").click()
    page.locator(".tr-character .tr-card").wait_for()
    assert page.locator(".tr-coming").count() == 0


def test_what_is_no_picture_stays_with_its_reason_until_it_is_taken_away(page, tmp_path):
    (tmp_path / "notes.png").write_text("I am not a picture")
    upload(page, "character", tmp_path / "notes.png", hero(tmp_path / "mia.png"))
    page.locator(".tr-character .tr-card").wait_for()
    page.locator(".tr-coming", has_text="notes.png").locator(".warn").wait_for()
    assert "notes.png" in page.locator("#tr-cast-message").inner_text()
    page.get_by_role("button", name="Do not bring notes.png").click()
    page.locator(".tr-coming").wait_for(state="detached")


def test_what_the_door_refuses_comes_with_its_reason_and_no_second_try(page, tmp_path):
    page.route(
        "**/gradio_api/upload*",
        lambda route: route.fulfill(status=415, content_type="text/plain", body="mia.png is text, not a picture."),
    )
    upload(page, "character", hero(tmp_path / "mia.png"))
    page.locator(".tr-coming .warn", has_text="mia.png is text, not a picture.").wait_for()
    assert page.get_by_role("button", name="Try again to bring").count() == 0


def test_of_several_pictures_for_the_background_the_others_are_told(page, tmp_path):
    input_ = page.locator('input[data-testid="Upload background-upload-button"]')
    input_.evaluate("each => { each.multiple = true }")  # as a drop of several is
    input_.set_input_files([str(hero(tmp_path / f"{name}.png")) for name in ("one", "two")])
    page.locator(".tr-background .tr-card").wait_for()
    page.locator(".tr-background .tr-coming", has_text="this one was left out").wait_for()


def test_a_picture_that_is_called_back_while_it_is_cut_out_leaves_no_card(page, tmp_path):
    held = []
    page.route("**/gradio_api/queue/join*", lambda route: held.append(route))
    upload(page, "character", hero(tmp_path / "mia.png"), hero(tmp_path / "ann.png"))
    page.locator(".tr-coming .tr-note", has_text="Cutting it out").wait_for()
    page.get_by_role("button", name="Do not bring mia.png").click()
    page.unroute("**/gradio_api/queue/join*")  # what was held goes on
    page.wait_for_function(
        "() => [...document.querySelectorAll('.tr-character .tr-name')].map((each) => each.value).join() === 'Ann'"
    )
    assert page.locator(".tr-coming").count() == 0


def test_the_focus_stays_with_its_control_when_pictures_arrive(page, tmp_path):
    add = page.locator(".tr-character .tr-add")
    add.focus()
    upload(page, "object", hero(tmp_path / "cup.png"))
    page.locator(".tr-object .tr-card").wait_for()
    assert page.evaluate("document.activeElement.dataset.role") == "character"


def test_leaving_while_a_picture_is_on_its_way_is_asked_about(context, live, photo):
    page = slow_page(context, live, 20_000)
    page.locator("#tr-board, .tr-board").first.click()  # a browser asks only who has touched the page
    upload(page, "character", photo)
    page.locator(".tr-coming .tr-note", has_text="On its way · ").wait_for()
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.close(run_before_unload=True)
    for _ in range(100):
        if asked:
            break
        page.wait_for_timeout(50)
    assert asked == ["beforeunload"]


def test_a_file_s_name_reaches_the_card_in_every_script(page, tmp_path):
    hero(tmp_path / "plain.png").rename(tmp_path / "मीरा.png")
    upload(page, "character", tmp_path / "मीरा.png")
    page.locator(".tr-character .tr-card").wait_for()
    assert page.locator(".tr-character .tr-name").input_value() == "मीरा"


# ---------------------------------------------------------------------------
# The stage


def test_who_is_not_dragged_stays_where_they_are_on_the_stage_and_in_the_clip(page, live, tmp_path):
    upload(page, "character", *[hero(tmp_path / f"{name}.png") for name in ("mia", "ben")])
    upload(page, "object", *[hero(tmp_path / f"{name}.png") for name in ("cup", "logo")])
    page.locator(".tr-actor").nth(3).wait_for()

    def spots() -> dict[str, str]:
        return page.evaluate(
            "() => Object.fromEntries([...document.querySelectorAll('.tr-actor')].map((each) =>"
            " [each.getAttribute('aria-label').split(',')[0], each.getAttribute('style')]))"
        )

    before = spots()
    logo = page.locator('.tr-actor[aria-label^="Logo"]')
    box = logo.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 100, box["y"] - 60, steps=6)
    logo.evaluate("actor => { actor.dataset.before = '1' }")
    page.mouse.up()
    page.locator('.tr-actor[aria-label^="Logo"]:not([data-before])').wait_for()  # the server's answer
    after = spots()
    assert after.pop("Logo") != before.pop("Logo")
    depth = lambda style: ";".join(part for part in style.split(";") if "z-index" not in part)  # noqa: E731
    assert {name: depth(style) for name, style in after.items()} == {name: depth(s) for name, s in before.items()}
    page.reload()
    page.locator(".tr-actor").nth(3).wait_for()
    reloaded = spots()
    assert {name: depth(reloaded[name]) for name in after} == {name: depth(style) for name, style in after.items()}
    page.get_by_role("button", name="Generate", exact=True).click()
    page.locator("#tr-video video").wait_for(state="attached")
    (scene,) = live.outputs.glob("clips/*_clip_*/scene.json")
    spotted = {each["name"]: each["placement"] for each in json.loads(scene.read_text())["cast"]}
    for name, style in after.items():
        height = float(style.split("height:")[1].split("%")[0])
        assert spotted[name]["scale"] * 100 == pytest.approx(height, abs=0.01)


# ---------------------------------------------------------------------------
# A clip that is ready


def test_a_clip_that_ends_out_of_sight_is_announced_on_a_phone(browser, live, gate, tmp_path):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    context.set_default_timeout(LONG)
    try:
        page = context.new_page()
        page.goto(live.url)
        page.locator(OPEN).wait_for()
        upload(page, "character", hero(tmp_path / "mia.png"))
        page.locator(".tr-character .tr-card").wait_for()
        gate.open.clear()
        page.get_by_role("button", name="Generate", exact=True).click()
        page.locator("#tr-progress [role=progressbar]").wait_for()
        page.reload()
        page.locator(OPEN).wait_for()
        page.locator("#tr-progress [role=progressbar]").wait_for()
        page.evaluate("scrollTo(0, 0)")
        gate.open.set()
        page.get_by_role("button", name="Your clip is ready. Show it").click()
        page.wait_for_function(
            "() => { const box = document.querySelector('#tr-video video').getBoundingClientRect();"
            " return box.top >= -50 && box.bottom <= innerHeight + 50 }"
        )
        page.locator(".tr-ready").wait_for(state="detached")
        page.reload()  # it is no news any more
        page.locator("#tr-video video").wait_for(state="attached")
        assert page.locator(".tr-ready").count() == 0
    finally:
        gate.open.set()
        context.close()


# ---------------------------------------------------------------------------
# A desk that does not come


def test_an_opening_that_got_lost_is_asked_for_again(context, live):
    page, lost = context.new_page(), []

    def lose_the_first(route: Any) -> None:
        lost.append(1)
        if len(lost) > 3:
            route.continue_()  # the others never get an answer

    page.route("**/gradio_api/queue/join*", lose_the_first)
    page.goto(live.url)
    page.locator("#tr-opening", has_text="Opening your desk").wait_for()
    page.unroute("**/gradio_api/queue/join*")
    page.locator(OPEN).wait_for()
    page.locator("#tr-opening .tr-message").wait_for(state="detached")


def test_a_desk_that_never_comes_is_told_and_nothing_else_is_promised(context, live):
    page = context.new_page()
    page.add_init_script(  # time runs sixty times as fast for what waits
        "const wait = setTimeout; window.setTimeout = (f, ms, ...more) => wait(f, ms > 3000 ? ms / 60 : ms, ...more)"
    )
    page.route("**/gradio_api/queue/join*", lambda route: None)
    page.goto(live.url)
    page.locator("#tr-opening", has_text="Troupe does not answer. Nothing is lost.").wait_for()
    page.get_by_role("button", name="Reload").wait_for()
    page.unroute("**/gradio_api/queue/join*")  # what waited for an answer may get it now: then the desk opens by itself
    page.reload()
    page.locator(OPEN).wait_for()


# ---------------------------------------------------------------------------
# A prompt that nobody understands


def test_a_prompt_in_which_the_draft_understands_nothing_is_told(page, tmp_path):
    upload(page, "character", hero(tmp_path / "mia.png"))
    page.locator(".tr-character .tr-card").wait_for()
    page.locator(OPEN).fill("Mia dreht sich langsam im Kreis.")
    page.locator("#tr-names", has_text="The draft reads English and finds nothing").wait_for()
    page.locator(OPEN).fill("Mia turns slowly.")
    page.locator("#tr-names:not(:has-text('reads English'))").wait_for()
