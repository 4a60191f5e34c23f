"""Components of our own: a fixed skeleton, drawn by one of the scripts in assets/web."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

WEB = Path(__file__).resolve().parent.parent / "assets" / "web"


def own(name: str, skeleton: str, value: object, **more: object) -> gr.HTML:
    """A component that assets/web/<name>.js draws into `skeleton` from `value`, plain data."""
    before = ("steady", "player") if name in ("clips", "film") else ("steady",)
    script = "".join((WEB / f"{part}.js").read_text(encoding="utf-8") for part in (*before, name))
    return gr.HTML(value, html_template=skeleton, js_on_load=script, apply_default_css=False, **more)
