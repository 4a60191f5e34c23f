"""Diagnostics to paste into a report: versions, hardware, findings, errors. No prompt, no picture, no person's name."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.help.doctor import ROOT, examine
from app.jobs.log import last_failure
from app.logs import last_engine_errors, last_errors
from engine import VERSION, surroundings

PACKAGES = ("gradio", "pydantic", "numpy", "pillow", "rembg", "onnxruntime", "imageio-ffmpeg", "torch", "diffusers",
            "transformers", "optimum-quanto", "huggingface_hub")  # fmt: skip

_JOB_LINES = 60


def diagnostics(outputs: Path, hardware: Mapping[str, Any], plan: Mapping[str, Any] | None = None) -> str:
    """Return the whole report. `hardware` and `plan` are plain data, as the engine gives them."""
    parts = [
        f"Troupe {VERSION}, Python {platform.python_version()}, {platform.platform()}",
        "\n".join(f"{name} {_version(name)}" for name in PACKAGES),
        "\n".join(f"{each.level}: {each.what}: {each.said}" for each in examine(outputs, is_open=True)),
        "Hardware: " + json.dumps(hardware, sort_keys=True),
    ]
    if plan:
        parts.append("Plan: " + json.dumps(plan, sort_keys=True))
    logs = outputs / "logs"
    for title, lines in (
        ("Last errors", last_errors(logs)),
        ("Last errors of the engine", last_engine_errors(logs)),
        ("Last job that failed", last_failure(outputs / "clips")[-_JOB_LINES:]),
    ):
        parts.append(f"{title}:\n" + (_unquoted("\n".join(lines)) if lines else "none"))
    home = {folder: "~" for folder in [surroundings.home()] if folder}
    return without_private("\n\n".join(parts), {outputs: "<outputs>", ROOT: "<troupe>", **home})


def without_private(text: str, known: Mapping[Path, str]) -> str:
    """Redact a text: without what people wrote (our messages quote it) and without paths; `known` folders are replaced
    by their names."""
    spelled = {str(path): name for folder, name in known.items() for path in (folder, folder.resolve())
               if path.name}  # fmt: skip  # never a whole disk: every path would lose its first letter
    for folder in sorted(spelled, key=len, reverse=True):  # before the quotes: a folder may have an apostrophe
        text = text.replace(folder, spelled[folder])
    text = re.sub(r"(?<!\w)'[^\n]*?'(?!\w)|“[^”\n]*”", "'…'", text)
    part = r"[^\s:,;()'\"/\\]+(?: +[^\s:,;()'\"/\\]+)*"  # folders have spaces in their names
    return re.sub(rf"(?<![\w.])(?:[A-Za-z]:[\\/]|\\\\|/)(?:{part}[/\\])+", "…/", text)


def _unquoted(text: str) -> str:
    """Remove what Python puts in double quotes because it holds an apostrophe; file names in a traceback stay."""
    return re.sub(r'(?<!File )"[^"\n]*"', '"…"', text)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
