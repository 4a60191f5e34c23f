"""What a person may choose about the model, and how long a clip may be. Standard library only."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import EngineUnavailable, SceneError
from engine.scene import Scene

DEFAULT_MODEL = "Skywork/SkyReels-A2"
MAX_REFERENCES = 3
USE_THE_DRAFT = "or use the draft (--engine draft): it works now"

_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "ftfy")


@dataclass(frozen=True)
class A2Options:
    """How to run the model; the scene says what to run.

    `model` is a checkpoint's folder or a hub id whose files are already on this machine. `batched_guidance` runs both
    halves of the guidance as one batch: more memory, and a weight is read once for both. `save_latents` keeps the final
    latents in a safetensors file. `state` keeps the run between two steps, and a run that was cut off goes on from it.
    In int8 and fp8 the weights of the transformer and the text encoder are quantised, and what is computed with them is
    bf16, on the CPU fp32; `cache` is the folder that keeps the quantised weights, None for the user's cache folder.
    """

    model: str = DEFAULT_MODEL
    device: str = ""  # "cpu", "cuda", "cuda:1", …; empty: CUDA where it is, else the CPU
    precision: Literal["fp32", "bf16", "int8", "fp8"] | None = None  # None: bf16, on the CPU fp32
    scheduler: Literal["unipc", "euler"] = "unipc"
    batched_guidance: bool = False
    save_latents: Path | None = None
    state: Path | None = None
    cache: Path | None = None


def check_installed() -> None:
    """Raise EngineUnavailable where a library is missing. Imports none of them."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineUnavailable(
            f"the SkyReels-A2 engine (a2) needs {', '.join(missing)}, which {_is(missing)} not installed here",
            f"Install with: python -m pip install -r requirements-a2.txt, {USE_THE_DRAFT}.",
        )


def check_scene(scene: Scene) -> None:
    """Raise SceneError where the model cannot make this scene."""
    video, references = scene.video, min(len(scene.cast), MAX_REFERENCES)
    needed = 4 * references - 3  # the first picture fills one frame, each later one four
    if video.frames % 4 != 1:
        low = video.frames - (video.frames - 1) % 4
        raise SceneError("video.frames", f"{video.frames} is not 4k + 1", f"The a2 engine needs {low} or {low + 4}.")
    if video.frames < needed:
        raise SceneError(
            "video.frames", f"{video.frames} are too few for {references} references", f"Use at least {needed}."
        )
    if video.trim_head >= video.frames:
        raise SceneError(
            "video.trim_head",
            f"cutting off {video.trim_head} frames leaves none of {video.frames}",
            f"Use more frames, or a trim_head below {video.frames}.",
        )


def frames_for(seconds: float, fps: int, trim_head: int) -> int:
    """How many frames to generate so that at least `seconds` are left after the trim: the next 4k + 1."""
    wanted = max(1, math.ceil(seconds * fps - 1e-9)) + trim_head
    return 4 * math.ceil((wanted - 1) / 4) + 1


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
