"""The parts of the Create page, by name: what handlers read and write."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr


@dataclass
class Page:
    """Every component that a handler reads or writes, by name."""

    desk: gr.BrowserState
    editing: gr.State
    opening: gr.HTML
    presets: gr.HTML
    board: gr.HTML
    cast_message: gr.HTML
    undo: gr.Button
    tray_box: gr.Accordion
    tray: gr.HTML
    brush: gr.Column
    editor: gr.ImageEditor
    brush_note: gr.HTML
    brush_apply: gr.Button
    brush_again: gr.Button
    brush_cancel: gr.Button
    tabs: gr.Tabs
    stage: gr.HTML
    prompt: gr.Textbox
    names: gr.HTML
    format: gr.Radio
    seconds: gr.Slider
    engine: gr.Radio
    model_box: gr.Column
    model_note: gr.HTML
    steps: gr.Slider
    guidance: gr.Slider
    flow_shift: gr.Slider
    plan: gr.HTML
    precision: gr.Radio
    offload: gr.Radio
    resident: gr.Number
    guidance_passes: gr.Radio
    turbo: gr.Checkbox
    step_cache: gr.Checkbox
    attention: gr.Dropdown
    lora_help: gr.HTML
    loras: list[gr.Dropdown]
    strengths: list[gr.Number]
    references_tab: gr.Tab
    references: gr.HTML
    preview: gr.HTML
    shown: gr.State  # which preview the browser shows
    seed: gr.Number
    dice: gr.Button
    keep_seed: gr.Checkbox
    camera: gr.Dropdown
    bpm: gr.Slider
    quality: gr.Dropdown
    quality_note: gr.HTML
    negative: gr.Textbox
    embed: gr.Checkbox
    preset_name: gr.Textbox
    preset_save: gr.Button
    generate: gr.Button
    stop: gr.Button
    progress: gr.HTML
    ending: gr.HTML
    video: gr.HTML
    result: gr.HTML
    download: gr.HTML
    again: gr.Button
    clear: gr.Button
    timer: gr.Timer
