"""The handlers of the Create page: each reads the desk that it is given, changes it, and returns what to show.

A handler gets the desk's id from the browser and nothing that names a file, and returns updates made by `Display`.
Exceptions pass: `app.ui.safely` shows them on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from markupsafe import escape
from PIL import Image, ImageChops

from app.create import views
from app.create.desk import Desk
from app.create.desks import Desks, bring_background, lay_out_scene
from app.create.display import Display, Updates
from app.create.engines import Engines
from app.create.fetching import Fetching, choose_quality
from app.create.layout import CreatePage
from app.create.library import Library
from app.create.sheet import page_settings
from app.create.shoot import new_seed, shoot
from app.create.tray import Tray
from app.guard.guard import Guard
from app.guard.limits import MAX_UPLOAD, MB
from app.guard.uploads import uploaded
from app.jobs.queue import Job, JobQueue
from app.jobs.status import DONE
from app.ui.markup import fill, note
from engine.errors import TroupeError
from engine.scene.engines import find_engine
from engine.words import plain_name

SHAPING = ("format", "seconds", "engine")  # fields that redraw the stage, beside the settings that declare it


class Studio:
    """The page's handlers, over the desks, the jobs and the presets of one server."""

    def __init__(
        self, desks: Desks, jobs: JobQueue, library: Library, tray: Tray, guard: Guard, engines: Engines
    ) -> None:
        self.desks, self.jobs, self.library, self.tray, self.guard = desks, jobs, library, tray, guard
        self.uploads, self.engines = guard.ownership.uploads, engines
        self.fetching = Fetching()
        self.show = Display(jobs, library, engines)

    @property
    def page(self) -> CreatePage:
        return self.show.page

    # -- the cast -------------------------------------------------------------------

    def open(self, desk_id: str | None) -> Updates:
        """Show the whole desk when the page is loaded or reloaded, the running job included."""
        try:
            desk = self.desks.get(desk_id)
        except TroupeError:  # the first visit, or a stored id that is none
            desk = self.desks.new()
        self.uploads.mkdir(parents=True, exist_ok=True)  # it may have been deleted meanwhile
        desk.idle.wait(3.0)  # for uploads that were running when the page was reloaded
        prompt = gr.update(value=desk.sheet.prompt, interactive=True)
        ready = {self.page.prompt: prompt, self.page.opening: {"open": True}}
        if self.guard.is_owner() and (notice := self.jobs.take_notice()):
            gr.Warning(escape(notice))
        if desk.notice:
            gr.Warning(escape(desk.notice))
            desk.notice = ""
        snap = self.jobs.snapshot(desk.sheet.job)
        has_clip = bool(snap and (snap.active or snap.state == DONE))
        return self.show.everything(desk, tab="clip" if has_clip else "stage") | ready

    def _take_upload(self, desk: Desk, data: dict[str, Any]) -> Updates:
        """Add an uploaded picture to the cast, or to the card that it is another view `of`. The returned value of
        `page.board` tells the browser which of its uploads it was."""
        problem, made, name = "", "", data.get("name")
        try:
            path = uploaded(data.get("path"), self.uploads)
            if data.get("of"):
                made = desk.add_view(str(data["of"]), path).id
            else:
                made = desk.add(str(data.get("role")), path, called=name if isinstance(name, str) else "").id
        except TroupeError as error:
            problem = str(error)
        shown = self.show.cast(desk, [problem] if problem else [])
        shown[self.page.board] |= {"heard": str(data.get("value"))[:40], "refused": problem, "made": made}
        if not problem:
            del shown[self.page.cast_message]  # it may show an error of the upload before
        return shown

    def open_tray(self, desk_id: str) -> Updates:
        return {self.page.tray: self.tray.value}

    def take_sample(self, desk_id: str, event: gr.EventData) -> Updates:
        """Add a picture of the sample cast. It counts as the person's own: no preset replaces it."""
        desk = self.desks.get(desk_id)
        try:
            desk.add(*self.tray.pick(str(_data(event).get("key"))))
        except TroupeError as error:
            return self.show.cast(desk, [str(error)])
        return self.show.cast(desk)

    def edit(self, desk_id: str, prompt: str, event: gr.EventData) -> Updates:
        """Handle a card's controls: upload, name, motion, whole photo, brush, further views, remove."""
        desk, data, page = self.desks.get(desk_id), _data(event), self.page
        action, card_id, value = data.get("action"), str(data.get("id")), str(data.get("value") or "")
        changes = {"name": desk.rename, "motion": desk.set_motion, "mode": desk.set_mode, "unview": desk.remove_view}
        if action == "upload":
            return self._take_upload(desk, data)
        if action == "too large":  # the browser did not send it: one large file would fail the others
            return self.show.cast(desk, [f"{value[:200]}: too large. Pictures up to {MAX_UPLOAD // MB} MB are taken."])
        try:
            with desk.replacing(prompt):
                if action in changes:
                    changes[action](card_id, value)
                elif action == "remove":
                    desk.remove(card_id)
                elif action == "retouch":
                    return self._open_brush(desk, card_id)
        except TroupeError as error:
            return self.show.cast(desk, [str(error)])
        closing = {page.brush: gr.update(visible=False)} if action == "remove" else {}
        return self.show.cast(desk, prompt=action == "name") | closing

    def place(self, desk_id: str, event: gr.EventData) -> Updates:
        """Move a card on the stage, or place one or all automatically."""
        desk, data = self.desks.get(desk_id), dict(_data(event))
        card_id, automatic = str(data.pop("id", "")), data.pop("auto", False)
        with desk.lock:
            try:
                if automatic == "all":
                    desk.place_automatically()
                else:
                    desk.place(card_id, None if automatic else data, views.spots_of(desk))
            except TroupeError as error:  # the stage is redrawn too
                gr.Warning(escape(str(error)))
            return {self.page.stage: views.stage_value(desk)}

    def clear(self, desk_id: str, prompt: str) -> Updates:
        desk = self.desks.get(desk_id)
        with desk.replacing(prompt):
            desk.clear()
        return self.show.scene(desk)

    def undo(self, desk_id: str, prompt: str) -> Updates:
        desk = self.desks.get(desk_id)
        with desk.replacing(prompt):
            desk.undo_last()
        return self.show.scene(desk)

    # -- the brush ---------------------------------------------------------------------

    def _open_brush(self, desk: Desk, card_id: str) -> Updates:
        page = self.page
        background = views.editor_background(desk, desk.card(card_id))
        value = {"background": background, "layers": [], "composite": None}
        return {page.brush: gr.update(visible=True), page.editor: value, page.editing: card_id, page.brush_note: ""}

    def apply_brush(self, desk_id: str, card_id: str, drawing: dict[str, Any] | None) -> Updates:
        desk, masks = self.desks.get(desk_id), _painted(drawing)
        if masks is None:
            note = '<p class="tr-note warn" role="alert">Nothing was painted yet.</p>'
            return {self.page.brush_note: note}
        with desk.lock:
            desk.retouch(card_id, *masks)
        return self.close_brush(desk_id)

    def cut_again(self, desk_id: str, card_id: str) -> Updates:
        desk = self.desks.get(desk_id)
        with desk.lock:
            desk.cut_again(card_id)
        return self.close_brush(desk_id)

    def close_brush(self, desk_id: str) -> Updates:
        closed = {self.page.brush: gr.update(visible=False), self.page.editing: ""}
        return self.show.cast(self.desks.get(desk_id)) | closed

    # -- the sheet ----------------------------------------------------------------------

    def write_prompt(self, desk_id: str, prompt: str) -> Updates:
        desk = self.desks.get(desk_id)
        with desk.lock:
            desk.hear(prompt)
            return {self.page.names: views.names_value(desk)}

    def setter(self, name: str) -> Callable[[str, Any], Updates | None]:
        def put(desk_id: str, value: Any) -> Updates | None:
            desk = self.desks.get(desk_id)
            with desk.lock:
                desk.put(name, value)
                redraws = page_settings()[name].setting.redraws if name in page_settings() else ""
                if name in SHAPING or name.startswith("lora_") or redraws == "stage":
                    return self.show.shape(desk)
                if redraws == "plan":
                    return {self.page.plan: self.show.plan(desk)}
                if name == "seed":  # sent back only where it was corrected: a person may still be typing
                    return {self.page.seed: desk.sheet.seed} if value not in (None, desk.sheet.seed) else gr.skip()
                return None

        return put

    def choose_quality(self, desk_id: str, value: str) -> Iterator[Updates]:
        """Choose another background remover, showing the time while it is downloaded."""
        for said, quality in choose_quality(self.fetching, self.desks.get(desk_id), value, self.guard.is_owner()):
            yield {self.page.quality_note: note(said) if said else "", self.page.quality: quality}

    def roll(self, desk_id: str) -> Updates:
        desk = self.desks.get(desk_id)
        with desk.lock:
            desk.put("seed", new_seed())
        return {self.page.seed: desk.sheet.seed}

    def choose(self, desk_id: str, prompt: str, event: gr.EventData) -> Updates:
        """Apply a preset. A cast of the person's own is kept, with the preset's background where it has none; where
        there is no cast, or only the last preset's, the sample cast is laid out. Undo brings back what was there."""
        desk, key = self.desks.get(desk_id), str(_data(event).get("key"))
        with desk.replacing(prompt):  # first: takes the lock, so that a click on Generate right after waits
            sample = self.library.sample(key)
            desk.remember_own("picking a preset")
            if sample and all(card.sample for card in desk.cards):
                lay_out_scene(desk, sample)
                self.library.direct(desk, key, keep_words=True)
            else:
                if sample:
                    bring_background(desk, sample)
                self.library.direct(desk, key)
            desk.mark()
        return self.show.scene(desk)

    def save_preset(self, desk_id: str, title: str) -> Updates:
        desk = self.desks.get(desk_id)
        with desk.lock:
            self.library.keep(desk, title)
        gr.Info(fill("Saved {}.", plain_name(title).strip()))
        return {self.page.presets: self.library.strip(desk.sheet.preset), self.page.preset_name: ""}

    # -- the job ------------------------------------------------------------------------

    def check_room(self) -> None:
        """Check that there is room for one more clip of the current visitor, raising TroupeError where there is
        none."""
        with self.guard.turn(self.show.is_active):
            self.jobs.check_room("")

    def shoot(self, desk: Desk) -> Job:
        """Put the desk's scene in the queue for the current visitor. Raises SceneError, or TroupeError where there is
        no room."""
        with self.guard.turn(self.show.is_active) as started:
            job = shoot(desk, self.jobs, self.engines.options(desk), self.engines.plan(desk))
            started(job.id)
        return job

    def generate(self, desk_id: str, prompt: str, again: bool = False) -> Updates:
        """Start a clip, unless this desk has one waiting or running: then that one is shown."""
        desk = self.desks.get(desk_id)
        with desk.lock:
            if not self.show.is_active(desk.sheet.job):
                sheet = desk.sheet
                desk.hear(prompt)
                if again or not (sheet.keep_seed or sheet.fresh_seed):
                    desk.put("seed", new_seed())
                self.shoot(desk)
                sheet.fresh_seed = False
                desk.save()
            slow = not find_engine(desk.sheet.engine).is_draft
            waits = {self.page.tabs: gr.Tabs(selected="clip")} if slow else {}  # for its preview
            return {self.page.seed: desk.sheet.seed, **waits, **self.show.job(desk)}

    def generate_again(self, desk_id: str, prompt: str) -> Updates:
        return self.generate(desk_id, prompt, again=True)

    def stop(self, desk_id: str) -> Updates:
        desk = self.desks.get(desk_id)
        self.jobs.stop(desk.sheet.job)
        return self.show.job(desk)

    def tick(self, desk_id: str, shown: float) -> Updates:
        return self.show.job(self.desks.get(desk_id), shown=shown if isinstance(shown, float | int) else -1.0)


def _data(event: gr.EventData) -> dict[str, Any]:
    """Return the data of an event of one of our components; empty where a stranger sent something else."""
    return event._data if isinstance(event._data, dict) else {}


def _painted(drawing: dict[str, Any] | None) -> tuple[Image.Image, Image.Image] | None:
    """Convert a drawing of the editor to two masks (L, white is painted): green adds, red removes. None where nothing
    was painted."""
    layers = [layer for layer in (drawing or {}).get("layers", []) if layer is not None]
    if not layers:
        return None
    red, green, _, alpha = layers[0].convert("RGBA").split()
    painted = alpha.point(lambda a: 255 if a > 96 else 0)
    greener = ImageChops.subtract(green, red).point(lambda d: 255 if d > 0 else 0)
    add = ImageChops.multiply(painted, greener)
    return (add, ImageChops.subtract(painted, add)) if painted.getbbox() else None
