"""The Help tab: check the machine, and copy what a report needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from app.help.diagnostics import diagnostics
from app.help.doctor import Finding, examine
from app.ui.markup import NOTHING, fill, note
from app.ui.safely import safely
from engine.errors import TroupeError

NOT_YOURS = ("Only the owner of this machine can look at it", "Tell whoever gave you the link.")
_WORDS = {"good": "fine", "note": "note", "bad": "needs you"}


def build_help(outputs: Path, hardware: Callable[[], Mapping[str, Any]], is_owner: Callable[[], bool]) -> None:
    """Build the tab's content and attach its handlers. Call it inside the page's Blocks. `hardware()` describes this
    machine; guests of a shared page cannot see it."""
    gr.HTML(
        '<div class="tr-help"><h3>Something does not work?</h3><p>Check the machine first: every line that is not fine '
        "says what to do. If that does not help, copy the diagnostics into your report: versions, hardware and the "
        "last errors, no prompts and no pictures.</p></div>"
    )
    with gr.Row(elem_classes="tr-helprow"):
        check = gr.Button("Check this machine", variant="primary", size="sm", elem_id="tr-check")
        gather = gr.Button("Gather diagnostics", size="sm", elem_id="tr-gather")
    findings = gr.HTML("", elem_id="tr-findings")
    text = gr.Textbox(
        label="Diagnostics", lines=14, max_lines=24, interactive=False, visible=False, buttons=["copy"],
        elem_id="tr-diagnostics",
    )  # fmt: skip

    def look() -> Iterator[str]:
        if not is_owner():
            raise TroupeError(*NOT_YOURS)
        found: list[Finding] = []
        for finding in examine(outputs, is_open=True):
            found.append(finding)
            yield findings_html(found, done=False)
        yield findings_html(found, done=True)

    def tell() -> Any:
        if not is_owner():
            raise TroupeError(*NOT_YOURS)
        return gr.update(value=diagnostics(outputs, hardware()), visible=True)

    for button, handler, shown in ((check, look, findings), (gather, tell, text)):
        button.click(
            safely(handler), None, shown, show_progress="minimal", concurrency_limit=1, api_visibility="private",
            api_name=f"page_help_{handler.__name__}",
        )  # fmt: skip


_FINDING = '<li class="{}"><i>{}</i><div><b>{}</b> {}{}</div></li>'


def findings_html(findings: list[Finding], done: bool) -> Markup:
    """Draw the findings as a list."""
    items = NOTHING.join(
        fill(_FINDING, found.level, _WORDS[found.level], found.what, found.said,
             fill("<p>{}</p>", found.remedy) if found.remedy else NOTHING)
        for found in findings
    )  # fmt: skip
    if not done:
        end = "Looking…"
    elif any(each.level == "bad" for each in findings):
        end = "Something needs you: see above."
    else:
        end = "Troupe can work here."
    return fill('<ul class="tr-findings">{}</ul>', items) + note(end)
