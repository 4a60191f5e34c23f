"""Components of our own: a fixed HTML skeleton, drawn by one of the scripts in assets/web."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import gradio as gr

WEB = Path(__file__).resolve().parent.parent.parent / "assets" / "web"


def own(
    name: str, skeleton: str, value: object, needs: Sequence[str] = (), elem_id: str | None = None,
    told: Mapping[str, object] | None = None,
) -> gr.HTML:  # fmt: skip
    """Make a component that assets/web/<name>.js draws into `skeleton` from `value`, plain data. `needs` are other
    scripts there whose functions it calls; `told` are the server's own numbers that it works with, as `TOLD`."""
    script = f"const TOLD = {json.dumps(told or {})};\n"
    script += "".join((WEB / f"{part}.js").read_text(encoding="utf-8") for part in ("steady", *needs, name))
    return gr.HTML(value, html_template=skeleton, js_on_load=script, apply_default_css=False, elem_id=elem_id)
