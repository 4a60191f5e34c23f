"""The layout of the Clips tab, and which event calls which handler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block

from app.clips.gallery import PAGE, Gallery, Parts
from app.guard.limits import MAX_UPLOAD, MB
from app.ui.own import own
from app.ui.safely import Event, Handler, safely
from engine.scene.engines import all_engines

ALL = ("All", "all")


# Gradio draws a tab's components when it is opened; the upload for a dropped clip must be there from the start.
PICK = "() => document.querySelector('input[data-testid=\"Open a clip-upload-button\"]')?.click()"


def build_bring() -> gr.UploadButton:
    """Build the hidden upload that takes an MP4 from the button of the Clips tab or dropped on the page (drop.js)."""
    with gr.Row(elem_classes="tr-unseen"):
        bring = gr.UploadButton("Open a clip", file_types=[".mp4"], type="filepath", elem_id="tr-bring")
    drop = own(
        "drop",
        '<div class="tr-drop" aria-hidden="true">Drop it to open its scene</div>',
        None,
        elem_id="tr-drop",
        told={"largest": MAX_UPLOAD},
    )
    drop.refuse(
        lambda: gr.Warning(f"This file is too large for a clip of Troupe's: up to {MAX_UPLOAD // MB} MB are taken."),
        None, None, api_visibility="private", api_name="page_clips_refuse",
    )  # fmt: skip
    return bring


def build_clips(rooms: gr.Tabs, bring: gr.UploadButton) -> Parts:
    """Build the tab's components. Call it inside the page's Blocks. `rooms` are the page's tabs."""
    queue = own("queue", '<div class="tr-queue"></div>', {"jobs": []}, elem_id="tr-queue")
    engines = [ALL, *((engine.title, engine.name) for engine in all_engines())]
    with gr.Row(elem_id="tr-find"):
        search = gr.Textbox(
            show_label=False, placeholder="Search prompts and names", scale=3, min_width=180, max_length=200,
            elem_id="tr-search",
        )  # fmt: skip
        engine = gr.Radio(engines, value="all", show_label=False, scale=2, min_width=220)
        favourites = gr.Checkbox(False, label="Favourites", scale=1, min_width=110)
        pick = gr.Button("Open an MP4 as its scene", size="sm", scale=1, min_width=190, elem_id="tr-pick")
    pick.click(None, js=PICK, api_visibility="private", api_name="page_clips_pick")
    grid = own("clips", '<div class="tr-clips"></div>', {"clips": [], "kinds": []}, ["player"], elem_id="tr-clips")
    more = gr.Button("Show more", visible=False, size="sm", elem_id="tr-show-more")
    return Parts(
        grid, queue, search, engine, favourites, more, gr.State(PAGE), bring,
        gr.Timer(2.0, active=False), rooms,
    )  # fmt: skip


def wire_clips(
    parts: Parts, tabs: list[gr.Tab], gallery: Gallery, desk: gr.BrowserState, everything: list[Block]
) -> None:
    """Attach the handlers. `tabs` are the Clips tab and the others; `everything` lists the components that opening a
    scene updates."""
    gallery.parts = parts
    query = [desk, parts.search, parts.engine, parts.favourites, parts.limit]
    shown = [parts.grid, parts.more, parts.queue, parts.timer]
    acted = [*shown, parts.rooms, *everything]

    def on(event: Event, handler: Handler, inputs: Sequence[Block], outputs: Sequence[Block], **more: Any) -> None:
        quiet = {"show_progress": "hidden", "api_visibility": "private", "api_name": f"page_clips_{handler.__name__}"}
        event(safely(handler), inputs, outputs, **quiet | more)

    on(tabs[0].select, gallery.show, query, shown)
    for tab in tabs[1:]:
        on(tab.select, gallery.leave, [], [parts.timer])
    for change in (parts.search.change, parts.engine.input, parts.favourites.input):
        on(change, gallery.show, query, shown, trigger_mode="always_last")
    on(parts.more.click, gallery.show_more, query, [parts.limit, *shown])
    on(parts.grid.act, gallery.act, query, acted, trigger_mode="multiple")
    on(parts.queue.act, gallery.act, query, acted, trigger_mode="multiple")
    brought = [parts.rooms, parts.timer, *everything]
    on(parts.bring.upload, gallery.bring, [desk, parts.bring], brought, show_progress="minimal")
    on(parts.timer.tick, gallery.tick, [*query, parts.queue], shown)
