"""A Hugging Face Space: what its README says holds, and `launch.py` serves there as the Space starts it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import pytest
import yaml
from packaging.requirements import Requirement

import launch
from tests.served import hero, kept_port, served

COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def test_the_readme_s_head_is_what_a_space_reads(repo: Path):
    head = yaml.safe_load((repo / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (head["sdk"], head["app_file"], head["license"]) == ("gradio", "launch.py", "apache-2.0")
    assert {head["colorFrom"], head["colorTo"]} <= COLOURS
    assert len(head["short_description"]) <= 60
    assert tuple(int(part) for part in head["python_version"].split(".")) >= launch.MINIMUM
    lines = (repo / "requirements.txt").read_text(encoding="utf-8").splitlines()
    gradio = next(Requirement(line) for line in lines if line.startswith("gradio"))
    assert gradio.specifier.contains(head["sdk_version"])


def test_a_space_keeps_its_clips_in_its_storage_or_its_home(monkeypatch, tmp_path):
    assert launch.home_of_outputs() == launch.HERE / "outputs"
    monkeypatch.setenv("SPACE_ID", "me/troupe")
    monkeypatch.setattr(launch.Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(launch, "STORAGE", tmp_path / "none")
    assert launch.home_of_outputs() == tmp_path / "home" / "outputs"
    monkeypatch.setattr(launch, "STORAGE", tmp_path)
    assert launch.home_of_outputs() == tmp_path / "outputs"


@pytest.mark.skipif(os.name == "nt", reason="Spaces run on Linux")
def test_launch_serves_a_draft_as_a_space_starts_it(tmp_path: Path, repo: Path):
    from gradio_client import Client, handle_file

    if os.access("/data", os.W_OK):
        pytest.skip("this machine has a /data of its own")
    before = {path.name for path in repo.iterdir()}
    space = {"SPACE_ID": "me/troupe", "SYSTEM": "spaces", "HOME": str(tmp_path), "GRADIO_SERVER_NAME": "0.0.0.0",
             "XDG_CACHE_HOME": os.path.expanduser("~/.cache")}  # fmt: skip
    with kept_port() as port, served(None, port=-1, GRADIO_SERVER_PORT=str(port), **space) as troupe:
        url = f"http://127.0.0.1:{port}/"
        assert httpx.get(url, timeout=120).status_code == 200
        assert not any("password" in line and "need" in line for line in troupe.said)  # the Space says who may come
        client = Client(url, verbose=False, download_files=str(tmp_path / "downloads"))
        pictures = [handle_file(str(hero(tmp_path / "hero.png")))]
        job = client.predict("The hero waves.", pictures, [], seconds=1.0, api_name="/generate")["job"]
        while (state := client.predict(job, api_name="/job"))["state"] in ("waiting", "running"):
            time.sleep(0.2)
        client.close()
        assert state["state"] == "done", state
    assert list((tmp_path / "outputs" / "clips").glob("*/*.mp4"))
    assert {path.name for path in repo.iterdir()} - before <= {"__pycache__"}  # no .venv, no outputs
