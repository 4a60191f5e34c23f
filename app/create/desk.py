"""The desk: the cast and the settings of one browser. It is saved to disk, so a reload, a crash or a restart loses
nothing."""

from __future__ import annotations

import json
import re
import threading
import unicodedata
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image
from pydantic import ValidationError

from app.create.card import Card, FurtherView, Preview
from app.create.sheet import Sheet
from engine import cutout
from engine.cutout import Cutout
from engine.disk import atomic
from engine.draft.direct import direct
from engine.errors import SceneError, TroupeError
from engine.media.images import open_image, open_with_notices
from engine.scene.prompt import folded, replace_names
from engine.scene.scene import MAX_CAST, MAX_VIEWS, MOTIONS, ROLES, Placement, Scene
from engine.scene.scene_file import scene_from_data
from engine.words import plain_name

LONGEST_SIDE = 2048  # pixels kept of an upload: frames are at most 1920 wide
MAX_NAME = 60


@dataclass
class Undo:
    """The desk as it was before something was replaced or removed, and a description of that step."""

    what: str
    cards: list[Card]
    sheet: Sheet


@dataclass
class Desk:
    """Cards and sheet, with the folder that holds the pictures. Hold the lock to read or change several things at once;
    cutting out, which takes a while, runs without it."""

    id: str
    folder: Path
    cards: list[Card] = field(default_factory=list)
    sheet: Sheet = field(default_factory=Sheet)
    undo: Undo | None = None
    notice: str = ""  # what a person should know about how it was loaded; told once
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    previews: dict[str, tuple[int, Preview]] = field(default_factory=dict, repr=False)  # by picture's id
    canvases: tuple[tuple[object, ...], Markup] = field(
        default=((), Markup("")), repr=False
    )  # the pictures that the model sees: cache key, HTML
    idle: threading.Event = field(default_factory=threading.Event, repr=False)
    _replaced: object = field(default=None, repr=False)
    _adding: int = 0
    _marked: tuple[list[Card], Sheet] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.idle.set()

    # -- reading ------------------------------------------------------------

    def card(self, card_id: str) -> Card:
        """Return the card with this id. Raises TroupeError where another tab has removed it."""
        for card in self.cards:
            if card.id == card_id:
                return card
        raise TroupeError("That card is no longer here", "Another tab may have removed it.")

    def of_role(self, role: str) -> list[Card]:
        return [card for card in self.cards if card.role == role]

    @property
    def has_room(self) -> bool:
        """Whether one more can be in the cast; the limit is the same for the page, the API and the command line."""
        return len(self.cards) < MAX_CAST

    @property
    def names(self) -> list[str]:
        return [card.name for card in self.cards]

    def photo(self, card: Card) -> Image.Image:
        return open_image(self.folder / f"{card.id}.photo.png")

    def cutout(self, card: Card) -> Image.Image:
        """Read the cut-out (RGBA), whether it is in use or not."""
        return open_image(self.folder / f"{card.id}.cutout.png").convert("RGBA")

    def picture(self, card: Card, picture_id: str = "") -> Image.Image:
        """Read one of a card's pictures, its own unless said, as the engines get it: the cut-out or the whole photo
        (RGBA); a background as RGB."""
        file = self.files(card)[picture_id or card.id]
        return open_image(file).convert("RGB" if card.role == "background" else "RGBA")

    def files(self, card: Card) -> dict[str, Path]:
        """Return the files of all the pictures that the engines get of a card, by the pictures' ids."""
        kind = "photo" if card.role == "background" or card.mode == "none" else "cutout"
        return {each: self.folder / f"{each}.{kind}.png" for each in card.pictures}

    def scene_data(self, video: dict[str, int], seed: int, pictures: dict[str, str] | None = None) -> dict[str, Any]:
        """Return the scene as JSON data. `pictures` gives each picture's file name by its id; without it the file is
        named after the id."""
        names = pictures or {each: f"{each}.png" for card in self.cards for each in card.pictures}
        cast = []
        for card in self.cards:
            entry: dict[str, Any] = {
                "role": card.role, "name": card.name, "image": names[card.id], "description": card.description,
            }  # fmt: skip
            entry |= {"views": [names[view.id] for view in card.views]} if card.views else {}
            if card.role != "background":
                entry["cutout"] = "none" if card.mode == "none" else "auto"
                entry |= {"motion": card.motion} if card.motion else {}
                place = card.placement or card.rest
                entry |= {"placement": place} if place else {}
            cast.append(entry)
        sheet = self.sheet
        direction = {"bpm": sheet.bpm} | ({"camera": sheet.camera} if sheet.camera else {})
        return {
            "version": 1, "engine": sheet.engine, "cast": cast, "prompt": sheet.prompt,
            "negative_prompt": sheet.negative_prompt, "video": video, "direction": direction,
            "sampling": {**sheet.sampling, "seed": seed},
        }  # fmt: skip

    # -- the cast -----------------------------------------------------------

    def add(self, role: str, upload: Path, name: str = "", sample: bool = False, called: str = "") -> Card:
        """Add a picture to the cast and cut it out. `called` is the file's original name, where it was stored under
        another. Raises ImageError or SceneError, and then nothing has changed."""
        self._check_room(role)
        with self._busy():
            photo, told = _opened(upload)
            card = Card(_new_id(), role, "", sample=sample, told=told)
            result = None if role == "background" else self._cut(photo)
            with self.lock:
                self._check_room(role)  # another upload may have been quicker
                if role == "background":
                    self.cards = [each for each in self.cards if each.role != role]
                said = plain_name(name)[:MAX_NAME].strip() or _spoken(Path(called or upload.name).stem)
                card.name = self.free_name(said or role)
                photo.save(self.folder / f"{card.id}.photo.png", compress_level=1)
                if result:
                    self._keep(card, result)
                self.cards.append(card)
                self.stir()
                self.cards.sort(key=lambda each: ROLES.index(each.role))  # the model's order; stable in a role
                self.save()
        return card

    def add_view(self, card_id: str, upload: Path) -> FurtherView:
        """Add a picture of one of the cast from another side and cut it out. Raises ImageError, SceneError, or
        TroupeError where the card is gone, and then nothing has changed."""
        self._check_views(self.card(card_id))
        with self._busy():
            photo, told = _opened(upload)
            result = None if self.card(card_id).role == "background" else self._cut(photo)
            view = FurtherView(_new_id(), tuple(result.doubts) if result else (), told)
            with self.lock:
                card = self.card(card_id)  # another tab may have removed it, or filled it
                self._check_views(card)
                photo.save(self.folder / f"{view.id}.photo.png", compress_level=1)
                if result:
                    result.picture.save(self.folder / f"{view.id}.cutout.png", compress_level=1)
                card.views, card.sample = (*card.views, view), False
                self.save()
        return view

    def remove_view(self, card_id: str, view_id: str) -> None:
        card = self.card(card_id)
        self.remember(f"removing a view of {card.name}")
        card.views = tuple(view for view in card.views if view.id != view_id)
        card.sample = False
        self.save()

    def remove(self, card_id: str) -> None:
        card = self.card(card_id)
        self.remember(f"removing {card.name}")
        self.cards.remove(card)
        self.stir()
        self.save()

    def rename(self, card_id: str, name: str) -> None:
        """Rename a card, and replace its name in the prompt."""
        card = self.card(card_id)
        before, index, old = self.names, self.cards.index(card), card.name
        card.name = ""
        card.name = self.free_name(" ".join(plain_name(name).split())[:MAX_NAME] or old)
        if card.name != old:
            self.sheet.prompt = replace_names(self.sheet.prompt, before, {index: card.name})
            card.sample = False
        self.save()

    def set_mode(self, card_id: str, mode: str) -> None:
        """Switch between the cut-out (`auto`) and the photo as it is (`none`)."""
        card = self.card(card_id)
        card.mode = mode if mode in ("auto", "none") else card.mode
        card.version += 1
        card.sample = False
        self.save()

    def set_motion(self, card_id: str, motion: str) -> None:
        """Set the card's motion in the draft; empty: the motion that the prompt describes."""
        card = self.card(card_id)
        card.motion, card.sample = motion if motion in MOTIONS else None, False
        self.save()

    def cut_again(self, card_id: str) -> None:
        """Cut out again, with the quality that the sheet asks for; changes made by hand are lost."""
        card = self.card(card_id)
        result = self._cut(self.photo(card))
        for view in card.views:
            again = self._cut(open_image(self.folder / f"{view.id}.photo.png"))
            again.picture.save(self.folder / f"{view.id}.cutout.png", compress_level=1)
            view.doubts = tuple(again.doubts)
        card.mode = "auto"
        self._keep(card, result)
        self.save()

    def retouch(self, card_id: str, add: Image.Image, remove: Image.Image) -> None:
        """Apply what was painted with the brush: masks (L, white is painted) of any size."""
        card = self.card(card_id)
        cut = Cutout(self.cutout(card), card.source, (), "")
        card.mode, card.sample = "mask", False
        self._keep(card, cutout.retouch(self.photo(card), cut, add, remove))
        self.save()

    def place(
        self, card_id: str, placement: dict[str, Any] | None, others: Mapping[str, Placement] | None = None
    ) -> None:
        """Place a card where the stage says; None places it automatically. `others`, by card, keep the given places.
        Raises TroupeError."""
        card = self.card(card_id)
        try:
            card.placement = Placement.model_validate(placement).model_dump() if placement else None
        except ValidationError:
            raise TroupeError("Nobody can stand there", "Drag them back on to the stage.") from None
        for other in self.cards:
            if other.placement is None and (spot := (others or {}).get(other.id)):
                other.rest = spot.model_dump()
        card.rest, card.sample = None, False
        self.save()

    def place_automatically(self) -> None:
        for card in self.cards:
            card.placement = None
        self.stir()
        self.save()

    def stir(self) -> None:
        """Clear the places that cards only kept while another was moved: the cast, or the frame, has changed."""
        for card in self.cards:
            card.rest = None

    def clear(self) -> None:
        """Remove the cast and the prompt; undo brings them back."""
        self.remember("clearing the desk")
        self.cards, self.sheet.prompt, self.sheet.preset = [], "", ""
        self.save()

    def free_name(self, wanted: str) -> str:
        taken = {folded(card.name) for card in self.cards}
        wanted = unicodedata.normalize("NFC", wanted)  # macOS spells file names otherwise
        name, number = wanted, 2
        while folded(name) in taken:
            name, number = f"{wanted} {number}", number + 1
        return name

    # -- saving and undo ----------------------------------------------------

    def put(self, name: str, value: object) -> None:
        """Set one field of the sheet and save the desk."""
        self.sheet.put(name, value)
        if name in ("format", "engine"):
            self.stir()
        self.save()

    def hear(self, prompt: object) -> None:
        """Save the prompt from the browser, unless it is the stale text that a preset or undo has just replaced."""
        if prompt != self._replaced:
            self._replaced = None
            self.put("prompt", prompt)

    @contextmanager
    def replacing(self, prompt: object) -> Iterator[None]:
        """Run the block, which may replace the prompt (a preset, an undo), with the desk locked. `prompt`, which the
        browser still shows, is then stale, and `hear` ignores it once."""
        with self.lock:
            before = self.sheet.prompt
            yield
            if self.sheet.prompt != before:
                self._replaced = prompt if prompt != self.sheet.prompt else None

    def remember(self, what: str) -> None:
        """Push an undo state of the desk as it is now; there is only one."""
        if self.cards or self.sheet.prompt:
            self.undo = Undo(what, deepcopy(self.cards), deepcopy(self.sheet))

    def remember_own(self, what: str) -> None:
        """Push an undo state, unless the desk is unchanged since the last preset: then the older state is the one to
        keep."""
        if self._marked is None or self._marked != self._content():
            self.remember(what)

    def mark(self) -> None:
        """Mark the desk's present content as a preset's, for `remember_own`."""
        self._marked = self._content()

    def _content(self) -> tuple[list[Card], Sheet]:
        return deepcopy(self.cards), replace(self.sheet, job="", seed=0, fresh_seed=False, keep_seed=False)

    def undo_last(self) -> None:
        """Restore the undo state; a second call redoes."""
        if self.undo:
            back, now = self.undo, self.sheet
            self.undo = Undo(back.what, self.cards, now)
            self.cards = back.cards
            self.sheet = replace(  # a running job goes on being shown
                back.sheet, job=now.job, seed=now.seed, fresh_seed=now.fresh_seed, quality=now.quality
            )
            self.sheet.meet(now.usual)  # the model can be another one by now
            self.canvases = ((), Markup(""))  # a version number of a card can mean another picture now
            self.save()

    def save(self) -> None:
        """Write desk.json atomically, then delete the pictures that are no longer needed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = {"cards": [asdict(card) for card in self.cards], "sheet": asdict(self.sheet),
                "undo": asdict(self.undo) if self.undo else None}  # fmt: skip
        with atomic.whole(self.folder / "desk.json") as growing:
            growing.write_text(json.dumps(data), encoding="utf-8")
        needed = {each for card in (*self.cards, *(self.undo.cards if self.undo else ())) for each in card.pictures}
        self.previews = {picture: made for picture, made in self.previews.items() if picture in needed}
        for path in self.folder.glob("*.png"):
            if path.name.partition(".")[0] not in needed:
                path.unlink(missing_ok=True)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Run the block with the desk marked as adding pictures: a page that is loaded meanwhile waits a little for
        them."""
        with self.lock:
            self._adding += 1
            self.idle.clear()
        try:
            yield
        finally:
            with self.lock:
                self._adding -= 1
                if not self._adding:
                    self.idle.set()

    def _check_room(self, role: str) -> None:
        if role not in ROLES:
            raise SceneError("role", f"{role!r} is not a role", f"Use one of {', '.join(ROLES)}.")
        if not self.has_room and not (role == "background" and self.of_role(role)):  # a second one replaces the first
            raise SceneError("", f"There is room for a cast of {MAX_CAST}", "Remove one first.")

    def _check_views(self, card: Card) -> None:
        if len(card.views) == MAX_VIEWS:
            raise SceneError(
                "", f"{card.name} has {MAX_VIEWS} further views, and no more are taken", "Remove one first."
            )

    def _cut(self, photo: Image.Image) -> Cutout:
        return cutout.cut_out(photo, quality=self.sheet.quality, cache=self.folder.parent.parent / "cutouts")

    def _keep(self, card: Card, result: Cutout) -> None:
        result.picture.save(self.folder / f"{card.id}.cutout.png", compress_level=1)
        card.source, card.doubts, card.notice = result.source, tuple(result.doubts), result.notice
        card.version += 1


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


def _opened(upload: Path) -> tuple[Image.Image, str]:
    """Open a picture at the size that a desk keeps; return it and what there is to tell about its file. Raises
    ImageError."""
    opened = open_with_notices(upload)
    opened.picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return opened.picture, " ".join(opened.notices)


def with_anyone(desk: Desk) -> Desk:
    """Return the desk, or one with its sheet and a stand-in where it has no cast: for what does not depend on who it
    is."""
    return desk if desk.cards else Desk("", Path(), [Card("0" * 12, "object", "somebody")], desk.sheet)


def checked_scene(desk: Desk, video: dict[str, int], seed: int, pictures: dict[str, str] | None = None) -> Scene:
    """Validate the desk's scene and return it. An object that is held keeps no place of its own. Raises SceneError."""
    scene = scene_from_data(desk.scene_data(video, seed, pictures))
    resting = {i for i, card in enumerate(desk.cards) if card.rest and not card.placement}
    if not resting:  # the prompt need not be read
        return scene
    held = {i for i, act in direct(scene).acts.items() if act.holder is not None} & resting
    if not held:
        return scene
    cast = [each.model_copy(update={"placement": None}) if i in held else each for i, each in enumerate(scene.cast)]
    return scene.model_copy(update={"cast": tuple(cast)})


# What cameras, phones and messengers put before a picture's number
_NUMBERED = (
    "img|dsc[fn]?|pxl|vid|screenshot|photo|image|picture|bild|foto|imagen|imagem|whatsapp image|signal|"
    "微信图片|图片|照片|截图|屏幕截图|写真|画像|スクリーンショット|사진|이미지|스크린샷|изображение|фото|снимок"
)


def _spoken(stem: str) -> str:
    """Convert a file's name to a card's name; empty for camera numbers such as `IMG_2041`."""
    words = unicodedata.normalize("NFC", plain_name(re.sub(r"[_\-.]+", " ", stem).strip()))
    numbered = re.match(rf"(?i)({_NUMBERED})[\s\d(]", words + " ")
    # one or two letters are enough in scripts without capitals, where a letter can be a syllable or a word
    speaks = re.search(r"[^\W\d]{3,}", words) or any(unicodedata.category(one) == "Lo" for one in words)
    if not speaks or numbered:
        return ""
    return words[:40].strip().capitalize() if words.islower() else words[:40].strip()
