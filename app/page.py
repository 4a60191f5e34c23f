"""The whole page: the header, and the rooms as tabs."""

from __future__ import annotations

import gradio as gr

from app.api import add_endpoints
from app.create.layout import build_create
from app.create.studio import Studio
from app.create.wiring import wire
from app.models.getting import Getting
from app.models.room import build_models
from app.own import WEB


def build_page(studio: Studio, getting: Getting | None) -> gr.Blocks:
    """The whole page, wired to a studio. It shows nothing to act on until the browser's desk has been opened. `getting`
    is None where strangers may come: then nothing can be downloaded or deleted from it."""
    with gr.Blocks(title="Troupe", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as blocks:
        _header()
        desk = gr.BrowserState(None, storage_key="troupe-desk", secret="troupe-public-secret")
        with gr.Tabs(selected="create", elem_id="tr-rooms"):
            with gr.Tab("Create", id="create"):
                page = build_create(desk)
            with gr.Tab("Models", id="models") as models:
                build_models(models, getting)
        wire(page, studio)
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
