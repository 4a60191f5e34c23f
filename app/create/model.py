"""The SkyReels-A2 engine on the Create page: whether it can run here, how to run it, and what it will see."""

from __future__ import annotations

import html
import time
from typing import Any

import gradio as gr

from app.create import views
from app.create.desk import Desk, checked_scene
from app.pictures import data_url, shrunk
from app.settings import Settings
from engine.a2.options import A2Options
from engine.a2.references import gather_references
from engine.cast import Member
from engine.engines import ENGINES
from engine.errors import EngineUnavailable, TroupeError

TRAINED_FRAMES = 81  # SkyReels-A2, section 4.1
_FRESH = 3.0  # seconds that an answer about the model's files holds
ROLES = {"character": "Characters", "object": "Objects", "background": "Background"}


class Model:
    """What the page knows of the a2 engine on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asked: tuple[float, str, str] = (float("-inf"), "", "")

    def options(self) -> A2Options:
        """How to run it: as the owner chose."""
        return A2Options(model=self._settings.get().model)

    def missing(self) -> str:
        """Why it cannot run here, in a sentence; empty where it can. Loads nothing."""
        options = self.options()
        at, model, said = self._asked
        if time.monotonic() - at > _FRESH or model != options.model:
            try:
                ENGINES["a2"].available(options)
                said = ""
            except EngineUnavailable as error:
                said = error.problem
            self._asked = time.monotonic(), options.model, said
        return said

    def can_shoot(self, desk: Desk) -> bool:
        """Whether Generate would work with the engine that this desk has chosen."""
        return bool(desk.cards) and (desk.sheet.engine == "draft" or not self.missing())

    def note(self, desk: Desk) -> str:
        """What a person should know before pressing Generate with the model."""
        if desk.sheet.engine != "a2":
            return ""
        problem = self.missing()
        if problem:
            sentence = problem[:1].upper() + problem[1:]
            return (
                f'<div class="tr-message warn" role="status"><p>{html.escape(sentence)}.</p><p>The Models tab shows '
                "what it needs, how large that is, and fetches it. The draft works now.</p></div>"
            )
        video = views.video_of(desk)
        frames, kept = video["frames"], video["frames"] - video["trim_head"]
        words = [
            f"{frames} frames are made; the first {video['trim_head']} show the references and are cut off: "
            f"{kept / video['fps']:.1f} s are kept."
        ]
        if frames > TRAINED_FRAMES:
            words.append(f"The model was trained on {TRAINED_FRAMES} frames; a longer clip may drift.")
        return f'<p class="tr-note">{" ".join(words)}</p>'


def references_html(desk: Desk) -> str:
    """The exact canvases that the model will see, in its order."""
    if desk.sheet.engine != "a2":
        return ""
    if not desk.cards:
        return '<p class="tr-note">Add a cast: here stand the pictures that the model will see.</p>'
    try:
        scene = checked_scene(desk, views.video_of(desk), desk.sheet.seed)
        members = [Member(element, desk.picture(card)) for element, card in zip(scene.cast, desk.cards, strict=True)]
        canvases = gather_references(scene, members)
    except TroupeError as error:
        return f'<p class="tr-note warn">{html.escape(str(error))}</p>'
    figures = "".join(
        f'<figure><img alt="" src="{data_url(shrunk(canvas.spatial, 416, 416))}"><figcaption><b>{number}. '
        f"{ROLES[canvas.role]}</b> {html.escape(', '.join(canvas.names))}</figcaption></figure>"
        for number, canvas in enumerate(canvases, start=1)
    )
    why = "The model takes up to three pictures: these, in this order."
    if any(len(canvas.names) > 1 for canvas in canvases):
        why += " A larger cast shares them."
    return f'<div class="tr-references"><p class="tr-note">{why}</p><div>{figures}</div></div>'


def settings_updates(page: Any, desk: Desk, model: Model) -> dict[Any, Any]:
    """Everything on the page that depends on the engine."""
    is_model = desk.sheet.engine == "a2"
    return {
        page.engine: desk.sheet.engine,
        page.model_box: gr.update(visible=is_model),
        page.model_note: model.note(desk),
        page.references_tab: gr.update(visible=is_model),
        page.references: references_html(desk),
        page.steps: desk.sheet.steps,
        page.guidance: desk.sheet.guidance,
        page.flow_shift: desk.sheet.flow_shift,
    }
