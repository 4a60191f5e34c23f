"""The whole page: the header, and the rooms as tabs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from app.api import add_endpoints
from app.clips.gallery import Gallery
from app.clips.page import build_clips, wire_clips
from app.create.layout import build_create
from app.create.planning import Planner
from app.create.studio import Studio
from app.create.wiring import wire
from app.help.page import build_help
from app.models.getting import Getting
from app.models.room import build_models
from app.own import WEB


@dataclass(frozen=True)
class Rooms:
    """What the page's tabs work with. `release` lets go of the model that is loaded."""

    studio: Studio
    gallery: Gallery
    getting: Getting
    planner: Planner
    release: Callable[[], None]
    outputs: Path


def build_page(rooms: Rooms) -> gr.Blocks:
    """The whole page, wired to its rooms. It shows nothing to act on until the browser's desk has been opened."""
    studio, is_owner = rooms.studio, rooms.studio.guard.is_owner
    with gr.Blocks(title="Troupe", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as blocks:
        _header()
        desk = gr.BrowserState(None, storage_key="troupe-desk", secret="troupe-public-secret")
        with gr.Tabs(selected="create", elem_id="tr-rooms") as tabs:
            with gr.Tab("Create", id="create"):
                page = build_create(desk)
            with gr.Tab("Clips", id="clips") as clips_tab:
                clips = build_clips(tabs)
            with gr.Tab("Models", id="models") as models:
                build_models(models, rooms.getting, is_owner, rooms.planner, rooms.release)
            with gr.Tab("Help", id="help"):
                build_help(rooms.outputs, rooms.planner.facts, is_owner)
        everything = wire(page, studio)
        wire_clips(clips, clips_tab, rooms.gallery, desk, everything)
        add_endpoints(studio)
    return blocks


def _header() -> None:
    gr.HTML(
        html_template=(
            '<header class="tr-head"><span class="tr-mark" aria-hidden="true"><i></i><i></i><i></i></span>'
            "<h1>Troupe</h1><p>Bring a cast. Say what happens. Get the clip.</p>"
            '<button type="button" class="tr-theme" aria-label="Switch between light and dark" title="Light or dark">'
            '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 3a9 9 0 1 0 9 9 7 7 0 0 1-9-9z"/></svg>'
            "</button></header>"
        ),
        js_on_load=(WEB / "header.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="tr-header",
    )
