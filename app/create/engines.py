"""The engines on the Create page: whether a desk's engine can run here, its options, and the pictures that it will
see."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from app.create import views
from app.create.controls import takes_loras
from app.create.desk import Desk, checked_scene, with_anyone
from app.create.plan_view import plan_html
from app.create.sheet import settings_of
from app.machine.planner import Planner
from app.machine.settings import OwnerSettings
from app.ui.markup import NOTHING, each, fill, message
from app.ui.pictures import data_url, shrunk
from engine.errors import EngineUnavailable, TroupeError
from engine.scene.cast import Member
from engine.scene.engine import Engine, EngineOptions, Lora, MadeFor, Reference, RunPlan
from engine.scene.engines import all_engines, find_engine
from engine.scene.scene import Scene
from engine.scene.settings import declared
from engine.words import sentence

_NOTE = '<p class="tr-note">{}</p>'
_FIGURE = '<figure><img alt="" src="{}"><figcaption><b>{}. {}</b> {}</figcaption></figure>'
_FRESH = 3.0  # seconds that an answer about an engine's files is cached


class Engines:
    """What this machine's engines can do for a desk."""

    def __init__(
        self, settings: OwnerSettings, loras: Path, planner: Planner, is_owner: Callable[[], bool] = lambda: True
    ) -> None:
        self._settings, self._loras, self._is_owner = settings, loras, is_owner
        self.planner = planner
        self._asked: dict[str, tuple[float, EngineOptions, str]] = {}

    @property
    def own_machine(self) -> bool:
        """Whether whoever asks is the machine's owner."""
        return self._is_owner()

    @property
    def several_cards(self) -> bool:
        """Whether this machine has more than one card, as far as that is known yet."""
        hardware = self.planner.hardware(0.0)
        return hardware is not None and hardware.has_several

    def lora_files(self) -> list[str]:
        """List the LoRA files in the owner's folder, by name; empty for guests."""
        if not self._is_owner():
            return []
        with contextlib.suppress(OSError):
            return sorted(file.name for file in self._loras.iterdir() if file.suffix.lower() == ".safetensors")
        return []

    def options(self, desk: Desk) -> EngineOptions:
        """Return the options for the desk's engine: as the owner and this desk chose, the rest as planned. A LoRA file
        that is gone is left out. Raises EngineUnavailable for a guest where the engine cannot run, without the reason,
        which names folders."""
        engine, is_owner = _engine_of(desk), self._is_owner()
        if not is_owner and self.missing(engine):
            raise EngineUnavailable(_not_ready(engine), "The draft works now.")
        options, plan = self._chosen(desk), self.plan(desk)
        applied: EngineOptions = plan.applied(options) if plan is not None else options
        return applied

    def plan(self, desk: Desk) -> RunPlan | None:
        """Return how this machine would make the desk's clip; None where that is not known."""
        if not desk.cards:
            return None
        try:
            scene = checked_scene(desk, views.video_of(desk), desk.sheet.seed)
        except TroupeError:
            return None
        return self.planner.plan(_engine_of(desk), scene, self._chosen(desk))

    def missing(self, engine: Engine) -> str:
        """Return in a sentence why an engine cannot run here; empty where it can. Loads nothing. Guests do not get the
        reason, which names folders."""
        options = self._with_owners(engine.options())
        at, asked, said = self._asked.get(engine.name, (float("-inf"), options, ""))
        if time.monotonic() - at > _FRESH or asked != options:
            try:
                engine.available(options)
                said = ""
            except EngineUnavailable as error:
                said = error.problem
            self._asked[engine.name] = time.monotonic(), options, said
        return _not_ready(engine) if said and not self._is_owner() else said

    def can_shoot(self, desk: Desk) -> bool:
        """Return whether Generate would work with the engine that this desk has chosen. What other programs hold now
        is no reason against it: a clip waits for its turn, and they may end."""
        if not desk.cards or self.missing(_engine_of(desk)) or self._at_odds(desk):
            return False
        plan = self.plan(desk)
        return plan is None or plan.possible or self._insists(desk)

    def note(self, desk: Desk) -> Markup:
        """Draw what a person should know before pressing Generate."""
        engine = _engine_of(desk)
        if problem := self.missing(engine):
            where = "The Models tab shows what it needs, how large that is, and fetches it. " * self._is_owner()
            lines = [f"{sentence(problem)}.", f"{where}The draft works now."]
            return message(each("<p>{}</p>", lines), "warn")
        if at_odds := self._at_odds(desk):
            return message(each("<p>{}</p>", [f"{sentence(at_odds)}."]), "warn")
        try:
            scene = checked_scene(with_anyone(desk), views.video_of(desk), desk.sheet.seed)
            remarks = engine.remarks(scene, self._chosen(desk))
        except TroupeError:
            return NOTHING
        return fill(_NOTE, " ".join(remarks)) if remarks else NOTHING

    def _chosen(self, desk: Desk) -> EngineOptions:
        """Return the options as the desk and the machine's owner have set them."""
        options = self._as_here(self._with_owners(desk.sheet.options(self._is_owner())))
        if not takes_loras(desk.sheet.engine):
            return options
        there = set(self.lora_files())
        chosen = zip(desk.sheet.loras, desk.sheet.strengths, strict=True)
        loras = tuple(Lora(self._loras / name, strength) for name, strength in chosen if name in there)
        return replace(options, **{"loras": loras})

    def _with_owners(self, options: EngineOptions) -> EngineOptions:
        """Return the options with what the machine's owner has chosen for all desks."""
        known = declared(type(options))
        model, family = self._settings.model_in_use() if "model" in known else ("", None)
        owners: dict[str, Any] = {"model": model, "family": family}
        return replace(options, **{name: value for name, value in owners.items() if value})

    def made_for(self) -> dict[str, MadeFor]:
        """Return what the models that this machine has chosen were made for, by engine."""
        return {each.name: each.made_for(self._with_owners(each.options())) for each in all_engines()}

    def references(self, desk: Desk, scene: Scene, members: Sequence[Member]) -> Sequence[Reference]:
        """Return the exact pictures that the desk's engine will see."""
        return _engine_of(desk).references(scene, members, self._chosen(desk))

    def _as_here(self, options: EngineOptions) -> EngineOptions:
        """Return the options without those that this machine has too few cards for, such as another one's desk's."""
        known = declared(type(options))
        if self.several_cards or not any(each.setting.several_cards for each in known.values()):
            return options
        return replace(options, **{key: each.default for key, each in known.items() if each.setting.several_cards})

    def _insists(self, desk: Desk) -> bool:
        """Return whether the owner has set a planned option by hand: then the clip may be tried although the plan does
        not fit."""
        known = settings_of(desk.sheet.engine)
        planned = [key for key, each in known.items() if each.setting.planned and not each.setting.several_cards]
        return self._is_owner() and any(desk.sheet.setting(key) is not None for key in planned)

    def _at_odds(self, desk: Desk) -> str:
        """Return why the chosen options contradict each other; empty where they do not."""
        try:
            _engine_of(desk).check_options(self._chosen(desk))
        except EngineUnavailable as error:
            return error.problem
        return ""


def _engine_of(desk: Desk) -> Engine:
    return find_engine(desk.sheet.engine)


def _not_ready(engine: Engine) -> str:
    return f"{engine.title} is not ready on this machine, and only its owner can see to that"


def references_html(desk: Desk, engines: Engines) -> Markup:
    """Draw the exact pictures that the engine will see, in its order. Cached by cast, format and model: drawing takes a
    second, and most changes do not affect it."""
    engine = _engine_of(desk)
    if not engine.shows_references:
        return NOTHING
    if not desk.cards:
        return fill(_NOTE, "Add a cast: here stand the pictures that the model will see.")
    video = views.video_of(desk)
    cast = tuple((card.pictures, card.version, card.name, card.role, card.mode) for card in desk.cards)
    made_for = desk.sheet.made_for
    made_of = (engine.name, made_for.family, video["width"], video["height"], cast)
    if desk.canvases[0] == made_of:
        return desk.canvases[1]
    try:
        scene = checked_scene(desk, video, desk.sheet.seed)
        members = [
            Member(element, desk.picture(card), tuple(desk.picture(card, view.id) for view in card.views))
            for element, card in zip(scene.cast, desk.cards, strict=True)
        ]
        references = engines.references(desk, scene, members)
    except TroupeError as error:
        return fill('<p class="tr-note warn">{}</p>', str(error))
    figures = NOTHING.join(
        fill(_FIGURE, data_url(shrunk(seen.picture, 416, 416)), number, seen.title, ", ".join(seen.names))
        for number, seen in enumerate(references, start=1)
    )
    why = f"{made_for.title} takes up to {made_for.references} pictures: these, in this order."
    if any(len(seen.names) > 1 for seen in references):
        why += " A larger cast shares them."
    shown = fill('<div class="tr-references"><p class="tr-note">{}</p><div>{}</div></div>', why, figures)
    desk.canvases = made_of, shown
    return shown


def engine_updates(page: Any, desk: Desk, engines: Engines) -> dict[Any, Any]:
    """Return the page's components that depend on the engine."""
    engine, plan = _engine_of(desk), engines.plan(desk)
    plans, note = engines.planner.plans(engine) and bool(desk.cards), engines.note(desk)
    return {
        page.engine: engine.name,
        page.engine_box: gr.update(visible=bool(settings_of(engine.name) or note or plans)),
        page.engine_note: note,
        page.plan: plan_html(plan) if plans else "",
        page.references_tab: gr.update(visible=engine.shows_references),
        page.references: references_html(desk, engines),
        **page.controls.updates(desk.sheet, engines.own_machine, engines.several_cards),
        **page.controls.lora_updates(desk.sheet, engines.lora_files(), engines.own_machine),
    }
