"""The handlers of the Clips tab. Each gets the desk's id, and an action with a job's id; it returns updates of
components."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import gradio as gr

from app.clips.exports import Exports
from app.clips.views import gallery_value, queue_value
from app.create.desk import Desk
from app.create.desks import open_scene
from app.create.shoot import new_seed, take_back
from app.create.studio import Studio
from app.guard.uploads import uploaded
from app.jobs.runner import Job
from app.jobs.status import INTERRUPTED, Snapshot
from app.ui.markup import fill
from engine.errors import TroupeError, VideoError
from engine.media.embed import unpack
from engine.media.export import KINDS
from engine.media.video import read_scene
from engine.scene.engine import Engine
from engine.scene.engines import ENGINES, promotion_of
from engine.scene.scene import DRAFT
from engine.words import plain_text

PAGE = 24  # clips shown at once
_BUSY, _IDLE = 1.5, 10.0  # seconds between two updates of the queue: while jobs run or wait, and otherwise


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
    bring: gr.UploadButton
    timer: gr.Timer
    rooms: gr.Tabs


class Gallery:
    """The clips and the queue of one server, limited to what a desk may see."""

    def __init__(self, studio: Studio, exports: Exports) -> None:
        self._studio, self._jobs, self._exports = studio, studio.jobs, exports
        self.parts: Parts  # set when the page is wired

    def _owner(self, desk_id: str) -> str | None:
        """Return the owner whose clips are shown: a guest's own desk; None (all clips) for the owner of this
        machine."""
        return None if self._studio.guard.is_owner() else self._studio.desks.get(desk_id).id

    # -- what to show ------------------------------------------------------------

    def show(
        self, desk_id: str, search: str, engine: str, favourites: bool, limit: int, undo: Snapshot | None = None
    ) -> dict[Any, Any]:
        """Show the gallery and the queue as they are now."""
        owner, parts = self._owner(desk_id), self.parts
        chosen = engine if isinstance(engine, str) and engine in ENGINES else None
        limit = limit if isinstance(limit, int) and 0 < limit <= 2000 else PAGE
        found = self._jobs.history(owner, plain_text(search)[:200], chosen, favourites is True, limit=limit + 1)
        sought = bool(search) or chosen is not None or favourites is True
        hint = "Nothing fits. Search for fewer words." if sought else "No clips yet. Make one on the Create tab."
        return {
            parts.grid: gallery_value(self._jobs, found[:limit], hint, undo, cache(self._is_ready)),
            parts.more: gr.update(visible=len(found) > limit), **self.queue(desk_id),
        }  # fmt: skip

    def _is_ready(self, engine: Engine) -> bool:
        return not self._studio.engines.missing(engine)

    def queue(self, desk_id: str) -> dict[Any, Any]:
        """Show the queue alone; the timer calls this while the tab is open."""
        owner = self._owner(desk_id)
        past = self._jobs.history(owner, limit=50)
        cut_off = [snap for snap in past if snap.state == INTERRUPTED]
        value = queue_value(self._jobs, owner, cut_off, past[0].id if past else "")
        busy = any(each["state"] in ("running", "waiting") for each in value["jobs"])
        return {self.parts.queue: value, self.parts.timer: gr.Timer(_BUSY if busy else _IDLE, active=True)}

    def tick(self, desk_id: str, search: str, engine: str, favourites: bool, limit: int, before: Any) -> dict[Any, Any]:
        """Show the queue, and the gallery too where a job has ended since `before`."""
        updates = self.queue(desk_id)
        now, had = (_seen(value) for value in (updates[self.parts.queue], before))
        over = had[0] - now[0] or had[1] != now[1]
        return self.show(desk_id, search, engine, favourites, limit) if over else updates

    def leave(self) -> dict[Any, Any]:
        """Stop the tab's timer when another tab is opened: the queue need not be updated then."""
        return {self.parts.timer: gr.Timer(active=False)}

    def show_more(self, desk_id: str, search: str, engine: str, favourites: bool, limit: int) -> dict[Any, Any]:
        return {self.parts.limit: limit + PAGE, **self.show(desk_id, search, engine, favourites, limit + PAGE)}

    # -- what can be done ----------------------------------------------------------

    def act(
        self, desk_id: str, search: str, engine: str, favourites: bool, limit: int, event: gr.EventData
    ) -> Iterator[dict[Any, Any]]:
        """Handle a button of a clip in the gallery or of a job in the queue."""
        data = event._data if isinstance(event._data, dict) else {}
        action, job_id, kind = str(data.get("action")), str(data.get("id")), str(data.get("kind"))
        owner, query, undo = self._owner(desk_id), (search, engine, favourites, limit), None
        if action == "export":
            yield from self._export(desk_id, query, job_id, kind)
            return
        if action in ("open", "promote", "edit"):
            opened = self._open(desk_id, job_id, owner, action)
            yield self.show(desk_id, *query) | opened
            return
        if action in ("pause", "go"):
            if owner is None:
                (self._jobs.pause_queue if action == "pause" else self._jobs.resume_queue)()
        elif action in ("delete", "remove"):
            undo = self._jobs.snapshot(job_id)
            self._jobs.trash(job_id, owner)
        else:
            self._simple(action, job_id, kind, owner)
        yield self.show(desk_id, *query, undo=undo)

    def _simple(self, action: str, job_id: str, kind: str, owner: str | None) -> None:
        jobs = self._jobs
        if action == "star":
            snap = jobs.snapshot(job_id)
            jobs.set_favourite(job_id, not (snap and snap.favourite), owner)
            return
        if action == "unexport":
            if (snap := jobs.snapshot(job_id)) and owner in (None, snap.owner):
                self._exports.stop(job_id, kind)
            return
        vary = partial(jobs.duplicate, seed=new_seed())
        begins: dict[str, Callable[..., Job | None]] = {
            "resume": jobs.resume, "twice": jobs.duplicate, "vary": vary, "next": jobs.run_next,
        }  # fmt: skip
        known: dict[str, Callable[..., None]] = {
            "restore": jobs.restore, "up": jobs.move_up, "down": jobs.move_down, "hold": jobs.hold, "stop": jobs.stop,
        }  # fmt: skip
        if action in begins and (action in ("twice", "vary") or not self._studio.show.is_active(job_id)):
            with self._studio.guard.turn(self._studio.show.is_active) as started:  # checks a guest's quota
                job = begins[action](job_id, owner=owner)
                started(job.id if job else job_id)
        elif action in begins or action in known:
            (begins | known)[action](job_id, owner=owner)

    def _open(self, desk_id: str, job_id: str, owner: str | None, action: str) -> dict[Any, Any]:
        """Put a clip's scene on the desk; undo brings back what was there."""
        if action == "edit":
            desk = self._studio.desks.get(desk_id)
            with desk.lock:
                take_back(desk, self._jobs, job_id, owner)
            return self._to_the_desk(desk)
        scene = self._jobs.scene_file(job_id, owner)
        better = promotion_of(DRAFT) if action == "promote" else None
        return self._lay_out(desk_id, scene, better.name if better else None)

    def _lay_out(self, desk_id: str, scene: Path, engine: str | None = None) -> dict[Any, Any]:
        desk = self._studio.desks.get(desk_id)
        with desk.lock:
            before = desk.undo
            desk.remember("opening a clip")
            try:
                open_scene(desk, scene)
            except TroupeError:
                desk.undo = before
                raise
            desk.sheet.edits = ""  # no longer the scene of a job that is being edited
            desk.put("engine", engine or desk.sheet.engine)
        return self._to_the_desk(desk)

    def _to_the_desk(self, desk: Desk) -> dict[Any, Any]:
        return {self.parts.rooms: gr.Tabs(selected="create"), **self._studio.show.everything(desk), **self.leave()}

    def bring(self, desk_id: str, path: str | None) -> dict[Any, Any]:
        """Handle an MP4 of Troupe's that was dropped on the page: open its scene on the desk, with the cast where the
        file carries it."""
        clip = uploaded(path, self._studio.uploads)
        with tempfile.TemporaryDirectory(dir=self._studio.uploads, ignore_cleanup_errors=True) as folder:
            scene_file = unpack(clip, Path(folder))
            if scene_file is not None:
                return self._lay_out(desk_id, scene_file)
        try:
            scene = read_scene(clip)
        except VideoError:
            raise VideoError(f"{clip.name} is not a clip that can be read", "It may be cut off.") from None
        if scene is None:
            raise VideoError("this clip carries no scene of Troupe's", "Choose an MP4 that Troupe has made.")
        desk = self._studio.desks.get(desk_id)
        with desk.lock:
            desk.remember("opening a clip")
            desk.sheet.follow(scene.negative_prompt, scene.direction, scene.sampling)
            desk.put("seed", scene.sampling.seed)
            desk.put("prompt", scene.prompt)
        cast = ", ".join(element.name or element.role for element in scene.cast)
        gr.Warning(fill("This clip carries its words, but no pictures. Add the cast yourself: {}.", cast))
        return self._to_the_desk(desk)

    # -- exports -----------------------------------------------------------------------

    def _export(
        self, desk_id: str, query: tuple[str, str, bool, int], job_id: str, kind: str
    ) -> Iterator[dict[Any, Any]]:
        """Save a clip as another kind of file, showing the progress in the gallery."""
        snap, owner = self._jobs.snapshot(job_id), self._owner(desk_id)
        grid = self.parts.grid
        if snap is None or snap.clip is None or kind not in KINDS or owner not in (None, snap.owner):
            gone = {"id": job_id, "kind": kind, "state": "failed", "words": "There is no such clip. Reload the page."}
            yield {grid: self.show(desk_id, *query)[grid] | {"saved": gone}}
            return
        with self._studio.guard.exporting(), closing(self._exports.make(snap, kind)) as steps:
            for step in steps:
                yield {grid: self.show(desk_id, *query)[grid] | {"saved": step}}


def _seen(value: Any) -> tuple[set[str], str]:
    """Return the ids of the jobs in the queue and the newest clip's id, from a value that the browser sent; it may be
    anything."""
    if not isinstance(value, dict) or not isinstance(value.get("jobs"), list):
        return set(), ""
    return {str(each.get("id")) for each in value["jobs"] if isinstance(each, dict)}, str(value.get("newest"))
