"""What happens on the Create page: each handler reads the desk it is given, changes it, and says what to show.

A handler gets the desk's id from the browser and nothing that names a file. It returns a dict of component to value,
so that only what changed is sent.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageChops

from app import views
from app.desk import Desk
from app.desks import Desks, lay_out_scene
from app.fetching import Fetching
from app.jobs import DONE, JobBoard
from app.library import Library
from app.parts import Page
from app.shoot import new_seed, shoot
from app.tray import Tray
from engine import cutout
from engine.errors import TroupeError

Updates = dict[Any, Any]


class Studio:
    """The desks, the jobs and the presets of one server, and the page's handlers over them."""

    def __init__(self, desks: Desks, jobs: JobBoard, library: Library, tray: Tray) -> None:
        self.desks, self.jobs, self.library, self.tray = desks, jobs, library, tray
        self.fetching = Fetching()
        self.page: Page = None  # type: ignore[assignment]  # set when the page is wired

    def presets_value(self, selected: str = "") -> dict:
        return self.library.strip(selected)

    # -- what to show ------------------------------------------------------------

    def _cast(self, desk: Desk, message: str = "", prompt: bool = False) -> Updates:
        """The cast's components; the prompt only where the handler changed it, since a person may be typing there."""
        page = self.page
        note = f'<div class="tr-message bad" role="alert">{message}</div>' if message else ""
        return {
            page.board: views.board_value(desk), page.stage: views.stage_value(desk), page.cast_message: note,
            page.names: views.names_value(desk), **({page.prompt: desk.sheet.prompt} if prompt else {}),
        }  # fmt: skip

    def _sheet(self, desk: Desk) -> Updates:
        page, sheet = self.page, desk.sheet
        return {
            page.format: sheet.format, page.seconds: sheet.seconds, page.seed: sheet.seed,
            page.keep_seed: sheet.keep_seed, page.camera: sheet.camera or "", page.bpm: sheet.bpm,
            page.quality: sheet.quality, page.negative: sheet.negative_prompt, page.embed: sheet.embed_scene,
        }  # fmt: skip

    def _job(self, desk: Desk) -> Updates:
        page = self.page
        snap = self.jobs.snapshot(desk.sheet.job)
        active = bool(snap and snap.active)
        updates: Updates = {
            page.progress: views.progress_html(snap), page.generate: gr.update(interactive=not active),
            page.stop: gr.update(interactive=active), page.timer: gr.Timer(active=active),
        }  # fmt: skip
        if snap and snap.state == DONE:
            clip = str(snap.clip)
            updates |= {
                page.tabs: gr.Tabs(selected="clip"), page.video: clip, page.result: views.result_html(snap),
                page.download: gr.update(value=clip, visible=True), page.again: gr.update(visible=True),
            }  # fmt: skip
        return updates

    def _every(self, desk: Desk, message: str = "") -> Updates:
        page = self.page
        return {
            page.desk: desk.id, page.presets: self.presets_value(desk.sheet.preset), page.editing: "",
            page.brush: gr.update(visible=False), **self._cast(desk, message, prompt=True), **self._sheet(desk),
            **self._job(desk),
        }  # fmt: skip

    # -- the cast -------------------------------------------------------------------

    def open(self, desk_id: str | None) -> Updates:
        """The page was loaded or reloaded: everything as it was left, the running job included."""
        try:
            desk = self.desks.get(desk_id)
        except TroupeError:  # the first visit, or a stored id that is none
            desk = self.desks.new()
        ready = {self.page.prompt: gr.update(value=desk.sheet.prompt, interactive=True)}
        return self._every(desk) | ready

    def _desk(self, desk_id: object) -> Desk:
        try:
            return self.desks.get(desk_id)
        except TroupeError as error:
            raise gr.Error(str(error)) from None

    def uploader(self, role: str) -> Callable:
        def take(desk_id: str, files: str | list[str] | None) -> Updates:
            desk = self._desk(desk_id)
            problems = []
            for path in [files] if isinstance(files, str) else files or []:
                try:
                    desk.add(role, Path(path))
                except TroupeError as error:  # one bad file does not take the others with it
                    problems.append(html.escape(str(error)))
            return self._cast(desk, "<br>".join(problems))

        return take

    def open_tray(self, _: str) -> Updates:
        return {self.page.tray: self.tray.value}

    def take_sample(self, desk_id: str, event: gr.EventData) -> Updates:
        """One of the sample cast was picked: from now on one of the person's own, whom no preset replaces."""
        desk = self._desk(desk_id)
        try:
            desk.add(*self.tray.pick(str(_data(event).get("key"))))
        except TroupeError as error:
            return self._cast(desk, html.escape(str(error)))
        return self._cast(desk)

    def edit(self, desk_id: str, event: gr.EventData) -> Updates:
        """A card's own controls: name, motion, photo as it is, touch up, remove."""
        desk = self._desk(desk_id)
        data = _data(event)
        action, card_id, value = data.get("action"), str(data.get("id")), data.get("value")
        page = self.page
        try:
            with desk.lock:
                if action == "name":
                    desk.rename(card_id, str(value or ""))
                elif action == "motion":
                    desk.set_motion(card_id, str(value or ""))
                elif action == "mode":
                    desk.set_mode(card_id, str(value))
                elif action == "remove":
                    desk.remove(card_id)
                elif action == "retouch":
                    return self._open_brush(desk, card_id)
        except TroupeError as error:
            return self._cast(desk, html.escape(str(error)))
        closing = {page.brush: gr.update(visible=False)} if action == "remove" else {}
        return self._cast(desk, prompt=action == "name") | closing

    def place(self, desk_id: str, event: gr.EventData) -> Updates:
        """Someone was moved on the stage, or is to be placed automatically again."""
        desk = self._desk(desk_id)
        data = dict(_data(event))
        card_id, automatic = str(data.pop("id", "")), data.pop("auto", False)
        try:
            with desk.lock:
                if automatic == "all":
                    desk.place_automatically()
                else:
                    desk.place(card_id, None if automatic else data)
        except TroupeError as error:
            raise gr.Error(str(error)) from None
        return {self.page.stage: views.stage_value(desk)}

    def clear(self, desk_id: str) -> Updates:
        desk = self._desk(desk_id)
        with desk.lock:
            desk.clear()
        return self._every(desk)

    # -- the brush ---------------------------------------------------------------------

    def _open_brush(self, desk: Desk, card_id: str) -> Updates:
        page = self.page
        background = views.editor_background(desk, desk.card(card_id))
        value = {"background": background, "layers": [], "composite": None}
        return {page.brush: gr.update(visible=True), page.editor: value, page.editing: card_id}

    def apply_brush(self, desk_id: str, card_id: str, drawing: dict | None) -> Updates:
        desk = self._desk(desk_id)
        try:
            with desk.lock:
                desk.retouch(card_id, *_painted(drawing))
        except TroupeError as error:
            return self._cast(desk, html.escape(str(error)))
        return self.close_brush(desk_id)

    def cut_again(self, desk_id: str, card_id: str) -> Updates:
        desk = self._desk(desk_id)
        try:
            with desk.lock:
                desk.cut_again(card_id)
        except TroupeError as error:
            return self._cast(desk, html.escape(str(error)))
        return self.close_brush(desk_id)

    def close_brush(self, desk_id: str) -> Updates:
        return self._cast(self._desk(desk_id)) | {self.page.brush: gr.update(visible=False), self.page.editing: ""}

    # -- the sheet ----------------------------------------------------------------------

    def write_prompt(self, desk_id: str, prompt: str) -> Updates:
        desk = self._desk(desk_id)
        with desk.lock:
            desk.sheet.prompt = (prompt or "")[:4000]
            desk.save()
        return {self.page.names: views.names_value(desk)}

    def setter(self, name: str) -> Callable:
        def put(desk_id: str, value: Any) -> Updates | None:
            desk = self._desk(desk_id)
            with desk.lock:
                desk.set(name, value)
            return {self.page.stage: views.stage_value(desk)} if name == "format" else None

        return put

    def choose_quality(self, desk_id: str, value: str) -> Iterator[Updates]:
        """Another background remover. One that is not here is fetched first, while the page says how long; until it is
        here, the one before goes on. Choosing anything else stops the fetching."""
        page, desk = self.page, self._desk(desk_id)
        if value not in cutout.QUALITIES:
            return
        if cutout.is_here(value):
            self.fetching.stop()
            desk.set("quality", value)
            yield {page.quality_note: ""}
            return
        self.fetching.start(value)
        while (seconds := self.fetching.seconds(value)) is not None:
            said = f"Fetching it: {seconds:.0f} s so far. Choose Fast to stop."
            yield {page.quality_note: f'<p class="tr-note" role="status">{said}</p>'}
            time.sleep(1)
        if cutout.is_here(value):
            desk.set("quality", value)
            yield {page.quality_note: '<p class="tr-note" role="status">It is here. Your next picture uses it.</p>'}
        elif not self.fetching.was_stopped(value):
            failed = "It could not be fetched; check the network. The one before goes on."
            yield {
                page.quality_note: f'<p class="tr-note warn" role="alert">{failed}</p>',
                page.quality: desk.sheet.quality,
            }

    def roll(self, desk_id: str) -> Updates:
        desk = self._desk(desk_id)
        with desk.lock:
            desk.set("seed", new_seed())
        return {self.page.seed: desk.sheet.seed}

    def choose(self, desk_id: str, event: gr.EventData) -> Updates:
        """A preset was picked. With a cast of one's own it directs that cast; else its sample cast comes along."""
        desk = self._desk(desk_id)
        key = str(_data(event).get("key"))
        try:
            with desk.lock:
                sample = self.library.sample(key)
                if sample and all(card.sample for card in desk.cards):
                    lay_out_scene(desk, sample)
                    self.library.direct(desk, key, keep_words=True)
                else:
                    self.library.direct(desk, key)
        except TroupeError as error:
            return self._every(desk, html.escape(str(error)))
        return self._every(desk)

    def save_preset(self, desk_id: str, title: str) -> Updates:
        desk = self._desk(desk_id)
        try:
            self.library.keep(desk, title)
        except TroupeError as error:
            raise gr.Error(str(error)) from None
        gr.Info(f"Saved {title.strip()}.")
        return {self.page.presets: self.presets_value(desk.sheet.preset), self.page.preset_name: ""}

    # -- the job ------------------------------------------------------------------------

    def generate(self, desk_id: str, prompt: str, again: bool = False) -> Updates:
        desk = self._desk(desk_id)
        try:
            with desk.lock:
                desk.sheet.prompt = (prompt or "")[:4000]
                if again or not desk.sheet.keep_seed:
                    desk.set("seed", new_seed())
                shoot(desk, self.jobs)
        except TroupeError as error:
            raise gr.Error(str(error), title="Not yet") from None
        return {self.page.seed: desk.sheet.seed, **self._job(desk)}

    def generate_again(self, desk_id: str, prompt: str) -> Updates:
        return self.generate(desk_id, prompt, again=True)

    def stop(self, desk_id: str) -> Updates:
        desk = self._desk(desk_id)
        self.jobs.stop(desk.sheet.job)
        return self._job(desk)

    def tick(self, desk_id: str) -> Updates:
        return self._job(self._desk(desk_id))


def _data(event: gr.EventData) -> dict:
    """What one of our own components told with its event; a stranger may have sent anything."""
    return event._data if isinstance(event._data, dict) else {}


def _painted(drawing: dict | None) -> tuple[Image.Image, Image.Image]:
    """The two masks (L, white is painted) in what the editor sent: green adds, red removes."""
    layers = [layer for layer in (drawing or {}).get("layers", []) if layer is not None]
    if not layers:
        raise TroupeError("Nothing was painted", "Paint over what to add or remove, then press Apply.")
    red, green, _, alpha = layers[0].convert("RGBA").split()
    painted = alpha.point(lambda a: 255 if a > 96 else 0)
    greener = ImageChops.subtract(green, red).point(lambda d: 255 if d > 0 else 0)
    add = ImageChops.multiply(painted, greener)
    return add, ImageChops.subtract(painted, add)
