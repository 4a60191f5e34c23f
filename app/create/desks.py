"""All desks of this copy of Troupe, and sample scenes laid out on one.

A desk's id is its only key: 32 random hex digits, kept in the browser that made it. Without the id nobody can name the
desk, and no path ever comes from outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from pydantic import TypeAdapter

from app.create.card import Card
from app.create.desk import Desk, Undo, checked_scene, with_anyone
from app.create.sheet import Sheet, kept_settings
from engine.errors import ImageError, SceneError, TroupeError
from engine.scene.engine import MadeFor
from engine.scene.scene import ROLES, Element
from engine.scene.scene_file import load_scene

ID = re.compile(r"[0-9a-f]{32}")
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, SceneError)  # what _read raises
_PASSING = "passing"  # a file that marks a desk of the API
CARD_ID = re.compile(r"[0-9a-f]{12}")
_RECENT = 100  # desks kept in memory: each call of the API makes one, and all of them are on disk


class Desks:
    """The desks, each in a folder named by its id. `mine("desk:<id>", is_kept)` tells whether the current visitor may
    have a desk, `is_kept` whether it is saved here; `made()` is called before one is made, and raises TroupeError where
    none may be. `usual()` returns what the models that this machine has chosen were made for, by engine."""

    def __init__(
        self, folder: Path, mine: Callable[[str, bool], bool] = lambda key, is_kept: True,
        made: Callable[[], None] = lambda: None, usual: Callable[[], Mapping[str, MadeFor]] = dict,
    ) -> None:  # fmt: skip
        self.folder, self.trash, self._mine, self._made = folder, folder.parent / "trash" / "desks", mine, made
        self._usual = usual
        self._open: WeakValueDictionary[str, Desk] = WeakValueDictionary()  # one object per desk while it is in use
        self._recent: OrderedDict[str, Desk] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, desk_id: object) -> Desk:
        """Return the desk with this id as it was saved, or a new one where the id is new. Raises TroupeError for what
        is not an id, or is another visitor's."""
        if not isinstance(desk_id, str) or not ID.fullmatch(desk_id) or not self._is_mine(desk_id):
            raise TroupeError("This page has lost its desk", "Reload it.")
        if not (desk_id in self._open or (self.folder / desk_id).exists() or (self.trash / desk_id).exists()):
            self._made()
        return self._get(desk_id)

    def _is_mine(self, desk_id: str) -> bool:
        is_kept = any((place / desk_id / "desk.json").exists() for place in (self.folder, self.trash))
        return self._mine(f"desk:{desk_id}", is_kept)

    def _get(self, desk_id: str) -> Desk:
        with self._lock:
            desk = self._open.get(desk_id)
            if desk is None:
                desk = self._open[desk_id] = self._load(desk_id)
            self._recent[desk_id] = desk
            self._recent.move_to_end(desk_id)
            while len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        usual = self._usual()
        with desk.lock:
            if desk.sheet.usual != usual:
                desk.sheet.meet(usual)
        return desk

    def new(self, passing: bool = False) -> Desk:
        """Make a desk with a random id; a `passing` one is for one clip only. Raises TroupeError."""
        desk_id = uuid.uuid4().hex
        if not passing:
            return self.get(desk_id)
        desk = self._get(desk_id)
        (desk.folder / _PASSING).touch()
        return desk

    @contextlib.contextmanager
    def passing(self) -> Iterator[Desk]:
        """Run the block with a desk for one clip and delete it afterwards; the clip has copies of its own."""
        desk = self.new(passing=True)
        try:
            yield desk
        finally:
            with self._lock:
                self._open.pop(desk.id, None)
                self._recent.pop(desk.id, None)
            shutil.rmtree(desk.folder, ignore_errors=True)

    def asleep(self, seconds: float, passing: float) -> list[Path]:
        """List the folders of the desks that are not in use and were not opened for `seconds`; for passing desks,
        `passing` seconds."""
        with self._lock:
            found = [folder for folder in self.folder.glob("*") if ID.fullmatch(folder.name)]
            return [each for each in found if each.name not in self._open and _is_older(each, seconds, passing)]

    def put_away(self, folder: Path) -> bool:
        """Move an unused desk to the trash and return whether that worked; `get` brings it back."""
        with self._lock:
            if folder.name in self._open:
                return False
            try:
                self.trash.mkdir(parents=True, exist_ok=True)
                os.rename(folder, self.trash / folder.name)
                os.utime(self.trash / folder.name)  # the time of the move
            except OSError:
                return False
            return True

    def _load(self, desk_id: str) -> Desk:
        folder = self.folder / desk_id
        with contextlib.suppress(OSError):
            if not folder.exists() and (self.trash / desk_id).is_dir():
                os.rename(self.trash / desk_id, folder)
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            os.utime(folder)  # when it was last opened
        desk = Desk(desk_id, folder)
        try:
            data = json.loads((folder / "desk.json").read_text(encoding="utf-8"))
            desk.cards, desk.sheet = _read(data)
        except FileNotFoundError:
            return desk
        except _UNREADABLE:
            return _set_aside(Desk(desk_id, folder))
        with contextlib.suppress(*_UNREADABLE):  # what cannot be brought back costs nothing else
            if data.get("undo"):
                desk.undo = Undo(str(data["undo"]["what"]), *_read(data["undo"]))
        desk.cards = [card for card in desk.cards if _has_picture(desk, card, card.id)]
        for card in (*desk.cards, *(desk.undo.cards if desk.undo else ())):
            card.views = tuple(view for view in card.views if _has_picture(desk, card, view.id))
        if desk.undo and not all(_has_picture(desk, card, card.id) for card in desk.undo.cards):
            desk.undo = None
        return desk


def _set_aside(desk: Desk) -> Desk:
    """Move a desk's file that cannot be read and its pictures into a folder beside it, and leave an empty desk that
    says so: the next save would delete pictures that no card names."""
    aside = desk.folder / f"desk.damaged-{uuid.uuid4().hex[:8]}"
    aside.mkdir()
    for path in (desk.folder / "desk.json", *desk.folder.glob("*.png")):
        shutil.move(path, aside / path.name)
    desk.notice = (
        f"What lay on this desk cannot be read. It is kept, pictures and all, in the desk's folder {aside.name}."
    )
    return desk


def _is_older(folder: Path, seconds: float, passing: float) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > (passing if (folder / _PASSING).exists() else seconds)
    except OSError:
        return False


def _read(data: dict[str, Any]) -> tuple[list[Card], Sheet]:
    """Read cards and sheet from desk.json. Raises ValueError (ValidationError is one) or SceneError for values that
    cannot be used: every saved desk must make a valid scene."""
    cards = [TypeAdapter(Card).validate_python(_known(Card, entry)) for entry in data["cards"]]
    kept = {**_known(Sheet, data["sheet"]), "settings": kept_settings(data["sheet"]), "usual": {}}
    sheet = TypeAdapter(Sheet).validate_python(kept)
    if not sheet.is_sound() or not all(_is_sound(card) for card in cards):
        raise ValueError("a value that this version does not know")
    checked_scene(with_anyone(Desk("", Path(), cards, sheet)), {}, sheet.seed)
    return cards, sheet


def _is_sound(card: Card) -> bool:
    """Return whether its role is known and its pictures' ids can name files of a desk."""
    return card.role in ROLES and all(CARD_ID.fullmatch(each) for each in card.pictures)


def _has_picture(desk: Desk, card: Card, picture_id: str) -> bool:
    """Return whether one of a card's pictures can be read; the desk drops the card, or the further view, otherwise."""
    try:
        desk.picture(card, picture_id)
    except ImageError:
        return False
    return True


# ---------------------------------------------------------------------------
# Sample scenes


def lay_out_scene(desk: Desk, path: Path) -> None:
    """Replace the desk's content by a sample scene, cast included. Raises SceneError or ImageError."""
    scene = load_scene(path)
    desk.cards = []
    for element in scene.cast:
        _lay_out(desk, element, path.parent)
    sheet = desk.sheet
    sheet.prompt, sheet.seconds = scene.prompt, round(scene.video.frames / scene.video.fps, 1)
    sheet.follow(scene.negative_prompt, scene.direction, scene.sampling)
    desk.save()


def open_scene(desk: Desk, path: Path) -> None:
    """Replace the desk's content by a clip's scene: cast, placements, prompt, numbers and seed. It counts as the
    person's own. Raises SceneError or ImageError, and then the desk has not changed."""
    scene = load_scene(path)
    kept, desk.cards = desk.cards, []
    try:
        for element in scene.cast:
            _lay_out(desk, element, path.parent, sample=False)
    except Exception:
        desk.cards = kept
        desk.save()
        raise
    sheet = desk.sheet
    sheet.prompt, sheet.preset = scene.prompt, ""
    sheet.take_video(scene.video, scene.engine)
    sheet.put("seed", scene.sampling.seed)  # counts as typed: the next clip has this one
    sheet.follow(scene.negative_prompt, scene.direction, scene.sampling)
    desk.save()


def bring_background(desk: Desk, path: Path) -> None:
    """Add a sample scene's background to the desk, unless the person has chosen one."""
    if all(card.sample for card in desk.of_role("background")):
        for element in load_scene(path).of_role("background"):
            _lay_out(desk, element, path.parent)


def _lay_out(desk: Desk, element: Element, root: Path, sample: bool = True) -> None:
    card = desk.add(element.role, root / element.image, element.name, sample=sample)
    card.motion, card.description = element.motion, element.description
    card.mode = "none" if element.cutout == "none" and element.role != "background" else card.mode
    card.placement = element.placement.model_dump() if element.placement else None
    for view in element.views:
        desk.add_view(card.id, root / view)
    card.sample = sample


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {key: value for key, value in data.items() if key in names}  # a desk of a later version still opens
