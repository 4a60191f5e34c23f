"""What a person may choose about the model. Imports none of its libraries."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, SkipValidation
from pydantic.dataclasses import dataclass as checked_dataclass

from engine.a2.geometry import ClipSize, first_frames, lengths_beside, references_of
from engine.a2.models import A2, SKYREELS_A2, Family, ModelSpec, spec_of
from engine.errors import EngineUnavailable, SceneError
from engine.scene.engine import EngineOptions, Lora
from engine.scene.scene import Sampling, Scene, Video
from engine.scene.settings import AS_PLANNED, Setting
from engine.words import USE_THE_DRAFT, listed

DEFAULT_MODEL = SKYREELS_A2.model

TURBO_STEPS = (4, 8)  # what step-distilled weights are trained for, and the most that still helps
TURBO_SHIFT = 5.0  # with four steps: the noise levels 1, 0.94, 0.83, 0.63 that the distillation used

_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "ftfy")
_FASTER = "Faster, or another look"  # the folds of the page
_ANOTHER_WAY = "Run it another way than planned"
_WITH_FAST = "With Fast"

Attention = Literal["native", "cudnn", "flash", "flash3", "sage", "xformers"]
Precision = Literal["fp32", "bf16", "int8", "fp8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def lora_of(text: str) -> Lora:
    """Parse `FILE`, or `FILE:STRENGTH`; the colon of a Windows drive is part of the file. Raises ArgumentTypeError."""
    file, colon, strength = text.rpartition(":")
    if not colon or (len(file) == 1 and file.isalpha()):
        return Lora(Path(text))
    try:
        return Lora(Path(file), float(strength))
    except ValueError:
        if not file.lower().endswith(".safetensors"):  # a name with a colon in it
            return Lora(Path(text))
        raise argparse.ArgumentTypeError(f"{strength!r} in {text!r} is not a strength, such as 0.8") from None


@checked_dataclass(frozen=True)
class A2Options(EngineOptions):
    """How to run the model; the scene says what to run.

    `model` is a checkpoint's folder, a transformer's file, or a hub id whose files are already on this machine;
    `family` says what family of models it is of, where its name does not. `batched_guidance` runs both
    halves of the guidance as one batch: more memory, and a weight is read once for both. `offload` "blocks" keeps the
    transformer's and the text encoder's blocks on the host and copies each to the device when it computes, except
    `resident_blocks` of the transformer's; results are the same. `save_latents` keeps the final latents (safetensors).
    `state` keeps the run between two steps, and a run that was cut off goes on from it. `preview` keeps a small moving
    picture (WebP) of the clip as the model predicts it so far. In int8 and fp8 the weights of the transformer and the
    text encoder are quantised, and what is computed with them is bf16, on the CPU fp32; `cache` is the folder that
    keeps the quantised weights, None for the user's cache folder.

    These save memory and cost a little time: the transformer works on `chunk` tokens at a time (0: on all), the decoder
    on tiles of `tile` latent pixels (0: on whole frames where they are not large, with `whole_frames` in any case);
    with `encode_tiled` the encoder works in tiles, too, which changes the picture a little. Streamed blocks wait on the
    `host`, "pinned" unless it says otherwise: all of them, or `in_memory` of them, and the others in the file.
    `together`: all components stay loaded (None: unless blocks stream); otherwise each is loaded for its turn. `cards`
    make the clip together, as far as it can be divided among them; what is said of a card is said of each.
    `keep_context` takes memory and saves time: the context's keys and values stay over a run.

    These trade the picture for time, or for another picture: `loras` change the weights; `turbo` runs step-distilled
    weights (one of the LoRAs) as they want to be run, whatever the scene says; `step_cache` reuses most of a step that
    changes little; `attention` is how attention is computed (None: natively, unless a plan knows what is fastest here);
    `w8a8` multiplies in 8 bits; `compiled` compiles the blocks; `vae_precision` is the VAE's (None: fp32). `fast`
    decides those of them that are None, and the step cache (see fast.py).
    """

    engine: ClassVar[str] = "a2"
    notes: ClassVar[Mapping[str, str]] = {_FASTER: "Each of these changes the picture."}

    model: Annotated[  # a file name may hold what is no text
        str, SkipValidation, Setting(metavar="DIR", flag="the checkpoint's folder, or a hub id that is on this machine")
    ] = DEFAULT_MODEL  # fmt: skip
    family: Annotated[  # None: as the model's name says
        Family | None,
        Setting(flag="the family of models that it is of, where its folder does not say: their weights look alike"),
    ] = None  # fmt: skip
    device: Annotated[  # empty: CUDA where it is, else the CPU
        str, Setting(flag="cpu, cuda, cuda:1, … (default: cuda where it is)", holds_anyway=("cpu",))
    ] = ""  # fmt: skip
    precision: Annotated[  # None: bf16, on the CPU fp32
        Precision | None,
        Setting(
            "Precision", "8 bits take half the memory and change the picture a little.", "radio", _ANOTHER_WAY,
            {None: AS_PLANNED, "bf16": "bf16", "int8": "int8", "fp8": "fp8"}, redraws="stage", planned=True,
            flag="default: bf16, on the CPU fp32", holds_anyway=("fp32",),
        ),
    ] = None  # fmt: skip
    offload: Annotated[  # None: none
        Literal["none", "blocks"] | None,
        Setting(
            "The model's blocks",
            "Streamed blocks wait in the computer's memory and come to the card one by one.", "radio", _ANOTHER_WAY,
            {None: AS_PLANNED, "none": "On the card", "blocks": "Streamed"}, redraws="stage", planned=True,
            flag="blocks: each of the model's is brought when it computes (default: none)", holds_anyway=("none",),
        ),
    ] = None  # fmt: skip
    resident_blocks: Annotated[  # None: none of them
        int | None, Field(ge=0, le=1000),
        Setting(
            "Blocks that stay on the card", "Empty: as planned.", "number", _ANOTHER_WAY, redraws="stage", planned=True,
            flag="how many stay all the same (default: none)", metavar="N",
        ),
    ] = None  # fmt: skip
    batched_guidance: Annotated[  # None: no
        bool | None,
        Setting(
            "Guidance passes", "Together is faster where blocks are streamed, and takes more memory.", "radio",
            _ANOTHER_WAY, {None: AS_PLANNED, True: "Together", False: "In turn"}, redraws="stage", planned=True,
        ),
    ] = None  # fmt: skip
    cards: Annotated[  # None: one
        int | None, Field(ge=1, le=64),
        Setting(
            "Cards", "How many make a clip together, each with the whole model. Empty: one.", "number", _ANOTHER_WAY,
            redraws="stage", planned=True, several_cards=True,
            flag="how many cards make the clip together (default: one)", metavar="N",
        ),
    ] = None  # fmt: skip
    save_latents: Annotated[
        Path | None, Setting(
            metavar="FILE.safetensors", flag="keep the final denoised latents as well",
            refused="there are no latents to save",
        ),
    ] = None  # fmt: skip
    state: Annotated[
        Path | None,
        Setting(
            metavar="FILE.safetensors", flag="keep the run after every step; one that was cut off goes on there"
        ),
    ] = None  # fmt: skip
    preview: Path | None = None
    chunk: int = 0
    tile: int = 0
    whole_frames: bool = False
    encode_tiled: bool = False
    host: Literal["pinned", "pageable", "mapped"] | None = None
    in_memory: int | None = None
    together: bool | None = None
    keep_context: bool = False
    loras: Annotated[
        tuple[Lora, ...],
        Setting(
            "LoRA", group=_FASTER, redraws="stage",
            flag="a LoRA for Wan2.1 14B image-to-video (.safetensors; strength 1 unless said); may be given several "
            "times", flag_name="lora", metavar="FILE[:STRENGTH]", parse=lora_of,
        ),
    ] = ()  # fmt: skip
    turbo: Annotated[
        bool,
        Setting(
            "Turbo", "4 to 8 steps instead of 50. Needs a step-distilled LoRA. Expect less motion and less difference "
            "between seeds; the negative prompt is not used.", "checkbox", _FASTER, redraws="stage",
            flag="4 to 8 steps, no guidance; needs a step-distilled --lora",
        ),
    ] = False  # fmt: skip
    step_cache: Annotated[
        bool,
        Setting(
            "Step cache", "Reuses most of a step that changes little. Not with Turbo.", "checkbox", _FASTER,
            redraws="stage", flag="reuse most of the steps that change little",
        ),
    ] = False  # fmt: skip
    fast: Annotated[
        bool,
        Setting(
            "Fast", "Turns on what is worth it for this clip on this machine: the step cache (not with Turbo), 8-bit "
            "multiplication, a compiled model for long clips, the VAE in bf16. What you choose of these below stays as "
            "you choose it.", "checkbox", _FASTER, redraws="stage",
            flag="turn on what is worth it: the step cache, W8A8, compiling, the VAE in bf16",
        ),
    ] = False  # fmt: skip
    attention: Annotated[  # None: the fastest that was measured, and natively where nothing was
        Attention | None,
        Setting(
            "Attention", "The Models page measures which is fastest on this card. Native and cuDNN come with PyTorch; "
            "the others must be installed. All but native need an NVIDIA card.", "dropdown", _FASTER,
            {None: "The fastest measured", "native": "Native", "cudnn": "cuDNN", "flash": "FlashAttention 2",
             "flash3": "FlashAttention 3", "sage": "SageAttention (8 bits)", "xformers": "xFormers"},
            redraws="stage", flag="default: the fastest that was measured here, else native; all but native and cudnn "
            "must be installed",
        ),
    ] = None  # fmt: skip
    w8a8: Annotated[  # None: no
        bool | None,
        Setting(
            "Multiply in 8 bits (W8A8)", "Activations are rounded to 8 bits, too, not only the weights. Needs int8 "
            "(RTX 30 or newer) or fp8 (RTX 40 or newer).", "radio", _FASTER,
            {None: _WITH_FAST, True: "On", False: "Off"}, redraws="stage",
            flag="multiply in 8 bits, activations too; with --precision int8 (the default then) or fp8",
        ),
    ] = None  # fmt: skip
    compiled: Annotated[  # None: no
        bool | None,
        Setting(
            "Compile the model", "Worth it for long clips: the first step takes a minute or more longer. Rounds "
            "differently. Needs a compiler: triton.", "radio", _FASTER, {None: _WITH_FAST, True: "On", False: "Off"},
            redraws="plan", flag="compile the model's blocks: a minute at first, then faster steps",
        ),
    ] = None  # fmt: skip
    vae_precision: Annotated[  # None: fp32
        Literal["fp32", "bf16"] | None,
        Setting(
            "The VAE", "bf16 takes half the time and memory for encoding and decoding, and changes pixels a little.",
            "radio", _FASTER, {None: "fp32; with Fast bf16", "fp32": "fp32", "bf16": "bf16"}, redraws="stage",
            flag="default: fp32, as it was made",
        ),
    ] = None  # fmt: skip
    scheduler: Annotated[  # None: the model's own, with turbo euler
        Literal["unipc", "euler"] | None, Setting(group=_FASTER, flag="default: the model's own; with --turbo euler")
    ] = None  # fmt: skip
    cache: Path | None = None

    @property
    def spec(self) -> ModelSpec:
        """The family of the model, as far as its name or the person says; SkyReels-A2 where neither does."""
        return spec_of(self.model, self.family)

    def solver(self, spec: ModelSpec) -> Literal["unipc", "euler"]:
        """Return the scheduler that is used."""
        return self.scheduler or ("euler" if self.turbo else spec.solver)

    @property
    def weights(self) -> Precision | None:
        """How the weights are stored: W8A8 wants them in 8 bits. None: as the machine has it."""
        return self.precision or ("int8" if self.w8a8 else None)

    @property
    def written(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.save_latents, self.state, self.preview) if path is not None)

    def kept_in(self, state: Path, preview: Path) -> A2Options:
        return replace(self, state=state, preview=preview)


# These decide what is loaded. All others may change from run to run.
_OF_THE_MODEL = ("model", "family", "device", "precision", "cache")


def of_the_model(options: A2Options) -> A2Options:
    """Return the options without those that may change from run to run: equal where one loaded model serves both."""
    return replace(A2Options(**{name: getattr(options, name) for name in _OF_THE_MODEL}), precision=options.weights)


def sized(clip: ClipSize, options: A2Options) -> ClipSize:
    """Return a clip's size with what the options add to what it takes, or spare: the step cache, LoRAs by the bytes of
    their files, 8-bit multiplication, the VAE's numbers."""
    adapters = 0
    for lora in options.loras:
        with contextlib.suppress(OSError):  # what is gone is told of when the clip is made
            adapters += lora.path.stat().st_size if lora.strength else 0
    vae = 2 if options.vae_precision == "bf16" else 4
    return replace(clip, step_cache=options.step_cache, adapters=adapters, w8a8=bool(options.w8a8), vae=vae)


def check_installed() -> None:
    """Raise EngineUnavailable where a library is missing. Imports none of them."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineUnavailable(
            f"the video model (a2) needs {listed(missing)}, which {_is(missing)} not installed here",
            f"Install on the Models page or with: python launch.py models install, {USE_THE_DRAFT}.",
        )


def check_video(video: Video) -> None:
    """Raise SceneError for a length that the VAE cannot pack."""
    if video.frames not in (lengths := lengths_beside(video.frames)):
        low, high = lengths
        raise SceneError("video.frames", f"{video.frames} is not 4k + 1", f"The a2 engine needs {low} or {high}.")


def check_scene(scene: Scene, spec: ModelSpec = A2) -> None:
    """Raise SceneError where a model of this family cannot make this scene."""
    video, references = scene.video, references_of(scene, spec)
    needed = first_frames(references) if spec.in_channels else 1
    check_video(video)
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
    """Raise EngineUnavailable where the options that make it faster do not go together, or a LoRA's strength is not
    finite."""
    for lora in options.loras:
        if not math.isfinite(lora.strength):
            raise EngineUnavailable(
                f"{lora.path.name}: {lora.strength} is not a strength", "Use a number such as 0.8; 1 is as it was made."
            )
    if options.turbo and not any(lora.strength for lora in options.loras):
        raise EngineUnavailable(
            "turbo needs a step-distilled LoRA for Wan2.1",
            "Choose one (on the command line: --lora FILE), or leave turbo out.",
        )
    if options.turbo and options.step_cache:
        raise EngineUnavailable(
            "turbo and the step cache do not go together: of so few steps none can be spared", "Choose one of them."
        )
    if options.w8a8 and options.precision == "fp8" and options.attention == "sage":
        raise EngineUnavailable("SageAttention beside fp8 products gives black frames", "Leave one of them out.")
    if options.w8a8 and options.weights not in ("int8", "fp8"):
        raise EngineUnavailable(
            f"W8A8 multiplies by 8-bit weights, and these are {options.weights}",
            "Choose int8 or fp8 (on the command line: --precision int8), or leave it out.",
        )


def as_run(scene: Scene, options: A2Options) -> Scene:
    """Return the scene with the sampling that is used: turbo takes 4 to 8 steps (the scene's where they are that few),
    no guidance, and the flow shift that the weights were distilled with."""
    if not options.turbo:
        return scene
    asked, (fewest, most) = scene.sampling, TURBO_STEPS
    steps = asked.steps if fewest <= asked.steps <= most else fewest
    return scene.model_copy(
        update={"sampling": Sampling(steps=steps, guidance=1.0, flow_shift=TURBO_SHIFT, seed=asked.seed)}
    )


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
