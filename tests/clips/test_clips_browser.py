"""The Clips tab in a real browser: what was made is seen, compared, saved, opened again; the queue; a restart."""

from __future__ import annotations

import base64
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from app import server
from app.server import House
from engine.media.video import write_video
from engine.scene.scene import Video
from tests.clips_room import Gate
from tests.live import Live, forget, serving

LONG = 120_000  # milliseconds: CI shares two cores
ROOT = Path(__file__).resolve().parents[2]

# A file dropped on the page, as a person would: {data, name, type, on}.
DROP = """async ({data, name, type, on}) => {
  const file = new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, {type});
  const carried = new DataTransfer();
  carried.items.add(file);
  for (const kind of ['dragenter', 'dragover', 'drop']) document.querySelector(on).dispatchEvent(
    new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: carried}));
}"""

# The jobs that the page has shown as under way, in window.begun, however short that was.
BEGUN = """
  window.begun = [];
  new MutationObserver(() => {
    const job = document.querySelector('#tr-progress [data-job]')?.dataset.job;
    if (job && document.querySelector('#tr-generate')?.disabled && !begun.includes(job)) begun.push(job);
  }).observe(document, {subtree: true, childList: true, attributes: true});
"""

# Notifications are granted and kept in window.said; window.hide(true) hides the tab as far as its scripts can tell.
TOLD = """
  window.said = [];
  window.Notification = class { constructor(title, more) { said.push(more.body); } close() {} };
  Notification.permission = 'granted';
  Notification.requestPermission = async () => 'granted';
  let away = false;
  Object.defineProperty(document, 'hidden', {get: () => away});
  Object.defineProperty(document, 'visibilityState', {get: () => (away ? 'hidden' : 'visible')});
  window.hide = (on) => { away = on; document.dispatchEvent(new Event('visibilitychange')); };
"""


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate()


@pytest.fixture(scope="module")
def houses() -> list[House]:
    """The one that was opened."""
    return []


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, gate: Gate, houses: list[House]) -> Iterator[Live]:
    def open_house(outputs: Path, really: Callable = server.open_house) -> House:
        houses.append(really(outputs))
        return houses[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server, "_engine_of", lambda outputs: gate)
        patched.setattr(server, "open_house", open_house)
        with serving(tmp_path_factory.mktemp("outputs")) as found:
            yield found
            gate.open.set()


@pytest.fixture(scope="module")
def tab(tab: Any) -> Any:
    tab.context.add_init_script(BEGUN)
    return tab


@pytest.fixture
def context(tab: Any, live: Live, gate: Gate) -> Iterator[Any]:
    """A browser without memories; its pages must end without an error of their scripts."""
    gate.open.set()
    tab.set_viewport_size({"width": 1280, "height": 860})
    faults: list[str] = []

    def at_error(fault: Any) -> None:
        faults.append(str(fault.error))

    tab.context.on("weberror", at_error)
    yield tab.context
    gate.open.set()
    tab.context.remove_listener("weberror", at_error)
    forget(tab, live.url)
    assert faults == []


@pytest.fixture
def no_clips(live: Live, houses: list[House], gate: Gate) -> None:
    """What earlier tests have made, or are still making, is in the trash."""
    gate.open.set()
    jobs, deadline = houses[0].jobs, time.monotonic() + LONG / 1000
    while jobs.queue():
        assert time.monotonic() < deadline, "an earlier test's clips are still in the queue"
        time.sleep(0.05)
    for snap in jobs.history(limit=1000):
        jobs.trash(snap.id)


@pytest.fixture
def page(context: Any, tab: Any, live: Live, tmp_path: Path) -> Any:
    """The Create page with one character on its desk."""
    return desk(tab, live.url, tmp_path)


def desk(page: Any, url: str, folder: Path, name: str = "mia") -> Any:
    picture = Image.new("RGBA", (120, 160), (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((30, 20, 90, 150), fill=(200, 60, 60, 255))
    picture.save(folder / f"{name}.png")
    page.goto(url)
    page.locator(".tr-preset").first.wait_for()
    page.locator("#tr-prompt textarea:not([disabled])").wait_for()
    page.locator('input[data-testid="Upload character-upload-button"]').set_input_files(str(folder / f"{name}.png"))
    page.locator(".tr-card").wait_for()
    return page


def generate(page: Any, prompt: str = "Mia waves.") -> None:
    """Press Generate; returns once the clip is under way."""
    page.locator("#tr-prompt textarea").fill(prompt)
    before = page.evaluate("begun.length")
    page.locator("#tr-generate:not([disabled])").click()
    page.wait_for_function("(before) => begun.length > before", arg=before)


def made(page: Any) -> None:
    """The clip under way is done."""
    page.locator("#tr-generate:not([disabled])").wait_for()
    page.locator(".tr-facts").wait_for()


def clips(page: Any, count: int) -> Any:
    """Go to the Clips tab and wait until so many are there."""
    page.get_by_role("tab", name="Clips", exact=True).click()
    page.wait_for_function("(count) => document.querySelectorAll('.tr-clip').length === count", arg=count)
    return page.locator(".tr-clip")


def rows(page: Any, count: int) -> Any:
    page.wait_for_function("(count) => document.querySelectorAll('.tr-job').length === count", arg=count)
    return page.locator(".tr-job")


def drop(page: Any, path: Path, kind: str = "video/mp4", on: str = "#tr-prompt") -> None:
    data = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(DROP, {"data": data, "name": path.name, "type": kind, "on": on})


def newest_clip(houses: list[House]) -> Path:
    return houses[0].jobs.history(limit=1)[0].clip


def test_a_clip_from_generate_to_the_trash_and_back(page, no_clips, tmp_path):
    generate(page, "Mia waves at the sea.")
    made(page)
    generate(page, "Mia sleeps on the moon.")
    made(page)
    cards = clips(page, 2)
    assert "moon" in cards.first.inner_text()
    assert "sea" in cards.last.inner_text()

    cards.first.locator(".tr-poster").hover()
    page.wait_for_function("document.querySelector('.tr-poster video')?.currentTime > 0")
    page.locator("#tr-header").hover()
    page.wait_for_function("!document.querySelector('.tr-poster video')")

    cards.first.locator(".tr-poster").click()
    page.locator(".tr-look [data-action=compare]").click()
    page.locator(".tr-choose").wait_for()
    cards.last.locator(".tr-poster").click()
    page.locator('.tr-look:has-text("sea") [data-action=compare]').click()
    both = "[...document.querySelectorAll('.tr-pair video')]"
    page.wait_for_function(f"{both}.length === 2 && {both}.every((v) => v.currentTime > 0)")
    page.locator(".tr-compare input[type=range]").fill("500")
    page.wait_for_function("(() => { const [a, b] = document.querySelectorAll('.tr-pair video');"
                           " return a.paused && b.paused && Math.abs(a.currentTime - b.currentTime) < 0.01"
                           " && Math.abs(a.currentTime - a.duration / 2) < 0.05 })()")  # fmt: skip
    page.locator("[data-action=uncompare]").click()

    with page.expect_download() as got:
        page.locator(".tr-look [data-action=export][data-kind=frames]").click()
    assert got.value.suggested_filename.endswith(".zip")
    got.value.save_as(tmp_path / "frames.zip")
    assert len(zipfile.ZipFile(tmp_path / "frames.zip").namelist()) > 10
    page.locator('.tr-saved:has-text("Saved")').wait_for()
    with page.expect_download() as got:
        page.get_by_role("link", name="MP4", exact=True).click()
    assert got.value.suggested_filename.startswith("mia-waves-at-the-sea")

    page.locator(".tr-look [data-action=open]").click()
    page.locator("#tr-prompt").wait_for()
    page.wait_for_function("document.querySelector('#tr-prompt textarea').value === 'Mia waves at the sea.'")

    clips(page, 2)
    page.locator(".tr-look [data-action=delete]").click()
    clips(page, 1)
    assert page.locator(".tr-look").count() == 0
    page.locator("[data-action=restore]").click()
    clips(page, 2)


def test_search_and_favourites_find_a_clip(page, no_clips):
    for prompt in ("Mia waves at the sea.", "Mia sleeps on the moon."):
        generate(page, prompt)
        made(page)
    cards = clips(page, 2)
    page.locator("#tr-search textarea").fill("moon")
    clips(page, 1)
    page.locator("#tr-search textarea").fill("")
    clips(page, 2)
    cards.last.locator(".tr-star").click()
    page.locator(".tr-star[aria-pressed=true]").wait_for()
    page.get_by_label("Favourites").check()
    assert "sea" in clips(page, 1).inner_text()


def test_the_queue_is_reordered_held_and_goes_on(page, no_clips, gate):
    generate(page)
    made(page)
    clips(page, 1)
    page.locator(".tr-poster").click()
    gate.open.clear()
    for count in (1, 2, 3):
        page.locator(".tr-look [data-action=vary]").click()
        rows(page, count)
    jobs = page.locator(".tr-job")
    page.locator(".tr-job.running").wait_for()
    first, last = jobs.nth(1).get_attribute("data-id"), jobs.nth(2).get_attribute("data-id")
    jobs.nth(2).locator("[data-action=up]").click()
    page.wait_for_function("(id) => document.querySelectorAll('.tr-job')[1].dataset.id === id", arg=last)
    page.locator(f'.tr-job[data-id="{first}"] [data-action=hold]').click()
    page.locator(f'.tr-job.paused[data-id="{first}"]').wait_for()
    page.locator("[data-action=pause]").click()
    page.locator('.tr-queuehead:has-text("paused")').wait_for()
    gate.open.set()
    rows(page, 2)  # the running one ends, the others wait
    assert jobs.first.get_attribute("class") == "tr-job waiting"
    page.locator("[data-action=go]").click()
    rows(page, 1)
    clips(page, 3)
    jobs.first.locator("[data-action=remove]").click()
    rows(page, 0)


def test_a_press_that_lasts_longer_than_a_look_at_the_queue_counts(page, no_clips, gate, houses):
    generate(page)
    made(page)
    clips(page, 1)
    page.locator(".tr-poster").click()
    gate.open.clear()
    page.locator(".tr-look [data-action=vary]").click()
    page.locator(".tr-job.running").wait_for()
    box = page.locator(".tr-job.running [data-action=hold]").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    houses[0].jobs.pause_queue()  # there is something new to be drawn
    for _ in range(3):  # the page asks again once it has been answered
        with page.expect_request(re.compile("/queue/join")):
            pass
    page.mouse.up()
    page.locator(".tr-job.paused").wait_for()
    page.locator("[data-action=go]").click()
    page.locator(".tr-job [data-action=remove]").click()
    rows(page, 0)


def test_an_mp4_dropped_anywhere_opens_as_its_scene_and_others_are_refused(
    page, context, live, houses, tmp_path, moving_square
):
    generate(page, "Mia waves at the sea.")
    made(page)
    clip = newest_clip(houses)
    other = context.browser.new_context()
    other.set_default_timeout(LONG)
    fresh = other.new_page()
    fresh.goto(live.url)
    fresh.locator(".tr-board .tr-section").first.wait_for()
    fresh.locator("#tr-prompt textarea:not([disabled])").wait_for()
    drop(fresh, clip, on=".tr-board .tr-section")
    fresh.locator(".tr-card").wait_for()
    fresh.wait_for_function("document.querySelector('#tr-prompt textarea').value === 'Mia waves at the sea.'")
    foreign = tmp_path / "foreign.mp4"
    write_video(moving_square(), foreign, Video(width=96, height=64, frames=10))
    drop(fresh, foreign, on="#tr-header")
    fresh.locator('.toast-body:has-text("no scene of Troupe")').wait_for()
    assert fresh.locator(".tr-card").count() == 1
    (tmp_path / "notes.txt").write_text("hello")
    drop(fresh, tmp_path / "notes.txt", "text/plain", "#tr-header")
    assert fresh.url.rstrip("/") == live.url.rstrip("/")
    assert fresh.locator(".tr-card").count() == 1
    other.close()


def test_the_button_opens_an_mp4_too(page, houses):
    generate(page, "Mia looks up.")
    made(page)
    page.locator("#tr-prompt textarea").fill("Something else.")
    page.get_by_role("tab", name="Clips", exact=True).click()
    with page.expect_file_chooser() as asked:
        page.get_by_role("button", name="Open an MP4 as its scene").click()
    asked.value.set_files(str(newest_clip(houses)))
    page.wait_for_function("document.querySelector('#tr-prompt textarea')?.value === 'Mia looks up.'")


def test_two_tabs_and_a_refresh_show_the_same_job_and_the_title_says_how_far_it_is(page, context, live, gate):
    gate.open.clear()
    generate(page)
    page.wait_for_function("/^\\d+ % · Troupe$/.test(document.title)")
    second = context.new_page()
    second.goto(live.url)
    second.locator("#tr-progress [role=progressbar]").wait_for()
    page.reload()
    page.locator("#tr-progress [role=progressbar]").wait_for()
    jobs = {each.locator("#tr-progress [data-job]").get_attribute("data-job") for each in (page, second)}
    assert len(jobs) == 1
    gate.open.set()
    for each in (page, second):
        each.wait_for_function("document.title === 'Done · Troupe'")
    page.keyboard.press("Shift")
    page.wait_for_function("document.title === 'Troupe'")


def test_a_tab_that_is_looked_at_again_shows_what_another_one_has_started(page, context, live, gate):
    page.evaluate(TOLD)
    second = context.new_page()
    second.goto(live.url)
    second.locator(".tr-card").wait_for()
    page.evaluate("hide(true)")
    gate.open.clear()
    generate(second)
    second.locator("#tr-progress [role=progressbar]").wait_for()
    assert page.locator("#tr-progress [role=progressbar]").count() == 0
    page.evaluate("hide(false)")
    page.locator("#tr-progress [role=progressbar]").wait_for()
    gate.open.set()
    made(second)


def test_the_end_is_told_in_a_hidden_tab_to_who_has_asked_and_to_nobody_else(page, gate):
    asked: list[str] = []

    def hear(request: Any) -> None:
        if "/state" in request.url:
            asked.append(request.url)

    page.on("request", hear)
    page.evaluate(TOLD)
    for wanted in (False, True):
        gate.open.clear()
        generate(page)
        page.locator("#tr-progress [role=progressbar]").wait_for()
        page.locator("#tr-ending input").set_checked(wanted)
        if wanted:
            page.wait_for_function("localStorage.getItem('troupe-tell') === '1'")
            with page.expect_request(re.compile(r"/clips/[0-9a-f]{32}/state")):
                page.evaluate("hide(true)")
        else:
            page.evaluate("hide(true)")
            page.wait_for_function("document.title === 'Working · Troupe'")
        gate.open.set()
        if wanted:
            page.wait_for_function("said.length === 1 && document.title === 'Done · Troupe'")
        page.evaluate("hide(false)")
        made(page)
        assert page.evaluate("said") == (["Your clip is done."] if wanted else [])
        assert bool(asked) is wanted
    page.remove_listener("request", hear)


def test_a_phone_shows_everything_without_scrolling_sideways(page, no_clips, gate):
    generate(page)
    made(page)
    gate.open.clear()
    generate(page)
    page.set_viewport_size({"width": 390, "height": 844})
    clips(page, 1)
    page.locator(".tr-poster").click()
    page.locator(".tr-look [data-action=vary]").click()
    rows(page, 2)
    page.locator("#tr-tidying button").first.click()
    page.locator("#tr-tidying dl").wait_for()
    wide = (
        "[...document.querySelectorAll('#tr-rooms *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1"
    )
    assert page.evaluate(f"{wide} && e.offsetParent && getComputedStyle(e).position !== 'absolute')"
                         ".map((e) => e.className)") == []  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".tr-job.waiting [data-action=remove]").click()
    rows(page, 1)


def test_housekeeping_says_what_would_go_and_does_it_when_told(page, no_clips):
    generate(page)
    made(page)
    clips(page, 1)
    page.locator("#tr-tidying button").first.click()
    page.locator("#tr-tidying dl").wait_for()
    page.get_by_label("Keep at most so many GB of clips").fill("0.000001")
    page.locator('#tr-tidy-line:has-text("1 clip")').wait_for()
    assert page.locator(".tr-clip").count() == 1
    page.locator("#tr-tidy").click()
    page.locator('#tr-tidy-line:has-text("went to the trash")').wait_for()
    page.get_by_label("Keep at most so many GB of clips").fill("0")
    page.locator('#tr-tidy-line:has-text("Nothing would go")').wait_for()
    page.get_by_role("tab", name="Create", exact=True).click()
    clips(page, 0)


class Server:
    """A Troupe in a process of its own, which can be killed."""

    def __init__(self, outputs: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        command = [sys.executable, "-m", "tests.clips_room", str(outputs), str(port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        waited = threading.Event()
        for _ in range(600):
            if self._process.poll() is None and self._answers():
                return
            waited.wait(0.2)
        self.kill()
        raise AssertionError("the server did not come up")

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def test_a_clip_that_was_cut_off_when_troupe_was_killed_is_found_and_goes_on(browser, tmp_path):
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    context.add_init_script(BEGUN)
    context.set_default_timeout(LONG)
    running = Server(outputs, port)
    try:
        page = desk(context.new_page(), running.url, tmp_path)
        generate(page)
        page.locator('#tr-progress [data-state="running"]').wait_for()
        running.kill()
        page.goto("about:blank")  # an open page loads itself anew once the server answers, whatever else it is told
        (outputs / "open").touch()
        running = Server(outputs, port)
        page.goto(running.url)
        page.get_by_role("tab", name="Clips", exact=True).click()
        rows(page, 0)  # nobody had to ask for it
        page.wait_for_function("document.querySelector('.tr-clip img')")
    finally:
        context.close()
        running.kill()
