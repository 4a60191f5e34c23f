"""Presets: a shot a person can pick by its picture. One TOML file each, checked when it is loaded.

A preset names the cast it wants (slots), a prompt with `{character}`-like slots, a format and a length, what the
draft's camera and actors do, and the sampling numbers for SkyReels-A2 (`a2`) and, where they are not the model's own,
for other families of models (`models`, by family). `direct` applies one to a cast. Files in a subfolder
belong to the group of the subfolder's name; files directly in a folder are a person's own.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from engine.disk import atomic
from engine.disk.walk import RESERVED
from engine.errors import PresetError
from engine.scene.engine import whole_frames
from engine.scene.scene import (
    DRAFT,
    MAX_CAST,
    MAX_PROMPT,
    Direction,
    Element,
    Frozen,
    Motion,
    Placement,
    Role,
    Sampling,
    Scene,
    Video,
)

FORMATS: dict[str, tuple[int, int]] = {"16:9": (832, 480), "9:16": (480, 832), "1:1": (640, 640)}  # width, height
FPS = 15
OWN = "own"  # the group of a person's own presets
GROUP_TITLES = {"ecommerce": "E-commerce", "music_video": "Music video", OWN: "Yours"}

_MAX_BYTES = 64 * 1024
_NOUNS = {"character": "a person", "object": "the product", "background": "the scene"}
_ARTICLES = ("a ", "an ", "the ", "my ", "our ", "your ", "his ", "her ", "their ", "this ", "these ", "some ")
_SLOT = re.compile(r"\{([^{}]*)\}")


class Slot(Frozen):
    """One of the cast a preset wants. `noun` stands in the prompt while nobody plays the part."""

    role: Role
    hint: str = Field(default="", max_length=120)
    noun: str = Field(default="", max_length=120)
    motion: Motion | None = None
    placement: Placement | None = None


class Preset(Frozen):
    """One preset. `group`, `name` and `folder` come from where its file lies, everything else from the file."""

    title: str = Field(min_length=1, max_length=60)
    line: str = Field(default="", max_length=140)
    picture: str = Field(default="", max_length=80, pattern=r"^([\w-][\w .-]*)?$")
    order: int = 100
    format: Literal["16:9", "9:16", "1:1"] = "16:9"
    seconds: float = Field(default=5.4, ge=1, le=60)
    prompt: str = Field(min_length=1, max_length=MAX_PROMPT)
    negative_prompt: str = Field(default="", max_length=MAX_PROMPT)
    slots: Annotated[tuple[Slot, ...], Field(strict=False, max_length=MAX_CAST)] = ()
    draft: Direction = Direction()
    a2: Sampling = Sampling()
    models: dict[str, Sampling] = Field(default_factory=dict, max_length=16)

    group: str = Field(default=OWN, exclude=True)
    name: str = Field(default="", exclude=True)
    folder: Path | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _check_slots(self) -> Preset:
        if sum(slot.role == "background" for slot in self.slots) > 1:
            raise PresetError("a scene has one background, this preset wants two", "Keep one background slot.")
        known = ", ".join("{" + name + "}" for name in self.named_slots) or "none: it declares no slots"
        for found in _SLOT.finditer(self.prompt):
            if found[1] not in self.named_slots:
                raise PresetError(f"prompt: there is no slot {found[0]}", f"This preset's slots: {known}.")
        if re.search(r"[{}]", _SLOT.sub("", self.prompt)):
            raise PresetError("prompt: a curly bracket has no partner", f"Slots are written like these: {known}.")
        return self

    @property
    def key(self) -> str:
        """What names this preset among all: `ecommerce/product_hero_turn`."""
        return f"{self.group}/{self.name}"

    def sampling_for(self, family: str) -> Sampling | None:
        """Return its numbers for a family of models; what is not set in them, and None, is left to the model."""
        return self.a2 if family in ("", "a2") else self.models.get(family)

    @property
    def group_title(self) -> str:
        return GROUP_TITLES.get(self.group, self.group.replace("_", " ").capitalize())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return FORMATS[self.format]

    @property
    def picture_path(self) -> Path | None:
        """The card's picture, or None where there is none."""
        path = self.folder / self.picture if self.folder and self.picture else None
        return path if path and path.is_file() else None

    @cached_property
    def named_slots(self) -> dict[str, Slot]:
        """Slots by their name in the prompt: `character`, `character_2`, `object`, …, `background`."""
        named: dict[str, Slot] = {}
        for slot in self.slots:
            number = 1 + sum(other.role == slot.role for other in named.values())
            named[slot.role if number == 1 else f"{slot.role}_{number}"] = slot
        return named

    def fill(self, names: Mapping[str, str]) -> str:
        """Return the prompt with each slot replaced by a name, or by the slot's noun where there is no name. A name
        that is a common noun ("cup": it starts in lower case) gets its article."""

        def put(found: re.Match[str]) -> str:
            slot = self.named_slots[found[1]]
            words = _with_article(names.get(found[1], "").strip()) or slot.noun or _NOUNS[slot.role]
            starts = re.search(r"(^|[.!?]\s+)$", self.prompt[: found.start()])
            return words[:1].upper() + words[1:] if starts and words.startswith(_ARTICLES) else words

        return " ".join(_SLOT.sub(put, self.prompt).split())


@dataclass(frozen=True)
class Presets:
    """What was found: presets in the order of their cards, and what is wrong with the files that were skipped."""

    presets: tuple[Preset, ...]
    problems: tuple[PresetError, ...]

    def get(self, key: str) -> Preset:
        """Find the preset of that key. Raises PresetError."""
        for preset in self.presets:
            if preset.key == key:
                return preset
        raise PresetError(f"there is no preset {key!r}", "Pick one of those shown.")


# ---------------------------------------------------------------------------
# Directing


@dataclass(frozen=True)
class Directed:
    """A preset applied to a cast: the parts of a scene."""

    cast: tuple[Element, ...]
    prompt: str
    negative_prompt: str
    video: Video
    sampling: Sampling
    direction: Direction

    def scene(self, engine: str = DRAFT) -> Scene:
        """Build the scene. Raises pydantic's ValidationError or SceneError for an empty or impossible cast."""
        return Scene(engine=engine, **vars(self))


def direct(
    preset: Preset, cast: tuple[Element, ...], *, seed: int | None = None, keep_placements: bool = False
) -> Directed:
    """Give each of the cast the part of its slot: the first character plays `character`, the second `character_2`, and
    so on. Whoever has no slot keeps their own motion and is named in a last sentence, so that nobody is forgotten. The
    preset's placements replace the cast's unless `keep_placements`; its seed holds unless `seed` is given."""
    parts: dict[str, Element] = {}
    directed = []
    extras = []
    for index, element in enumerate(cast):
        number = 1 + sum(other.role == element.role for other in cast[:index])
        name = element.role if number == 1 else f"{element.role}_{number}"
        slot = preset.named_slots.get(name)
        if slot is None:
            extras.append(element.name)
        else:
            parts[name] = element
        placement = element.placement if keep_placements else slot.placement if slot else None
        motion = slot.motion if slot else element.motion
        directed.append(element.model_copy(update={"placement": placement, "motion": motion}))
    prompt = preset.fill({name: element.name for name, element in parts.items()})
    if named := [name for name in extras if name]:
        prompt += f" Also in the shot: {', '.join(named)}."
    width, height = preset.size
    return Directed(
        cast=tuple(directed),
        prompt=prompt,
        negative_prompt=" ".join(preset.negative_prompt.split()),
        video=Video(width=width, height=height, frames=whole_frames(preset.seconds, FPS), fps=FPS),
        sampling=preset.a2 if seed is None else preset.a2.model_copy(update={"seed": seed}),
        direction=preset.draft,
    )


def _with_article(name: str) -> str:
    return f"the {name}" if name[:1].islower() and not name.startswith(_ARTICLES) else name


# ---------------------------------------------------------------------------
# Files


def load_presets(*folders: str | Path) -> Presets:
    """Load every preset of the folders; a folder that is not there holds none, and a broken file is skipped and
    named. Of two presets with the same key the first counts."""
    found: dict[str, Preset] = {}
    problems: list[PresetError] = []
    for folder in map(Path, folders):
        for path in sorted([*folder.glob("*.toml"), *folder.glob("*/*.toml")]):
            try:
                preset = load_preset(path, OWN if path.parent == folder else path.parent.name)
                found.setdefault(preset.key, preset)
            except PresetError as error:
                problems.append(error)
    groups = [*GROUP_TITLES, *sorted({preset.group for preset in found.values()})]
    order = sorted(found.values(), key=lambda preset: (groups.index(preset.group), preset.order, preset.title.lower()))
    return Presets(tuple(order), tuple(problems))


def load_preset(path: Path, group: str = OWN) -> Preset:
    """Load one file. Raises PresetError, which names the file and what is wrong in it."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise PresetError("it is larger than 64 KB", "A preset is a short text.")
        fields = tomllib.loads(data.removeprefix(b"\xef\xbb\xbf").decode("utf-8"))
        for place in ("group", "name", "folder"):
            if place in fields:
                raise PresetError(f"{place}: there is no such field", "Where the file lies says it; remove the line.")
        return Preset.model_validate({**fields, "group": group, "name": path.stem, "folder": path.parent})
    except OSError as error:
        raise PresetError(f"{path.name} cannot be read ({error.strerror})", "Check its permissions.") from None
    except (UnicodeDecodeError, RecursionError):
        raise PresetError(f"{path.name} is not text", "A preset is TOML text in UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise PresetError(f"{path.name} is not TOML: {error}", "Mend that line.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = re.sub(r"\.(\d+)", r"[\1]", ".".join(str(part) for part in first["loc"]))
        raise PresetError(f"{path.name}: {field}: {first['msg']}", "Mend that field.") from None
    except PresetError as error:
        raise PresetError(f"{path.name}: {error.problem}", error.remedy) from None


def save_preset(preset: Preset, folder: str | Path) -> Path:
    """Write a person's own preset into a folder (made if need be), whole or not at all, under a file name made from
    its title. A preset of the same title there is replaced. Returns the file's path; raises PresetError."""
    folder = Path(folder)
    fields = preset.model_dump(exclude_none=True, exclude_defaults=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _file_for(preset.title, folder)
        with atomic.whole(path) as growing:
            growing.write_text(_toml(fields), encoding="utf-8", newline="\n")
    except UnicodeEncodeError:
        raise PresetError(f"{preset.title!r} holds characters that cannot be written", "Type it again.") from None
    except OSError as error:
        raise PresetError(
            f"{preset.title!r} cannot be saved ({error.strerror})", f"Check the folder {folder}."
        ) from None
    return path


def _file_for(title: str, folder: Path) -> Path:
    stem = re.sub(r"[\W_]+", "_", title.casefold()).strip("_")[:48].strip("_") or "preset"
    stem = f"preset_{stem}" if RESERVED.fullmatch(stem) else stem
    for number in range(1, 1000):
        path = folder / f"{stem}{'' if number == 1 else f'_{number}'}.toml"
        if not path.exists():
            return path
        try:
            if load_preset(path).title.casefold() == title.casefold():
                return path
        except PresetError:
            continue  # somebody's broken file: leave it to them
    raise PresetError(f"there are too many presets called {title!r}", "Use another title.")


def _toml(fields: Mapping[str, Any]) -> str:
    """Format nested mappings as TOML: strings, numbers, truth values, and lists of mappings at the top level."""
    plain = [f"{key} = {_value(value)}" for key, value in fields.items() if not isinstance(value, dict | list | tuple)]
    tables = [
        f"\n[{key}]\n" + "\n".join(f"{inner} = {_value(it)}" for inner, it in value.items())
        for key, value in fields.items()
        if isinstance(value, dict)
    ]
    lists = [
        f"\n[[{key}]]\n" + "\n".join(f"{inner} = {_value(it)}" for inner, it in item.items())
        for key, value in fields.items()
        if isinstance(value, list | tuple)
        for item in value
    ]
    return "\n".join([*plain, *tables, *lists]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's escapes are TOML's too
