"""What happens on the Clips tab. Handlers get who asks, and an action with a job's id; they say what to show."""

from __future__ import annotations

import html
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.clips.media import export_file
from app.clips.views import gallery_value, queue_value
from app.create.desks import open_scene
from app.create.shoot import take_back
from app.create.studio import Studio
from app.jobs.snapshot import INTERRUPTED, Snapshot
from app.uploads import uploaded
from engine.errors import TroupeError, VideoError
from engine.export import KINDS, export
from engine.keepsake import unpack
from engine.video import read_scene

PAGE = 24  # clips shown at once
_NEW = 86_400.0  # seconds that an export is kept


@dataclass
class Parts:
    """The tab's components."""

    grid: gr.HTML
    queue: gr.HTML
    search: gr.Textbox
    engine: gr.Radio
    favourites: gr.Checkbox
    more: gr.Button
    limit: gr.State
    note: gr.HTML
    bring: gr.UploadButton
    timer: gr.Timer
    rooms: gr.Tabs


class Gallery:
    """The clips and the queue of one server, as a desk may see them."""

    def __init__(self, studio: Studio, exports: Path) -> None:
        self._studio, self._jobs, self._exports = studio, studio.jobs, exports
        self.parts: Parts = None  # type: ignore[assignment]  # set when the page is wired

    def _owner(self, desk_id: str) -> str | None:
        """Whose clips are seen: a guest's are their desk's, the owner of this machine sees all (None)."""
        return None if self._studio.guard.is_owner() else self._studio.desks.get(desk_id).id

    # -- what to show ------------------------------------------------------------

    def show(
        self, desk_id: str, search: str, engine: str, favourites: bool, limit: int,
        undo: Snapshot | None = None, opened: str = "",
    ) -> dict[Any, Any]:  # fmt: skip
        """Gallery and queue as they now are."""
        owner, parts = self._owner(desk_id), self.parts
        chosen = engine if engine in ("draft", "a2") else None
        limit = limit if isinstance(limit, int) and 0 < limit <= 2000 else PAGE
        found = self._jobs.history(owner, str(search or "")[:200], chosen, favourites is True, limit=limit + 1)
        sought = bool(search) or chosen is not None or favourites is True
        hint = "Nothing fits. Search for fewer words." if sought else "No clips yet. Make one on the Create tab."
        return {
            parts.grid: gallery_value(self._jobs, found[:limit], hint, undo, opened),
            parts.more: gr.update(visible=len(found) > limit), **self.queue(desk_id),
        }  # fmt: skip

    def queue(self, desk_id: str) -> dict[Any, Any]:
        """The queue alone; it is asked for while something is being made."""
        owner = self._owner(desk_id)
        cut_off = [snap for snap in self._jobs.history(owner, limit=50) if snap.state == INTERRUPTED]
        value = queue_value(self._jobs, owner, cut_off)
        busy = any(each["state"] in ("running", "waiting") for each in value["jobs"])
        return {self.parts.queue: value, self.parts.timer: gr.Timer(active=busy)}

    def tick(self, desk_id: str, search: str, engine: str, favourites: bool, limit: int, before: Any) -> dict[Any, Any]:
        """The queue; and the gallery, where something has ended since."""
        updates = self.queue(desk_id)
        now = {each["id"] for each in updates[self.parts.queue]["jobs"]}
        had = {each["id"] for each in before["jobs"]} if isinstance(before, dict) and "jobs" in before else set()
        return self.show(desk_id, search, engine, favourites, limit) if had - now else updates

    def show_more(self, desk_id: str, search: str, engine: str, favourites: bool, limit: int) -> dict[Any, Any]:
        return {self.parts.limit: limit + PAGE, **self.show(desk_id, search, engine, favourites, limit + PAGE)}

    # -- what can be done ----------------------------------------------------------

    def act(
        self, desk_id: str, search: str, engine: str, favourites: bool, limit: int, event: gr.EventData
    ) -> Iterator[dict[Any, Any]]:
        """A button of a clip or of a job in the queue."""
        data = event._data if isinstance(event._data, dict) else {}
        action, job_id, kind = str(data.get("action")), str(data.get("id")), str(data.get("kind"))
        owner, query, undo = self._owner(desk_id), (search, engine, favourites, limit), None
        if action == "export":
            yield from self._export(job_id, kind, owner)
            return
        if action in ("open", "promote", "edit"):
            yield self._open(desk_id, job_id, owner, action) | self.show(desk_id, *query)
            return
        if action in ("pause", "go"):
            if owner is None:
                (self._jobs.pause_queue if action == "pause" else self._jobs.resume_queue)()
        elif action in ("delete", "remove"):
            undo = self._jobs.snapshot(job_id)
            self._jobs.trash(job_id, owner)
        else:
            self._simple(action, job_id, owner)
        yield self.show(desk_id, *query, undo=undo)

    def _simple(self, action: str, job_id: str, owner: str | None) -> None:
        jobs = self._jobs
        if action == "star":
            snap = jobs.snapshot(job_id)
            jobs.set_favourite(job_id, not (snap and snap.favourite), owner)
            return
        known = {
            "restore": jobs.restore, "resume": jobs.resume, "twice": jobs.duplicate, "next": jobs.run_next,
            "up": jobs.move_up, "down": jobs.move_down, "hold": jobs.hold, "stop": jobs.stop,
        }  # fmt: skip
        if action in known:
            known[action](job_id, owner=owner)

    def _open(self, desk_id: str, job_id: str, owner: str | None, action: str) -> dict[Any, Any]:
        """Put a clip's scene on the desk. What was there can be brought back."""
        scene = self._jobs.scene_file(job_id, owner)
        if action == "edit":
            desk = self._studio.desks.get(desk_id)
            with desk.lock:
                take_back(desk, self._jobs, job_id, owner)
            return {self.parts.rooms: gr.Tabs(selected="create"), **self._studio.everything(desk)}
        return self._lay_out(desk_id, scene, "a2" if action == "promote" else None)

    def _lay_out(self, desk_id: str, scene: Path, engine: str | None = None) -> dict[Any, Any]:
        desk = self._studio.desks.get(desk_id)
        with desk.lock:
            desk.remember("opening a clip")
            open_scene(desk, scene)
            if engine is not None:
                desk.put("engine", engine)
        return {self.parts.rooms: gr.Tabs(selected="create"), **self._studio.everything(desk)}

    def bring(self, desk_id: str, path: str | None) -> dict[Any, Any]:
        """An MP4 of Troupe's was dropped: its scene comes back, with the cast where it carries one."""
        clip = uploaded(path, self._studio.uploads)
        with tempfile.TemporaryDirectory(dir=self._studio.uploads, ignore_cleanup_errors=True) as folder:
            scene_file = unpack(clip, Path(folder))
            if scene_file is not None:
                return self._lay_out(desk_id, scene_file)
        scene = read_scene(clip)
        if scene is None:
            raise VideoError("this clip carries no scene of Troupe's", "Choose an MP4 that Troupe has made.")
        desk = self._studio.desks.get(desk_id)
        with desk.lock:
            desk.remember("opening a clip")
            desk.sheet.follow(scene.negative_prompt, scene.direction, scene.sampling)
            desk.put("seed", scene.sampling.seed)
            desk.put("prompt", scene.prompt)
        cast = ", ".join(html.escape(element.name or element.role) for element in scene.cast)
        gr.Warning(f"This clip carries its words, but no pictures. Add the cast yourself: {cast}.")
        return {self.parts.rooms: gr.Tabs(selected="create"), **self._studio.everything(desk)}

    # -- other shapes of a clip ------------------------------------------------------

    def _export(self, job_id: str, kind: str, owner: str | None) -> Iterator[dict[Any, Any]]:
        snap, parts = self._jobs.snapshot(job_id), self.parts
        if snap is None or snap.clip is None or kind not in KINDS or owner not in (None, snap.owner):
            raise TroupeError("There is no such clip", "Reload the page.")
        out = export_file(self._exports, snap, kind)
        self._sweep()
        if not out.is_file():
            out.parent.mkdir(parents=True, exist_ok=True)
            yield {parts.note: _note("Saving it…")}
            export(snap.clip, out, kind)
        link = f'<a class="tr-do" href="clips/{snap.id}/{kind}" download>Save {html.escape(out.name)}</a>'
        yield {parts.note: _note(f"It is ready: {out.stat().st_size / 10**6:.1f} MB.") + link}

    def _sweep(self) -> None:
        """Exports can be made again: those of yesterday go."""
        for folder in self._exports.glob("*"):
            if time.time() - folder.stat().st_mtime > _NEW:
                shutil.rmtree(folder, ignore_errors=True)


def _note(said: str) -> str:
    return f'<p class="tr-note" role="status">{html.escape(said)}</p>'
