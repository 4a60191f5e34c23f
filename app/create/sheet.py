"""The sheet: all settings of a clip beside the cast. Values that the page could not have sent are dropped or brought
into range, since a stranger may send anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine import cutout
from engine.scene.engine import EngineOptions, MadeFor
from engine.scene.engines import ENGINES, all_engines, find_engine
from engine.scene.presets import FORMATS
from engine.scene.scene import CAMERAS, DRAFT, MAX_FRAMES, MAX_PROMPT, MAX_SEED, Direction, Sampling, Video
from engine.scene.settings import Declared, declared, is_number
from engine.words import plain_text

OWN = "own"  # the format of an opened clip that is none of ours
SECONDS = (1.0, 60.0)
BPM = declared(Direction)["bpm"]
SAMPLING = "sampling"  # prefix of the keys of the scene's numbers for a model
_FIRST = ("", "a2")  # the family whose numbers a sheet of an earlier version has
LORAS, STRENGTH = 3, (-2.0, 2.0)  # how many at once; the range of their strength


def page_settings() -> dict[str, Declared]:
    """Return the settings with a control on the page, by key: `sampling.steps`, or an engine's own such as
    `a2.turbo`."""
    found = {f"{SAMPLING}.{name}": each for name, each in declared(Sampling).items()}
    for engine in all_engines():
        found |= {f"{engine.name}.{name}": each for name, each in declared(engine.options).items()}
    return {key: each for key, each in found.items() if each.setting.control}


def settings_of(engine: str) -> dict[str, Declared]:
    """Return the `page_settings` that an engine reads, by key."""
    sampling = {f"{SAMPLING}.{name}" for name in find_engine(engine).sampling}
    return {key: each for key, each in page_settings().items() if key in sampling or key.startswith(f"{engine}.")}


@dataclass
class Sheet:
    """The prompt and the numbers. `fresh_seed`: the seed was typed or rolled since the last clip, so the next clip uses
    it. `settings`: those of `page_settings` that were set, by key."""

    prompt: str = ""
    negative_prompt: str = ""
    preset: str = ""
    engine: str = DRAFT
    format: str = "16:9"
    video: dict[str, int] | None = None  # the `Video` behind the format OWN; 0 frames: as many as the seconds take
    seconds: float = 5.4
    camera: str | None = None
    bpm: float = 110
    seed: int = 42
    keep_seed: bool = False
    fresh_seed: bool = False
    quality: str = "fast"
    embed_scene: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    family: str = ""  # of the models whose numbers the sampling settings are
    usual: dict[str, MadeFor] = field(default_factory=dict)  # what this machine's models were made for, by engine
    loras: list[str] = field(default_factory=lambda: [""] * LORAS)  # files of the owner's folder, by name
    strengths: list[float] = field(default_factory=lambda: [1.0] * LORAS)
    job: str = ""
    edits: str = ""  # the job in the queue whose scene is being edited here

    def put(self, name: str, value: object) -> None:
        """Set one field by its name on the page, or one of `page_settings` by its key."""
        if name in page_settings():
            self.settings[name] = page_settings()[name].taken(value, self.setting(name))
        elif name in ("prompt", "negative"):
            setattr(self, {"negative": "negative_prompt"}.get(name, name), plain_text(value)[:MAX_PROMPT])
        elif name in ("keep_seed", "embed"):
            setattr(self, {"embed": "embed_scene"}.get(name, name), value is True)
        elif name == "seed":
            if not _is_near(value, self.seed):  # JavaScript rounds large numbers
                self.seed = int(_within(value, 0, MAX_SEED, self.seed))
            self.fresh_seed = value is not None
        elif name == "seconds":
            wanted = _within(value, SECONDS[0], self.longest, self.seconds)
            if wanted != self.seconds:  # else it is a control that tells what it was just given
                self.seconds = wanted
                self._count_anew()
        elif name == "bpm":
            self.bpm = BPM.taken(value, self.bpm)
        elif name.startswith("strength_"):
            slot = int(name[9:])
            self.strengths[slot] = float(_within(value, *STRENGTH, self.strengths[slot]))
        elif name.startswith("lora_"):
            self.loras[int(name[5:])] = plain_text(value)[:255]
        elif name == "camera":
            self.camera = next((each for each in CAMERAS if each == value), None)
        elif isinstance(value, str):
            self._choose(name, value)

    def _choose(self, name: str, value: str) -> None:
        if name == "engine" and value in ENGINES:
            if value != self.engine:
                self._count_anew()  # the engines differ in how many frames they can make
            self.engine = value
        elif name == "format" and value in FORMATS:
            self.format = value
            self.seconds = _within(self.seconds, *SECONDS, self.seconds)
        elif name == "format" and value == OWN and self.video:
            self.format = OWN
        elif name == "quality" and value in cutout.QUALITIES:
            self.quality = value

    # -- settings -----------------------------------------------------------------

    def setting(self, key: str) -> Any:
        """Return the value of one of `page_settings`; where it was not set the model's own, or its default."""
        if key in self.settings:
            return self.settings[key]
        prefix, _, name = key.partition(".")
        own = self.made_for.sampling if prefix == SAMPLING else {}
        return own.get(name, page_settings()[key].default)

    def is_read(self, key: str) -> bool:
        """Return whether the model reads a setting: some have no guidance of the references."""
        prefix, _, name = key.partition(".")
        return prefix != SAMPLING or not self.made_for.family or name in self.made_for.sampling

    @property
    def made_for(self) -> MadeFor:
        """What the model was made for that makes the clip; where the engine has none, what is usual."""
        return self.usual.get(self.engine, MadeFor())

    def meet(self, usual: Mapping[str, MadeFor]) -> None:
        """Take note of the models that this machine has chosen. Numbers that were set for another family are dropped:
        fifty steps mean something else to a model that was made for eight."""
        self.usual = dict(usual)
        family = next((each.family for each in usual.values() if each.family), "")
        if family != self.family:
            if self.family or family not in _FIRST:
                self.settings = {key: value for key, value in self.settings.items() if not _is_sampling(key)}
            self.family = family
            self._count_anew()

    @property
    def sampling(self) -> dict[str, Any]:
        """The scene's numbers for a model, without the seed."""
        return {name: self.setting(f"{SAMPLING}.{name}") for name in declared(Sampling)}

    def options(self, own_machine: bool) -> EngineOptions:
        """Return the engine's options; None for those that the plan decides. `own_machine`: the visitor owns this
        machine; otherwise the plan also decides the options that are its owner's to set."""
        prefix = f"{self.engine}."
        said = {
            key.removeprefix(prefix): self.setting(key)
            for key, each in settings_of(self.engine).items()
            if key.startswith(prefix) and (own_machine or not each.setting.planned)
        }
        return find_engine(self.engine).options(**said)

    # -- the clip -------------------------------------------------------------------

    def take_video(self, video: Video, engine: str) -> None:
        """Take over a clip's engine, size, rate and length, whether or not the page offers them."""
        trim = video.trim_head if find_engine(engine).trims_head else 0
        self.engine, self.seconds = engine, max(0.1, math.floor(10 * (video.frames - trim) / video.fps) / 10)
        self.format, self.video = self.nearest(video.width, video.height), None
        if self.made() != video.model_dump() or not SECONDS[0] <= self.seconds <= SECONDS[1]:
            self.format, self.video = OWN, video.model_dump()

    def made(self) -> dict[str, int]:
        """Return the clip's pixels, frames and frames per second, as fields of a `Video`."""
        if own := self._own:
            video = dict(own)
        else:
            width, height = FORMATS[self.format]
            made = self.made_for
            video = {"width": width, "height": height, "fps": made.fps, "trim_head": made.trim_head}
        if video.get("frames"):
            return video
        frames = find_engine(self.engine).frames_for(self.seconds, video["fps"], video["trim_head"])
        return video | {"frames": frames}

    @staticmethod
    def nearest(width: int, height: int) -> str:
        """Return the format with the most similar shape."""
        return min(FORMATS, key=lambda name: abs(FORMATS[name][0] / FORMATS[name][1] - width / height))

    @property
    def _own(self) -> dict[str, int] | None:
        """The video of an opened clip whose format is none of ours; None where another format was chosen."""
        return self.video if self.format == OWN else None

    @property
    def longest(self) -> float:
        """The longest clip in seconds; an opened clip keeps its length and its frame rate."""
        own = self._own
        if not own:
            return SECONDS[1]
        made = MAX_FRAMES - (own["trim_head"] if find_engine(self.engine).trims_head else 0)
        return max(self.seconds, min(SECONDS[1], math.floor(10 * made / own["fps"]) / 10))

    @property
    def usual_format(self) -> str:
        """The format, or the most similar of ours, for a preset, which knows no others."""
        own = self._own
        return self.nearest(own["width"], own["height"]) if own else self.format

    @property
    def usual_seconds(self) -> float:
        return _within(self.seconds, *SECONDS, SECONDS[0])

    def _count_anew(self) -> None:
        if self.video:
            self.video = self.video | {"frames": 0}

    def follow(self, negative_prompt: str, direction: Direction, sampling: Sampling | None) -> None:
        """Take over a preset's or a scene's negative prompt, camera, tempo and those of the sampling numbers that it
        sets; None leaves them to the model. The seed stays."""
        self.negative_prompt = negative_prompt
        self.camera, self.bpm = direction.camera, direction.bpm
        self.settings = {key: value for key, value in self.settings.items() if not _is_sampling(key)}
        if sampling is not None:
            known = sampling.model_fields_set & set(declared(Sampling))
            self.settings |= {f"{SAMPLING}.{name}": getattr(sampling, name) for name in known}

    # -- kept on disk ------------------------------------------------------------------

    def is_sound(self) -> bool:
        """Check a sheet that was read from disk: return whether it can be used."""
        known = self._has_shape() and self.quality in cutout.QUALITIES and self.camera in (None, *CAMERAS)
        numbers = (self.format == OWN or SECONDS[0] <= self.seconds <= SECONDS[1]) and BPM.holds(float(self.bpm))
        slots = len(self.loras) == len(self.strengths) == LORAS
        return known and numbers and slots and self.engine in ENGINES and 0 <= self.seed <= MAX_SEED

    def _has_shape(self) -> bool:
        """Return whether the format is known. Raises ValueError for a video that is not valid."""
        if self.video is not None:
            Video.model_validate({**self.video, "frames": self.video["frames"] or 5})
        return self.format in FORMATS or (self.format == OWN and self.video is not None)


def kept_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings out of a saved sheet's JSON data: those that this version knows and whose values it can use;
    the others are at their default. Earlier versions saved them among the sheet's own fields."""
    found = {key: data[name] for name, key in _EARLIER.items() if name in data}
    if found:
        passes = data.get("guidance_passes")
        found["a2.batched_guidance"] = True if passes == "together" else False if passes == "in turn" else None
        found |= {key: found[key] or None for key in ("a2.precision", "a2.offload") if key in found}
    kept = found | dict(data.get("settings") or {})
    known = page_settings()
    typed = {key: _as_kind(known[key], value) for key, value in kept.items() if key in known}
    return {key: value for key, value in typed.items() if known[key].holds(value)}


_EARLIER = {
    "steps": "sampling.steps", "guidance": "sampling.guidance", "flow_shift": "sampling.flow_shift",
    "turbo": "a2.turbo", "step_cache": "a2.step_cache", "attention": "a2.attention", "precision": "a2.precision",
    "offload": "a2.offload", "resident": "a2.resident_blocks",
}  # fmt: skip


def _as_kind(each: Declared, value: Any) -> Any:
    """Convert a number to the setting's type: JSON may have a float without its fraction, or an integer with one."""
    if each.kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    return int(value) if each.kind is int and type(value) is float and value.is_integer() else value


def _is_sampling(key: str) -> bool:
    return key.startswith(f"{SAMPLING}.")


def _is_near(value: object, number: int) -> bool:
    return is_number(value) and 0 <= value <= 2**64 and float(value) == float(number)


def _within(value: object, low: float, high: float, otherwise: float) -> float:
    return min(max(value, low), high) if is_number(value) else otherwise
