"""The draft as an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.scene.cast import Member
from engine.scene.engine import Engine, EngineOptions, Footage, RunContext, Stage
from engine.scene.scene import Scene


class DraftOptions(EngineOptions):
    """Nothing to choose: the same scene gives the same draft."""

    engine = "draft"


class Draft(Engine):
    name, title = "draft", "Draft"
    about = "The draft takes seconds, on any machine"
    note = (
        "This is a draft: an animated storyboard that Troupe composed from the cut-outs, the prompt and the layout. "
        "No video model was used."
    )
    stages = (Stage("frames", "Drawing frames", "frame", weight=1.0),)
    options = DraftOptions
    is_draft = reads_prompt = True
    refuses_flags = "the draft runs on the CPU, without a model"

    def shoot(self, scene: Scene, members: Sequence[Member], context: RunContext) -> Footage:
        from engine.draft.render import frames

        return Footage(frames(scene, members, context.stop), scene.video.frames, "frames")


ENGINE: Any = Draft()
