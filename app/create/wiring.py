"""Which event of the page calls which handler of the studio. All are private: the public endpoints are in `app.api`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block

from app.create.layout import CreatePage
from app.create.sheet import page_settings
from app.create.studio import Studio
from app.ui.safely import Event, Handler, safely

# On a phone the clip appears far from the button that was pressed.
TO_THE_CLIP = "() => { if (innerWidth < 900) document.querySelector('#tr-tabs').scrollIntoView({behavior: 'smooth'}) }"


def wire(blocks: gr.Blocks, page: CreatePage, studio: Studio) -> list[Block]:
    """Attach every handler. Call it inside `blocks`, the page's. Returns the components that `studio.show.everything`
    updates."""
    studio.show.page = page
    cast: list[Block] = [
        page.board, page.stage, page.names, page.prompt, page.cast_message, page.undo, page.generate, page.references,
    ]  # fmt: skip
    brush = [*cast, page.brush, page.editing]
    sheet: list[Block] = [
        page.format, page.seconds, page.seed, page.keep_seed, page.camera, page.bpm, page.quality, page.negative,
        page.embed,
    ]  # fmt: skip
    job: list[Block] = [
        page.tabs, page.progress, page.generate, page.stop, page.timer, page.video, page.result, page.download,
        page.again, page.preview, page.shown,
    ]  # fmt: skip
    controls = page.controls
    engine: list[Block] = [
        page.engine, page.engine_box, page.engine_note, page.references_tab, page.references, page.plan, controls.box,
        *controls.folds.values(), *controls.everything,
    ]  # fmt: skip
    shape: list[Block] = [page.stage, page.generate, *engine]
    every: list[Block] = list(dict.fromkeys([page.desk, page.presets, *brush, *sheet, *engine, *job]))

    def on(event: Event, handler: Handler, inputs: Sequence[Block], outputs: Sequence[Block], **more: Any) -> None:
        event(
            safely(handler), [page.desk, *inputs], outputs, **{"show_progress": "hidden", **_private(handler), **more}
        )

    on(blocks.load, studio.open, [], [*every, page.opening])
    on(page.opening.again, studio.open, [], [*every, page.opening], api_name="page_open_again")
    on(
        page.presets.choose,
        studio.choose,
        [page.prompt],
        every,
        show_progress="minimal",
        trigger_mode="multiple",
        concurrency_limit=1,
    )
    on(page.undo.click, studio.undo, [page.prompt], every)
    on(page.clear.click, studio.clear, [page.prompt], every)

    on(page.board.edit, studio.edit, [page.prompt], [*brush, page.editor, page.brush_note], trigger_mode="multiple")
    on(page.tray_box.expand, studio.open_tray, [], [page.tray])
    on(page.tray.pick, studio.take_sample, [], cast, trigger_mode="multiple")
    on(page.stage.place, studio.place, [], [page.stage], trigger_mode="multiple")
    on(
        page.brush_apply.click,
        studio.apply_brush,
        [page.editing, page.editor],
        [*brush, page.brush_note],
        show_progress="minimal",
    )
    on(page.brush_again.click, studio.cut_again, [page.editing], brush, show_progress="minimal")
    on(page.brush_cancel.click, studio.close_brush, [], brush)

    on(page.prompt.change, studio.write_prompt, [page.prompt], [page.names], trigger_mode="always_last")
    changed: dict[str, list[Block]] = {"format": shape, "seconds": shape, "engine": shape, "seed": [page.seed]}
    redrawn: dict[str, list[Block]] = {"": [], "plan": [page.plan], "stage": shape}
    heard: dict[str, Block] = {
        name: getattr(page, name)
        for name in ("seconds", "bpm", "format", "camera", "negative", "embed", "seed", "keep_seed", "engine")
    }
    changed |= {key: redrawn[each.setting.redraws] for key, each in page_settings().items()}
    for name, component in (heard | controls.parts).items():
        # a slider's number box changes without a release; other components have an event for a person's input
        part: Any = component  # each has the events that its kind has
        for event in (part.release, part.change) if isinstance(part, gr.Slider) else (part.input,):
            on(event, studio.setter(name), [component], changed.get(name, []), trigger_mode="always_last")
    on(
        page.quality.input,
        studio.choose_quality,
        [page.quality],
        [page.quality, page.quality_note],
        trigger_mode="multiple",
    )
    for slot, (file, strength) in enumerate(zip(controls.loras, controls.strengths, strict=True)):
        on(file.input, studio.setter(f"lora_{slot}"), [file], shape, trigger_mode="always_last")
        on(strength.input, studio.setter(f"strength_{slot}"), [strength], [], trigger_mode="always_last")
    on(page.dice.click, studio.roll, [], [page.seed])
    on(page.preset_save.click, studio.save_preset, [page.preset_name], [page.presets, page.preset_name])

    on(page.generate.click, studio.generate, [page.prompt], [page.seed, *job])
    page.generate.click(None, js=TO_THE_CLIP, api_visibility="private", api_name="page_scroll")
    on(page.again.click, studio.generate_again, [page.prompt], [page.seed, *job])
    on(page.stop.click, studio.stop, [], job)
    on(page.timer.tick, studio.tick, [page.shown], job)
    return every


def _private(handler: Handler) -> dict[str, str]:
    """Return the arguments that keep a page's listener out of the API, under a name that no public endpoint has."""
    return {"api_visibility": "private", "api_name": f"page_{handler.__name__}"}
