"""The phases of the model's work, in one vocabulary: what memory and time are planned for, and where memory runs out.

A phase belongs to a stage, which is what a person sees of it: two phases share the stage in which prompt and references
are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.scene.engine import Stage

PlannedPhase = Literal["prompt", "references", "sampling", "decoding"]
PhaseName = Literal["loading", "prompt", "references", "sampling", "decoding"]

STAGES = (
    Stage("loading", "Loading the model", "loading the model,", "Load"),
    Stage("conditioning", "Reading prompt and cast", "reading prompt and references,", "Read"),
    Stage("sampling", "Making the clip", "step", "Make", weight=0.9, in_steps=True),
    Stage("decoding", "Turning it into frames", "frame", "Frames", weight=0.1),
)


@dataclass(frozen=True)
class Phase:
    """`stage` is the name of the one it belongs to; `doing` completes "while …"; `title` stands beside its bar."""

    stage: str
    doing: str
    title: str


PHASES: dict[PhaseName, Phase] = {
    "loading": Phase("loading", "loading the model", ""),
    "prompt": Phase("conditioning", "reading the prompt", "Prompt"),
    "references": Phase("conditioning", "encoding the pictures", "Cast"),
    "sampling": Phase("sampling", "making the clip", "Making"),
    "decoding": Phase("decoding", "decoding the frames", "Frames"),
}


def where(phase: PhaseName, step: int) -> str:
    """Say where in the work this is, such as "at step 12", or "while decoding the frames"."""
    return f"at step {step}" if phase == "sampling" else f"while {PHASES[phase].doing}"
