"""The layout of the Create page. The handlers are in `studio`; `wiring` attaches them."""

from __future__ import annotations

import gradio as gr

from app.create.controls import Controls, slider
from app.create.progress import result_html
from app.create.sheet import BPM, SECONDS
from app.guard.limits import MAX_UPLOAD
from app.ui.own import own
from engine.scene.engines import all_engines
from engine.scene.presets import FORMATS
from engine.scene.scene import CAMERAS, DRAFT, MAX_PROMPT

CAMERA_CHOICES = [("As the prompt says", "")] + [(name.replace("_", " ").capitalize(), name) for name in CAMERAS]
QUALITIES = [
    ("Fast (u2netp, 5 MB)", "fast"),
    ("Standard (u2net, fetches 165 MB once)", "standard"),
    ("Best (BiRefNet, fetches about 220 MB once)", "best"),
]
ENDING = (
    '<label><input type="checkbox"><span>Tell me when it is done</span></label><p class="tr-note" role="status"></p>'
)
KEEP, REMOVE = "#2fbf71", "#e5484d"  # the brush's two colours


class CreatePage:
    """The Create page's components, by name, which the handlers read and write. Make it inside the page's Blocks;
    `desk` holds the browser's desk id."""

    def __init__(self, desk: gr.BrowserState) -> None:
        self.desk = desk
        with gr.Row(elem_id="tr-studio", equal_height=False):
            with gr.Column(scale=11, min_width=320, elem_id="tr-left"):
                self._left_column()
            with gr.Column(scale=13, min_width=320, elem_id="tr-right"):
                self._right_column()
        self.editing = gr.State("")
        self.shown = gr.State(0.0)  # which preview the browser shows
        self.timer = gr.Timer(1.0, active=False)

    def _left_column(self) -> None:
        self.opening = own("opening", '<div class="tr-opening"></div>', {"open": False}, elem_id="tr-opening")
        self.presets = own("presets", '<div class="tr-presets"></div>', {"groups": []}, elem_id="tr-presets")
        self.board = own("board", '<div class="tr-board"></div>', {"sections": [], "motions": []}, elem_id="tr-board",
                         told={"largest": MAX_UPLOAD})  # fmt: skip
        self.cast_message = gr.HTML("", elem_id="tr-cast-message")
        self.undo = gr.Button("Undo", size="sm", visible=False, elem_id="tr-undo")
        self.tray_box = gr.Accordion("No pictures at hand? Take some of the sample cast", open=False, elem_id="tr-tray")
        with self.tray_box:
            self.tray = own("tray", '<div class="tr-tray"></div>', {"parts": []})
        self.brush = gr.Column(visible=False, elem_id="tr-brush")
        with self.brush:
            gr.HTML(
                '<p class="tr-brushhelp">Paint <b class="keep">green</b> over what belongs to the cut-out and '
                '<b class="away">red</b> over what does not (the palette changes the colour). What is cut away now is '
                "dark and grey.</p>"
            )
            self.editor = gr.ImageEditor(
                type="pil", image_mode="RGBA", sources=(), transforms=(), format="png",
                height=460, show_label=False,
                brush=gr.Brush(colors=[KEEP, REMOVE], default_color=KEEP, color_mode="fixed", default_size=24),
                layers=gr.LayerOptions(allow_additional_layers=False), buttons=[], elem_id="tr-editor",
            )  # fmt: skip
            self.brush_note = gr.HTML("", elem_id="tr-brush-note")
            with gr.Row():
                self.brush_apply = gr.Button("Apply", variant="primary", size="sm")
                self.brush_again = gr.Button("Cut out again", size="sm")
                self.brush_cancel = gr.Button("Close", size="sm")
        self.prompt = gr.Textbox(
            label="Prompt", lines=4, interactive=False, max_lines=10, max_length=MAX_PROMPT, elem_id="tr-prompt",
            placeholder="Nova lifts the cup on the stage, the camera pushes in slowly.",
        )  # fmt: skip
        self.names = own(
            "names", '<div class="tr-names" role="group" aria-label="Names in the prompt"></div>',
            {"names": [], "note": "", "ok": True}, elem_id="tr-names",
        )  # fmt: skip
        self._shot()

    def _shot(self) -> None:
        offered = all_engines()
        self.engine = gr.Radio(
            [(engine.title, engine.name) for engine in offered], value=DRAFT, label="Engine", elem_id="tr-engine",
            info="; ".join(engine.about for engine in offered if engine.about) + ".",
        )  # fmt: skip
        self.engine_box = gr.Column(visible=False, elem_id="tr-model")
        with self.engine_box:
            self.engine_note = gr.HTML("", elem_id="tr-model-note")
            self.plan = gr.HTML("", elem_id="tr-plan")
            self.controls = Controls()
        with gr.Row(elem_classes="tr-shot"):
            self.format = gr.Radio(list(FORMATS), value="16:9", label="Format", min_width=190, scale=2)
            self.seconds = gr.Slider(
                *SECONDS, 5.4, step=0.2, label="Seconds", min_width=150, scale=2, elem_id="tr-seconds"
            )
        with gr.Row(elem_classes="tr-shot tr-seedrow"):
            self.seed = gr.Number(42, label="Seed", precision=0, min_width=110, scale=2, elem_id="tr-seed")
            self.dice = gr.Button("Random", size="sm", min_width=84, scale=0, elem_id="tr-dice")
            self.keep_seed = gr.Checkbox(False, label="Keep this seed", min_width=130, scale=1, elem_id="tr-lock")
        with gr.Accordion("More settings", open=False, elem_id="tr-more"):
            with gr.Row():
                self.camera = gr.Dropdown(CAMERA_CHOICES, value="", label="Camera", min_width=160)
                self.bpm = slider(BPM, min_width=160)
            self.quality = gr.Dropdown(QUALITIES, value="fast", label="Cut-out quality, for the next picture")
            self.quality_note = gr.HTML("", elem_id="tr-quality-note")
            self.negative = gr.Textbox(
                label="Negative prompt",
                lines=2,
                max_length=MAX_PROMPT,
                info="For the model; the draft does not read it.",
            )
            self.embed = gr.Checkbox(True, label="Write the scene into the MP4, so that it can be opened again")
            with gr.Row():
                self.preset_name = gr.Textbox(label="Keep these settings as a preset", placeholder="Its title", scale=3)
                self.preset_save = gr.Button("Save preset", size="sm", scale=1, min_width=110)
            self.clear = gr.Button("Clear the desk", size="sm", variant="stop", elem_id="tr-clear")

    def _right_column(self) -> None:
        self.tabs = gr.Tabs(selected="stage", elem_id="tr-tabs")
        with self.tabs:
            with gr.Tab("Stage", id="stage"):
                self.stage = own(
                    "stage",
                    '<div class="tr-stage"><div class="tr-frame" aria-label="Stage"></div><div class="tr-bar"></div>'
                    '<p class="tr-live" aria-live="polite"></p></div>',
                    {"width": 832, "height": 480, "actors": []},
                    elem_id="tr-stage",
                )
            self.references_tab = gr.Tab("What the model sees", id="references", visible=False)
            with self.references_tab:
                self.references = gr.HTML("", elem_id="tr-references")
            with gr.Tab("Clip", id="clip"):
                self.preview = gr.HTML("", elem_id="tr-preview")
                self.video = own("film", '<div class="tr-film"></div>', None, ["player"], elem_id="tr-video")
                self.result = gr.HTML(result_html(None), elem_id="tr-result")
                with gr.Row(elem_id="tr-after"):
                    self.download = gr.HTML("", visible=False, elem_id="tr-download")
                    self.again = gr.Button("Again with another seed", visible=False, size="sm", elem_id="tr-again")
        with gr.Column(elem_id="tr-go"):
            with gr.Row():
                self.generate = gr.Button(
                    "Generate", variant="primary", size="lg", scale=3, interactive=False, elem_id="tr-generate"
                )
                self.stop = gr.Button("Stop", size="lg", scale=1, min_width=90, interactive=False, elem_id="tr-stop")
            self.progress = gr.HTML("", elem_id="tr-progress")
            self.ending = own("ending", ENDING, None, elem_id="tr-ending")
