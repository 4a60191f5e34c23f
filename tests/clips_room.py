"""The Clips tab over a folder, without a server or a browser; whoever asks is set by hand. Not a test file.

    python -m tests.clips_room OUTPUTS PORT

serves the page over OUTPUTS until it is killed; no clip gets further than its first frame unless OUTPUTS/open exists.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from app.clips.exports import Exports
from app.clips.gallery import PAGE, Gallery, Parts
from app.clips.housekeeping import Housekeeping
from app.clips.page import build_bring, build_clips
from app.create.desk import Desk
from app.create.desks import Desks
from app.create.engines import Engines
from app.create.layout import CreatePage
from app.create.library import Library
from app.create.shoot import shoot
from app.create.studio import Studio
from app.create.tray import Tray
from app.guard.access import Terms, decide
from app.guard.guard import Guard
from app.guard.visitors import KEY, Visitor
from app.jobs.queue import JobQueue
from app.jobs.status import RUNNING
from app.machine.planner import Planner
from app.machine.settings import OwnerSettings
from engine.door.render import render
from engine.scene.engines import ENGINES
from tests.waits import until

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0  # seconds for a clip that takes a blink
QUERY = ("", "all", False, PAGE)


@dataclass
class Gate:
    """An engine that makes small clips, and stops before the first frame while the gate is shut."""

    open: threading.Event = field(default_factory=threading.Event)

    def render(self, request: Any, on_progress: Callable, stop: Callable[[], bool]) -> Any:
        def tell(progress: Any) -> None:
            on_progress(progress)
            while not self.open.wait(0.01) and not stop():
                pass

        video = request.scene.video.model_copy(update={"width": 160, "height": 96})
        small = replace(request, scene=request.scene.model_copy(update={"video": video}))
        return render(small, tell, stop)

    def start(self) -> None:
        """As the engine's process does."""

    close = release = start

    def holds(self) -> tuple[int, int]:
        """It keeps no model."""
        return 0, 0


class _Unknown(Planner):
    """Of a machine that has not answered yet."""

    def hardware(self, patience: float = 0.0) -> None:
        return None


@cache
def _page(engines: tuple[str, ...]) -> tuple[Parts, CreatePage]:
    """Build the page's components once for all rooms that know these engines: to the handlers they are names, and what
    is wired to them is seen where a page is served."""
    with gr.Blocks():
        desk, bring = gr.BrowserState(None), build_bring()
        with gr.Tabs() as tabs:
            with gr.Tab("Create"):
                page = CreatePage(desk)
            with gr.Tab("Clips"):
                parts = build_clips(tabs, bring)
    return parts, page


class Room:
    """Everything behind the tab. `gate` is open: shut it to keep a clip from being made."""

    def __init__(self, outputs: Path, shared: bool = False) -> None:
        self.outputs, self.gate = outputs, Gate()
        self.gate.open.set()
        (outputs / "uploads").mkdir(parents=True, exist_ok=True)
        terms = Terms(("guest:word",)) if shared else Terms()
        self.guard = Guard(decide(terms, {}, {}), outputs)
        self.jobs = JobQueue(outputs, self.gate.render, per_desk=10)
        self.desks, self.settings = Desks(outputs / "desks", self.guard.mine), OwnerSettings(outputs / "settings.json")
        self.exports = Exports(outputs / "exports")
        self.keeping = Housekeeping(self.jobs, self.desks, self.settings, self.exports, outputs)
        library = Library(ROOT / "presets", None, ROOT / "assets" / "samples")
        model = Engines(self.settings, outputs / "loras", _Unknown(outputs), self.guard.is_owner)
        self.studio = Studio(self.desks, self.jobs, library, Tray(ROOT / "assets" / "samples"), self.guard, model)
        self.gallery = Gallery(self.studio, self.exports)
        self.parts, self.page = _page(tuple(ENGINES))
        self.gallery.parts, self.studio.show.page = self.parts, self.page

    def close(self) -> None:
        self.jobs.close(PATIENCE)  # with the gate as it is: what it holds is cut off, and never gets done on the way
        self.gate.open.set()
        LocalContext.request.set(None)

    def be(self, name: str) -> None:
        """Whoever asks from now on: `owner`, or a guest by name."""
        visitor = Visitor(name, name == "owner")
        LocalContext.request.set(SimpleNamespace(scope={KEY: visitor}))

    def desk(self, picture: Path, prompt: str = "Mia waves.", seed: int = 7) -> Desk:
        """A desk with one character and a short clip to be made."""
        desk = self.desks.new()
        desk.add("character", picture, "Mia")
        desk.put("prompt", prompt)
        desk.put("seconds", 1.0)
        desk.put("seed", seed)
        return desk

    def clip(self, desk: Desk) -> str:
        """Make the desk's clip; its id."""
        job = shoot(desk, self.jobs)
        assert job.ended.wait(PATIENCE)
        return job.id

    def running(self, desk: Desk) -> str:
        """Start the desk's clip behind a shut gate; its id, once it stands there."""
        self.gate.open.clear()
        job = shoot(desk, self.jobs)
        self.until(lambda: (snap := self.jobs.snapshot(job.id)).state == RUNNING and bool(snap.stage))
        return job.id

    def act(self, desk: Desk, action: str, job_id: str | None = None, kind: str | None = None) -> dict[Any, Any]:
        """Press a button of the gallery or the queue; what the page shows after it, by component."""
        event = SimpleNamespace(_data={"action": action, "id": job_id, "kind": kind})
        shown: dict[Any, Any] = {}
        for step in self.gallery.act(desk.id, *QUERY, event):
            shown |= step
        return shown

    def clips(self, desk: Desk, *query: Any) -> list[dict]:
        """What the gallery shows."""
        return self.gallery.show(desk.id, *(query or QUERY))[self.parts.grid]["clips"]

    def rows(self, desk: Desk) -> list[dict]:
        """What the queue shows."""
        return self.gallery.queue(desk.id)[self.parts.queue]["jobs"]

    def until(self, what: Callable[[], bool]) -> None:
        """Wait for something that takes a moment."""
        until(what, seconds=PATIENCE)


def main(outputs: Path, port: int) -> None:
    from app import server

    gate = Gate()
    if (outputs / "open").exists():
        gate.open.set()
    server._engine_of = lambda outputs: gate
    server.launch(outputs, server.open_house(outputs), server_name="127.0.0.1", server_port=port).block_thread()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
