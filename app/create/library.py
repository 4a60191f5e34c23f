"""The presets on this machine, Troupe's own and the person's: drawn as cards, and applied to a desk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from app.create.card import Card
from app.create.desk import Desk
from app.ui.pictures import data_url, shrunk
from engine.errors import PresetError
from engine.scene.presets import Preset, Presets, Slot, direct, load_presets, save_preset
from engine.scene.prompt import replace_names
from engine.scene.scene import ROLES, Direction, Element
from engine.words import plain_name

CARD_PICTURE = (336, 189)  # pixels: a card at 168 CSS pixels on a dense screen


class Library:
    """Presets of the `shipped` and `own` folders; sample scenes are in `samples` under their preset's name. Without an
    `own` folder none can be saved. Only the owner (`is_owner`) sees those in it: they hold prompts."""

    def __init__(
        self, shipped: Path, own: Path | None, samples: Path, is_owner: Callable[[], bool] = lambda: True
    ) -> None:
        self._shipped, self._own, self._samples, self._is_owner = shipped, own, samples, is_owner
        self._pictures: dict[Path, str] = {}
        self._load()

    def _load(self) -> None:
        self._public = load_presets(self._shipped)
        self._all = load_presets(self._shipped, self._own) if self._own else self._public

    @property
    def _presets(self) -> Presets:
        return self._all if self._is_owner() else self._public

    @property
    def problems(self) -> list[str]:
        """The errors in preset files, which were skipped."""
        return [str(problem) for problem in self._all.problems]

    def strip(self, selected: str = "") -> dict[str, Any]:
        """Return the data that presets.js draws."""
        groups: dict[str, dict[str, Any]] = {}
        for preset in self._presets.presets:
            group = groups.setdefault(preset.group, {"title": preset.group_title, "cards": []})
            group["cards"].append(
                {"key": preset.key, "title": preset.title, "line": preset.line, "format": preset.format,
                 "picture": self._picture(preset)}
            )  # fmt: skip
        hint = "Pick one. With an empty desk it brings a sample cast; a cast of your own it directs."
        return {"groups": list(groups.values()), "selected": selected, "hint": hint}

    def sample(self, key: str) -> Path | None:
        """Return the sample scene of a shipped preset; None where it has none."""
        preset = self._presets.get(key)
        path = self._samples / f"{preset.name}.json"
        return path if preset.folder != self._own and path.is_file() else None

    def direct(self, desk: Desk, key: str, keep_words: bool = False) -> None:
        """Apply a preset to the desk's cast: motions and places, camera, format, length, numbers, and the prompt; with
        `keep_words` the prompt, motions and places stay. Raises PresetError."""
        preset = self._presets.get(key)
        cast = tuple(
            Element.model_validate({"role": card.role, "image": "-", "name": card.name, "motion": card.motion})
            for card in desk.cards
        )
        directed = direct(preset, cast)
        sheet = desk.sheet
        sheet.put("format", preset.format)
        sheet.preset, sheet.seconds = preset.key, preset.seconds
        if not keep_words:
            sheet.prompt = directed.prompt
            for card, element in zip(desk.cards, directed.cast, strict=True):
                card.motion = element.motion
                card.placement = element.placement.model_dump() if element.placement else None
        desk.stir()
        sheet.follow(directed.negative_prompt, directed.direction, preset.sampling_for(sheet.family))
        desk.save()

    def keep(self, desk: Desk, title: str) -> None:
        """Save the desk's settings as a preset of the person's own. Raises PresetError."""
        title = " ".join(plain_name(title).split())
        if self._own is None or not self._is_owner():
            raise PresetError("A shared Troupe keeps no presets", "Start your own copy to keep some.")
        if not title:
            raise PresetError("The preset has no title", "Type one beside the button.")
        if not desk.sheet.prompt.strip():
            raise PresetError("There is no prompt to keep", "Write one first.")
        sheet, slots = desk.sheet, _slots(desk.cards)
        try:
            preset = Preset.model_validate({
                "title": title[:60], "format": sheet.usual_format, "seconds": sheet.usual_seconds,
                "negative_prompt": sheet.negative_prompt, "prompt": _template(sheet.prompt, slots),
                "slots": tuple(slot for _, _, slot in slots),
                "draft": Direction.model_validate({"camera": sheet.camera, "bpm": sheet.bpm}),
            })  # fmt: skip
        except ValidationError as error:
            raise PresetError(f"This cannot be kept: {error.errors()[0]['msg']}", "Change it and save again.") from None
        save_preset(preset, self._own)
        self._load()

    def _picture(self, preset: Preset) -> str:
        path = preset.picture_path
        if path is None:
            return ""
        if path not in self._pictures:
            try:
                with Image.open(path, formats=("WEBP", "PNG", "JPEG")) as picture:
                    self._pictures[path] = data_url(shrunk(picture.convert("RGB"), *CARD_PICTURE), quality=76)
            except (OSError, UnidentifiedImageError, ValueError):
                self._pictures[path] = ""  # a card without its picture still works
        return self._pictures[path]


def _slots(cards: list[Card]) -> list[tuple[str, str, Slot]]:
    """List the cards as (slot name, card name, slot)."""
    counts = dict.fromkeys(ROLES, 0)
    slots = []
    for card in cards:
        counts[card.role] += 1
        slot_name = card.role if counts[card.role] == 1 else f"{card.role}_{counts[card.role]}"
        fields = {"role": card.role, "motion": card.motion, "placement": card.placement}
        slots.append((slot_name, card.name, Slot.model_validate({k: v for k, v in fields.items() if v})))
    return slots


def _template(prompt: str, slots: list[tuple[str, str, Slot]]) -> str:
    """Replace each name in the prompt by its slot."""
    prompt = prompt.translate({ord("{"): "(", ord("}"): ")"})
    return replace_names(
        prompt, [name for _, name, _ in slots], {i: f"{{{slot}}}" for i, (slot, _, _) in enumerate(slots)}
    )
