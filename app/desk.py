"""The desk: what one browser has laid out. It lives on disk, so a refresh, a crash or a restart loses nothing."""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from engine import cutout
from engine.cutout import Cutout
from engine.errors import SceneError, TroupeError
from engine.images import open_image
from engine.presets import FORMATS
from engine.scene import CAMERAS, MOTIONS, Placement, Scene, scene_from_data

LIMITS = {"character": 6, "object": 6, "background": 1}
LONGEST_SIDE = 2048  # pixels kept of an upload: frames are at most 1920 wide
MAX_SEED = 2**31 - 1  # what people can still read aloud


@dataclass
class Card:
    """One of the cast on the desk. `mode`: `auto` (cut out), `none` (photo as it is), `mask` (touched up by hand)."""

    id: str
    role: str
    name: str
    mode: str = "auto"
    source: str = ""
    doubts: tuple[str, ...] = ()
    notice: str = ""
    motion: str | None = None
    placement: dict | None = None
    description: str = ""
    sample: bool = False
    version: int = 0  # grows with every change of the picture, so that previews are made once


@dataclass
class Sheet:
    """Everything else a person has set: the prompt and the numbers."""

    prompt: str = ""
    negative_prompt: str = ""
    preset: str = ""
    format: str = "16:9"
    seconds: float = 5.4
    camera: str | None = None
    bpm: float = 110
    seed: int = 42
    keep_seed: bool = False
    quality: str = "fast"
    embed_scene: bool = True
    steps: int = 50
    guidance: float = 5.0
    flow_shift: float = 8.0
    job: str = ""


@dataclass
class Desk:
    """Cards and sheet, with the folder that holds the pictures. All changes go through `Desks`, one at a time."""

    id: str
    folder: Path
    cards: list[Card] = field(default_factory=list)
    sheet: Sheet = field(default_factory=Sheet)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    previews: dict[tuple[str, int, str], str] = field(default_factory=dict, repr=False)
    sketches: dict[tuple[str, int], Image.Image] = field(default_factory=dict, repr=False)

    # -- reading ------------------------------------------------------------

    def card(self, card_id: str) -> Card:
        """The card with this id. Raises TroupeError when it is gone (another tab removed it)."""
        for card in self.cards:
            if card.id == card_id:
                return card
        raise TroupeError("That card is no longer here", "Another tab may have removed it; reload the page.")

    def of_role(self, role: str) -> list[Card]:
        return [card for card in self.cards if card.role == role]

    def photo(self, card: Card) -> Image.Image:
        return open_image(self.folder / f"{card.id}.photo.png")

    def picture(self, card: Card) -> Image.Image:
        """What the engines get: the cut-out (RGBA), or the photo as it is; the background as RGB."""
        return open_image(self.file(card)).convert("RGB" if card.role == "background" else "RGBA")

    def scene_data(self, video: dict, seed: int, pictures: dict[str, str] | None = None) -> dict:
        """The scene as JSON data. `pictures` names each card's file; what is left out is named after the card."""
        names = pictures or {card.id: f"{card.id}.png" for card in self.cards}
        cast = []
        for card in self.cards:
            entry = {"role": card.role, "name": card.name, "image": names[card.id], "description": card.description}
            if card.role != "background":
                entry["cutout"] = "none" if card.mode == "none" else "auto"
                if card.motion:
                    entry["motion"] = card.motion
                if card.placement:
                    entry["placement"] = card.placement
            cast.append(entry)
        sheet = self.sheet
        direction = {"bpm": sheet.bpm} | ({"camera": sheet.camera} if sheet.camera else {})
        return {
            "version": 1, "engine": "draft", "cast": cast, "prompt": sheet.prompt,
            "negative_prompt": sheet.negative_prompt, "video": video, "direction": direction,
            "sampling": {
                "steps": sheet.steps, "guidance": sheet.guidance, "flow_shift": sheet.flow_shift, "seed": seed,
            },
        }  # fmt: skip

    def file(self, card: Card) -> Path:
        """The file behind `picture`."""
        kind = "photo" if card.role == "background" or card.mode == "none" else "cutout"
        return self.folder / f"{card.id}.{kind}.png"

    # -- changing -----------------------------------------------------------

    def save(self) -> None:
        """Write desk.json whole or not at all."""
        data = {"cards": [asdict(card) for card in self.cards], "sheet": asdict(self.sheet)}
        path = self.folder / "desk.json"
        part = path.with_suffix(f".{uuid.uuid4().hex[:8]}.part")
        part.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        os.replace(part, path)

    def add(self, role: str, upload: Path, name: str = "", sample: bool = False) -> Card:
        """Take a picture into the cast and cut it out. Raises ImageError or SceneError, and then nothing changed."""
        if role not in LIMITS:
            raise SceneError("role", f"{role!r} is not a role", f"Use one of {', '.join(LIMITS)}.")
        photo = open_image(upload)
        photo.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        card = Card(uuid.uuid4().hex[:12], role, "", sample=sample)
        result = None if role == "background" else self._cut(photo)
        with self.lock:
            if role == "background":
                for old in self.of_role(role):
                    self.remove(old.id)
            elif len(self.of_role(role)) >= LIMITS[role]:
                raise SceneError("cast", f"there is room for {LIMITS[role]} {role}s", "Remove one first.")
            card.name = self.free_name(name or _spoken(upload.stem) or role)
            photo.save(self.folder / f"{card.id}.photo.png", compress_level=1)
            if result:
                self._keep(card, result)
            self.cards.append(card)
            self.cards.sort(key=lambda each: list(LIMITS).index(each.role))  # the model's order: stable within a role
            self.save()
        return card

    def remove(self, card_id: str) -> None:
        card = self.card(card_id)
        self.cards.remove(card)
        self.save()
        for path in self.folder.glob(f"{card.id}.*"):
            path.unlink(missing_ok=True)

    def rename(self, card_id: str, name: str) -> None:
        card = self.card(card_id)
        old, card.name = card.name, ""
        new = self.free_name(" ".join(name.split())[:60] or old)
        card.name = new
        if old != new:  # the prompt follows, so that a renamed character is still mentioned
            self.sheet.prompt = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _: new, self.sheet.prompt)
        self.save()

    def set_mode(self, card_id: str, mode: str) -> None:
        """Switch between the cut-out (`auto`) and the photo as it is (`none`)."""
        card = self.card(card_id)
        card.mode = mode if mode in ("auto", "none") else card.mode
        card.version += 1
        self.save()

    def cut_again(self, card_id: str) -> None:
        """Cut out anew, with the quality the sheet asks for; what was touched up by hand is replaced."""
        card = self.card(card_id)
        result = self._cut(self.photo(card))
        card.mode = "auto"
        self._keep(card, result)
        self.save()

    def retouch(self, card_id: str, add: Image.Image, remove: Image.Image) -> None:
        """Take in what was painted with the brush: masks (L, white is painted) of any size."""
        card = self.card(card_id)
        cut = Cutout(open_image(self.folder / f"{card.id}.cutout.png").convert("RGBA"), card.source, (), "")
        card.mode = "mask"
        self._keep(card, cutout.retouch(self.photo(card), cut, add, remove))
        self.save()

    def place(self, card_id: str, placement: dict | None) -> None:
        card = self.card(card_id)
        card.placement = Placement.model_validate(placement).model_dump() if placement else None
        self.save()

    def place_automatically(self) -> None:
        for card in self.cards:
            card.placement = None
        self.save()

    def clear(self) -> None:
        """Remove the whole cast. The sheet stays."""
        for card in list(self.cards):
            self.remove(card.id)

    def set_motion(self, card_id: str, motion: str) -> None:
        """What the draft lets this card do; empty means as the prompt says."""
        self.card(card_id).motion = motion if motion in MOTIONS else None
        self.save()

    def set(self, name: str, value: object) -> None:
        """Set one field of the sheet by its name on the page; what a page could not have sent is dropped."""
        if name == "seed":
            self.sheet.seed = min(max(int(value or 0), 0), MAX_SEED)
        elif name in ("seconds", "bpm"):
            low, high = (1, 60) if name == "seconds" else (40, 220)
            setattr(self.sheet, name, min(max(float(value or low), low), high))
        elif name in ("keep_seed", "embed"):
            setattr(self.sheet, {"embed": "embed_scene"}.get(name, name), bool(value))
        elif name == "negative":
            self.sheet.negative_prompt = str(value or "")[:4000]
        elif name == "camera":
            self.sheet.camera = str(value) if value in CAMERAS else None
        elif name == "format" and value in FORMATS:
            self.sheet.format = str(value)
        elif name == "quality" and value in cutout.QUALITIES:
            self.sheet.quality = str(value)
        self.save()

    def free_name(self, wanted: str) -> str:
        taken = {card.name.casefold() for card in self.cards}
        name, number = wanted, 2
        while name.casefold() in taken:
            name, number = f"{wanted} {number}", number + 1
        return name

    def _cut(self, photo: Image.Image) -> Cutout:
        return cutout.cut_out(photo, quality=self.sheet.quality, cache=self.folder.parent.parent / "cutouts")

    def _keep(self, card: Card, result: Cutout) -> None:
        result.picture.save(self.folder / f"{card.id}.cutout.png", compress_level=1)
        card.source, card.doubts, card.notice = result.source, tuple(result.doubts), result.notice
        card.version += 1


def checked_scene(desk: Desk, video: dict, seed: int, pictures: dict[str, str] | None = None) -> Scene:
    """The desk's scene, validated. Raises SceneError."""
    return scene_from_data(desk.scene_data(video, seed, pictures))


def _spoken(stem: str) -> str:
    """A file's name as a person would say it: `IMG_2041` and camera numbers say nothing."""
    words = re.sub(r"[_\-.]+", " ", stem).strip()
    if not re.search(r"[^\W\d]{3,}", words) or re.match(
        r"(?i)(img|dsc[fn]?|pxl|vid|screenshot|photo|image)[\s\d]", words + " "
    ):
        return ""
    return words[:40].strip().capitalize() if words.islower() else words[:40].strip()
