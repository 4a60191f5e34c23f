"""The page's control for every declared setting, built, shown and read in the same way for all engines."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app.create.sheet import LORAS, SAMPLING, STRENGTH, Sheet, page_settings, settings_of
from app.ui.markup import fill
from engine.scene.engines import all_engines, find_engine
from engine.scene.settings import Declared, declared, spelled

_LORA_HELP = (
    '<p class="tr-note">A LoRA adds a trained style or subject. Put files made for Wan2.1 14B '
    "image-to-video (.safetensors) into the folder <b>loras</b> beside your clips and reload.</p>"
)


def takes_loras(engine: str) -> bool:
    """Return whether an engine accepts LoRA files."""
    return "loras" in declared(find_engine(engine).options)


class Controls:
    """The controls. Make it inside the page's Blocks. `parts` are the components by the setting's key; the LoRAs have
    rows of their own."""

    def __init__(self) -> None:
        self.parts: dict[str, Component] = {}
        self.folds: dict[str, gr.Accordion] = {}
        self.loras: list[gr.Dropdown] = []
        self.strengths: list[gr.Number] = []
        known = page_settings()
        self.box = gr.Accordion("Model settings", open=False)
        with self.box:
            numbers = [(key, each) for key, each in known.items() if key.startswith(f"{SAMPLING}.")]
            for i in range(0, len(numbers), 2):  # three side by side would leave no room for what they mean
                with gr.Row():
                    self._make(dict(numbers[i : i + 2]))
            own = {key: each for key, each in known.items() if key not in self.parts}
            self._make({key: each for key, each in own.items() if not each.setting.group})
            for title in dict.fromkeys(_groups()):
                self.folds[title] = gr.Accordion(title, open=False)
                with self.folds[title]:
                    for engine in all_engines():
                        if note := engine.options.notes.get(title):
                            gr.HTML(fill('<p class="tr-note">{}</p>', note))
                    if title == _lora_group():
                        self._make_loras()
                    self._make({key: each for key, each in own.items() if each.setting.group == title})

    @property
    def everything(self) -> list[Component]:
        """All components that `updates` and `lora_updates` change, except the accordions."""
        return [*self.parts.values(), *self.loras, *self.strengths, *([self.lora_help] if self.loras else [])]

    def updates(self, sheet: Sheet, own_machine: bool, several_cards: bool = False) -> dict[Any, Any]:
        """Return every control's value from the sheet; those that the engine does not read are hidden, and from guests
        those by which the machine's owner decides how it is used; so is what needs several cards where there is one."""
        shown = {
            key for key, each in settings_of(sheet.engine).items()
            if (own_machine or not each.setting.planned) and sheet.is_read(key)
            and (several_cards or not each.setting.several_cards)
        }  # fmt: skip
        folds = {page_settings()[key].setting.group for key in shown}
        folds |= {_lora_group()} if takes_loras(sheet.engine) and own_machine else set()
        return {
            self.box: gr.update(visible=bool(shown)),
            **{fold: gr.update(visible=title in folds) for title, fold in self.folds.items()},
            **{part: gr.update(visible=key in shown, **_shown(page_settings()[key], sheet.setting(key)))
               for key, part in self.parts.items()},
        }  # fmt: skip

    def lora_updates(self, sheet: Sheet, files: list[str], own_machine: bool) -> dict[Any, Any]:
        """Return the LoRAs' rows, with the files to choose from: the owner's, so guests see none."""
        if not self.loras:
            return {}
        choices = [("None", ""), *((name.removesuffix(".safetensors"), name) for name in files)]
        updates: dict[Any, Any] = {self.lora_help: gr.update(visible=own_machine and not files)}
        for slot, (name, strength) in enumerate(zip(sheet.loras, sheet.strengths, strict=True)):
            updates[self.loras[slot]] = gr.update(
                choices=choices, value=name if name in files else "", visible=own_machine
            )
            updates[self.strengths[slot]] = gr.update(value=strength, visible=own_machine)
        return updates

    def _make(self, settings: dict[str, Declared]) -> None:
        for key, each in settings.items():
            self.parts[key] = slider(each) if each.setting.control == "slider" else _control(each)

    def _make_loras(self) -> None:
        self.lora_help = gr.HTML(_LORA_HELP)
        for slot in range(LORAS):
            with gr.Row(elem_classes="tr-lora"):
                self.loras.append(
                    gr.Dropdown([("None", "")], value="", label=f"LoRA {slot + 1}", scale=3, min_width=150)
                )
                self.strengths.append(
                    gr.Number(1.0, label="Strength", minimum=STRENGTH[0], maximum=STRENGTH[1], step=0.1, scale=1,
                              min_width=90)
                )  # fmt: skip


def slider(each: Declared, **more: Any) -> gr.Slider:
    """Build a slider over a setting's whole range."""
    setting = each.setting
    return gr.Slider(
        each.lowest, each.high or each.lowest, each.default, step=setting.step, label=setting.label,
        info=setting.help or None, **{"min_width": 150, **more},
    )  # fmt: skip


def _control(each: Declared) -> Component:
    setting = each.setting
    said: dict[str, Any] = {"label": setting.label, "info": setting.help or None}
    if setting.control == "checkbox":
        return gr.Checkbox(each.default, **said)
    if setting.control == "number":
        return gr.Number(each.default, minimum=each.low, precision=0 if each.kind is int else None,
                         step=setting.step, **said)  # fmt: skip
    choices = [(setting.choices.get(value, spelled(value).capitalize()), spelled(value)) for value in each.offered]
    kind = gr.Radio if setting.control == "radio" else gr.Dropdown
    made: Component = kind(choices, value=spelled(each.default), **said)
    return made


def _shown(each: Declared, value: Any) -> dict[str, Any]:
    """Return how a control shows a value. A slider reaches down to one that a scene file may hold and it does not
    offer."""
    if each.setting.control == "slider":
        return {"value": value, "minimum": min(each.lowest, value)}
    return {"value": spelled(value) if each.setting.control in ("radio", "dropdown") else value}


def _groups() -> list[str]:
    """Return the folds in the order of their settings; those with what is left to the plan come last."""
    found = [each.setting for engine in all_engines() for each in declared(engine.options).values()]
    planned = {setting.group for setting in found if setting.planned}
    return sorted((setting.group for setting in found if setting.group), key=lambda group: group in planned)


def _lora_group() -> str:
    """Return the title of the accordion with the LoRAs; empty where no engine accepts any."""
    groups = [declared(engine.options)["loras"].setting.group for engine in all_engines() if takes_loras(engine.name)]
    return next(iter(groups), "")
