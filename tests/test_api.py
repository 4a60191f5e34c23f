"""The public endpoints: exactly three, and nothing of the page's own is offered beside them."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageDraw

from app.api import _settings as chosen_settings
from app.create.desks import Desks
from engine.errors import SceneError
from tests.live import Live, serving

LONG = 120.0  # seconds


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("outputs")) as found:
        yield found


@pytest.fixture(scope="module")
def client(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    found = Client(live.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))
    yield found
    found.close()


@pytest.fixture
def dancer(tmp_path: Path) -> Path:
    picture = Image.new("RGBA", (120, 240), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rounded_rectangle((30, 10, 90, 230), 30, fill=(200, 60, 90, 255))
    picture.save(tmp_path / "dancer.png")
    return tmp_path / "dancer.png"


def start(client: Client, *characters: Path, **more: Any) -> str:
    files = [handle_file(str(path)) for path in characters]
    return client.predict("The dancer dances.", files, [], api_name="/generate", **more)["job"]


def wait(client: Client, job: str) -> dict:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        state = client.predict(job, api_name="/job")
        if state["state"] not in ("waiting", "running"):
            return state
        time.sleep(0.2)
    raise AssertionError("the job did not end")


def test_exactly_three_endpoints_are_public(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/generate", "/job", "/stop"}
    assert client.view_api(return_format="dict")["unnamed_endpoints"] == {}


def test_a_clip_made_over_the_api_can_be_fetched(client, dancer):
    state = wait(client, start(client, dancer, seconds=1.0, seed=7, format="1:1"))
    assert (state["state"], state["seed"], state["error"]) == ("done", 7, "")
    clip = state["clip"]
    path = Path(clip["path"] if isinstance(clip, dict) else clip)
    assert path.read_bytes()[4:8] == b"ftyp"


def test_a_disk_that_takes_no_copy_is_told_with_how_the_job_stands(client, dancer, monkeypatch):
    job = start(client, dancer, seconds=1.0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("app.guard.uploads.save_file_to_cache", full)
    state = wait(client, job)
    assert (state["state"], state["clip"]) == ("done", None)
    assert "cannot be handed out (No space left on device)" in state["error"]
    monkeypatch.undo()
    assert client.predict(job, api_name="/job")["clip"]


def test_the_same_request_gives_the_same_clip(client, dancer):
    clips = []
    for _ in range(2):
        clip = wait(client, start(client, dancer, seconds=1.0, seed=7))["clip"]
        clips.append(Path(clip["path"] if isinstance(clip, dict) else clip).read_bytes())
    assert clips[0] == clips[1]


def test_a_job_can_be_stopped(client, dancer):
    job = start(client, dancer, seconds=60.0)
    assert client.predict(job, api_name="/stop")["state"] in ("stopped", "running")
    assert wait(client, job)["state"] == "stopped"


@pytest.mark.parametrize(
    ("more", "said"),
    [({"format": "4:3"}, "Use one of 16:9, 9:16, 1:1"), ({"names": ["x" * 500]}, None), ({"seed": -5}, "Use 0 to"),
     ({"seed": 2**63}, "Use 0 to"), ({"seed": 2**40}, None), ({"seconds": 0.0}, "Use 1 to 60"),
     ({"seconds": 61.0}, "Use 1 to 60"), ({"seconds": 10**400}, "Use 1 to 60"), ({"seed": 10**400}, "Use 0 to")],
)  # fmt: skip
def test_odd_numbers_are_refused_and_none_is_changed_silently(client, dancer, more, said):
    if said:
        with pytest.raises(AppError, match=said):
            start(client, dancer, **more)
    else:
        done = wait(client, start(client, dancer, **{"seconds": 1.0, **more}))
        assert (done["state"], done["seed"]) == ("done", more.get("seed", 42))


def test_the_seed_minus_one_is_any(client, dancer):
    jobs = [start(client, dancer, seconds=1.0, seed=-1) for _ in range(2)]
    assert len({wait(client, job)["seed"] for job in jobs} - {0}) == 2


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(client, dancer):
    with pytest.raises(AppError, match="4001 characters are too many"):
        client.predict("x" * 4001, [handle_file(str(dancer))], [], api_name="/generate")


def test_a_file_that_is_no_picture_is_refused_by_name(client, tmp_path):
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(AppError, match=r"notes\.png"):
        start(client, tmp_path / "notes.png")


def test_an_unknown_job_says_so(client):
    with pytest.raises(AppError, match="no such job"):
        client.predict("f" * 32, api_name="/job")


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}, {"meta": None}])
@pytest.mark.parametrize("there", [True, False])
def test_a_hand_made_call_can_neither_use_nor_find_a_file_of_the_machine(live, dancer, meta, there):
    """Over raw HTTP: a picture that was never uploaded is refused in the same words whether it exists or not."""
    path = str(dancer if there else dancer.with_name("nothing.png"))
    body = {"data": ["x", [{"path": path, **meta}], [], None, None, "16:9", 1.0, 1]}
    call = f"{live.url}gradio_api/call/generate"
    event = httpx.post(call, json=body, timeout=LONG)
    said = httpx.get(f"{call}/{event.json()['event_id']}", timeout=LONG).text if event.is_success else event.text
    assert '"job"' not in said
    assert "no picture" not in said
    assert "is text" not in said


def test_the_pages_own_upload_event_takes_no_file_of_the_machine_either(live, dancer):
    desk = "ab" * 16
    config = httpx.get(f"{live.url}config", timeout=LONG).json()
    for dependency in config["dependencies"]:
        if dependency["api_name"].startswith("page_upload"):
            session = f"x{dependency['id']}"
            body = {"data": [desk, [{"path": str(dancer)}]], "fn_index": dependency["id"], "session_hash": session}
            if httpx.post(f"{live.url}gradio_api/queue/join", json=body, timeout=LONG).is_success:
                said = httpx.get(f"{live.url}gradio_api/queue/data", params={"session_hash": session}, timeout=LONG)
                assert "process_completed" in said.text
    assert not list((live.outputs / "desks" / desk).glob("*.png"))


@pytest.mark.parametrize(
    "odd", [{"seconds": "long"}, {"seed": "abc"}, {"names": 5}, {"names": {"a": 1}}, {"objects": 7}, {"engine": "gpt"}]
)
def test_an_input_of_a_wrong_type_is_named(live, odd):
    values = {"prompt": "x", "characters": [], "objects": [], "background": None, "names": None, "format": "16:9",
              "seconds": 1.0, "seed": 1, "engine": "draft"} | odd  # fmt: skip
    call = f"{live.url}gradio_api/call/generate"
    event = httpx.post(call, json={"data": list(values.values())}, timeout=LONG)
    assert next(iter(odd)) in httpx.get(f"{call}/{event.json()['event_id']}", timeout=LONG).text


def test_a_path_of_the_server_is_not_taken_for_an_upload(live):
    """Over raw HTTP, as a client library would never send it."""
    body = {"data": ["x", [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], []]}
    call = f"{live.url}gradio_api/call/generate"
    event = httpx.post(call, json=body, timeout=LONG)
    said = httpx.get(f"{call}/{event.json()['event_id']}", timeout=LONG).text if event.is_success else event.text
    assert "root:" not in said
    assert not list(live.outputs.glob("desks/*/*passwd*"))


def test_direct_posts_around_the_queue_are_refused(live):
    answer = httpx.post(f"{live.url}gradio_api/run/generate", json={"data": ["x", [], []]}, timeout=LONG)
    assert answer.status_code in (404, 405)


@pytest.mark.parametrize("path", ["scene.json", "../desks", "/etc/passwd", "desk.json", "../../launch.py"])
def test_no_file_route_leads_to_a_desk_or_to_the_machine(live, path):
    assert httpx.get(f"{live.url}gradio_api/file={path}", timeout=LONG).status_code in (403, 404)


def test_a_page_that_is_slow_to_answer_is_opened_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("gradio.networking.url_ok", lambda _: False)  # as after Gradio's three seconds
    with serving(tmp_path / "outputs") as found:
        assert httpx.get(found.url, timeout=LONG).status_code == 200


@pytest.mark.parametrize(
    ("engine", "settings", "said"),
    [("a2", {"warp": 9}, "'warp' is no setting of a2. Use steps, guidance"), ("draft", {"steps": 3}, "has none"),
     ("a2", {"steps": 2.5}, "settings.steps: 2.5 does not fit. Use 1 to 200."), ("a2", {"steps": 10**400}, "1 to 200"),
     ("a2", {"flow_shift": 0}, "Use more than 0 to 50."), ("a2", {"turbo": "yes"}, "Use true or false."),
     ("a2", {"attention": "magic"}, 'Use null or "native" or "cudnn"'), ("a2", {"precision": "int8"}, "only the owner"),
     ("a2", {"model": "/etc"}, "no setting"), ("a2", {"loras": ["/etc/passwd"]}, "no setting")],
)  # fmt: skip
def test_a_setting_that_an_engine_does_not_have_or_a_guest_may_not_set_is_refused(engine, settings, said):
    with pytest.raises(SceneError, match=re.escape(said)):
        chosen_settings(engine, settings, is_owner=False)


def test_an_engine_s_settings_reach_it(tmp_path):
    said = {"steps": 8, "guidance": 1, "turbo": True, "precision": "int8", "batched_guidance": None}
    desk = Desks(tmp_path).new()
    desk.put("engine", "a2")
    for key, value in chosen_settings("a2", said, is_owner=True).items():
        desk.put(key, value)
    options = desk.sheet.options(own_machine=True)
    assert (options.turbo, options.precision, options.batched_guidance) == (True, "int8", None)
    assert desk.sheet.sampling == {"steps": 8, "guidance": 1.0, "flow_shift": 8.0, "image_guidance": None}
