"""What an engine is: all that door, command line, queue, gallery and page know of one.

An engine turns a scene and its cut-outs into frames. It knows nothing of files, metadata and remaining time. The page
loads it, so what is heavy is imported inside its methods. All that is below has a default: a new engine says its name,
title, note and stages, and has a `shoot`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from engine.memory.hardware import Hardware
    from engine.memory.model_cache import ModelCache
    from engine.scene.cast import Member
    from engine.scene.scene import Scene, Video


@dataclass(frozen=True)
class Stage:
    """One step of the work, in the words of each place that tells of it: `title` on the page while it runs, `short` in
    the row of steps on the way (empty: it is none of them), `counted` in a terminal before "3 of 8".

    `weight` is its part of a job's time, of all stages together 1. `in_steps`: its steps mean something to a person, so
    the page counts them instead of telling a percentage.
    """

    name: str
    title: str
    counted: str = ""
    short: str = ""
    weight: float = 0.0
    in_steps: bool = False


# The door's own, before and after an engine's
GATHERING = Stage("cast", "Getting the cast ready", "cutting out the cast")
FINISHING = Stage("poster", "Finishing", "finishing")


@dataclass(frozen=True)
class Lora:
    """A LoRA file, and how strongly it goes into the weights; 0 leaves them as they are."""

    path: Path
    strength: float = 1.0


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is run, where the scene says what to run. Each engine has a subclass of its own (a pydantic
    dataclass), whose fields are declared with `engine.scene.settings.Setting`."""

    engine: ClassVar[str] = ""  # whose they are
    notes: ClassVar[Mapping[str, str]] = {}  # a sentence for a group of settings, by the group's title

    @property
    def written(self) -> tuple[Path, ...]:
        """The files that a run writes beside its clip."""
        return ()

    def kept_in(self, state: Path, preview: Path) -> Self:
        """Return the options with the run's steps and its preview kept in these files, where the engine can do that."""
        return self

    def said(self) -> dict[str, Any]:
        """Return the fields that differ from their default and name no file, for a log."""
        found = {
            each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) != each.default
        }
        return {name: len(value) if isinstance(value, tuple) else value for name, value in found.items()
                if not isinstance(value, Path)}  # fmt: skip


@dataclass(frozen=True)
class Footage:
    """What an engine hands back: `count` frames, (H, W, 3) uint8 RGB each, made as they are read; `stage`, the name of
    the stage in which that happens; `notices` for the person, complete when the frames have been read; `note`, what the
    clip says of how it was made (empty: the engine's own)."""

    frames: Generator[np.ndarray]
    count: int
    stage: str
    notices: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class RunContext:
    """What an engine is given beside the scene: its options; `tell(stage, step, of, detail)`, which hears how far it
    is; `stop`, to be asked often, after which the work ends with Stopped; and the cache that keeps a loaded model for
    the next clip."""

    options: Any
    tell: Callable[..., None]
    stop: Callable[[], bool] | None
    cache: ModelCache


@dataclass(frozen=True)
class MemoryBars:
    """A plan as a picture: for each stage its title, the bytes it needs and the seconds it takes (None: not measured),
    against `free` of `size` bytes of `where`. `warning` is one more sentence."""

    where: str
    free: int
    size: int
    stages: tuple[tuple[str, int, float | None], ...]
    warning: str = ""


class RunPlan(Protocol):
    """How a clip will be run on this machine, and what that needs."""

    @property
    def fits(self) -> bool:
        """Whether this machine can do it with what is free now."""

    @property
    def possible(self) -> bool:
        """Whether it can be tried: it fits, or would with nothing else running here."""

    def sentence(self) -> str:
        """Return the plan in one line for a person."""

    def bars(self) -> MemoryBars:
        """Return the plan as a picture."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON data, to be kept with the job."""

    def applied(self, options: Any) -> Any:
        """Return the options with what the plan has chosen."""


class EnginePlanner(Protocol):
    """Plans clips for machines, and learns from how long they took."""

    def plan(self, hardware: Hardware, scene: Scene, options: Any) -> RunPlan:
        """Plan how this machine would run it; what the options leave to the plan is chosen."""

    def learn(self, hardware: Hardware, scene: Scene, options: Any, began: Mapping[str, tuple[float, int]]) -> None:
        """Correct the predicted times by a finished run. `began`: by stage, the second in which it began and the step
        at which."""


@dataclass(frozen=True)
class MadeFor:
    """What the model of an engine was made for: for clips that leave it open. `family` names the kind of models whose
    numbers are alike (empty: there is no model), `title` the model; `sampling` is fields of the scene's `Sampling`.
    `references`: how many pictures it sees."""

    family: str = ""
    title: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    fps: int = 15
    trim_head: int = 12
    references: int = 0


@dataclass(frozen=True)
class Reference:
    """A picture that the engine will see, its title, and the names of those of the cast who are in it."""

    picture: Image.Image
    title: str
    names: tuple[str, ...]


class Engine:
    """An engine. `name` is what scene files and the command line call it, `title` what people do; `about` helps to
    choose it; `note` is what a clip says of how it was made. `stages` are its own, in the order of work.

    `sampling`: which of the scene's sampling numbers it reads, beside the seed. `is_draft`: its clips are sketches,
    which may be made again with another engine. `reads_prompt`: it plays what it finds in the prompt's words, and says
    so where it finds nothing. `trims_head`: it makes the frames that the scene cuts off. `whole_photos`: a photo that
    is not to be cut out reaches it pixel for pixel. `wants_gpu`: where GPUs are lent, it has to ask for one.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str] = ""
    note: ClassVar[str] = ""
    stages: ClassVar[tuple[Stage, ...]] = (Stage("frames", "Drawing frames", "frame", weight=1.0),)
    options: ClassVar[type[EngineOptions]] = EngineOptions
    sampling: ClassVar[tuple[str, ...]] = ()
    is_draft: ClassVar[bool] = False
    reads_prompt: ClassVar[bool] = False
    trims_head: ClassVar[bool] = False
    whole_photos: ClassVar[bool] = False
    wants_gpu: ClassVar[bool] = False
    refuses_flags: ClassVar[str] = "it has no such setting"  # after its title, of a flag that it would have to ignore

    @property
    def all_stages(self) -> dict[str, Stage]:
        """By name: the door's and its own."""
        return {stage.name: stage for stage in (GATHERING, *self.stages, FINISHING)}

    def share(self, stage: str, step: int, of: int) -> float:
        """Compute how much of a job is done, 0 to 1, at this point of a stage; 0 for a stage that is not known."""
        done = 0.0
        for each in self.all_stages.values():
            if each.name == stage:
                return min(1.0, done + each.weight * (min(1.0, step / of) if of else 0.0))
            done += each.weight
        return 0.0

    # -- what it can do ------------------------------------------------------------

    def available(self, options: Any) -> None:
        """Raise EngineUnavailable where it cannot run on this machine. Loads nothing."""

    def check_video(self, video: Video) -> None:
        """Raise SceneError where it cannot make a clip of such a length."""

    def check_options(self, options: Any) -> None:
        """Raise EngineUnavailable where options do not go together."""

    def check_flags(self, options: Any) -> None:
        """Raise EngineUnavailable where flags do not go together on the command line, where nothing is left to a
        plan."""

    def check(self, scene: Scene, options: Any) -> None:
        """Raise SceneError or EngineUnavailable for what would fail after the work has begun."""

    def frames_for(self, seconds: float, fps: int, trim_head: int) -> int:
        """Compute how many frames to ask for, for a clip of so many seconds."""
        return whole_frames(seconds, fps)

    def made_for(self, options: Any) -> MadeFor:
        """Return what the model that these options name was made for."""
        return MadeFor()

    def completed(self, scene: Scene, options: Any) -> Scene:
        """Return the scene with the numbers that it leaves open as what these options name was made for."""
        return scene

    def as_run(self, scene: Scene, options: Any) -> Scene:
        """Return the scene as it is made with these options."""
        return scene

    def units(self, scene: Scene) -> float:
        """Compute how much work a scene is, for estimates from earlier ones: pixels of all frames."""
        video = scene.video
        return float(video.width * video.height * video.frames)

    def gpu_seconds(self, scene: Scene, options: Any) -> int:
        """Return for how many seconds to ask for a GPU, where it wants one."""
        return 60

    # -- what a person is told before ------------------------------------------------

    def remarks(self, scene: Scene, options: Any) -> Sequence[str]:
        """Return sentences that a person should read before the clip is made."""
        return ()

    def references(self, scene: Scene, members: Sequence[Member], options: Any) -> Sequence[Reference]:
        """Return the pictures that it will see, where these are others than the cast's."""
        return ()

    @property
    def shows_references(self) -> bool:
        """Whether `references` says something."""
        return type(self).references is not Engine.references

    def planner(self) -> EnginePlanner | None:
        """Return a planner of its clips for a machine; None where they run in the same way anywhere."""
        return None

    def planned(self, scene: Scene, options: Any, folder: Path) -> Any:
        """Return the options with what they leave open decided for this machine, as it is now; `folder` is where the
        clip goes. Raises EngineUnavailable where it cannot be done here."""
        return options

    # -- the work ----------------------------------------------------------------------

    def preload(self, options: Any, cache: ModelCache) -> None:
        """Load ahead what the next clip needs. Raises EngineUnavailable."""

    def shoot(self, scene: Scene, members: Sequence[Member], context: RunContext) -> Footage:
        """Make the frames. Raises EngineUnavailable or Stopped."""
        raise NotImplementedError


def whole_frames(seconds: float, fps: int) -> int:
    """Compute the nearest number of frames that every engine can make: 4k + 1, the lengths that Wan's VAE can pack."""
    return 4 * max(1, round((seconds * fps - 1) / 4)) + 1
