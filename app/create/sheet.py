"""The sheet: everything a person has set beside the cast. What a page could not have sent is dropped or brought into
range, since a stranger may send anything."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeGuard, get_args

from app.machine.planner import OffloadWish, PrecisionWish
from engine import cutout
from engine.a2.geometry import frames_for
from engine.a2.options import Attention
from engine.scene.presets import FORMATS, FPS, frames_of
from engine.scene.scene import CAMERAS, MAX_FRAMES, MAX_PROMPT, MAX_SEED, Direction, Sampling, Video
from engine.words import plain_text

OWN = "own"  # the format of a clip that was opened and is in none of ours
SECONDS, BPM = (1.0, 60.0), (40.0, 220.0)
ENGINES = ("draft", "a2")
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
WISHES: dict[str, tuple[str, ...]] = {
    "precision": get_args(PrecisionWish), "offload": get_args(OffloadWish),
    "guidance_passes": ("", "together", "in turn"),
}  # fmt: skip
LORAS, STRENGTH = 3, (-2.0, 2.0)  # how many at once; how strongly they may go in
SAMPLING = {"steps": (1, 100), "guidance": (1.0, 15.0), "flow_shift": (0.5, 20.0)}  # for the model


@dataclass
class Sheet:
    """The prompt and the numbers. `fresh_seed`: the seed was typed or rolled since the last clip, so that is the one
    that is meant."""

    prompt: str = ""
    negative_prompt: str = ""
    preset: str = ""
    engine: str = "draft"
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
    steps: int = 50
    guidance: float = 5.0
    flow_shift: float = 8.0
    loras: list[str] = field(default_factory=lambda: [""] * LORAS)  # files of the owner's folder, by name
    strengths: list[float] = field(default_factory=lambda: [1.0] * LORAS)
    turbo: bool = False
    step_cache: bool = False
    attention: Attention = "native"
    precision: PrecisionWish = ""  # these four: beside what the plan chooses; empty leaves it to the plan
    offload: OffloadWish = ""
    resident: int | None = None
    guidance_passes: str = ""
    job: str = ""
    edits: str = ""  # a job in the queue whose scene this is

    def put(self, name: str, value: object) -> None:
        """Set one field by its name on the page."""
        if name in ("prompt", "negative"):
            setattr(self, {"negative": "negative_prompt"}.get(name, name), plain_text(value)[:MAX_PROMPT])
        elif name == "seed":
            if not _is_near(value, self.seed):  # a browser cannot hold all of its digits
                self.seed = int(_within(value, 0, MAX_SEED, self.seed))
            self.fresh_seed = value is not None
        elif name == "seconds":
            self.seconds = _within(value, SECONDS[0], self.longest, self.seconds)
            self._count_anew()
        elif name == "bpm":
            self.bpm = _within(value, *BPM, self.bpm)
        elif name in SAMPLING:
            number = _within(value, *SAMPLING[name], getattr(self, name))
            setattr(self, name, int(number) if name == "steps" else float(number))
        elif name == "engine" and value in ENGINES:
            if value != self.engine:
                self._count_anew()  # the engines differ in how many frames they can make
            self.engine = str(value)
        elif name == "attention" and value in ATTENTIONS:
            self.attention = value
        elif name in WISHES and value in WISHES[name]:
            setattr(self, name, value)
        elif name == "resident":
            self.resident = int(_within(value, 0, 100, 0)) if _is_number(value) else None
        elif name.startswith("lora_"):
            self.loras[int(name[5:])] = plain_text(value)[:255]
        elif name.startswith("strength_"):
            slot = int(name[9:])
            self.strengths[slot] = float(_within(value, *STRENGTH, self.strengths[slot]))
        elif name in ("keep_seed", "embed", "turbo", "step_cache"):
            setattr(self, {"embed": "embed_scene"}.get(name, name), value is True)
        elif name == "camera":
            self.camera = value if value in CAMERAS else None
        elif name == "format" and value in FORMATS:
            self.format = str(value)
            self.seconds = _within(self.seconds, *SECONDS, self.seconds)
        elif name == "format" and value == OWN and self.video:
            self.format = OWN
        elif name == "quality" and value in cutout.QUALITIES:
            self.quality = str(value)

    def take_video(self, video: Video, engine: str) -> None:
        """Take over a clip's engine, size, rate and length, whether or not they are among those that the page
        offers."""
        trim = video.trim_head if engine == "a2" else 0
        self.engine, self.seconds = engine, max(0.1, math.floor(10 * (video.frames - trim) / video.fps) / 10)
        self.format, self.video = self.nearest(video.width, video.height), None
        if self.made() != video.model_dump() or not SECONDS[0] <= self.seconds <= SECONDS[1]:
            self.format, self.video = OWN, video.model_dump()

    def made(self) -> dict[str, int]:
        """The clip's pixels, frames and frames per second, as fields of a `Video`."""
        if own := self._own:
            video = dict(own)
        else:
            width, height = FORMATS[self.format]
            video = {"width": width, "height": height, "fps": FPS, "trim_head": Video().trim_head}
        if video.get("frames"):
            return video
        if self.engine == "a2":  # what is cut off at the front is made on top
            return video | {"frames": frames_for(self.seconds, video["fps"], video["trim_head"])}
        return video | {"frames": frames_of(self.seconds, video["fps"])}

    @staticmethod
    def nearest(width: int, height: int) -> str:
        """The format of the most similar shape."""
        return min(FORMATS, key=lambda name: abs(FORMATS[name][0] / FORMATS[name][1] - width / height))

    @property
    def _own(self) -> dict[str, int] | None:
        """The video of a clip that was opened and is in none of our formats; None where another format was chosen."""
        return self.video if self.format == OWN else None

    @property
    def longest(self) -> float:
        """The most seconds that can be asked for: a clip that was opened keeps its length, and its rate."""
        own = self._own
        if not own:
            return SECONDS[1]
        made = MAX_FRAMES - (own["trim_head"] if self.engine == "a2" else 0)
        return max(self.seconds, min(SECONDS[1], math.floor(10 * made / own["fps"]) / 10))

    @property
    def usual_format(self) -> str:
        """The format, or the one that is most like it, for what knows no others (a preset)."""
        own = self._own
        return self.nearest(own["width"], own["height"]) if own else self.format

    @property
    def usual_seconds(self) -> float:
        return _within(self.seconds, *SECONDS, SECONDS[0])

    def _count_anew(self) -> None:
        if self.video:
            self.video = self.video | {"frames": 0}

    def follow(self, negative_prompt: str, direction: Direction, sampling: Sampling) -> None:
        """Take over how a preset or a scene is shot. The seed stays."""
        self.negative_prompt = negative_prompt
        self.camera, self.bpm = direction.camera, direction.bpm
        self.steps, self.guidance, self.flow_shift = sampling.steps, sampling.guidance, sampling.flow_shift

    def is_sound(self) -> bool:
        """Whether a sheet that was read from disk can be used."""
        known = self._has_shape() and self.quality in cutout.QUALITIES and self.camera in (None, *CAMERAS)
        numbers = (self.format == OWN or SECONDS[0] <= self.seconds <= SECONDS[1]) and BPM[0] <= self.bpm <= BPM[1]
        slots = len(self.loras) == len(self.strengths) == LORAS and self.attention in ATTENTIONS
        slots = slots and all(getattr(self, name) in choices for name, choices in WISHES.items())
        return known and numbers and slots and self.engine in ENGINES and 0 <= self.seed <= MAX_SEED

    def _has_shape(self) -> bool:
        """Whether the format is known. Raises ValueError for a video that cannot be."""
        if self.video is not None:
            Video.model_validate({**self.video, "frames": self.video["frames"] or 5})
        return self.format in FORMATS or (self.format == OWN and self.video is not None)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_near(value: object, number: int) -> bool:
    return _is_number(value) and float(value) == float(number)


def _within(value: object, low: float, high: float, otherwise: float) -> float:
    return min(max(value, low), high) if _is_number(value) else otherwise
