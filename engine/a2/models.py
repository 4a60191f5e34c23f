"""The model families behind the door `a2`, and the models that can be downloaded. Imports no library.

All are Wan2.1 diffusion transformers with the same text encoder and VAE. They differ in how the references come to the
transformer: SkyReels-A2 gets them in further channels and through an image encoder; the others as clean latent frames
behind those of the video, which are cut off after each forward. Read from their authors' code: SkyworkAI/SkyReels-A2
and SkyReels-V3, gudaochangsheng/RefAlign, Phantom-video/Phantom.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.scene.scene import Sampling, Scene

Family = Literal["a2", "v3-r2v", "refalign", "phantom"]
FAMILIES: tuple[Family, ...] = get_args(Family)
Part = Literal["text_encoder", "image_encoder", "vae", "transformer"]

COND, UNCOND, REFERENCES, NOTHING = "cond", "uncond", "references", "nothing"  # the passes, by what they are told


def passes_of(guidance: float, image_guidance: float | None) -> tuple[str, ...]:
    """Return the passes of a step, for a family without a guidance of the references where that is None. One that would
    cancel out is not made."""
    if guidance <= 1:
        return (COND,)
    if image_guidance is None:
        return COND, UNCOND
    return (COND, REFERENCES) if image_guidance == 1 else (COND, REFERENCES, NOTHING)


@dataclass(frozen=True)
class ModelSpec:
    """How one family computes, and what it was made for.

    `channels` that its transformer takes. `references`: the most pictures it is given. `in_channels`: they come in
    further channels and through an image encoder; otherwise as latent frames behind the video's, `padded` with frames
    of zeros to so many (0: with none). `sampled`: their posterior is sampled with the run's generator, after the noise;
    otherwise its mode is taken. `skips_text`: their tokens do not attend to the prompt.

    The other fields are the numbers of its authors: for a scene that leaves them open.
    """

    family: Family
    title: str
    channels: int
    references: int
    in_channels: bool = False
    padded: int = 0
    sampled: bool = False
    skips_text: bool = False
    solver: Literal["unipc", "euler"] = "unipc"
    steps: int = 50
    guidance: float = 7.5
    image_guidance: float | None = 5.0
    flow_shift: float = 5.0
    frames: int = 81
    fps: int = 16
    trim_head: int = 0
    trained_frames: int = 81

    @property
    def components(self) -> tuple[Part, ...]:
        """What it takes of a checkpoint, in the order of work."""
        encoders: tuple[Part, ...] = ("text_encoder", "image_encoder") if self.in_channels else ("text_encoder",)
        return (*encoders, "vae", "transformer")

    @property
    def parts(self) -> tuple[str, ...]:
        """Its components, and what prepares their input."""
        return (*self.components, "tokenizer", *(("image_processor",) if self.in_channels else ()))

    @property
    def has_image_guidance(self) -> bool:
        """Whether references have a guidance of their own."""
        return self.image_guidance is not None

    def tail(self, references: int) -> int:
        """Return how many latent frames of references stand behind the video's."""
        return 0 if self.in_channels else max(self.padded, references)

    def passes(self, sampling: Sampling) -> int:
        """Return how often the transformer runs in a step."""
        return len(passes_of(sampling.guidance, self.image_scale(sampling)))

    def image_scale(self, sampling: Sampling) -> float | None:
        """Return the guidance of the references: the scene's, or the authors' own; None where the family has none."""
        asked = sampling.image_guidance
        return self.image_guidance if asked is None or not self.has_image_guidance else asked

    def completed(self, scene: Scene, release: ReleasedModel | None = None) -> Scene:
        """Return the scene with the numbers that it leaves open as the authors of the model chose them."""
        known: dict[str, Mapping[str, Any]] = {
            "sampling": {name: getattr(self, name) for name in ("steps", "guidance", "image_guidance", "flow_shift")},
            "video": {"frames": self.frames, "fps": self.fps, "trim_head": self.trim_head},
        }
        if release is not None:
            known["video"] = {**known["video"], "frames": release.frames or self.frames, "fps": release.fps or self.fps}
        changes = {}
        for name, numbers in known.items():
            part = getattr(scene, name)
            open_ = {key: value for key, value in numbers.items() if key not in part.model_fields_set}
            changes[name] = part.model_copy(update=open_)
        return scene.model_copy(update=changes)


A2 = ModelSpec(
    "a2", "SkyReels-A2", channels=36, references=3, in_channels=True, sampled=True, guidance=5.0, image_guidance=None,
    flow_shift=8.0, fps=15, trim_head=12,
)  # fmt: skip
V3 = ModelSpec(
    "v3-r2v", "SkyReels-V3", channels=16, references=4, padded=4, sampled=True, steps=8, guidance=1.0,
    image_guidance=1.0, frames=121, fps=24, trained_frames=121,
)  # fmt: skip
REFALIGN = ModelSpec("refalign", "RefAlign", channels=16, references=4, skips_text=True, solver="euler")
PHANTOM = ModelSpec("phantom", "Phantom", channels=16, references=4)

SPECS: Mapping[Family, ModelSpec] = {spec.family: spec for spec in (A2, V3, REFALIGN, PHANTOM)}


# ---------------------------------------------------------------------------
# What can be downloaded

DIFFUSERS_WAN = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"  # text encoder, tokenizer and VAE, which are the same for all
I2V_WAN = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"  # with the image encoder
SHARED = ("text_encoder", "vae", "tokenizer")  # what all models of Wan2.1 have in common

_14B = {
    "num_attention_heads": 40, "attention_head_dim": 128, "num_layers": 40, "ffn_dim": 13824, "text_dim": 4096,
    "image_dim": None, "added_kv_proj_dim": None, "freq_dim": 256, "in_channels": 16, "out_channels": 16,
}  # fmt: skip
_1_3B = {**_14B, "num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}


@dataclass(frozen=True)
class ReleasedModel:
    """A model that can be downloaded. `model` is what it is called in the options: a repository on the hub, or one file
    in a repository that holds others. `gives` says in two or three words why one would choose it, `about` in a
    sentence, `licence` under what and what that asks for; `transformer` is its configuration, known before it is here;
    `shared` names the repository that what is not in its own comes from. `frames` and `fps` where they are not the
    family's."""

    model: str
    family: Family
    title: str
    gives: str
    about: str
    licence: str
    transformer: Mapping[str, Any]
    shared: str = ""
    frames: int = 0
    fps: int = 0

    @property
    def spec(self) -> ModelSpec:
        return SPECS[self.family]


_SKYWORK = (
    "Skywork Community License: commercial use is allowed; it asks for a security review before it serves the public "
    "on the internet."
)
_REFALIGN_LICENCE = (
    "The hub says MIT; the licence file in its own repository is not settled: ask its authors before you sell."
)
_PHANTOM_LICENCE = "The hub says Apache-2.0; there is no licence file: ask its authors before you sell."

SKYREELS_A2 = ReleasedModel(
    "Skywork/SkyReels-A2", "a2", "SkyReels-A2", "the paper's",
    "The paper's: what its numbers and its benchmark speak of.",
    _SKYWORK, {**_14B, "image_dim": 1280, "added_kv_proj_dim": 5120, "in_channels": 36},
)  # fmt: skip

RELEASES: tuple[ReleasedModel, ...] = (
    ReleasedModel(
        "Skywork/SkyReels-V3-R2V-14B", "v3-r2v", "SkyReels-V3 R2V 14B", "fast and new",
        "Fast and new: 8 passes for a clip where SkyReels-A2 takes 100. Up to four pictures, 24 frames a second.",
        _SKYWORK, _14B,
    ),
    ReleasedModel(
        "gudaochangsheng/RefAlign-1.3B", "refalign", "RefAlign 1.3B", "fits 8 GB",
        "Small: a transformer of 2.8 GB, fits a card of 8 GB whole. In its authors' own tests ahead of SkyReels-A2.",
        _REFALIGN_LICENCE, _1_3B, DIFFUSERS_WAN,
    ),
    ReleasedModel(
        "gudaochangsheng/RefAlign-14B", "refalign", "RefAlign 14B", "best likeness",
        "The best likeness in its authors' own tests, and the slowest: 150 passes for a clip.",
        _REFALIGN_LICENCE, _14B, DIFFUSERS_WAN,
    ),
    ReleasedModel(
        "Kijai/WanVideo_comfy/Phantom-Wan-1_3B_fp16.safetensors", "phantom", "Phantom-Wan 1.3B",
        "fits 8 GB, follows the prompt", "Small, and close to the prompt: fits a card of 8 GB whole.",
        _PHANTOM_LICENCE, _1_3B, DIFFUSERS_WAN,
    ),
    ReleasedModel(
        "Kijai/WanVideo_comfy/Phantom-Wan-14B_fp16.safetensors", "phantom", "Phantom-Wan 14B",
        "lively, follows the prompt",
        "Close to the prompt and lively, and slow: 150 passes for a clip. 24 frames a second.",
        _PHANTOM_LICENCE, _14B, DIFFUSERS_WAN, frames=121, fps=24,
    ),
    SKYREELS_A2,
)  # fmt: skip


def shared_parts(model: str) -> tuple[str, ...]:
    """Return what is taken of one of Wan2.1's own repositories, whose transformers ignore the cast; empty for any other
    model."""
    pictured = (*SHARED, "image_encoder", "image_processor")
    return {DIFFUSERS_WAN.lower(): SHARED, I2V_WAN.lower(): pictured}.get(model.strip().lower(), ())


def release_of(model: str) -> ReleasedModel | None:
    """Return the release of that name, whatever its letters' case; None for a folder or another repository."""
    return next((each for each in RELEASES if each.model.lower() == model.strip().lower()), None)


def released_as(place: str) -> ReleasedModel | None:
    """Return the release that a folder or file was downloaded as, by its path: the hub's cache names the repository,
    and people keep a repository's name. None where the path does not say. A folder further up says nothing: others'
    models may be in it."""
    parts = re.split(r"[\\/]+", place.strip().rstrip("\\/"))
    near = [part for part in parts if part.lower().startswith("models--")] + parts[-1:]
    if parts[-1].lower().endswith(".safetensors"):
        near = near[:-1] + parts[-2:]
    for part in reversed(near):
        said = part.lower().removeprefix("models--").replace("--", "/")
        for release in RELEASES:
            owner, name, *file = release.model.lower().split("/")
            if (said in {f"{owner}/{name}", name} and not file) or (
                file and said in {file[0], file[0].rpartition(".")[0]}
            ):
                return release
    return None


def spec_of(model: str, family: Family | None = None) -> ModelSpec:
    """Return the family of a model, as far as its name or the person says; SkyReels-A2 where neither does. Looks at no
    disk."""
    release = known_release(model)
    return SPECS[family] if family else release.spec if release else A2


def family_called(name: str) -> Family | None:
    """Return the family of that name; None where there is none."""
    return next((family for family in FAMILIES if family == name), None)


def known_release(model: str) -> ReleasedModel | None:
    """Return the release that a model's name or place says it is; None where they do not say."""
    return release_of(model) or released_as(model)
