"""Housekeeping at the foot of the Clips tab: disk usage, the limits, and a clean-up by hand. For the owner only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block

from app.clips.housekeeping import Housekeeping, told
from app.ui.markup import NOTHING, fill, note
from app.ui.safely import Event, Handler, safely
from engine.errors import TroupeError
from engine.words import gigabytes

_MOST_DAYS, _MOST_GB = 3650, 100_000


@dataclass
class Tidying:
    """The accordion's components."""

    box: gr.Accordion
    usage: gr.HTML
    days: gr.Number
    gigabytes: gr.Number
    at_start: gr.Checkbox
    line: gr.HTML
    run: gr.Button


def build_tidying() -> Tidying:
    """Build the components, hidden until the page knows that its owner uses it."""
    with gr.Accordion("Housekeeping", open=False, visible=False, elem_id="tr-tidying") as box:
        usage = gr.HTML("")
        with gr.Row():
            days = gr.Number(
                0, label="Move clips to the trash that are older than so many days", precision=0, minimum=0,
                maximum=_MOST_DAYS, info="0: never. Favourites stay.", min_width=220,
            )  # fmt: skip
            gigabytes = gr.Number(
                0, label="Keep at most so many GB of clips", minimum=0, maximum=_MOST_GB, min_width=220,
                info="0: as many as there are. Else the oldest go to the trash; favourites stay.",
            )  # fmt: skip
        at_start = gr.Checkbox(False, label="Tidy up each time Troupe starts", elem_id="tr-tidy-start")
        line = gr.HTML("", elem_id="tr-tidy-line")
        run = gr.Button("Tidy up now", size="sm", elem_id="tr-tidy")
    return Tidying(box, usage, days, gigabytes, at_start, line, run)


def wire_tidying(parts: Tidying, tab: gr.Tab, keeping: Housekeeping, is_owner: Callable[[], bool]) -> None:
    """Attach the handlers. A changed limit is saved at once, and what it would delete is shown."""

    def see() -> Any:
        return gr.update(visible=is_owner())

    def standing(done: str = "") -> list[str]:
        cells = NOTHING.join(fill("<dt>{}</dt><dd>{}</dd>", name, gigabytes(size)) for name, size in keeping.usage())
        said = f"{done} {told(keeping.plan())}".strip()
        return [fill('<dl class="tr-facts2">{}</dl>', cells), note(said)]

    def unfold() -> list[Any]:
        _owner_only(is_owner)
        chosen = keeping.settings.get()
        return [*standing(), chosen.clips_days, chosen.clips_gb, chosen.tidy_at_start]

    def choose(days: float | None, gigabytes: float | None, at_start: bool) -> list[str]:
        _owner_only(is_owner)
        keeping.settings.put(
            clips_days=int(days or 0), clips_gb=float(gigabytes or 0), tidy_at_start=at_start is True
        )  # fmt: skip
        return standing()

    def run() -> list[str]:
        _owner_only(is_owner)
        return standing(told(keeping.run(), done=True))

    def on(event: Event, handler: Handler, inputs: Sequence[Block], outputs: Sequence[Block], **more: Any) -> None:
        name = f"page_tidying_{handler.__name__}"
        event(safely(handler), inputs, outputs, api_visibility="private", api_name=name, **more)

    shown, chosen = [parts.usage, parts.line], [parts.days, parts.gigabytes, parts.at_start]
    on(tab.select, see, [], [parts.box], show_progress="hidden")
    on(parts.box.expand, unfold, [], [*shown, *chosen], show_progress="hidden")
    for put in (parts.days.input, parts.gigabytes.input, parts.at_start.input):
        on(put, choose, chosen, shown, show_progress="hidden", trigger_mode="always_last")
    on(parts.run.click, run, [], shown, concurrency_limit=1)


def _owner_only(is_owner: Callable[[], bool]) -> None:
    if not is_owner():
        raise TroupeError("Only the owner of this Troupe can tidy up", "Ask them.")
