"""An engine that only the table of engines knows goes everywhere: command line, MP4, queue, gallery, API and page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from app.create.progress import progress_html, result_html
from app.jobs.log import NAME as LOG
from app.jobs.status import RUNNING, Snapshot
from engine.door import command
from engine.door.render import RenderRequest
from engine.errors import SceneError
from engine.media.video import read_frames, read_metadata
from engine.process.client import EngineProcess
from engine.scene.engines import ENGINES
from engine.scene.scene_file import load_scene, scene_from_data
from tests.clips_room import Room
from tests.door.stripes import Stripes
from tests.live import OPEN, serving, upload
from tests.waits import until

LONG = 120_000  # milliseconds
MODULE = "tests.door.stripes"
WORKER = f"""
import sys
from engine.scene.engines import ENGINES
ENGINES["stripes"] = {MODULE!r}
from engine.process import worker
sys.exit(worker.main([]))
"""


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one entry that an engine takes outside its own files."""
    monkeypatch.setitem(ENGINES, "stripes", MODULE)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGBA", (60, 90), (200, 30, 30, 255)).save(tmp_path / "mia.png")
    return tmp_path / "mia.png"


@pytest.fixture
def scene_file(tmp_path: Path, photo: Path) -> Path:
    data = {"version": 1, "engine": "stripes", "cast": [{"role": "character", "image": photo.name, "name": "Mia"}],
            "prompt": "Mia waves.", "video": {"width": 64, "height": 64, "frames": 9}}  # fmt: skip
    (tmp_path / "scene.json").write_text(json.dumps(data), encoding="utf-8")
    return tmp_path / "scene.json"


@pytest.fixture
def room(tmp_path: Path, known: None) -> Iterator[Room]:
    found = Room(tmp_path / "outputs")
    found.be("owner")
    yield found
    found.close()


@pytest.fixture
def engine(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineProcess]:
    monkeypatch.setenv("PYTHONPATH", str(repo))
    found = EngineProcess([sys.executable, "-c", WORKER])
    yield found
    found.close()


def test_the_command_line_makes_an_mp4_that_says_how_it_was_made(scene_file, capsys):
    out = scene_file.with_name("out.mp4")
    assert command.main([str(scene_file), "-o", str(out), "--width", "4", "--slanted"]) == 0
    assert capsys.readouterr().err.rstrip().endswith("(stripes)")
    first = next(iter(read_frames(out)))
    assert abs(int(first[0, 1, 0]) - int(first[0, 5, 0])) > 200
    assert Stripes.note in read_metadata(out)["description"]
    assert "engine stripes" in read_metadata(out)["description"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--turbo"], "--turbo: it has no such setting. Leave it out, or use --engine a2."),
     (["--width", "99"], "--width 99 does not fit. Use 1 to 32."),
     (["--engine", "draft", "--slanted"], "--slanted: the draft runs on the CPU, without a model.")],
)  # fmt: skip
def test_flags_go_with_the_engine_that_has_declared_them(scene_file, capsys, flags, said):
    assert command.main([str(scene_file), "-o", str(scene_file.with_name("out.mp4")), *flags]) == 1
    assert said in capsys.readouterr().err
    assert not scene_file.with_name("out.mp4").exists()


def test_a_scene_names_it_and_no_other_unknown_one(scene_file):
    assert load_scene(scene_file).engine == "stripes"
    with pytest.raises(SceneError, match="'a2', 'draft' or 'stripes'"):
        scene_from_data({**json.loads(scene_file.read_text()), "engine": "spots"})


def test_its_options_reach_the_engine_s_own_process(scene_file, engine, tmp_path):
    request = RenderRequest(load_scene(scene_file), tmp_path, tmp_path / "out.mp4", options=Stripes.options(width=2))
    told = []
    result = engine.render(request, told.append)
    assert (result.engine, result.frames) == ("stripes", 9)
    assert told[-2].stage == "painting"
    first = next(iter(read_frames(tmp_path / "out.mp4")))
    assert abs(int(first[0, 0, 0]) - int(first[0, 2, 0])) > 150
    assert engine.render(replace(request, options=None)).frames == 9  # by default as it runs on its own


def test_queue_gallery_and_log_call_it_by_its_name(room, photo):
    desk = room.desk(photo)
    for name, value in {"engine": "stripes", "stripes.width": 3, "stripes.slanted": "x"}.items():
        desk.put(name, value)
    job = room.running(desk)
    assert [row["words"].split(" · ")[0] for row in room.rows(desk)] == ["Stripes"]
    room.gate.open.set()
    room.until(lambda: room.jobs.queue() == [])
    (clip,) = room.clips(desk)
    assert (clip["kind"], clip["promote"], clip["facts"][0]) == ("Stripes", "", ("Engine", "Stripes"))
    assert room.clips(desk, "", "stripes", False, 24) == [clip]
    assert room.clips(desk, "", "draft", False, 24) == []
    folder = room.jobs.scene_file(job).parent
    assert "width 3" in (folder / LOG).read_text(encoding="utf-8")
    assert json.loads((folder / "job.json").read_text())["options"]["options"] == {"width": 3, "slanted": False}


def test_its_stages_and_its_note_are_said_as_it_has_them():
    half = Snapshot("0" * 32, RUNNING, "painting", Stripes().share("painting", 1, 2), engine="stripes")
    assert half.share == pytest.approx(0.6)
    assert "Painting · 60 %" in progress_html(half)
    done = result_html(replace(half, state="done"))
    assert "<b>Stripes</b> Painted by a test." in done
    assert "tr-made" in done


def test_the_page_offers_it_with_its_settings_and_makes_its_clip(browser, tmp_path, photo, engine, monkeypatch):
    from app import server

    monkeypatch.setattr(server, "_engine_of", lambda outputs: engine)
    with serving(tmp_path / "outputs") as live:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(LONG)
        page.goto(live.url)
        page.wait_for_selector(OPEN)
        upload(page, "character", photo)
        page.fill("#tr-prompt textarea", "Mia waves.")
        page.get_by_label("Stripes", exact=True).check()
        page.get_by_text("Model settings").click()
        page.get_by_label("Slanted").check()
        assert page.get_by_label("Turbo").count() == 0 or not page.get_by_label("Turbo").is_visible()
        page.locator("#tr-generate:not([disabled])").click()
        page.wait_for_selector('#tr-result:has-text("Painted by a test.")')
        kept = json.loads(next((tmp_path / "outputs" / "clips").glob("*/job.json")).read_text())
        assert kept["options"]["options"]["slanted"] is True
        page.close()


def test_the_api_takes_it_and_its_settings_and_refuses_what_it_does_not_have(tmp_path, photo, engine, monkeypatch):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    from app import server

    monkeypatch.setattr(server, "_engine_of", lambda outputs: engine)
    with serving(tmp_path / "outputs") as live:
        client = Client(live.url, verbose=False, download_files=str(tmp_path / "down"))
        call = {"engine": "stripes", "seconds": 1.0, "api_name": "/generate"}
        files = [handle_file(str(photo))]
        with pytest.raises(AppError, match="no setting of stripes"):
            client.predict("Mia waves.", files, [], settings={"turbo": True}, **call)
        with pytest.raises(AppError, match="Use 1 to 32"):
            client.predict("Mia waves.", files, [], settings={"width": 99}, **call)
        job = client.predict("Mia waves.", files, [], settings={"width": 5}, **call)["job"]
        until(lambda: client.predict(job, api_name="/job")["state"] == "done")
        client.close()
        kept = json.loads(next((tmp_path / "outputs" / "clips").glob("*/job.json")).read_text())
        assert kept["options"]["options"]["width"] == 5
