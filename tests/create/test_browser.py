"""The page in a real browser, as a stranger would use it: click, drag, refresh, phone, bad files."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from app import server
from app.jobs.queue import STOPPED, JobQueue
from app.server import House
from engine.media.video import read_frames, read_scene
from tests.live import OPEN, Live, forget, serving, upload

LONG = 120_000  # milliseconds: CI shares two cores
CUT_OFF = re.compile(r"AbortError|Connection errored out|BrokenConnectionError")


@pytest.fixture(scope="module")
def houses() -> list[House]:
    """The one that was opened."""
    return []


@pytest.fixture(scope="module")
def on_air() -> threading.Event:
    """While it is cleared, no clip is heard of further than its first word: however short, it is under way."""
    event = threading.Event()
    event.set()
    return event


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, houses: list[House], on_air: threading.Event) -> Iterator[Live]:
    def open_house(outputs: Path, really: Callable = server.open_house) -> House:
        houses.append(really(outputs))
        return houses[-1]

    def engine_of(outputs: Path, really: Callable = server._engine_of) -> Any:
        engine = really(outputs)
        engine.render = partial(heard_on_air, engine.render, on_air)
        return engine

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server, "open_house", open_house)
        patched.setattr(server, "_engine_of", engine_of)
        with serving(tmp_path_factory.mktemp("outputs")) as found:
            yield found
            on_air.set()


def heard_on_air(render: Callable, on_air: threading.Event, request: Any, on_progress: Callable, stop: Callable) -> Any:
    """Make a clip, and wait after each word of it until `on_air` is set."""

    def tell(progress: Any) -> None:
        on_progress(progress)
        while not on_air.wait(0.01) and not stop():
            pass

    return render(request, tell, stop)


@pytest.fixture
def jobs(live: Live, houses: list[House]) -> JobQueue:
    return houses[0].jobs


@dataclass(frozen=True)
class Visit:
    """A page, and the folder of its desk."""

    page: Any
    desk: Path
    faults: list[str]

    def reload(self) -> None:
        """Load the page anew, in the middle of whatever it waits for: Gradio tells the console of what it was cut off
        from by that, which is no fault."""
        before = len(self.faults)
        self.page.reload()
        self.faults[before:] = [said for said in self.faults[before:] if not CUT_OFF.search(said)]

    def kept(self) -> dict[str, Any]:
        """What the desk has on the disk."""
        file = self.desk / "desk.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"sheet": {}, "cards": []}

    def until(self, holds: Callable[[dict[str, Any]], object]) -> None:
        """Wait until what was done on the page has reached the desk."""
        deadline = time.monotonic() + LONG / 1000
        while not holds(self.kept()):
            assert time.monotonic() < deadline, f"it did not reach the desk: {self.kept()}"
            self.page.wait_for_timeout(50)

    def until_sheet(self, **values: object) -> None:
        self.until(lambda kept: {name: kept["sheet"].get(name) for name in values} == values)


@pytest.fixture
def visit(tab: Any, live: Live, on_air: threading.Event) -> Iterator[Visit]:
    """A page in a browser without a memory of other tests, which must end without an error of its script."""
    faults: list[str] = []

    def at_error(error: Any) -> None:
        faults.append(str(error))

    def at_word(said: Any) -> None:
        if said.type == "error":
            faults.append(said.text)

    tab.on("pageerror", at_error)
    tab.on("console", at_word)
    before = set((live.outputs / "desks").iterdir())
    tab.goto(live.url)
    tab.locator(".tr-preset").first.wait_for()
    tab.locator(OPEN).wait_for()
    (desk,) = set((live.outputs / "desks").iterdir()) - before
    yield Visit(tab, desk, faults)
    on_air.set()
    tab.remove_listener("pageerror", at_error)
    tab.remove_listener("console", at_word)
    forget(tab, live.url)
    assert faults == []


@pytest.fixture
def page(visit: Visit) -> Any:
    return visit.page


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, Path]:
    """A bottle on white, a person-like figure with alpha, a street, and a text that says it is a PNG."""
    paths = {name: tmp_path / f"{name}.png" for name in ("bottle", "dancer", "street", "broken")}
    bottle = Image.new("RGB", (300, 400), "white")
    ImageDraw.Draw(bottle).rounded_rectangle((100, 80, 200, 360), 30, fill=(30, 120, 90))
    bottle.save(paths["bottle"])
    dancer = Image.new("RGBA", (240, 480), (0, 0, 0, 0))
    ImageDraw.Draw(dancer).ellipse((80, 20, 160, 120), fill=(220, 170, 140, 255))
    ImageDraw.Draw(dancer).rounded_rectangle((60, 120, 180, 460), 40, fill=(180, 40, 90, 255))
    dancer.save(paths["dancer"])
    shade = np.linspace(90, 200, 360)[:, None, None].repeat(640, 1) * np.array([0.8, 0.9, 1.0])
    Image.fromarray(shade.astype(np.uint8)).save(paths["street"])
    paths["broken"].write_text("I am not a picture")
    return paths


def pick(page: Any, title: str) -> None:
    page.locator(".tr-preset", has=page.get_by_text(title, exact=True)).click()
    page.locator(".tr-line", has_text=f"{title}: ").wait_for()  # the server's answer; pressed it is at once
    page.locator(".tr-card").first.wait_for()


def generate(page: Any) -> str:
    """Press Generate, wait for the new clip to play, and return its address."""
    before = page.locator("#tr-video video").get_attribute("src") if page.locator("#tr-video video").count() else None
    page.get_by_role("button", name="Generate", exact=True).click()
    page.wait_for_function(
        "(before) => { const v = document.querySelector('#tr-video video');"
        " return v && v.duration > 0 && v.currentSrc && v.getAttribute('src') !== before }",
        arg=before,
    )
    return page.locator("#tr-video video").get_attribute("src")


def newest_clip(jobs: JobQueue) -> Path:
    return jobs.history(limit=1)[0].clip


def red_centre(frame: np.ndarray) -> float:
    """The mean column of what is red in a frame."""
    return float(np.argwhere((frame[..., 0] > 140) & (frame[..., 1] < 90))[:, 1].mean())


def seconds(visit: Visit, wanted: int) -> None:
    """Choose the clip's length."""
    visit.page.locator("#tr-seconds input[type=number]").fill(str(wanted))
    visit.page.locator("#tr-seconds input[type=number]").press("Enter")
    visit.until_sheet(seconds=wanted)


def drag(visit: Visit, start: tuple[float, float], by: tuple[float, float], steps: int) -> None:
    """Move who stands at `start` by so many pixels; returns once the desk has it and the stage shows the answer."""
    page, before = visit.page, visit.kept()["cards"]
    actor = page.locator(".tr-actor")
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + by[0], start[1] + by[1], steps=steps)
    actor.evaluate("actor => { actor.dataset.before = '1' }")
    page.mouse.up()
    visit.until(lambda kept: kept["cards"] != before)
    page.locator(".tr-actor:not([data-before])").wait_for()


def test_one_click_and_generate_give_a_clip_that_really_plays(page, jobs):
    pick(page, "Model holds product")
    generate(page)
    page.wait_for_function("document.querySelector('#tr-video video').currentTime > 0.3")
    state = page.evaluate("(() => { const v = document.querySelector('#tr-video video');"
                          " return [v.duration, v.videoWidth, v.videoHeight, v.paused] })()")  # fmt: skip
    assert state == [pytest.approx(5.4, abs=0.2), 832, 480, False]
    frames = [frame for number, frame in enumerate(read_frames(newest_clip(jobs))) if number % 20 == 0]
    assert min(np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)) > 0.3
    said = page.locator(".tr-result").inner_text()
    assert "draft" in said.lower()
    assert str(read_scene(newest_clip(jobs)).sampling.seed) in said


def test_a_clip_that_cannot_be_shown_says_why_and_is_shown_when_it_can_be(visit, page, jobs):
    pick(page, "Product hero turn")
    seconds(visit, 1)
    generate(page)
    clip, again = newest_clip(jobs), page.get_by_role("button", name="Try again")
    whole, away = clip.read_bytes(), clip.with_suffix(".away")
    clip.write_bytes(bytes(len(whole)))
    visit.reload()
    page.locator("#tr-video").get_by_text("Its file is damaged.").wait_for()
    page.get_by_role("tab", name="Clips", exact=True).click()
    page.locator(".tr-poster").first.click()
    page.locator(".tr-look").get_by_text("Its file is damaged.").wait_for()
    clip.write_bytes(whole)  # such as a folder in a cloud that has brought it by now
    page.locator(".tr-look").get_by_role("button", name="Try again").click()
    page.wait_for_function("document.querySelector('.tr-lookclip video')?.currentTime > 0.1")
    page.get_by_role("tab", name="Create", exact=True).click()
    clip.rename(away)
    again.click()
    page.locator("#tr-video").get_by_text("It was moved or deleted.").wait_for()
    away.rename(clip)
    again.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#tr-video video')?.currentTime > 0.1")
    assert page.evaluate("document.activeElement.tagName") == "VIDEO"
    visit.faults[:] = [said for said in visit.faults if "404" not in said]  # the one that was moved


def test_nothing_jumps_when_the_next_clip_arrives(visit, page):
    pick(page, "Product hero turn")
    seconds(visit, 1)
    first = generate(page)
    page.evaluate(
        "() => { const place = document.querySelector('.tr-film'); window.film = place.querySelector('video');"
        " window.low = place.offsetHeight;"
        " const look = () => { low = Math.min(low, place.offsetHeight); requestAnimationFrame(look); }; look(); }"
    )
    before = page.evaluate("low")
    page.get_by_role("button", name="Again with another seed").click()
    page.wait_for_function(
        "(first) => film.isConnected && film.getAttribute('src') !== first && film.currentTime > 0.1", arg=first
    )
    assert before > 300
    assert page.evaluate("low") == before


def test_a_preset_is_told_before_the_generate_that_was_pressed_right_after_it(page, live):
    pick(page, "Model holds product")
    page.locator("#tr-generate:not([disabled])").wait_for()
    handlers = {number: fn.api_name for number, fn in live.blocks.fns.items()}
    told: list[str] = []

    def hear(each: Any) -> None:
        if "/queue/join" in each.url:
            told.append(handlers[each.post_data_json["fn_index"]])

    page.on("request", hear)
    page.evaluate(
        "[[...document.querySelectorAll('.tr-preset')].find((card) => card.innerText.includes('Neon night')),"
        " document.querySelector('#tr-generate')].forEach((each) => each.click())"
    )
    page.locator("#tr-video video").wait_for(state="attached")
    page.remove_listener("request", hear)
    assert [each for each in told if each in ("page_choose", "page_generate")] == ["page_choose", "page_generate"]


def test_an_upload_shows_its_cut_out_and_a_drag_on_the_stage_changes_the_clip(visit, page, jobs, photos):
    upload(page, "character", photos["dancer"])
    page.locator(".tr-character .tr-card").wait_for()
    upload(page, "background", photos["street"])
    page.locator(".tr-background .tr-card").wait_for()
    assert page.locator(".tr-character .tr-thumb img").get_attribute("src").startswith("data:image/webp")
    page.locator("#tr-lock input").check()
    page.locator("#tr-prompt textarea").fill("Dancer stands in the street.")
    visit.until_sheet(prompt="Dancer stands in the street.", keep_seed=True)
    seconds(visit, 1)
    generate(page)
    first = next(read_frames(newest_clip(jobs)))

    page.get_by_role("tab", name="Stage").click()
    page.locator(".tr-actor").wait_for()
    spot = page.locator(".tr-actor").bounding_box()
    frame = page.locator(".tr-frame").bounding_box()
    x, y = spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2
    drag(visit, (x, y), (-frame["width"] * 0.3, 0), steps=6)
    generate(page)
    scene = read_scene(newest_clip(jobs))
    assert scene.cast[0].placement.x == pytest.approx(0.2, abs=0.06)
    moved = red_centre(first) - red_centre(next(read_frames(newest_clip(jobs))))
    assert moved > 120  # pixels: the dancer's red dress moved left in the clip, too


def test_keys_move_scale_and_flip_an_actor_and_the_desk_remembers(visit, page, photos):
    upload(page, "character", photos["dancer"])
    actor = page.locator(".tr-actor")
    actor.wait_for()
    before = actor.get_attribute("aria-label")
    actor.focus()
    for key in ("ArrowLeft", "ArrowLeft", "+", "f"):
        page.keyboard.press(key)
    visit.until(lambda kept: (kept["cards"][0]["placement"] or {}).get("flip"))
    after = page.locator(".tr-actor").get_attribute("aria-label")
    across, tall = (
        [int(re.search(rf"(\d+) percent {word}", label)[1]) for label in (before, after)] for word in ("across", "tall")
    )
    assert across[0] - across[1] == 2  # two steps of a percent, however slowly they came
    assert tall[1] > tall[0]
    assert after.endswith("flipped")
    visit.reload()
    page.locator(".tr-actor").wait_for()
    page.locator(f'.tr-actor[aria-label="{after}"]').wait_for()


def test_another_side_comes_to_its_card_and_into_the_clip_and_can_be_removed_and_brought_back(
    visit, page, jobs, photos
):
    upload(page, "character", photos["dancer"])
    card = page.locator(".tr-character .tr-card")
    with page.expect_file_chooser() as asked:
        card.get_by_role("button", name="from another side").click()
    asked.value.set_files([str(photos["broken"])])
    refused = page.locator(".tr-card + .tr-coming", has_text="broken.png is text")  # beside whom it was meant for
    refused.get_by_role("button", name="Do not bring broken.png").click()
    refused.wait_for(state="detached")
    with page.expect_file_chooser() as asked:
        card.get_by_role("button", name="from another side").click()
    asked.value.set_files([str(photos["bottle"])])
    sides = card.get_by_role("button", name="Remove this view of Dancer")
    sides.wait_for()
    page.locator(".tr-coming").wait_for(state="detached")
    visit.reload()
    sides.wait_for()
    assert page.locator(".tr-card").count() == 1
    page.locator("#tr-prompt textarea").fill("Dancer waves.")
    visit.until_sheet(prompt="Dancer waves.")
    seconds(visit, 1)
    generate(page)
    assert len(read_scene(newest_clip(jobs)).cast[0].views) == 1
    sides.click()
    sides.wait_for(state="detached")
    page.get_by_role("button", name="Undo removing a view of Dancer").click()
    sides.wait_for()


def test_the_linter_names_who_is_missing_and_a_chip_writes_the_name(page, photos):
    upload(page, "character", photos["dancer"])
    upload(page, "object", photos["bottle"])
    page.locator(".tr-object .tr-card").wait_for()
    page.locator("#tr-prompt textarea").fill("Dancer holds it high.")
    page.get_by_text("The prompt never mentions Bottle.").wait_for()
    page.locator(".tr-chip", has_text="Bottle").click()
    page.get_by_text("Everyone is mentioned.").wait_for()
    assert "Bottle" in page.locator("#tr-prompt textarea").input_value()


def test_renaming_someone_renames_them_in_the_prompt(page, photos):
    upload(page, "character", photos["dancer"])
    page.locator(".tr-card").wait_for()
    page.locator("#tr-prompt textarea").fill("Dancer walks.")
    page.get_by_text("Everyone is mentioned.").wait_for()
    page.locator(".tr-name").fill("Mia <b>")
    page.locator(".tr-name").press("Enter")
    page.wait_for_function("document.querySelector('#tr-prompt textarea').value === 'Mia <b> walks.'")
    assert page.locator(".tr-chip b").count() == 0  # a name is text, never markup


def test_stop_ends_the_job_in_the_middle_and_keeps_the_cast(visit, page, jobs):
    pick(page, "Dance floor")
    seconds(visit, 60)  # much longer than it takes to press a button
    page.get_by_role("button", name="Generate", exact=True).click()
    page.locator('#tr-progress [role="progressbar"]').wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("Stopped.").wait_for()
    job = jobs.history(limit=1)[0]
    assert (job.state, job.owner, job.clip) == (STOPPED, visit.desk.name, None)
    assert list(jobs.scene_file(job.id).parent.glob("*.mp4")) == []
    assert page.locator(".tr-card").count() > 1
    page.locator("#tr-generate:not([disabled])").wait_for()


def test_a_refresh_in_the_middle_finds_the_job_and_the_whole_desk_again(visit, page, on_air):
    pick(page, "Performance wide")
    seconds(visit, 1)
    generate(page)
    seconds(visit, 2)
    prompt = page.locator("#tr-prompt textarea").input_value()
    on_air.clear()
    page.get_by_role("button", name="Generate", exact=True).click()
    page.locator('#tr-progress [role="progressbar"]').wait_for()
    visit.reload()
    page.locator(".tr-card").first.wait_for()
    page.locator(OPEN).wait_for()
    assert page.locator("#tr-prompt textarea").input_value() == prompt
    page.locator('#tr-progress [role="progressbar"]').wait_for()
    page.wait_for_function("Math.abs(document.querySelector('#tr-video video')?.duration - 1) < 0.3")  # the last clip
    on_air.set()
    page.wait_for_function("Math.abs(document.querySelector('#tr-video video')?.duration - 2) < 0.3")


def test_a_second_tab_of_the_same_browser_sees_the_same_desk(page, live, photos):
    upload(page, "object", photos["bottle"])
    page.locator(".tr-card").wait_for()
    other = page.context.new_page()
    other.goto(live.url)
    other.locator(".tr-card .tr-name").wait_for()
    assert other.locator(".tr-name").input_value() == "Bottle"


def test_another_browser_starts_with_an_empty_desk(page, browser, live, photos):
    upload(page, "object", photos["bottle"])
    page.locator(".tr-card").wait_for()
    stranger = browser.new_context().new_page()
    stranger.set_default_timeout(LONG)
    stranger.goto(live.url)
    stranger.locator(".tr-preset").first.wait_for()
    stranger.locator(OPEN).wait_for()
    assert stranger.locator(".tr-card").count() == 0
    stranger.context.close()


def test_a_bad_file_shows_its_message_and_the_rest_of_the_cast_stays(page, photos):
    upload(page, "character", photos["dancer"])
    page.locator(".tr-card").wait_for()
    upload(page, "character", photos["broken"])
    alert = page.locator("#tr-cast-message [role=alert]")
    alert.wait_for()
    assert "broken.png" in alert.inner_text()
    assert page.locator(".tr-card").count() == 1


def test_a_phone_needs_no_sideways_scrolling_and_the_buttons_stay_in_reach(browser, live):
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(LONG)
    page.goto(live.url)
    page.locator(".tr-preset").first.wait_for()
    pick(page, "Vertical ad")
    page.wait_for_function("(f => f.offsetHeight > f.offsetWidth)(document.querySelector('#tr-stage .tr-frame'))")
    page.wait_for_function("Array.from(document.images).every((image) => image.complete || image.loading === 'lazy')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    overflowing = page.evaluate(
        "[...document.querySelectorAll('#tr-studio *')].filter(e => e.getBoundingClientRect().right > 361 &&"
        " !e.closest('.tr-strip, .tr-frame, .tr-offstage') && e.offsetParent).map(e => e.className)"
    )
    assert overflowing == []
    box = page.get_by_role("button", name="Generate", exact=True).bounding_box()
    assert box["y"] + box["height"] <= 740
    context.close()


def test_the_stage_and_generate_stay_in_view_while_the_cast_is_scrolled(page):
    pick(page, "Performance wide")
    page.wait_for_function("document.documentElement.scrollHeight > innerHeight + 700")
    page.mouse.move(300, 500)
    page.mouse.wheel(0, 700)
    page.wait_for_function("scrollY > 400")
    assert page.locator(".tr-frame").bounding_box()["y"] > 0
    assert page.get_by_role("button", name="Generate", exact=True).bounding_box()["y"] < 860


def test_somebody_without_pictures_takes_some_of_the_sample_cast(page):
    page.get_by_text("No pictures at hand?").click()
    page.get_by_role("button", name="Add fox").click()
    page.locator(".tr-character .tr-card").wait_for()
    page.get_by_role("button", name="Add concert stage").click()
    page.locator(".tr-background .tr-card").wait_for()
    assert page.locator(".tr-actor").count() == 1
    pick(page, "Neon night")  # a preset directs a cast that was chosen; it does not replace it
    assert page.locator(".tr-character .tr-name").input_value() == "fox"


def test_a_preset_brings_a_background_to_a_cast_of_ones_own_and_can_be_undone(page, photos):
    upload(page, "character", photos["dancer"])
    page.locator(".tr-card").wait_for()
    page.locator("#tr-prompt textarea").fill("Dancer waits for the bus.")
    page.get_by_text("Everyone is mentioned.").wait_for()
    pick(page, "Neon night")
    page.locator(".tr-background .tr-card").wait_for()
    assert page.locator(".tr-character .tr-name").input_value() == "Dancer"
    page.get_by_role("button", name="Undo picking a preset").click()
    page.wait_for_function("document.querySelector('#tr-prompt textarea').value === 'Dancer waits for the bus.'")
    assert page.locator(".tr-card").count() == 1


def test_of_several_quick_clicks_on_presets_the_last_one_counts(visit, page):
    for title in ("Neon night", "Dream walk", "Vertical ad"):
        page.locator(".tr-preset", has=page.get_by_text(title, exact=True)).click()
    page.locator(".tr-card").first.wait_for()
    page.locator(".tr-line", has_text="Vertical ad").wait_for()
    visit.until_sheet(preset="ecommerce/vertical_ad", format="9:16")
    page.wait_for_function("(f => f.offsetHeight > f.offsetWidth)(document.querySelector('#tr-stage .tr-frame'))")
    assert "Vertical ad" in page.locator(".tr-preset[aria-pressed=true]").inner_text()
    assert page.locator("#tr-stage .tr-frame").evaluate("frame => frame.offsetHeight > frame.offsetWidth")


def test_a_removed_card_comes_back_with_undo(page, photos):
    upload(page, "object", photos["bottle"])
    page.locator(".tr-card").wait_for()
    page.get_by_role("button", name="Remove Bottle").click()
    page.get_by_role("button", name="Undo removing Bottle").click()
    page.locator(".tr-object .tr-card").wait_for()
    assert page.locator(".tr-thumb img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_a_seed_that_was_typed_is_the_seed_that_is_used_once(visit, page, jobs):
    pick(page, "Model holds product")
    page.locator("#tr-seed input").fill("777")
    page.locator("#tr-seed input").press("Tab")
    visit.until_sheet(seed=777, fresh_seed=True)
    seconds(visit, 1)
    generate(page)
    assert read_scene(newest_clip(jobs)).sampling.seed == 777
    generate(page)
    assert read_scene(newest_clip(jobs)).sampling.seed != 777


def test_nobody_can_be_dragged_to_where_they_cannot_be_grabbed_again(visit, page, photos):
    upload(page, "character", photos["dancer"])
    page.locator(".tr-actor").wait_for()
    for dx, dy in ((0, 900), (1200, 0), (-2400, -900)):
        spot = page.locator(".tr-actor").bounding_box()
        frame = page.locator(".tr-frame").bounding_box()
        x, y = (  # the middle of what can be seen of them
            (max(spot[at], frame[at]) + min(spot[at] + spot[size], frame[at] + frame[size])) / 2
            for at, size in (("x", "width"), ("y", "height"))
        )
        drag(visit, (x, y), (dx, dy), steps=5)
        now, frame = page.locator(".tr-actor").bounding_box(), page.locator(".tr-frame").bounding_box()
        shown_x = min(now["x"] + now["width"], frame["x"] + frame["width"]) - max(now["x"], frame["x"])
        shown_y = min(now["y"] + now["height"], frame["y"] + frame["height"]) - max(now["y"], frame["y"])
        assert shown_x > 0.1 * now["width"]
        assert shown_y > 0.1 * now["height"]
        assert page.locator(".tr-frame").evaluate("frame => frame.scrollTop") == 0


def test_a_drop_with_one_file_that_is_too_large_takes_the_others(page, photos, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(photos["bottle"].read_bytes() + b"0" * (41 * 1024 * 1024))
    upload(page, "object", large, photos["bottle"])
    page.locator(".tr-object .tr-card").wait_for()
    page.locator("#tr-cast-message", has_text="large.png").wait_for()


def test_a_fault_inside_is_said_on_the_page(visit, page, photos):
    upload(page, "character", photos["dancer"])
    page.locator(".tr-card").wait_for()
    for file in list(visit.desk.glob("*.png")):
        file.unlink()
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_text("cannot be used").wait_for()


def test_every_control_of_the_page_can_be_reached_and_named_by_keyboard(page):
    pick(page, "Model holds product")
    reached = set()
    for _ in range(90):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(
            "(() => { const e = document.activeElement || document.body; return e.getAttribute('aria-label')"
            " || e.innerText || e.labels?.[0]?.innerText || e.tagName })()"))  # fmt: skip
    wanted = ("Model holds product", "Remove", "Name", "Use the whole photo of", "Touch up", "Add a character",
              "Generate", "Prompt", "Seed", "percent across")  # fmt: skip
    missing = [each for each in wanted if not any(each in str(name) for name in reached)]
    assert missing == []


def test_the_page_asks_nothing_of_any_other_host(browser, live):
    context = browser.new_context()
    context.set_default_timeout(LONG)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(live.url)
    page.locator(".tr-preset").first.wait_for()
    pick(page, "Neon night")
    strangers = [url for url in asked if not re.match(rf"({re.escape(live.url)}|data:|blob:)", url)]
    assert strangers == []
    context.close()


def test_the_brush_removes_what_is_painted_red(visit, page, photos):
    upload(page, "character", photos["dancer"])
    page.locator(".tr-card").wait_for()
    before = page.locator(".tr-thumb img").get_attribute("src")
    page.get_by_role("button", name=re.compile("Touch up")).click()
    canvas = page.locator("#tr-editor canvas").first
    canvas.wait_for()
    page.locator("#tr-brush").get_by_role("button", name="Apply").wait_for()
    until_red(page, canvas, at_least=120)  # the dancer's dress is seen
    choose_red(page)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8, steps=12)
    page.mouse.up()
    until_red(page, canvas, at_least=215)  # the stroke is seen
    page.locator("#tr-brush").get_by_role("button", name="Apply").click()
    page.wait_for_function("(before) => document.querySelector('.tr-thumb img').src !== before", arg=before)
    (kept,) = visit.desk.glob("*.cutout.png")
    with Image.open(kept) as picture:
        alpha = np.asarray(picture.getchannel("A"))
    middle = slice(alpha.shape[1] // 2 - 3, alpha.shape[1] // 2 + 3)
    assert alpha[alpha.shape[0] // 2, middle].max() < 30  # painted away
    assert alpha[alpha.shape[0] // 2, alpha.shape[1] // 3] > 220  # beside the stroke nothing was lost


def until_red(page: Any, canvas: Any, at_least: int) -> None:
    """Wait until the canvas's middle is seen to be as red as that."""
    deadline = time.monotonic() + LONG / 1000
    while True:
        seen = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
        red, green, _ = seen.getpixel((seen.width // 2, seen.height // 2))
        if red >= at_least and green < 110:
            return
        assert time.monotonic() < deadline, f"the middle of the canvas is {red, green}"
        page.wait_for_timeout(100)


def choose_red(page: Any) -> None:
    page.locator("#tr-editor").get_by_role("button", name="Color").click()
    page.locator("#tr-editor button.color").nth(1).click()
    page.locator("#tr-editor").get_by_role("button", name="Brush", exact=True).click()
