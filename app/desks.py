"""All desks of this copy of Troupe, and sample scenes laid out on one.

A desk's id is its only key: 32 random hex digits, kept in the browser that made it. Whoever does not hold the id
cannot name the desk, and no path ever comes from outside.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import uuid
from dataclasses import fields
from pathlib import Path

from app.desk import Card, Desk, Sheet
from engine.errors import ImageError, TroupeError
from engine.scene import Element, load_scene

ID = re.compile(r"[0-9a-f]{32}")


class Desks:
    """The desks, each in a folder named by its id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, Desk] = {}
        self._lock = threading.Lock()

    def get(self, desk_id: object) -> Desk:
        """The desk with this id, as it was left; empty where the id is new. Raises TroupeError for what is no id."""
        if not isinstance(desk_id, str) or not ID.fullmatch(desk_id):
            raise TroupeError("This page has lost its desk", "Reload it.")
        with self._lock:
            if desk_id not in self._open:
                self._open[desk_id] = self._load(desk_id)
            return self._open[desk_id]

    def new(self) -> Desk:
        """A fresh desk with an id that nobody can guess."""
        return self.get(uuid.uuid4().hex)

    def _load(self, desk_id: str) -> Desk:
        folder = self.folder / desk_id
        folder.mkdir(parents=True, exist_ok=True)
        desk = Desk(desk_id, folder)
        try:
            data = json.loads((folder / "desk.json").read_text(encoding="utf-8"))
            cards = [Card(**_known(Card, entry)) for entry in data["cards"]]
            desk.sheet = Sheet(**_known(Sheet, data["sheet"]))
        except FileNotFoundError:
            return desk
        except (OSError, ValueError, TypeError, KeyError):  # damaged: set aside, never trusted and never deleted
            shutil.move(folder / "desk.json", folder / f"desk.damaged-{uuid.uuid4().hex[:8]}.json")
            return desk
        for card in cards:
            card.doubts = tuple(card.doubts)
            try:  # a picture that is gone takes its card with it
                desk.picture(card)
                desk.cards.append(card)
            except ImageError:
                continue
        return desk


def lay_out_scene(desk: Desk, path: Path) -> None:
    """Put a sample scene on the desk, cast and all: what was there is replaced. Raises SceneError or ImageError."""
    scene = load_scene(path)
    desk.clear()
    for element in scene.cast:
        _lay_out(desk, element, path.parent)
    sheet = desk.sheet
    sheet.prompt, sheet.negative_prompt = scene.prompt, scene.negative_prompt
    sheet.camera, sheet.bpm = scene.direction.camera, scene.direction.bpm
    sheet.seconds = round(scene.video.frames / scene.video.fps, 1)
    sheet.seed = scene.sampling.seed
    sheet.steps, sheet.guidance = scene.sampling.steps, scene.sampling.guidance
    sheet.flow_shift = scene.sampling.flow_shift
    desk.save()


def _lay_out(desk: Desk, element: Element, root: Path) -> None:
    card = desk.add(element.role, root / element.image, element.name, sample=True)
    card.motion, card.description = element.motion, element.description
    card.mode = "none" if element.cutout == "none" and element.role != "background" else card.mode
    card.placement = element.placement.model_dump() if element.placement else None


def _known(kind: type, data: dict) -> dict:
    names = {each.name for each in fields(kind)}
    return {key: value for key, value in data.items() if key in names}  # a desk of a later version still opens
