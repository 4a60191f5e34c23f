"""The Create page's components as a desk has them: a dict of component to value, so that only what changed is sent."""

from __future__ import annotations

from typing import Any

import gradio as gr
from markupsafe import Markup

from app.create import views
from app.create.desk import Desk
from app.create.engines import Engines, engine_updates, references_html
from app.create.layout import CreatePage
from app.create.library import Library
from app.create.plan_view import plan_html
from app.create.progress import (
    download_html,
    film_value,
    preview_html,
    preview_stamp,
    progress_html,
    result_html,
)
from app.create.sheet import SECONDS
from app.jobs.queue import JobQueue
from app.jobs.status import DONE, Snapshot
from app.ui.markup import message
from engine.scene.engines import find_engine

Updates = dict[Any, Any]
_RECENT = 20  # jobs among which the last finished clip of a desk is looked for


class Display:
    """Makes the updates of the page's components from a desk, its job and the engines."""

    def __init__(self, jobs: JobQueue, library: Library, engines: Engines) -> None:
        self._jobs, self._library, self._engines = jobs, library, engines
        self.page: CreatePage  # set when the page is wired

    def cast(self, desk: Desk, problems: list[str] | None = None, prompt: bool = False) -> Updates:
        """Return the cast's components; the prompt only where `prompt` says that the handler changed it, since a person
        may be typing there."""
        page, lines = self.page, Markup("<br>").join(problems or [])
        with desk.lock:
            return {
                page.board: views.board_value(desk), page.stage: views.stage_value(desk),
                page.names: views.names_value(desk), page.undo: _undo_button(desk),
                page.cast_message: message(lines, "bad", "alert") if lines else "",
                page.generate: self._generate(desk),
                page.references: references_html(desk, self._engines),
                **({page.prompt: desk.sheet.prompt} if prompt else {}),
            }  # fmt: skip

    def sheet(self, desk: Desk) -> Updates:
        """Return the components of the sheet."""
        page, sheet = self.page, desk.sheet
        return {
            page.format: gr.update(choices=views.format_choices(desk), value=sheet.format),
            page.seconds: gr.update(value=sheet.seconds, minimum=min(SECONDS[0], sheet.seconds), maximum=sheet.longest),
            page.seed: sheet.seed,
            page.keep_seed: sheet.keep_seed, page.camera: sheet.camera or "", page.bpm: sheet.bpm,
            page.quality: sheet.quality, page.negative: sheet.negative_prompt, page.embed: sheet.embed_scene,
            **engine_updates(page, desk, self._engines),
        }  # fmt: skip

    def _preview(self, desk: Desk, snap: Snapshot | None, shown: float) -> Updates:
        """Return the live preview, where it is newer than the one that the browser shows."""
        stamp = preview_stamp(snap)
        if stamp == shown:
            return {}
        video = views.video_of(desk)
        shape = (video["width"], video["height"])
        return {self.page.preview: preview_html(snap, shape), self.page.shown: stamp}

    def job(self, desk: Desk, tab: str = "clip", shown: float = -1.0) -> Updates:
        """Return the job's components; a finished clip opens its tab, unless `tab` names another. `shown` is the stamp
        of the preview that the browser shows."""
        page, snap = self.page, self._jobs.snapshot(desk.sheet.job)
        active = bool(snap and snap.active)
        updates: Updates = {
            page.progress: progress_html(snap), page.stop: gr.update(interactive=active),
            page.generate: self._generate(desk),
            page.timer: gr.Timer(active=active), page.video: gr.update(visible=not (active and _has_preview(snap))),
            **self._preview(desk, snap, shown),
        }  # fmt: skip
        if snap and snap.state == DONE:
            updates |= {page.tabs: gr.Tabs(selected=tab), **self._film(snap)}
        return updates

    def _film(self, snap: Snapshot, visible: bool = True) -> Updates:
        """Return the components of a finished clip."""
        page = self.page
        return {
            page.video: gr.update(value=film_value(snap), visible=visible), page.result: result_html(snap),
            page.download: gr.update(value=download_html(snap), visible=True), page.again: gr.update(visible=True),
        }  # fmt: skip

    def _last_film(self, desk: Desk) -> Updates:
        """Return the components of the desk's last finished clip, where its present job is none: that one is under way,
        or came to nothing."""
        snap = self._jobs.snapshot(desk.sheet.job)
        if snap and snap.state == DONE:
            return {}
        finished = (each for each in self._jobs.history(desk.id, limit=_RECENT) if each.state == DONE and each.clip)
        last = next(finished, None)
        return self._film(last, not (snap and snap.active and _has_preview(snap))) if last is not None else {}

    def scene(self, desk: Desk, tab: str = "stage") -> Updates:
        """Return all components of the scene, without the job's: a job that was started a moment later may be shown
        already."""
        page = self.page
        with desk.lock:
            return {
                page.desk: desk.id, page.presets: self._library.strip(desk.sheet.preset), page.editing: "",
                page.brush: gr.update(visible=False), page.tabs: gr.Tabs(selected=tab), **self.sheet(desk),
                **self.cast(desk, prompt=True),
            }  # fmt: skip

    def everything(self, desk: Desk, tab: str = "stage") -> Updates:
        """Return all of the page's components."""
        with desk.lock:
            return self.scene(desk, tab) | self.job(desk, tab) | self._last_film(desk)

    def shape(self, desk: Desk) -> Updates:
        """Return the components that depend on the engine and on the clip's size and length."""
        page = self.page
        return {
            page.stage: views.stage_value(desk), **engine_updates(page, desk, self._engines),
            page.generate: self._generate(desk),
        }  # fmt: skip

    def plan(self, desk: Desk) -> str:
        """Draw how this machine would make the clip; empty where nothing is planned."""
        plans = self._engines.planner.plans(find_engine(desk.sheet.engine))
        return plan_html(self._engines.plan(desk)) if plans and desk.cards else ""

    def _generate(self, desk: Desk) -> Any:
        """Return the Generate button, enabled where the desk has no active job and its scene can be made."""
        return gr.update(interactive=not self.is_active(desk.sheet.job) and self._engines.can_shoot(desk))

    def is_active(self, job_id: str) -> bool:
        """Return whether a job is waiting or running."""
        snap = self._jobs.snapshot(job_id)
        return bool(snap and snap.active)


def _has_preview(snap: Snapshot | None) -> bool:
    return preview_stamp(snap) > 0


def _undo_button(desk: Desk) -> Any:
    label = f"Undo {desk.undo.what}" if desk.undo else "Undo"
    return gr.update(value=label, visible=desk.undo is not None)
