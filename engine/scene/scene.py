"""The scene: who is in the shot, what happens, how large and how long. Frozen models <-> the scene file's JSON.

Scenes are validated here: the rest of the program relies on it, and what is not valid is refused with the name of the
field and what to do about it. Image paths are relative to the scene file; whether the pictures themselves are readable
is checked where they are opened (`engine.media.images`).
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from engine.errors import SceneError
from engine.scene.engines import DRAFT, ENGINES, find_engine
from engine.scene.prompt import folded
from engine.scene.settings import Setting

Role = Literal["character", "object", "background"]
Camera = Literal["still", "push_in", "pull_out", "pan_left", "pan_right", "tilt_up", "tilt_down", "orbit", "handheld"]
Motion = Literal["idle", "walk", "run", "dance", "turn", "hold", "lift", "float", "sway"]

ROLES: tuple[str, ...] = get_args(Role)
CAMERAS: tuple[str, ...] = get_args(Camera)
MOTIONS: tuple[str, ...] = get_args(Motion)

MAX_CAST = 16
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
    """One of the cast. `image` is a path relative to the scene file; `cutout` is `auto`, `none` or a mask's path;
    `motion` is what the draft lets it do (read from the prompt where it is not given)."""

    role: Role
    image: FilePath
    name: Text = Field(default="", max_length=60)
    cutout: FilePath = "auto"
    description: Text = Field(default="", max_length=400)
    placement: Placement | None = None
    motion: Motion | None = None


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
        Setting("Steps", "More takes longer; the authors use 50.", "slider", redraws="plan"),
    ] = 50  # fmt: skip
    guidance: Annotated[
        float, Field(ge=0, le=30),
        Setting(
            "Guidance", "How strictly the prompt is followed. At 1 a step takes half the time.", "slider", step=0.5,
            redraws="plan",
        ),
    ] = 5.0  # fmt: skip
    flow_shift: Annotated[
        float, Field(gt=0, le=50),
        Setting("Flow shift", "Higher spends more steps on the layout, lower on detail.", "slider", step=0.5),
    ] = 8.0  # fmt: skip
    seed: int = Field(default=42, ge=0, le=MAX_SEED)


class Scene(Frozen):
    """Everything a clip is made from. Two scenes that are equal give the same draft, frame for frame."""

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
            raise SceneError("version", f"{_short(value)} is not a choice", "Use 1.")
        return value

    @field_validator("engine", mode="before")
    @classmethod
    def _check_engine(cls, name: Any) -> Any:
        if not isinstance(name, str) or name not in ENGINES:
            choices = [repr(each) for each in sorted(ENGINES)]
            raise SceneError("engine", f"{_short(name)} is not a choice", f"Use {_either(choices)}.")
        return name

    @model_validator(mode="after")
    def _check_cast_and_length(self) -> Scene:
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
        find_engine(self.engine).check_video(self.video)
        return self

    def of_role(self, *roles: str) -> tuple[Element, ...]:
        """Return the cast in the given roles, in the order of the scene."""
        return tuple(element for element in self.cast if element.role in roles)


def label(element: Element, index: int) -> str:
    """Return what a person calls this element: its name, or its role and number where it has none."""
    return element.name or f"{element.role} {index + 1}"


# ---------------------------------------------------------------------------
# JSON


def scene_from_json(text: str | bytes) -> Scene:
    """Parse and check a scene file's text. Raises SceneError, which names the first field that is wrong."""
    try:
        data = json.loads(text, object_pairs_hook=_noting_twins)
        _check_keys(data)
    except SceneError:
        raise
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        place = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise SceneError("", f"this is not JSON{place}", "A scene file is JSON text in UTF-8.") from None
    return scene_from_data(data)


def scene_from_data(data: Any) -> Scene:
    """Check parsed JSON. Raises SceneError, which names the first field that is wrong."""
    if not isinstance(data, dict):
        raise SceneError("", "a scene file holds one JSON object", 'It starts with {"version": 1, "cast": [ … ] }.')
    # Lax for lists only: JSON has no tuples. Everything else stays strict ("81" is not a number, 1 is not a flag).
    if isinstance(data.get("cast"), list):
        data = {**data, "cast": tuple(data["cast"])}
    try:
        return Scene.model_validate(data)
    except ValidationError as error:
        raise _scene_error(error) from None


def scene_to_json(scene: Scene) -> str:
    """Write the scene file's text; `scene_from_json` gives the same scene back. Optional fields without a value are
    left out."""
    return json.dumps(scene.model_dump(exclude_none=True), ensure_ascii=False, indent=2) + "\n"


def load_scene(path: str | Path) -> Scene:
    """Read a scene file. Raises SceneError, which names the file or the field."""
    path = Path(path)
    try:
        data = path.read_bytes()
        text = data.decode(json.detect_encoding(data)).removeprefix("\ufeff")  # editors on Windows add the mark
    except FileNotFoundError:
        raise SceneError("", f"there is no scene file {path}", "Check the path.") from None
    except IsADirectoryError:
        raise SceneError("", f"{path} is a folder", "Name the scene file in it.") from None
    except UnicodeDecodeError:
        problem = f"{path} is not text in UTF-8"
        raise SceneError("", problem, "A scene file is JSON text: save it anew, with the encoding UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or "not a usable file name"
        raise SceneError("", f"{path} cannot be read ({reason})", "Check its name and permissions.") from None
    return scene_from_json(text)


class _Twins(dict[str, Any]):
    """An object in which a key is there twice: the second would silently win. `key`: which."""

    key = ""


def _noting_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(unique := dict(pairs)) == len(pairs):
        return unique
    twins = _Twins(unique)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            twins.key = key
            break
        seen.add(key)
    return twins


def _check_keys(data: Any, *place: str | int) -> None:
    """Refuse a key that is there twice, with its place in the whole. Raises SceneError."""
    if isinstance(data, _Twins):
        raise SceneError(_field((*place, data.key)), "the key is there twice", "Keep one of them.")
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        _check_keys(value, *place, key)


# ---------------------------------------------------------------------------
# From pydantic's report to a line a person can act on


def _scene_error(error: ValidationError) -> SceneError:
    first = error.errors(include_url=False)[0]
    field = _field(first["loc"])
    kind, context, value = first["type"], first.get("ctx", {}), first.get("input")
    if kind == "missing":
        return SceneError(field, "this is missing", "Add it.")
    if kind == "extra_forbidden":
        return SceneError(field, "there is no such field", f"Remove it, or use one of: {_known_keys(first['loc'])}.")
    if kind == "literal_error":
        return SceneError(field, f"{_short(value)} is not a choice", f"Use {context['expected']}.")
    if kind == "string_pattern_mismatch":
        return SceneError(field, f"{_short(value)} has control characters in it", "Write a plain file name.")
    if kind == "multiple_of":
        step = context["multiple_of"]
        return SceneError(field, f"{_short(value)} is not a multiple of {step}", f"Use {_nearest_side(value, step)}.")
    if kind == "too_long" and field == "cast":
        return SceneError(field, f"{len(value)} elements are too many", f"Use at most {MAX_CAST}.")
    if kind == "too_short" and field == "cast":
        return SceneError(field, "the cast is empty", "Add at least one character, object or background.")
    remedy = _REMEDIES.get(kind, "").format(**context) or f"{first['msg'].removeprefix('Input ').capitalize()}."
    return SceneError(field, f"{_short(value)} does not fit", remedy)


def _field(location: Sequence[str | int]) -> str:
    """Format a place in the JSON as a person writes it: `cast[1].placement.x`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{_cut(part)}" for part in location).removeprefix(".")


# The type of pydantic's error -> what to do, where its own words are a programmer's
_REMEDIES = {
    "model_type": "It should be an object {{ … }}.",
    "model_attributes_type": "It should be an object {{ … }}.",
    "tuple_type": "It should be a list [ … ].",
    "string_type": "It should be a string in quotation marks.",
    "int_type": "It should be an integer.",
    "int_from_float": "It should be an integer, without a fraction.",
    "float_type": "It should be a number.",
    "bool_type": "It should be a boolean: true or false.",
    "greater_than_equal": "Use {ge} or more.",
    "greater_than": "Use more than {gt}.",
    "less_than_equal": "Use {le} or less.",
    "less_than": "Use less than {lt}.",
    "string_too_long": "Use at most {max_length} characters.",
    "string_too_short": "Use at least {min_length} character.",
    "string_unicode": "There is half a character in it (one of a surrogate pair): write it anew.",
    "finite_number": "It should be a finite number.",
}


def _known_keys(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = Scene
    inner: dict[int | str, type[BaseModel]] = {
        "cast": Element, "placement": Placement, "video": Video, "sampling": Sampling, "direction": Direction
    }  # fmt: skip
    for part in location[:-1]:
        model = inner.get(part, model)
    return ", ".join(model.model_fields)


def _nearest_side(value: int, step: int) -> str:
    """Return the multiples of `step` below and above a width or height that are allowed."""
    low = value // step * step
    allowed = {min(max(side, MIN_SIDE), MAX_SIDE) for side in (low, low + step)}
    return " or ".join(map(str, sorted(allowed)))


def _either(choices: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))


def _short(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
