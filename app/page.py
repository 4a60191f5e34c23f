"""The whole page: the header and the tabs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from app.api import add_endpoints
from app.clips.gallery import Gallery
from app.clips.housekeeping import Housekeeping
from app.clips.page import build_bring, build_clips, wire_clips
from app.clips.tidying import build_tidying, wire_tidying
from app.create.layout import CreatePage
from app.create.studio import Studio
from app.create.wiring import wire
from app.help.page import build_help
from app.machine.planner import Planner
from app.models.getting import Getting
from app.models.room import build_models
from app.ui.own import WEB
from app.ui.safely import SafeBlocks, safely


@dataclass(frozen=True)
class Rooms:
    """What the page's tabs work with. `release` unloads the model."""

    studio: Studio
    gallery: Gallery
    keeping: Housekeeping
    getting: Getting
    planner: Planner
    release: Callable[[], None]
    outputs: Path


def build_page(rooms: Rooms) -> gr.Blocks:
    """Build the whole page and attach its handlers. Nothing can be used until the browser's desk has been opened."""
    studio, is_owner = rooms.studio, rooms.studio.guard.is_owner
    blocks = SafeBlocks(title="Troupe", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True)
    with blocks:
        _header()
        desk = gr.BrowserState(None, storage_key="troupe-desk", secret="troupe-public-secret")
        bring = build_bring()
        with gr.Tabs(selected="create", elem_id="tr-rooms") as tabs:
            with gr.Tab("Create", id="create") as create:
                page = CreatePage(desk)
            with gr.Tab("Clips", id="clips") as clips_tab:
                clips = build_clips(tabs, bring)
                tidying = build_tidying()
            with gr.Tab("Models", id="models") as models:
                build_models(blocks, models, rooms.getting, is_owner, rooms.planner, rooms.release)
            with gr.Tab("Help", id="help") as help_tab:
                build_help(rooms.outputs, rooms.planner.facts, is_owner)
        everything = wire(blocks, page, studio)
        _keep_up(page, studio)
        wire_clips(clips, [clips_tab, create, models, help_tab], rooms.gallery, desk, everything)
        wire_tidying(tidying, clips_tab, rooms.keeping, is_owner)
        add_endpoints(studio)
    return blocks


def _keep_up(page: CreatePage, studio: Studio) -> None:
    """Start the Create page's timer when a browser tab is shown again and another tab of the same desk has started a
    clip."""

    def look(desk_id: str) -> gr.Timer:
        snap = studio.jobs.snapshot(studio.desks.get(desk_id).sheet.job)
        return gr.Timer(active=True) if snap and snap.active else gr.skip()

    page.ending.look(
        safely(look), [page.desk], [page.timer], show_progress="hidden", api_visibility="private", api_name="page_look"
    )


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
