"""Components of our own: a fixed HTML skeleton, drawn by one of the scripts in assets/web."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

WEB = Path(__file__).resolve().parent.parent.parent / "assets" / "web"


def own(name: str, skeleton: str, value: object, needs: Sequence[str] = (), elem_id: str | None = None) -> gr.HTML:
    """Build a component that assets/web/<name>.js draws into `skeleton` from `value`, plain data; `needs` are other
    scripts there whose functions it calls."""
    script = "".join((WEB / f"{part}.js").read_text(encoding="utf-8") for part in ("steady", *needs, name))
    return gr.HTML(value, html_template=skeleton, js_on_load=script, apply_default_css=False, elem_id=elem_id)
