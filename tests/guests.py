"""Guests of a shared Troupe, and its owner, as raw HTTP. Not a test file: tests use it."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import httpx
from PIL import Image

from tests.live import Live
from tests.waits import LONG

PASSWORD = "kept-for-the-tests"
API = "gradio_api/"


class Guest:
    """A browser of a guest who has logged in, as raw HTTP."""

    def __init__(self, live: Live, name: str = "guest") -> None:
        self.live = live
        self.http = httpx.Client(base_url=live.url, timeout=LONG, follow_redirects=True)
        self.http.get("/")
        self.http.post("/login", data={"username": name, "password": PASSWORD}).raise_for_status()

    def upload(self, *files: tuple[str, bytes], kind: str = "image/png") -> httpx.Response:
        return self.http.post(f"{API}upload", files=[("files", (name, data, kind)) for name, data in files])

    def picture(self, name: str = "hero.png") -> str:
        return self.upload((name, picture())).json()[0]

    def call(self, name: str, *data: Any) -> str:
        """The whole event stream of a named endpoint."""
        event = self.http.post(f"{API}call/{name}", json={"data": list(data)})
        if not event.is_success:
            return event.text
        return self.http.get(f"{API}call/{name}/{event.json()['event_id']}").text

    def generate(self, path: str, seconds: float = 1.0) -> str:
        said = self.call("generate", "The hero waves.", [{"path": path}], [], None, None, "16:9", seconds, 7, "draft")
        return json.loads(said.rpartition("data: ")[2])[0]["job"]

    def clip(self, job: str) -> dict:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            state = json.loads(self.call("job", job).rpartition("data: ")[2])[0]
            if state["state"] not in ("waiting", "running"):
                assert state["state"] == "done", state
                return state["clip"]
            time.sleep(0.2)
        raise AssertionError("the job did not end")

    def event(self, handler: str, *data: Any, session: str, told: dict | None = None) -> str:
        """The whole event stream of one of the page's own events; `told` is what one of our components says with it."""
        joined = self.join(handler, *data, session=session, told=told)
        return self.http.get(f"{API}queue/data", params={"session_hash": session}).text if joined.is_success else ""

    def join(self, handler: str, *data: Any, session: str, told: dict | None = None) -> httpx.Response:
        dependencies = self.http.get("config").json()["dependencies"]
        number = next(each["id"] for each in dependencies if each["api_name"] == handler)
        return self.http.post(
            f"{API}queue/join",
            json={"data": list(data), "fn_index": number, "session_hash": session, "event_data": told},
        )


class Owner(Guest):
    """The browser that has opened the owner's link."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.http = httpx.Client(base_url=live.url, timeout=LONG, follow_redirects=True)
        self.http.get(f"/?owner={live.guard.access.owner_key}").raise_for_status()


def picture(colour: int = 0) -> bytes:
    data = io.BytesIO()
    Image.effect_noise((96, 128), 40 + colour % 100).save(data, "PNG")
    return data.getvalue()
