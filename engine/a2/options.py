"""What a person may choose about the model, and how long a clip may be. Standard library only."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from engine.a2.geometry import MAX_REFERENCES, first_frames, lengths_beside
from engine.errors import EngineUnavailable, SceneError
from engine.scene.scene import Sampling, Scene
from engine.words import USE_THE_DRAFT

DEFAULT_MODEL = "Skywork/SkyReels-A2"

TURBO_STEPS = (4, 8)  # what step-distilled weights are trained for, and the most that still helps
TURBO_SHIFT = 5.0  # with four steps: the noise levels 1, 0.94, 0.83, 0.63 that the distillation used

_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "ftfy")


Attention = Literal["native", "flash", "flash3", "sage", "xformers"]


@dataclass(frozen=True)
class Lora:
    """A LoRA file, and how strongly it goes into the weights; 0 leaves them as they are."""

    path: Path
    strength: float = 1.0


@dataclass(frozen=True)
class A2Options:
    """How to run the model; the scene says what to run.

    `model` is a checkpoint's folder or a hub id whose files are already on this machine. `batched_guidance` runs both
    halves of the guidance as one batch: more memory, and a weight is read once for both. `offload` "blocks" keeps the
    transformer's and the text encoder's blocks on the host and brings each when it computes, except `resident_blocks`
    of the transformer's; the numbers are the same. `save_latents` keeps the final
    latents in a safetensors file. `state` keeps the run between two steps, and a run that was cut off goes on from it.
    `preview` is kept showing what the model has in mind, a small moving picture (WebP).
    In int8 and fp8 the weights of the transformer and the text encoder are quantised, and what is computed with them is
    bf16, on the CPU fp32; `cache` is the folder that keeps the quantised weights, None for the user's cache folder.

    These save memory and cost a little time: the transformer works on `chunk` tokens at a time, the decoder on tiles of
    `tile` latent pixels (0: all at once, as far as frames are not large); with `encode_tiled` the encoder works in
    tiles, too, which changes the picture a little.

    These trade the picture for time, or for another picture: `loras` change the weights; `turbo` runs step-distilled
    weights (one of the LoRAs) as they want to be run, whatever the scene says; `step_cache` reuses most of a step that
    changes little; `attention` is how attention is computed.
    """

    model: str = DEFAULT_MODEL
    device: str = ""  # "cpu", "cuda", "cuda:1", …; empty: CUDA where it is, else the CPU
    precision: Literal["fp32", "bf16", "int8", "fp8"] | None = None  # None: bf16, on the CPU fp32
    scheduler: Literal["unipc", "euler"] | None = None  # None: unipc, with turbo euler
    batched_guidance: bool = False
    offload: Literal["none", "blocks"] = "none"
    resident_blocks: int | None = None  # None: none of them
    save_latents: Path | None = None
    state: Path | None = None
    preview: Path | None = None
    chunk: int = 0
    tile: int = 0
    encode_tiled: bool = False
    loras: tuple[Lora, ...] = ()
    turbo: bool = False
    step_cache: bool = False
    attention: Attention = "native"
    cache: Path | None = None

    @property
    def solver(self) -> Literal["unipc", "euler"]:
        """The scheduler that is used."""
        return self.scheduler or ("euler" if self.turbo else "unipc")


# Said anew for every run. All else decides what is loaded, and how.
_OF_A_RUN = (
    "scheduler", "batched_guidance", "save_latents", "state", "preview", "chunk", "tile", "encode_tiled", "turbo",
    "step_cache", "attention",
)  # fmt: skip


def of_the_model(options: A2Options) -> A2Options:
    """The options without what is said anew for every run: equal where one loaded model serves both."""
    return A2Options(**{f.name: getattr(options, f.name) for f in fields(options) if f.name not in _OF_A_RUN})


def check_installed() -> None:
    """Raise EngineUnavailable where a library is missing. Imports none of them."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineUnavailable(
            f"the SkyReels-A2 engine (a2) needs {', '.join(missing)}, which {_is(missing)} not installed here",
            f"Install on the Models page or with: python launch.py models install, {USE_THE_DRAFT}.",
        )


def check_scene(scene: Scene) -> None:
    """Raise SceneError where the model cannot make this scene."""
    video, references = scene.video, min(len(scene.cast), MAX_REFERENCES)
    needed = first_frames(references)
    if video.frames not in (lengths := lengths_beside(video.frames)):
        low, high = lengths
        raise SceneError("video.frames", f"{video.frames} is not 4k + 1", f"The a2 engine needs {low} or {high}.")
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


def check_speed(options: A2Options) -> None:
    """Raise EngineUnavailable where the choices that make it faster do not go together."""
    for lora in options.loras:
        if not math.isfinite(lora.strength):
            raise EngineUnavailable(
                f"{lora.path.name}: {lora.strength} is not a strength", "Use a number such as 0.8; 1 is as it was made."
            )
    if options.turbo and not any(lora.strength for lora in options.loras):
        raise EngineUnavailable(
            "turbo needs a step-distilled LoRA for Wan2.1 image-to-video",
            "Name its file with --lora, or leave out --turbo.",
        )
    if options.turbo and options.step_cache:
        raise EngineUnavailable(
            "turbo and the step cache do not go together: of so few steps none can be spared", "Choose one of them."
        )


def as_run(scene: Scene, options: A2Options) -> Scene:
    """The scene with the sampling that is used: turbo takes 4 to 8 steps (the scene's where they are that few), no
    guidance, and the flow shift that the weights were distilled with."""
    if not options.turbo:
        return scene
    asked, (fewest, most) = scene.sampling, TURBO_STEPS
    steps = asked.steps if fewest <= asked.steps <= most else fewest
    return scene.model_copy(
        update={"sampling": Sampling(steps=steps, guidance=1.0, flow_shift=TURBO_SHIFT, seed=asked.seed)}
    )


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
