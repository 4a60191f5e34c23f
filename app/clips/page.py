"""What stands where on the Clips tab, and which event calls which handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from app.clips.gallery import PAGE, Gallery, Parts
from app.own import own
from app.safely import safely

ENGINES = [("All", "all"), ("Draft", "draft"), ("SkyReels-A2", "a2")]


def build_clips(rooms: gr.Tabs) -> Parts:
    """The tab's components; to be called inside the page's Blocks. `rooms` are the page's tabs."""
    queue = own("queue", '<div class="tr-queue"></div>', {"jobs": []}, elem_id="tr-queue")
    with gr.Row(elem_id="tr-find"):
        search = gr.Textbox(
            show_label=False, placeholder="Search prompts and names", scale=3, min_width=180, max_length=200,
            elem_id="tr-search",
        )  # fmt: skip
        engine = gr.Radio(ENGINES, value="all", show_label=False, scale=2, min_width=220)
        favourites = gr.Checkbox(False, label="Favourites", scale=1, min_width=110)
        bring = gr.UploadButton(
            "Open an MP4 as its scene", file_types=[".mp4"], type="filepath", size="sm", scale=1, min_width=190,
            elem_id="tr-bring",
        )  # fmt: skip
    note = gr.HTML("", elem_id="tr-saved")
    grid = own("clips", '<div class="tr-clips"></div>', {"clips": [], "kinds": []}, elem_id="tr-clips")
    more = gr.Button("Show more", visible=False, size="sm", elem_id="tr-show-more")
    return Parts(
        grid, queue, search, engine, favourites, more, gr.State(PAGE), note, bring,
        gr.Timer(1.5, active=False), rooms,
    )  # fmt: skip


def wire_clips(parts: Parts, tab: gr.Tab, gallery: Gallery, desk: gr.BrowserState, everything: list) -> None:
    """Attach the handlers. `everything` is what opening a scene changes on the Create tab."""
    gallery.parts = parts
    query = [desk, parts.search, parts.engine, parts.favourites, parts.limit]
    shown = [parts.grid, parts.more, parts.queue, parts.timer]
    acted = [*shown, parts.note, parts.rooms, *everything]

    def on(event: Callable, handler: Callable, inputs: list, outputs: list, **more: Any) -> None:
        quiet = {"show_progress": "hidden", "api_visibility": "private", "api_name": f"page_clips_{handler.__name__}"}
        event(safely(handler), inputs, outputs, **quiet | more)

    on(tab.select, gallery.show, query, shown)
    for change in (parts.search.change, parts.engine.input, parts.favourites.input):
        on(change, gallery.show, query, shown, trigger_mode="always_last")
    on(parts.more.click, gallery.show_more, query, [parts.limit, *shown])
    on(parts.grid.act, gallery.act, query, acted, trigger_mode="multiple")
    on(parts.queue.act, gallery.act, query, acted, trigger_mode="multiple")
    on(parts.bring.upload, gallery.bring, [desk, parts.bring], [parts.rooms, *everything], show_progress="minimal")
    on(parts.timer.tick, gallery.tick, [*query, parts.queue], shown)
