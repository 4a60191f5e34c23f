"""What stands where on the Create page. What happens is in `studio`, and `wiring` joins the two."""

from __future__ import annotations

import gradio as gr

from app.create.parts import Page
from app.create.progress import result_html
from app.create.sheet import ATTENTIONS, LORAS, SAMPLING, STRENGTH
from app.own import own
from engine.presets import FORMATS
from engine.scene import CAMERAS

CAMERA_CHOICES = [("As the prompt says", "")] + [(name.replace("_", " ").capitalize(), name) for name in CAMERAS]
QUALITIES = [
    ("Fast (u2netp, 5 MB)", "fast"),
    ("Standard (u2net, fetches 165 MB once)", "standard"),
    ("Best (BiRefNet, fetches about 220 MB once)", "best"),
]
ENGINES = [("Draft", "draft"), ("SkyReels-A2", "a2")]
ENDING = (
    '<label><input type="checkbox"><span>Tell me when it is done</span></label><p class="tr-note" role="status"></p>'
)
KEEP, REMOVE = "#2fbf71", "#e5484d"  # the brush's two colours


def build_create(desk: gr.BrowserState) -> Page:
    """The Create page's components; to be called inside the page's Blocks. `desk` holds the browser's desk id."""
    with gr.Row(elem_id="tr-studio", equal_height=False):
        with gr.Column(scale=11, min_width=320, elem_id="tr-left"):
            left = _left_column()
        with gr.Column(scale=13, min_width=320, elem_id="tr-right"):
            right = _right_column()
    kept = {"editing": gr.State(""), "shown": gr.State(0.0), "timer": gr.Timer(1.0, active=False)}
    return Page(desk=desk, **kept, **left, **right)


def _left_column() -> dict:
    found: dict = {}
    found["opening"] = own("opening", '<div class="tr-opening"></div>', {"open": False}, elem_id="tr-opening")
    found["presets"] = own("presets", '<div class="tr-presets"></div>', {"groups": []}, elem_id="tr-presets")
    found["board"] = own("board", '<div class="tr-board"></div>', {"sections": [], "motions": []}, elem_id="tr-board")
    found["cast_message"] = gr.HTML("", elem_id="tr-cast-message")
    found["undo"] = gr.Button("Undo", size="sm", visible=False, elem_id="tr-undo")
    with gr.Accordion("No pictures at hand? Take some of the sample cast", open=False, elem_id="tr-tray") as box:
        found["tray"] = own("tray", '<div class="tr-tray"></div>', {"parts": []})
    found["tray_box"] = box
    with gr.Column(visible=False, elem_id="tr-brush") as found["brush"]:
        gr.HTML(
            '<p class="tr-brushhelp">Paint <b class="keep">green</b> over what belongs to the cut-out and '
            '<b class="away">red</b> over what does not (the palette changes the colour). What is cut away now is '
            "dark and grey.</p>"
        )
        found["editor"] = gr.ImageEditor(
            type="pil", image_mode="RGBA", sources=(), transforms=(), format="png",
            height=460, show_label=False,
            brush=gr.Brush(colors=[KEEP, REMOVE], default_color=KEEP, color_mode="fixed", default_size=24),
            layers=gr.LayerOptions(allow_additional_layers=False), buttons=[], elem_id="tr-editor",
        )  # fmt: skip
        found["brush_note"] = gr.HTML("", elem_id="tr-brush-note")
        with gr.Row():
            found["brush_apply"] = gr.Button("Apply", variant="primary", size="sm")
            found["brush_again"] = gr.Button("Cut out again", size="sm")
            found["brush_cancel"] = gr.Button("Close", size="sm")
    found["prompt"] = gr.Textbox(
        label="Prompt", lines=4, interactive=False, max_lines=10, max_length=4000, elem_id="tr-prompt",
        placeholder="Nova lifts the cup on the stage, the camera pushes in slowly.",
    )  # fmt: skip
    found["names"] = own(
        "names", '<div class="tr-names" role="group" aria-label="Names in the prompt"></div>',
        {"names": [], "note": "", "ok": True}, elem_id="tr-names",
    )  # fmt: skip
    return found | _shot()


def _shot() -> dict:
    found: dict = {}
    found["engine"] = gr.Radio(
        ENGINES, value="draft", label="Engine", elem_id="tr-engine",
        info="The draft takes seconds, on any machine; SkyReels-A2, the video model, takes minutes on a graphics card.",
    )  # fmt: skip
    with gr.Column(visible=False, elem_id="tr-model") as found["model_box"]:
        found["model_note"] = gr.HTML("", elem_id="tr-model-note")
        found["plan"] = gr.HTML("", elem_id="tr-plan")
        with gr.Accordion("Model settings", open=False):
            with gr.Row():
                found["steps"] = gr.Slider(
                    *SAMPLING["steps"],
                    50,
                    step=1,
                    label="Steps",
                    min_width=150,
                    info="More takes longer; the authors use 50.",
                )
                found["guidance"] = gr.Slider(
                    *SAMPLING["guidance"],
                    5.0,
                    step=0.5,
                    label="Guidance",
                    min_width=150,
                    info="How strictly the prompt is followed. At 1 a step takes half the time.",
                )
            found["flow_shift"] = gr.Slider(
                *SAMPLING["flow_shift"],
                8.0,
                step=0.5,
                label="Flow shift",
                info="Higher spends more steps on the layout, lower on detail.",
            )
            found |= _faster() | _another_way()
    with gr.Row(elem_classes="tr-shot"):
        found["format"] = gr.Radio(list(FORMATS), value="16:9", label="Format", min_width=190, scale=2)
        found["seconds"] = gr.Slider(
            1, 60, 5.4, step=0.2, label="Seconds", min_width=150, scale=2, elem_id="tr-seconds"
        )
    with gr.Row(elem_classes="tr-shot tr-seedrow"):
        found["seed"] = gr.Number(42, label="Seed", precision=0, min_width=110, scale=2, elem_id="tr-seed")
        found["dice"] = gr.Button("Random", size="sm", min_width=84, scale=0, elem_id="tr-dice")
        found["keep_seed"] = gr.Checkbox(False, label="Keep this seed", min_width=130, scale=1, elem_id="tr-lock")
    with gr.Accordion("More settings", open=False, elem_id="tr-more"):
        with gr.Row():
            found["camera"] = gr.Dropdown(CAMERA_CHOICES, value="", label="Camera", min_width=160)
            found["bpm"] = gr.Slider(40, 220, 110, step=1, label="Beat (per minute, for dancers)", min_width=160)
        found["quality"] = gr.Dropdown(QUALITIES, value="fast", label="Cut-out quality, for the next picture")
        found["quality_note"] = gr.HTML("", elem_id="tr-quality-note")
        found["negative"] = gr.Textbox(
            label="Negative prompt", lines=2, max_length=4000, info="For the model; the draft does not read it."
        )
        found["embed"] = gr.Checkbox(True, label="Write the scene into the MP4, so that it can be opened again")
        with gr.Row():
            found["preset_name"] = gr.Textbox(label="Keep these settings as a preset", placeholder="Its title", scale=3)
            found["preset_save"] = gr.Button("Save preset", size="sm", scale=1, min_width=110)
        found["clear"] = gr.Button("Clear the desk", size="sm", variant="stop", elem_id="tr-clear")
    return found


def _faster() -> dict:
    """What makes the model faster, or gives it another look."""
    found: dict = {"loras": [], "strengths": []}
    with gr.Accordion("Faster, or another look", open=False):
        gr.HTML('<p class="tr-note">Each of these changes the picture.</p>')
        found["lora_help"] = gr.HTML(
            '<p class="tr-note">A LoRA adds a trained style or subject. Put files made for Wan2.1 14B image-to-video '
            "(.safetensors) into the folder <b>loras</b> beside your clips and reload.</p>"
        )
        for slot in range(LORAS):
            with gr.Row(elem_classes="tr-lora"):
                found["loras"].append(
                    gr.Dropdown([("None", "")], value="", label=f"LoRA {slot + 1}", scale=3, min_width=150)
                )
                found["strengths"].append(
                    gr.Number(1.0, label="Strength", minimum=STRENGTH[0], maximum=STRENGTH[1], step=0.1, scale=1,
                              min_width=90)
                )  # fmt: skip
        found["turbo"] = gr.Checkbox(
            False, label="Turbo",
            info="4 to 8 steps instead of 50. Needs a step-distilled LoRA. Expect less motion and less difference "
            "between seeds; the negative prompt is not used.",
        )  # fmt: skip
        found["step_cache"] = gr.Checkbox(
            False, label="Step cache", info="Reuses most of a step that changes little. Not with Turbo."
        )
        found["attention"] = gr.Dropdown(
            [(name.capitalize(), name) for name in ATTENTIONS], value="native", label="Attention",
            info="Native works everywhere. The others must be installed and need an NVIDIA card.",
        )  # fmt: skip
    return found


def _another_way() -> dict:
    """The plan's lines, for who knows better."""
    found: dict = {}
    with gr.Accordion("Run it another way than planned", open=False):
        found["precision"] = gr.Radio(
            [("As planned", ""), ("bf16", "bf16"), ("int8", "int8"), ("fp8", "fp8")], value="", label="Precision",
            info="8 bits take half the memory and change the picture a little.",
        )  # fmt: skip
        found["offload"] = gr.Radio(
            [("As planned", ""), ("On the card", "none"), ("Streamed", "blocks")], value="", label="The model's blocks",
            info="Streamed blocks wait in the computer's memory and come to the card one by one.",
        )  # fmt: skip
        found["resident"] = gr.Number(
            None, label="Blocks that stay on the card", minimum=0, precision=0, info="Empty: as planned.", step=1
        )
        found["guidance_passes"] = gr.Radio(
            [("As planned", ""), ("Together", "together"), ("In turn", "in turn")], value="", label="Guidance passes",
            info="Together is faster where blocks are streamed, and takes more memory.",
        )  # fmt: skip
    return found


def _right_column() -> dict:
    found: dict = {}
    with gr.Tabs(selected="stage", elem_id="tr-tabs") as found["tabs"]:
        with gr.Tab("Stage", id="stage"):
            found["stage"] = own(
                "stage",
                '<div class="tr-stage"><div class="tr-frame" aria-label="Stage"></div><div class="tr-bar"></div>'
                '<p class="tr-live" aria-live="polite"></p></div>',
                {"width": 832, "height": 480, "actors": []},
                elem_id="tr-stage",
            )
        with gr.Tab("What the model sees", id="references", visible=False) as found["references_tab"]:
            found["references"] = gr.HTML("", elem_id="tr-references")
        with gr.Tab("Clip", id="clip"):
            found["preview"] = gr.HTML("", elem_id="tr-preview")
            found["video"] = own("film", '<div class="tr-film"></div>', None, ["player"], elem_id="tr-video")
            found["result"] = gr.HTML(result_html(None), elem_id="tr-result")
            with gr.Row(elem_id="tr-after"):
                found["download"] = gr.HTML("", visible=False, elem_id="tr-download")
                found["again"] = gr.Button("Again with another seed", visible=False, size="sm", elem_id="tr-again")
    with gr.Column(elem_id="tr-go"):
        with gr.Row():
            found["generate"] = gr.Button(
                "Generate", variant="primary", size="lg", scale=3, interactive=False, elem_id="tr-generate"
            )
            found["stop"] = gr.Button("Stop", size="lg", scale=1, min_width=90, interactive=False, elem_id="tr-stop")
        found["progress"] = gr.HTML("", elem_id="tr-progress")
        found["ending"] = own("ending", ENDING, None, elem_id="tr-ending")
    return found
