"""The whole page: the header, and the rooms as tabs."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from app.api import add_endpoints
from app.clips.gallery import Gallery
from app.clips.page import build_clips, wire_clips
from app.create.layout import build_create
from app.create.studio import Studio
from app.create.wiring import wire
from app.help.page import build_help
from app.models.getting import Getting
from app.models.room import build_models
from app.own import WEB


def build_page(studio: Studio, gallery: Gallery, getting: Getting, outputs: Path) -> gr.Blocks:
    """The whole page, wired to a studio, a gallery and what gets the model. It shows nothing to act on until the
    browser's desk has been opened."""
    with gr.Blocks(title="Troupe", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as blocks:
        _header()
        desk = gr.BrowserState(None, storage_key="troupe-desk", secret="troupe-public-secret")
        with gr.Tabs(selected="create", elem_id="tr-rooms") as rooms:
            with gr.Tab("Create", id="create"):
                page = build_create(desk)
            with gr.Tab("Clips", id="clips") as clips_tab:
                clips = build_clips(rooms)
            with gr.Tab("Models", id="models") as models:
                build_models(models, getting, studio.guard.is_owner)
            with gr.Tab("Help", id="help"):
                build_help(outputs, dict, studio.guard.is_owner)
        everything = wire(page, studio)
        wire_clips(clips, clips_tab, gallery, desk, everything)
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
