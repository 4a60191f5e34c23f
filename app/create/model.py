"""The SkyReels-A2 engine on the Create page: whether it can run here, how to run it, and what it will see."""

from __future__ import annotations

import contextlib
import html
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from app.create import views
from app.create.desk import Desk, checked_scene
from app.create.plan_view import plan_html
from app.machine.planner import Planner, Wishes, with_plan
from app.machine.settings import Settings
from app.ui.pictures import data_url, shrunk
from engine.a2.geometry import size_of
from engine.a2.options import TURBO_STEPS, A2Options, Lora, as_run, check_speed
from engine.a2.plan.plan import Plan
from engine.a2.references import gather_references
from engine.door.registry import ENGINES
from engine.errors import EngineUnavailable, TroupeError
from engine.scene.cast import Member
from engine.words import sentence

TRAINED_FRAMES = 81  # SkyReels-A2, section 4.1
NOT_READY = "SkyReels-A2 is not ready on this machine, and only its owner can see to that"
_FRESH = 3.0  # seconds that an answer about the model's files holds
ROLES = {"character": "Characters", "object": "Objects", "background": "Background"}


class Model:
    """What the page knows of the a2 engine on this machine."""

    def __init__(
        self, settings: Settings, loras: Path, planner: Planner, is_owner: Callable[[], bool] = lambda: True
    ) -> None:
        self._settings, self._loras, self._is_owner = settings, loras, is_owner
        self.planner = planner
        self._asked: tuple[float, str, str] = (float("-inf"), "", "")

    def lora_files(self) -> list[str]:
        """The LoRA files in the owner's folder, by name; a guest is not told."""
        if not self._is_owner():
            return []
        with contextlib.suppress(OSError):
            return sorted(file.name for file in self._loras.iterdir() if file.suffix.lower() == ".safetensors")
        return []

    def options(self, desk: Desk | None = None) -> A2Options:
        """How to run it: as the owner and this desk chose. A LoRA file that is gone is left out. A guest is refused
        where it cannot run (EngineUnavailable), without what the owner is told: that names folders."""
        options = A2Options(model=self._settings.get().model)
        if desk is None:
            return options
        if desk.sheet.engine == "a2" and not self._is_owner() and self.missing():
            raise EngineUnavailable(NOT_READY, "The draft works now.")
        sheet, there = desk.sheet, set(self.lora_files())
        loras = tuple(
            Lora(self._loras / name, strength)
            for name, strength in zip(sheet.loras, sheet.strengths, strict=True)
            if name in there
        )
        options = replace(
            options, loras=loras, turbo=sheet.turbo, step_cache=sheet.step_cache, attention=sheet.attention
        )
        return with_plan(options, self.plan(desk)) if sheet.engine == "a2" else options

    def plan(self, desk: Desk) -> Plan | None:
        """How this machine would make the desk's clip; None where that cannot be said."""
        if not desk.cards:
            return None
        try:
            clip = size_of(checked_scene(desk, views.video_of(desk), desk.sheet.seed))
        except TroupeError:
            return None
        if desk.sheet.turbo:
            clip = replace(clip, steps=TURBO_STEPS[0], guidance=1.0)
        return self.planner.plan(clip, self._settings.get().model, self._wishes(desk))

    def _wishes(self, desk: Desk) -> Wishes:
        sheet = desk.sheet
        if not self._is_owner():  # how the machine is used is its owner's matter
            return Wishes()
        return Wishes(sheet.precision, sheet.offload, sheet.resident, sheet.guidance_passes)

    def missing(self) -> str:
        """Why it cannot run here, in a sentence; empty where it can. Loads nothing. A guest is not told of folders."""
        options = self.options()
        at, model, said = self._asked
        if time.monotonic() - at > _FRESH or model != options.model:
            try:
                ENGINES["a2"].available(options)
                said = ""
            except EngineUnavailable as error:
                said = error.problem
            self._asked = time.monotonic(), options.model, said
        return NOT_READY if said and not self._is_owner() else said

    def can_shoot(self, desk: Desk) -> bool:
        """Whether Generate would work with the engine that this desk has chosen."""
        if not desk.cards or desk.sheet.engine == "draft":
            return bool(desk.cards)
        plan = self.plan(desk)
        return not (self.missing() or self._at_odds(desk)) and (plan is None or plan.fits or self._insists(desk))

    def _insists(self, desk: Desk) -> bool:
        """Whether the owner has set a line of the plan: then it is tried, whatever the plan says."""
        return self._wishes(desk) != Wishes()

    def _at_odds(self, desk: Desk) -> str:
        """Why what was chosen to make it faster does not go together; empty where it does."""
        sheet = desk.sheet
        loras = tuple(Lora(Path(name), strength) for name, strength in zip(sheet.loras, sheet.strengths, strict=True))
        there = tuple(lora for lora in loras if lora.path.name in self.lora_files())
        try:
            check_speed(A2Options(loras=there, turbo=sheet.turbo, step_cache=sheet.step_cache))
        except EngineUnavailable as error:
            return error.problem
        return ""

    def note(self, desk: Desk) -> str:
        """What a person should know before pressing Generate with the model."""
        if desk.sheet.engine != "a2":
            return ""
        problem = self.missing()
        if problem:
            where = "The Models tab shows what it needs, how large that is, and fetches it. " * self._is_owner()
            return (
                f'<div class="tr-message warn" role="status"><p>{html.escape(sentence(problem))}.</p>'
                f"<p>{where}The draft works now.</p></div>"
            )
        if at_odds := self._at_odds(desk):
            said = html.escape(sentence(at_odds))
            return f'<div class="tr-message warn" role="status"><p>{said}.</p></div>'
        video = views.video_of(desk)
        frames, kept = video["frames"], video["frames"] - video["trim_head"]
        words = [
            f"{frames} frames are made; the first {video['trim_head']} show the references and are cut off: "
            f"{kept / video['fps']:.1f} s are kept."
        ]
        if frames > TRAINED_FRAMES:
            words.append(f"The model was trained on {TRAINED_FRAMES} frames; a longer clip may drift.")
        if desk.sheet.turbo:
            run = as_run(checked_scene(desk, video, desk.sheet.seed), A2Options(turbo=True)).sampling
            words.append(f"Turbo makes it in {run.steps} steps, without the negative prompt.")
        return f'<p class="tr-note">{" ".join(words)}</p>'


def references_html(desk: Desk) -> str:
    """The exact canvases that the model will see, in its order. Made once for a cast and a format: it takes a second,
    and most of what a person changes leaves them as they are."""
    if desk.sheet.engine != "a2":
        return ""
    if not desk.cards:
        return '<p class="tr-note">Add a cast: here stand the pictures that the model will see.</p>'
    video = views.video_of(desk)
    cast = tuple((card.id, card.version, card.name, card.role, card.mode) for card in desk.cards)
    made_of = (video["width"], video["height"], cast)
    if desk.canvases[0] == made_of:
        return desk.canvases[1]
    try:
        scene = checked_scene(desk, video, desk.sheet.seed)
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
    shown = f'<div class="tr-references"><p class="tr-note">{why}</p><div>{figures}</div></div>'
    desk.canvases = made_of, shown
    return shown


def settings_updates(page: Any, desk: Desk, model: Model) -> dict[Any, Any]:
    """Everything on the page that depends on the engine."""
    is_model = desk.sheet.engine == "a2"
    return {
        page.engine: desk.sheet.engine,
        page.model_box: gr.update(visible=is_model),
        page.model_note: model.note(desk),
        page.plan: plan_html(model.plan(desk)) if is_model and desk.cards else "",
        page.precision: desk.sheet.precision,
        page.offload: desk.sheet.offload,
        page.resident: desk.sheet.resident,
        page.guidance_passes: desk.sheet.guidance_passes,
        page.references_tab: gr.update(visible=is_model),
        page.references: references_html(desk),
        page.steps: desk.sheet.steps,
        page.guidance: desk.sheet.guidance,
        page.flow_shift: desk.sheet.flow_shift,
        page.turbo: desk.sheet.turbo,
        page.step_cache: desk.sheet.step_cache,
        page.attention: desk.sheet.attention,
        **_lora_updates(page, desk, model),
    }


def _lora_updates(page: Any, desk: Desk, model: Model) -> dict[Any, Any]:
    choices = [("None", ""), *((name.removesuffix(".safetensors"), name) for name in model.lora_files())]
    known = {name for _, name in choices}
    updates: dict[Any, Any] = {page.lora_help: gr.update(visible=len(choices) == 1)}
    for slot, (name, strength) in enumerate(zip(desk.sheet.loras, desk.sheet.strengths, strict=True)):
        updates[page.loras[slot]] = gr.update(choices=choices, value=name if name in known else "")
        updates[page.strengths[slot]] = strength
    return updates
