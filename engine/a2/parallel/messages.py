"""What the processes of a crew and whoever has started them say to each other: pickled, since both ends are of one
version and nobody else has the pipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.a2.options import A2Options
from engine.a2.plan.degrees import Degrees
from engine.errors import TroupeError
from engine.scene.cast import Member
from engine.scene.scene import Scene


@dataclass(frozen=True)
class Cue:
    """Make this clip together. `asked` are the options that what is kept on disk belongs to; `options`, `alone` and
    `remark` are the attempt's. The first `given` frames are there already. `host`: the bytes of memory for each."""

    scene: Scene
    members: Sequence[Member]
    asked: A2Options
    options: A2Options
    degrees: Degrees
    alone: bool = False
    remark: str = ""
    given: int = 0
    host: int | None = None


@dataclass(frozen=True)
class Halt:
    """End the clip at the next chance. A crew ends where its pipe does."""


# ---------------------------------------------------------------------------
# From each of them


@dataclass(frozen=True)
class Joined:
    """It has met the others, and waits for a cue."""


@dataclass(frozen=True)
class Heard:
    """How far the clip is; the arguments of the recipe's `tell`."""

    stage: str
    step: int
    of: int
    detail: str


@dataclass(frozen=True)
class Rolling:
    """The latents are done; frames follow, as bytes."""


@dataclass(frozen=True)
class Wrapped:
    """The clip is done here; `notices` for the person, and `held` bytes of card and memory."""

    notices: tuple[str, ...]
    held: tuple[int, int]


@dataclass(frozen=True)
class StoodDown:
    """The clip was ended, as asked."""


@dataclass(frozen=True)
class Raised:
    """The clip cannot be made."""

    error: TroupeError


@dataclass(frozen=True)
class Broke:
    """A fault of Troupe's own, or of what was lost with another process; `trace` for the log."""

    trace: str


FromRank = Joined | Heard | Rolling | Wrapped | StoodDown | Raised | Broke
