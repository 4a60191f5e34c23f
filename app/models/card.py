"""The third section of the Models tab: this machine's graphics card, how fast it is, and unloading the model."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from markupsafe import Markup

from app.machine.planner import Planner
from app.ui.markup import NOTHING, each, fill
from app.ui.safely import safely
from engine.children import command_of, environment
from engine.errors import TroupeError
from engine.memory.hardware import Hardware
from engine.words import GIB

NEEDS = "The video model needs an NVIDIA card with 6 GB or more."
_PATIENCE = 300.0  # seconds that measuring may take


def build_card(tab: gr.Tab, planner: Planner, release: Callable[[], None], is_owner: Callable[[], bool]) -> None:
    """Build the section and attach its handlers. Call it inside the tab. `release` unloads the model."""
    shown = gr.HTML("", elem_id="tr-card-plan")
    with gr.Row(elem_classes="tr-actions", visible=False) as actions:
        measure = gr.Button("Measure its speed", size="sm", elem_id="tr-measure")
        free = gr.Button("Let go of the loaded model", size="sm", elem_id="tr-release")

    def look() -> dict[Any, Any]:
        if not is_owner():
            return {shown: ""}
        hardware = planner.hardware()
        can = hardware is not None and hardware.device.value == "cuda"  # plans give times for such a card only
        return {
            shown: card_html(hardware),
            actions: gr.update(visible=hardware is not None and hardware.torch.value is not None),
            measure: gr.update(visible=can),
        }

    def calibrate() -> Iterator[dict[Any, Any]]:
        if not is_owner():
            return
        hardware = planner.hardware()
        for said in measured(hardware):
            yield {shown: card_html(hardware, said)}

    def let_go() -> dict[Any, Any]:
        if not is_owner():
            return {shown: ""}
        release()
        return {shown: card_html(planner.hardware(0.0), "The memory is free again.")}

    for event, handler, outputs in (
        (tab.select, look, [shown, actions, measure]), (measure.click, calibrate, [shown]),
        (free.click, let_go, [shown]),
    ):  # fmt: skip
        event(
            safely(handler), None, outputs, show_progress="hidden", api_visibility="private", concurrency_limit=1,
            api_name=f"models_card_{handler.__name__}",
        )  # fmt: skip


def measured(hardware: Hardware | None) -> Iterator[str]:
    """Measure the speed in a process of its own, yielding the progress in words. Raises TroupeError where that is not
    possible."""
    if hardware is None or not hardware.torch.value:
        raise TroupeError("The libraries are not installed yet", "Install them first: they are what is measured.")
    device = "cuda" if hardware.device.value == "cuda" else "cpu"
    command = command_of("engine.a2.plan.calibration", device, "bf16" if device == "cuda" else "fp32")
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    begun = time.monotonic()
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        creationflags=hidden,
    ) as process:  # fmt: skip
        try:
            while process.poll() is None and time.monotonic() - begun < _PATIENCE:
                yield f"Measuring… {time.monotonic() - begun:.0f} s"
                time.sleep(1)
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode != 0:
        raise TroupeError("Measuring failed", "Close other programs that use the card, and try again.")
    yield "Measured: plans now tell minutes, and clips use the fastest attention."


_CARD = '<section class="tr-part"><h3><i aria-hidden="true">3</i>Graphics card</h3>{}{}</section>'


def card_html(hardware: Hardware | None, said: str = "") -> Markup:
    """Draw the graphics card that was found, with the reasons."""
    lines = [NEEDS] if hardware is None else list(_lines(hardware))
    told = fill('<p role="status">{}</p>', said) if said else NOTHING
    return fill(_CARD, each("<p>{}</p>", lines), told)


def _lines(hardware: Hardware) -> Iterator[str]:
    ram = hardware.ram_total.value
    memory = f" The computer has {ram / GIB:.0f} GB of memory." if isinstance(ram, int) else ""
    if not hardware.has_card:
        yield f"No card can be used: {hardware.device.why}. {NEEDS}{memory}"
        return
    total, free = hardware.vram_total.value, hardware.vram_free.value
    size = (
        f", {free / GIB:.1f} of {total / GIB:.1f} GB free" if isinstance(total, int) and isinstance(free, int) else ""
    )
    yield f"{hardware.name.value or 'A card'}{size}.{memory}"
    if hardware.device.value == "cuda":
        yield "With the video model chosen on the Create tab, the plan there says how your clip fits it."
    else:
        yield f"It is no NVIDIA card, and the model does not run on it yet. {NEEDS}"
