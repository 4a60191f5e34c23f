"""The states of a job, and the snapshot of a job that the page gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.scene.engines import known_engine
from engine.scene.scene import DRAFT

WAITING, RUNNING, PAUSED = "waiting", "running", "paused"
DONE, STOPPED, FAILED, INTERRUPTED = "done", "stopped", "failed", "interrupted"
IN_LINE = (WAITING, PAUSED)
QUEUED = (RUNNING, *IN_LINE)
OVER = (DONE, STOPPED, FAILED, INTERRUPTED)


@dataclass(frozen=True)
class Snapshot:
    """A job at one moment. Times in seconds, `created` in UTC (ISO 8601).

    `share` is how much is done, 0 to 1; `step` of `of` and `remaining` are the stage's own, `left` estimates what the
    whole job still takes, from this machine's earlier jobs. `ahead` counts the jobs before this one, the running one
    included. `preview` is a picture of the unfinished clip, where there is one. `resumable`: it can be put in the queue
    again; `steps_kept`: it then continues from steps that it has saved. `metrics`: what was measured on its clip.
    """

    id: str
    state: str
    stage: str = ""
    share: float = 0.0
    elapsed: float = 0.0
    remaining: float | None = None
    ahead: int = 0
    error: str = ""
    clip: Path | None = None
    seed: int | None = None
    notices: tuple[str, ...] = ()
    engine: str = DRAFT
    step: int = 0
    of: int = 0
    detail: str = ""
    left: float | None = None
    preview: Path | None = None
    poster: Path | None = None
    resumable: bool = False
    steps_kept: bool = False
    prompt: str = ""
    created: str = ""
    owner: str = ""
    favourite: bool = False
    plan: dict[str, Any] | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether the job is waiting or running."""
        return self.state in (WAITING, RUNNING)

    @property
    def version(self) -> str:
        """A string that changes with the clip's file; empty without a file."""
        try:
            return f"{self.clip.stat().st_mtime_ns:x}" if self.clip else ""
        except OSError:
            return ""

    @property
    def title(self) -> str:
        """The prompt in one short line."""
        line = " ".join(self.prompt.split())
        return line if len(line) <= 80 else line[:79].rstrip() + "…"


def share_of(engine: str, stage: str, step: int, of: int) -> float:
    """Return how much of a job is done, 0 to 1, at a step of a stage; 0 for an unknown engine."""
    known = known_engine(engine)
    return known.share(stage, step, of) if known else 0.0
