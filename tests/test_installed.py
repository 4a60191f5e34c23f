"""Troupe where people install it: a download below the home folder, started as the README says, in a real browser; and
outputs in every kind of place. Nothing here lies in the system's temp folder, unless a test is about that one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio import networking
from gradio_client import Client, handle_file

from app.guard.access import Terms
from app.ui.own import WEB
from engine.media.video import read_scene
from tests.live import Live, lacking, serving
from tests.places import HOME, NAME, REPO, a_place, copy_project, files_in, is_below, read_only
from tests.served import hero, served

LONG = 300_000  # milliseconds: CI shares two cores
PASSWORD = "kept-for-the-tests"
CARD, OPEN = ".tr-card", "#tr-prompt textarea:not([disabled])"

# Whether a film really moves: what is seen of it now and half a second later is not the same.
MOVES = """async (which) => {
  const film = document.querySelector(which), canvas = document.createElement('canvas');
  const look = () => {
    [canvas.width, canvas.height] = [64, 64];
    const pen = canvas.getContext('2d');
    pen.drawImage(film, 0, 0, 64, 64);
    return pen.getImageData(0, 0, 64, 64).data;
  };
  const before = look(), since = film.currentTime;
  for (let tries = 0; tries < 600; tries++) {
    await new Promise((done) => setTimeout(done, 100));
    if (Math.abs(film.currentTime - since) > 0.5) break;
  }
  return look().reduce((sum, value, i) => sum + Math.abs(value - before[i]), 0) / 64 / 64;
}"""


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    """A download of Troupe in a folder below the home folder, and nothing made in it yet."""
    if not os.access(HOME, os.W_OK):
        lacking(f"the home folder {HOME} cannot be written, and this is about Troupe in it")
    with a_place([HOME]) as place:
        yield copy_project(REPO, place / NAME / "troupe")


@contextmanager
def visitor(browser: Any, url: str, password: str = "") -> Iterator[Any]:
    """A page in a browser of its own, which ends without an error of its scripts or of what it has asked for."""
    context = browser.new_context(viewport={"width": 1366, "height": 768}, accept_downloads=True)
    context.set_default_timeout(LONG)
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)  # the door of a shared server answers 401
    page.on("response", lambda answer: faults.append(answer.url) if answer.status >= 400 else None)
    if password:
        page.get_by_label("Name").fill("guest")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Open").click()
    page.locator(OPEN).wait_for()
    yield page
    context.close()
    assert faults == []


def plays(page: Any, which: str = "#tr-video video") -> str:
    """Wait until a film is seen to move; its job."""
    page.wait_for_function(
        "(which) => { const film = document.querySelector(which); return film && film.currentTime > 0.1 }", arg=which
    )
    assert page.evaluate(MOVES, which) > 1
    return page.locator(which).get_attribute("src").split("/")[1]


def short(page: Any) -> None:
    """Choose a clip of two seconds: no longer than is needed to see that it moves."""
    page.locator("#tr-seconds input[type=number]").fill("2")
    page.locator("#tr-seconds input[type=number]").press("Enter")


def saved(page: Any, link: Any, folder: Path) -> Path:
    with page.expect_download() as got:
        link.click()
    got.value.save_as(folder / got.value.suggested_filename)
    return folder / got.value.suggested_filename


def test_the_main_job_in_a_download_below_the_home_folder(project, browser, tmp_path):
    before = files_in(project)
    with served(None, port=-1, project=project) as troupe, visitor(browser, troupe.url) as page:
        photo = project / "assets" / "samples" / "photos" / "chelsea.jpg"
        page.locator('input[data-testid="Upload character-upload-button"]').set_input_files(str(photo))
        page.locator(CARD).wait_for()
        short(page)
        page.locator("#tr-prompt textarea").fill("Chelsea dances.")
        page.locator("#tr-generate:not([disabled])").click()
        job = plays(page)
        assert page.locator("#tr-progress [role=progressbar]").count() == 0
        clip = saved(page, page.get_by_role("link", name="Download"), tmp_path)
        assert read_scene(clip).prompt == "Chelsea dances."

        page.reload()
        assert plays(page) == job
        assert page.locator(CARD).count() == 1
        assert page.locator(OPEN).input_value() == "Chelsea dances."

        page.get_by_role("tab", name="Clips", exact=True).click()
        page.wait_for_function("document.querySelector('.tr-poster img')?.naturalWidth > 0")
        page.locator(".tr-poster").first.click()
        assert plays(page, ".tr-lookclip video") == job
        for kind, ending in (("gif", ".gif"), ("last", ".png")):
            picture = saved(page, page.locator(f".tr-look [data-action=export][data-kind={kind}]"), tmp_path)
            assert (picture.suffix, picture.stat().st_size > 1000) == (ending, True)
            page.locator('.tr-saved:has-text("Saved")').wait_for()

        page.get_by_role("tab", name="Create", exact=True).click()
        page.locator("#tr-prompt textarea").fill("Something else.")
        page.get_by_role("tab", name="Clips", exact=True).click()
        with page.expect_file_chooser() as asked:
            page.get_by_role("button", name="Open an MP4 as its scene").click()
        asked.value.set_files(str(clip))
        page.wait_for_function("document.querySelector('#tr-prompt textarea')?.value === 'Chelsea dances.'")
    assert "Traceback" not in "\n".join(troupe.said)
    assert files_in(project, "outputs") == before  # which may be on a disk that is only read
    assert list((project / "outputs" / "clips").glob(f"*_{job}/*.mp4"))


def test_guests_of_a_download_below_the_home_folder_see_their_own_clips_and_no_others(project, browser):
    with ExitStack() as stack:
        troupe = stack.enter_context(served(None, "--auth", f"guest:{PASSWORD}", project=project))
        mia, tom = (stack.enter_context(visitor(browser, troupe.url, PASSWORD)) for _ in range(2))
        mia.locator(".tr-preset").first.click()
        mia.locator(CARD).first.wait_for()
        short(mia)
        mia.locator("#tr-generate:not([disabled])").click()
        job = plays(mia)
        mia.reload()
        assert plays(mia) == job

        tom.get_by_role("tab", name="Clips", exact=True).click()
        tom.locator('.tr-empty:has-text("No clips yet")').wait_for()
        (clip,) = (project / "outputs" / "clips").glob(f"*_{job}/*.mp4")
        assert mia.request.get(f"{troupe.url}clips/{job}/clip").status == 200
        for path in (f"clips/{job}/clip", f"clips/{job}/download", f"gradio_api/file={clip}"):
            assert tom.request.get(troupe.url + path).status == 404
            assert httpx.get(troupe.url + path, timeout=LONG / 1000).status_code == 401
        assert mia.request.get(f"{troupe.url}gradio_api/file={clip}").status == 404


# ---------------------------------------------------------------------------
# Outputs in every kind of place


class Visit:
    """The page's own events without a browser: a session of its own, on a desk that may have been there before."""

    def __init__(self, http: httpx.Client, desk: str = "") -> None:
        self.http, self.desk, self.session = http, desk or uuid.uuid4().hex, uuid.uuid4().hex
        config = http.get("config").json()
        self._handlers = {each["api_name"]: each for each in config["dependencies"]}
        self._names = {each["id"]: each["props"].get("elem_id") for each in config["components"]}

    def event(self, handler: str, *data: Any, **told: Any) -> dict[str, Any]:
        """What an event of the page changes, by the name of the component."""
        own = self._handlers[handler]
        body = {"data": [self.desk, *data], "fn_index": own["id"], "session_hash": self.session, "event_data": told}
        self.http.post("gradio_api/queue/join", json=body).raise_for_status()
        said = self.http.get("gradio_api/queue/data", params={"session_hash": self.session}).text
        lines = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: ")]
        (end,) = [line for line in lines if line["msg"] == "process_completed"]
        assert end["success"], end
        return {self._names[number]: value for number, value in zip(own["outputs"], end["output"]["data"], strict=True)}

    def put(self, control: str, value: Any) -> None:
        """Give a control another value."""
        hears = (each for each in self._handlers.values() if [self._names[n] for n in each["inputs"]][1:] == [control])
        self.event(next(hears)["api_name"], value)

    def clip(self) -> str:
        """The job whose clip is shown, once it is: the page asks every second."""
        deadline = time.monotonic() + LONG / 1000
        while time.monotonic() < deadline:
            film = self.event("page_tick", 0)["tr-video"]
            if "value" in film:
                return film["value"]["id"]
            time.sleep(0.1)
        raise AssertionError("the clip was not shown")


def in_a_folder(folder: Path) -> Path:
    return folder / "outputs"


def through_a_link(folder: Path) -> Path:
    (folder / "disk").mkdir()
    (folder / "link").symlink_to(folder / "disk", target_is_directory=True)
    return folder / "link" / "outputs"


def with_clips_on_another_disk(folder: Path) -> Path:
    return _elsewhere(folder, "clips")


def with_uploads_on_another_disk(folder: Path) -> Path:
    return _elsewhere(folder, "uploads")


def in_a_hidden_folder(folder: Path) -> Path:
    return folder / ".troupe" / "outputs"


def in_the_temp_folder(folder: Path) -> Path:
    return Path(tempfile.gettempdir()) / "outputs"


def _elsewhere(folder: Path, name: str) -> Path:
    (folder / "outputs").mkdir()
    (folder / "disk").mkdir()
    (folder / "outputs" / name).symlink_to(folder / "disk", target_is_directory=True)
    return folder / "outputs"


@pytest.mark.parametrize(
    ("place", "guests"),
    [(in_a_folder, False), (in_a_folder, True), (through_a_link, True), (with_clips_on_another_disk, False),
     (with_uploads_on_another_disk, False), (with_uploads_on_another_disk, True), (in_a_hidden_folder, True),
     (in_the_temp_folder, True)],
)  # fmt: skip
def test_page_and_api_show_the_clip_wherever_the_outputs_lie(tmp_path, place, guests, monkeypatch):
    if place is in_the_temp_folder:  # as in any order of the two: on Windows the temp folder lies below the home
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    else:
        assert not is_below(tmp_path, Path(tempfile.gettempdir()))
    outputs = place(tmp_path)
    terms = Terms((f"guest:{PASSWORD}",)) if guests else Terms()
    with serving(outputs, terms=terms) as live, httpx.Client(base_url=live.url, timeout=LONG / 1000) as http:
        http.get("/")
        if guests:
            http.post("/login", data={"username": "guest", "password": PASSWORD}).raise_for_status()
        visit = Visit(http)
        visit.event("page_open")
        board = visit.event("page_choose", "", key="ecommerce/product_hero_turn")["tr-board"]
        visit.put("tr-seconds", 1.0)
        visit.event("page_generate", "The sneaker turns.")
        job = visit.clip()
        (clip,) = (outputs / "clips").glob(f"*_{job}/*.mp4")
        assert Visit(http, visit.desk).event("page_open")["tr-video"]["value"]["id"] == job  # as after a reload
        whole = http.get(f"clips/{job}/clip")
        assert (whole.content, whole.headers["content-type"]) == (clip.read_bytes(), "video/mp4")
        assert http.get(f"clips/{job}/clip", headers={"Range": "bytes=4-7"}).content == b"ftyp"
        assert http.get(f"clips/{job}/poster").headers["content-type"] == "image/jpeg"
        (card,) = [card for part in board["sections"] if part["role"] == "object" for card in part["cards"]]
        brush = visit.event("page_edit", "The sneaker turns.", action="retouch", id=card["id"])["tr-editor"]
        assert http.get(brush["background"]["url"]).content[1:4] == b"PNG"
        for path in (clip, outputs / "jobs.sqlite", outputs / "belongings.jsonl"):  # no folder is open to everybody
            assert http.get(f"gradio_api/file={path}").status_code in (403, 404)
        a_client_gets_its_clip(live, tmp_path, ("guest", PASSWORD) if guests else None)


def a_client_gets_its_clip(live: Live, folder: Path, auth: tuple[str, str] | None) -> None:
    client = Client(live.url, verbose=False, auth=auth, download_files=str(folder / "got"))
    pictures = [handle_file(str(hero(folder / "hero.png")))]
    job = client.predict("The hero waves.", pictures, [], seconds=1.0, api_name="/generate")["job"]
    while (state := client.predict(job, api_name="/job"))["state"] in ("waiting", "running"):
        time.sleep(0.1)
    client.close()
    (clip,) = (live.outputs / "clips").glob(f"*_{job}/*.mp4")
    got = Path(state["clip"])
    assert (got.name, got.read_bytes()) == (clip.name, clip.read_bytes())


def test_a_project_that_can_only_be_read_makes_clips_in_a_folder_elsewhere(project, tmp_path, modes_count):
    with ExitStack() as stack:
        stack.enter_context(read_only(project))
        touched = subprocess.run([sys.executable, "-c", "open('x', 'w')"], cwd=project, capture_output=True)
        assert b"PermissionError" in touched.stderr
        troupe = stack.enter_context(served(tmp_path / "outputs", project=project))
        visit = Visit(stack.enter_context(httpx.Client(base_url=troupe.url, timeout=LONG / 1000)))
        visit.event("page_choose", "", key="ecommerce/product_hero_turn")
        visit.put("tr-seconds", 1.0)
        visit.event("page_generate", "The sneaker turns.")
        assert visit.http.get(f"clips/{visit.clip()}/clip").content[4:8] == b"ftyp"
        troupe.process.send_signal(signal.SIGINT)
        troupe.process.wait(LONG / 1000)
    assert troupe.process.returncode == 0
    assert troupe.said[-1] == f"Stopped. Your clips are in {tmp_path / 'outputs'}"
    assert "Traceback" not in "\n".join(troupe.said)


def test_the_server_keeps_its_own_surroundings(tmp_path, monkeypatch):
    """It works in another folder than it was started in, and of what Gradio reads from the environment not all is meant
    for Troupe."""
    monkeypatch.chdir(tmp_path)
    for name in ("TROUPE_CACHE", "HF_HOME", "GRADIO_DEBUG", "GRADIO_MCP_SERVER"):
        monkeypatch.setenv(name, "1")
    with serving(tmp_path / "outputs"):
        assert Path.cwd() == WEB
        assert os.environ["TROUPE_CACHE"] == os.environ["HF_HOME"] == str(tmp_path / "1")
        assert not {"GRADIO_DEBUG", "GRADIO_MCP_SERVER"} & os.environ.keys()


def test_gradio_hands_out_nothing_that_was_made(tmp_path):
    """Its players and buttons take files from the temp folder and from few others; the clips have a route of their own,
    which knows all places and whose a clip is. What comes in, and the brush's picture, lie in the upload folder."""
    giving = (gr.Video, gr.Image, gr.Audio, gr.File, gr.Gallery, gr.DownloadButton, gr.ImageSlider, gr.AnnotatedImage)
    with serving(tmp_path / "outputs") as live:
        assert [block for block in live.blocks.blocks.values() if isinstance(block, giving)] == []


def test_the_certificate_of_a_public_link_lies_beside_the_clips_and_not_in_the_project(tmp_path, monkeypatch):
    """Gradio writes it into the working folder; the project may be on a disk that is only read."""
    told = SimpleNamespace(json=lambda: [{"host": "link.invalid", "port": "1", "root_ca": "a certificate"}])
    monkeypatch.setattr(networking, "httpx", SimpleNamespace(get=lambda *_, **__: told))
    read: list[str] = []

    def start(tunnel: Any) -> str:
        read.append(Path(tunnel.share_server_tls_certificate).read_text(encoding="utf-8"))
        return "https://link.invalid"

    monkeypatch.setattr(networking.Tunnel, "start_tunnel", start)
    before = files_in(WEB)
    with serving(tmp_path / "outputs", terms=Terms(no_password=True), share=True) as live:
        assert (live.blocks.share_url, read) == ("https://link.invalid", ["a certificate"])
        assert Path.cwd() == WEB
    assert files_in(WEB) == before
    assert list((tmp_path / "outputs").glob("share/**/*.pem"))
