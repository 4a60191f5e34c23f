"""The sheet: everything a person has set beside the cast. What a page could not have sent is dropped or brought into
range, since a stranger may send anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from engine import cutout
from engine.a2.options import Attention
from engine.presets import FORMATS
from engine.scene import CAMERAS, MAX_PROMPT, Direction, Sampling

MAX_SEED = 2**31 - 1  # what a number box of the page takes
SECONDS, BPM = (1.0, 60.0), (40.0, 220.0)
ENGINES = ("draft", "a2")
ATTENTIONS = get_args(Attention)
WISHES = {
    "precision": ("", "bf16", "int8", "fp8"), "offload": ("", "none", "blocks"),
    "guidance_passes": ("", "together", "in turn"),
}  # fmt: skip
LORAS, STRENGTH = 3, (-2.0, 2.0)  # how many at once; how strongly they may go in
SAMPLING = {"steps": (1, 100), "guidance": (1.0, 15.0), "flow_shift": (0.5, 20.0)}  # for the model

_TURNING = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])


@dataclass
class Sheet:
    """The prompt and the numbers. `fresh_seed`: the seed was typed or rolled since the last clip, so that is the one
    that is meant."""

    prompt: str = ""
    negative_prompt: str = ""
    preset: str = ""
    engine: str = "draft"
    format: str = "16:9"
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
    attention: str = "native"
    precision: str = ""  # these four: beside what the plan chooses; empty leaves it to the plan
    offload: str = ""
    resident: int | None = None
    guidance_passes: str = ""
    job: str = ""
    edits: str = ""  # a job in the queue whose scene this is

    def put(self, name: str, value: object) -> None:
        """Set one field by its name on the page."""
        if name in ("prompt", "negative"):
            setattr(self, {"negative": "negative_prompt"}.get(name, name), plain_text(value)[:MAX_PROMPT])
        elif name == "seed":
            self.seed, self.fresh_seed = int(_within(value, 0, MAX_SEED, self.seed)), value is not None
        elif name == "seconds":
            self.seconds = _within(value, *SECONDS, self.seconds)
        elif name == "bpm":
            self.bpm = _within(value, *BPM, self.bpm)
        elif name in SAMPLING:
            number = _within(value, *SAMPLING[name], getattr(self, name))
            setattr(self, name, int(number) if name == "steps" else float(number))
        elif name == "engine" and value in ENGINES:
            self.engine = str(value)
        elif name == "attention" and value in ATTENTIONS:
            self.attention = str(value)
        elif name in WISHES and value in WISHES[name]:
            setattr(self, name, value)
        elif name == "resident":
            whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value
            self.resident = int(_within(value, 0, 100, 0)) if whole else None
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
        elif name == "quality" and value in cutout.QUALITIES:
            self.quality = str(value)

    def follow(self, negative_prompt: str, direction: Direction, sampling: Sampling) -> None:
        """Take over how a preset or a scene is shot. The seed stays."""
        self.negative_prompt = negative_prompt
        self.camera, self.bpm = direction.camera, direction.bpm
        self.steps, self.guidance, self.flow_shift = sampling.steps, sampling.guidance, sampling.flow_shift

    def is_sound(self) -> bool:
        """Whether a sheet that was read from disk can be used."""
        known = self.format in FORMATS and self.quality in cutout.QUALITIES and self.camera in (None, *CAMERAS)
        numbers = SECONDS[0] <= self.seconds <= SECONDS[1] and BPM[0] <= self.bpm <= BPM[1]
        slots = len(self.loras) == len(self.strengths) == LORAS and self.attention in ATTENTIONS
        slots = slots and all(getattr(self, name) in choices for name, choices in WISHES.items())
        return known and numbers and slots and self.engine in ENGINES and 0 <= self.seed <= MAX_SEED


def plain_text(value: object) -> str:
    """Text that every file can hold: half a surrogate pair becomes a question mark."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def plain_name(value: object) -> str:
    """`plain_text` without the marks that turn the direction of what follows, so that "exe.png" reads as what it is."""
    return plain_text(value).translate(_TURNING)


def _within(value: object, low: float, high: float, otherwise: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return otherwise
    return min(max(value, low), high)
