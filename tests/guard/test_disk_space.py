"""A disk that is full or cannot be written: an upload says so in words, shared server or not, and leaves nothing."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.guard.access import Terms
from app.guard.disk_space import FULL, has_room, sweep
from tests.live import Live, serving

NOISE = Image.effect_noise((600, 600), 80)


@pytest.fixture(scope="module", params=[(), ("guest:kept-for-the-tests",)], ids=["own", "shared"])
def live(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("home") / "outputs", terms=Terms(request.param)) as found:
        yield found


@pytest.fixture
def http(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=120, follow_redirects=True) as found:
        found.get("/")
        found.post("/login", data={"username": "guest", "password": "kept-for-the-tests"})
        yield found


def upload(http: httpx.Client, times: int = 1) -> httpx.Response:
    data = io.BytesIO()
    NOISE.save(data, "PNG")
    files = [("files", (f"hero {number}.png", data.getvalue(), "image/png")) for number in range(times)]
    return http.post("gradio_api/upload", files=files)


def test_an_upload_that_does_not_fit_is_refused_in_words_before_it_is_written(http, live, monkeypatch):
    monkeypatch.setattr("app.guard.disk_space.has_room", lambda *_: False)
    said = upload(http, times=20)  # long enough to be still on its way when the answer is known
    assert (said.status_code, said.text) == (507, FULL)
    assert not list((live.outputs / "uploads").glob("tmp*"))


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(errno.ENOSPC, 507, "disk of this Troupe is full"), (errno.EROFS, 500, "outputs folder cannot be used")],
)
def test_a_disk_that_takes_no_more_on_the_way_is_said_in_words(http, live, monkeypatch, number, status, words):
    uploads = live.outputs / "uploads"

    async def refuse(*_):
        assert list(uploads.glob("tmp*"))
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("starlette.datastructures.UploadFile.write", refuse)
        said = upload(http)
    assert said.status_code == status
    assert words in said.text
    assert not list(uploads.glob("tmp*"))
    assert upload(http).status_code == 200


def test_what_a_cut_off_upload_has_left_is_gone_at_the_next_start(tmp_path: Path):
    uploads = tmp_path / "uploads"
    (uploads / "0123").mkdir(parents=True)
    (uploads / "0123" / "tmp.png").touch()
    (uploads / "tmpabc123").write_bytes(b"half")
    sweep(uploads)
    sweep(tmp_path / "none")
    assert sorted(path.name for path in uploads.rglob("*")) == ["0123", "tmp.png"]


def test_room_is_what_the_disk_says(tmp_path: Path):
    assert has_room(tmp_path, 0)
    assert not has_room(tmp_path, 10**18)
    assert not has_room(tmp_path / "none", 10**18)  # it will be made on the same disk
