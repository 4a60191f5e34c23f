"""The scene: who is in the shot, what happens, how large and how long. Frozen models; scene_file.py reads and writes
them as JSON."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.errors import SceneError
from engine.scene.prompt import folded
from engine.scene.settings import Setting
from engine.words import shown

Role = Literal["character", "object", "background"]
Camera = Literal["still", "push_in", "pull_out", "pan_left", "pan_right", "tilt_up", "tilt_down", "orbit", "handheld"]
Motion = Literal["idle", "walk", "run", "dance", "turn", "hold", "lift", "float", "sway"]

ROLES: tuple[str, ...] = get_args(Role)
CAMERAS: tuple[str, ...] = get_args(Camera)
MOTIONS: tuple[str, ...] = get_args(Motion)

DRAFT = "draft"  # the engine that is used where nobody chose
MAX_CAST = 16
MAX_VIEWS = 3  # of one of the cast, beside its picture
MAX_PROMPT = 4000  # characters; the text encoder reads 512 tokens
MIN_SIDE, MAX_SIDE = 64, 1920  # pixels
MAX_SEED = 2**63 - 1
MAX_FRAMES = 961


# What people read, in one Unicode normal form: macOS spells the same letters otherwise
Text = Annotated[str, AfterValidator(lambda text: unicodedata.normalize("NFC", text))]

# A path without the characters that no file system takes
FilePath = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f]+$")]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, str_strip_whitespace=True, allow_inf_nan=False)


class Placement(Frozen):
    """Where a cut-out stands. All values are fractions of the frame: (x, y) is the middle of its foot measured from
    the top left corner, `scale` its height over the frame's height, `flip` mirrors it left to right. Who stands lower
    is in front; a higher `layer` is in front of a lower one wherever they stand."""

    x: float = Field(ge=-1, le=2)
    y: float = Field(ge=-1, le=2)
    scale: float = Field(gt=0.01, le=4)
    flip: bool = False
    layer: int = Field(default=0, ge=-100, le=100)


class Element(Frozen):
    """One of the cast. `image` is a path relative to the scene file, and so are `views`: further pictures of the same
    one, from other sides, for models that have room for them. `cutout` is `auto`, `none` or a mask's path;
    `motion` is what the draft lets it do (read from the prompt where it is not given)."""

    role: Role
    image: FilePath
    views: Annotated[tuple[FilePath, ...], Field(strict=False, max_length=MAX_VIEWS)] = ()
    name: Text = Field(default="", max_length=60)
    cutout: FilePath = "auto"
    description: Text = Field(default="", max_length=400)
    placement: Placement | None = None
    motion: Motion | None = None

    @property
    def pictures(self) -> tuple[str, ...]:
        """The paths of its pictures: its own first, then its further views'."""
        return (self.image, *self.views)


class Direction(Frozen):
    """How the draft shoots it: a camera move (read from the prompt where it is not given) and the beat in beats per
    minute that dancers keep."""

    camera: Camera | None = None
    bpm: Annotated[float, Field(ge=40, le=220), Setting("Beat (per minute, for dancers)", control="slider")] = 110


class Video(Frozen):
    """The clip: pixels, frames, frames per second. `trim_head` frames are dropped from the front of an `a2` clip."""

    width: int = Field(default=832, ge=MIN_SIDE, le=MAX_SIDE, multiple_of=16)
    height: int = Field(default=480, ge=MIN_SIDE, le=MAX_SIDE, multiple_of=16)
    frames: int = Field(default=81, ge=5, le=MAX_FRAMES)
    fps: int = Field(default=15, ge=1, le=60)
    trim_head: int = Field(default=12, ge=0, le=120)


class Sampling(Frozen):
    """Numbers for the diffusion model; the draft uses only the seed."""

    steps: Annotated[
        int, Field(ge=1, le=200),
        Setting("Steps", "More takes longer. At first it is what the model was made for.", "slider", redraws="plan"),
    ] = 50  # fmt: skip
    guidance: Annotated[
        float, Field(ge=0, le=30),
        Setting(
            "Guidance",
            "How strictly the prompt is followed. At 1 a step is one pass through the model, not two or three.",
            "slider", step=0.5, redraws="plan",
        ),
    ] = 5.0  # fmt: skip
    image_guidance: Annotated[  # None: the model's own
        float | None, Field(ge=0, le=30),
        Setting(
            "Guidance of the references",
            "How strictly the cast is followed, for models that have such a guidance. Empty: the model's own.",
            "number", redraws="plan",
        ),
    ] = None  # fmt: skip
    flow_shift: Annotated[
        float, Field(gt=0, le=50),
        Setting("Flow shift", "Higher spends more steps on the layout, lower on detail.", "slider", step=0.5),
    ] = 8.0  # fmt: skip
    seed: int = Field(default=42, ge=0, le=MAX_SEED)


class Scene(Frozen):
    """Everything a clip is made from. Two scenes that are equal give the same draft, frame for frame. Which engines
    there are, and what lengths each can make, is checked where scenes are read (scene_file.py)."""

    version: Literal[1] = 1
    engine: str = DRAFT
    cast: Annotated[tuple[Element, ...], Field(min_length=1, max_length=MAX_CAST)]
    prompt: Text = Field(max_length=MAX_PROMPT)
    negative_prompt: Text = Field(default="", max_length=MAX_PROMPT)
    video: Video = Video()
    sampling: Sampling = Sampling()
    direction: Direction = Direction()

    @field_validator("version", mode="before")
    @classmethod
    def _check_version(cls, value: Any) -> Any:
        if value == 1 and type(value) is not int:  # true and 1.0 are equal to 1, but no version numbers
            raise SceneError("version", f"{shown(value)} is not a choice", "Use 1.")
        return value

    @model_validator(mode="after")
    def _check_cast(self) -> Scene:
        backgrounds = [i for i, element in enumerate(self.cast) if element.role == "background"]
        if len(backgrounds) > 1:
            raise SceneError(f"cast[{backgrounds[1]}].role", "a scene has one background", "Keep one of them.")
        seen: dict[str, int] = {}
        for i, element in enumerate(self.cast):
            name = folded(element.name)
            if name and name in seen:
                raise SceneError(
                    f"cast[{i}].name",
                    f"{element.name!r} is already the name of cast[{seen[name]}]",
                    "Give each of the cast a name of its own.",
                )
            seen[name] = i
        return self

    def of_role(self, *roles: str) -> tuple[Element, ...]:
        """Return the cast in the given roles, in the order of the scene."""
        return tuple(element for element in self.cast if element.role in roles)


def label(element: Element, index: int) -> str:
    """Return what a person calls this element: its name, or its role and number where it has none."""
    return element.name or f"{element.role} {index + 1}"
