"""Convert a desk to the plain data that the page's components draw."""

from __future__ import annotations

from typing import Any

from PIL import Image

from app.create.card import Card, Preview
from app.create.desk import Desk, checked_scene
from app.create.sheet import OWN
from app.ui.pictures import STAGE_FRAME, STAGE_HEIGHT, THUMB, data_url, shrunk, trimmed
from engine.cutout import checkerboard
from engine.draft.direct import hears
from engine.errors import TroupeError
from engine.media.images import cover
from engine.scene.cast import Member
from engine.scene.engines import find_engine
from engine.scene.presets import FORMATS
from engine.scene.prompt import find_names
from engine.scene.scene import MAX_VIEWS, MOTIONS, Placement, Scene
from engine.words import listed

SECTIONS = {
    "character": ("Characters", "Add a character", "A photo of a person, a pet, a mascot"),
    "object": ("Objects", "Add an object", "A product, an instrument, a thing to hold"),
    "background": ("Background", "Set the background", "A place: a stage, a kitchen, a street"),
}
MOTION_LABELS = [("", "Motion: auto")] + [(name, f"Motion: {name}") for name in MOTIONS]


def video_of(desk: Desk) -> dict[str, int]:
    """Return the clip's pixels, frames and frames per second."""
    return desk.sheet.made()


def format_choices(desk: Desk) -> list[tuple[str, str]]:
    """List the formats to choose from: the usual ones, and that of an opened clip where it is another."""
    own = desk.sheet.video
    shown = [(f"{own['width']}×{own['height']}, {own['fps']} fps", OWN)] if own else []
    return [(name, name) for name in FORMATS] + shown


# -- the cast board ----------------------------------------------------------


def board_value(desk: Desk) -> dict[str, Any]:
    """Return the data that board.js draws."""
    sections = []
    for role, (title, add, hint) in SECTIONS.items():
        cards = desk.of_role(role)
        room = desk.has_room or (role == "background" and bool(cards))
        sections.append(
            {"role": role, "title": title, "add": add, "hint": hint if not cards else "", "room": room,
             "cards": [_card_value(desk, card) for card in cards]}
        )  # fmt: skip
    return {"sections": sections, "motions": MOTION_LABELS}


def _card_value(desk: Desk, card: Card) -> dict[str, Any]:
    doubtful = bool(card.doubts) and card.mode != "none"
    notes = list(card.doubts) if doubtful else []
    if card.notice and card.mode == "auto":
        notes.append(card.notice)
    if card.told:
        notes.append(card.told)
    for number, view in enumerate(card.views, start=2):
        told = ([*view.doubts] if card.mode != "none" else []) + [view.told]
        notes += [f"View {number}: {said}" for said in told if said]
    views = [{"id": view.id, "url": _preview(desk, card, view.id).thumb} for view in card.views]
    return {
        "id": card.id, "role": card.role, "name": card.name, "mode": card.mode, "motion": card.motion or "",
        "note": " ".join(notes), "doubtful": doubtful, "url": _preview(desk, card).thumb,
        "views": views, "more": card.role != "background" and len(views) < MAX_VIEWS,
    }  # fmt: skip


def _preview(desk: Desk, card: Card, picture_id: str = "") -> Preview:
    """Return the preview of one of a card's pictures, its own unless said."""
    picture_id = picture_id or card.id
    found = desk.previews.get(picture_id)
    if found is None or found[0] != card.version:
        found = desk.previews[picture_id] = card.version, _make_preview(desk.picture(card, picture_id), card.role)
    return found[1]


def _make_preview(picture: Image.Image, role: str) -> Preview:
    if role == "background":
        stage, thumb = shrunk(picture, STAGE_FRAME, STAGE_FRAME), cover(picture, THUMB)
        aspect = picture.width / picture.height
    else:
        body = trimmed(picture)
        stage, thumb = shrunk(body, 2 * STAGE_HEIGHT, STAGE_HEIGHT), checkerboard(picture, THUMB)
        aspect = body.width / body.height
    return Preview(data_url(thumb), data_url(stage), aspect, shrunk(picture, 384, 384))


# -- the stage ----------------------------------------------------------------


def spots_of(desk: Desk) -> dict[str, Placement]:
    """Return everybody's present place on the stage, by card, without the background; empty where the scene is not
    valid."""
    try:
        _, _, spots, _ = _blocked(desk)
    except TroupeError:
        return {}
    return {desk.cards[index].id: spot for index, spot in spots.items()}


def stage_value(desk: Desk) -> dict[str, Any]:
    """Return the data that stage.js draws: every cut-out where the draft would put it, or where it was dragged to."""
    video = video_of(desk)
    value: dict[str, Any] = {
        "width": video["width"], "height": video["height"], "background": "", "actors": [],
        "hint": "Add a cast or pick a preset: this is where you place them.",
    }  # fmt: skip
    if not desk.cards:
        return value
    try:
        scene, members, spots, order = _blocked(desk)
    except TroupeError:
        return value
    if not desk.of_role("background"):
        from engine.draft.render import empty_stage  # here, as below: the page opens without it

        value["background"] = data_url(shrunk(empty_stage(scene, members), STAGE_FRAME, STAGE_FRAME))
    for index, card in enumerate(desk.cards):
        if card.role == "background":
            value["background"] = _preview(desk, card).stage
            continue
        spot, preview = spots[index], _preview(desk, card)
        value["actors"].append(
            {"id": card.id, "name": card.name, "url": preview.stage, "aspect": preview.aspect,
             "depth": order.index(index), **spot.model_dump()}
        )  # fmt: skip
    return value


def _blocked(desk: Desk) -> tuple[Scene, list[Member], dict[int, Placement], list[int]]:
    """Return the scene, its cast with small pictures, everybody's place by index, and the order from back to front.
    Raises TroupeError."""
    from engine.draft.render import block

    scene = checked_scene(desk, video_of(desk), desk.sheet.seed)
    members = [Member(each, _preview(desk, card).sketch) for each, card in zip(scene.cast, desk.cards, strict=True)]
    return scene, members, *block(scene, members)


# -- the prompt's linter --------------------------------------------------------


def names_value(desk: Desk) -> dict[str, Any]:
    """Return a chip for every name of the cast, and a line that says which ones the prompt does not mention."""
    prompt = desk.sheet.prompt
    said = {mention.index for mention in find_names(prompt, desk.names)}
    names = [{"name": name, "mentioned": i in said} for i, name in enumerate(desk.names)]
    missing = [name for i, name in enumerate(desk.names) if i not in said]
    if not names:
        note = ""
    elif not prompt.strip():
        note = "Say what happens, and mention everyone by name."
    elif missing:
        note = f"The prompt never mentions {listed(missing)}."
    else:
        note = "Everyone is mentioned."
    if prompt.strip() and _is_deaf(desk):
        note += " The draft reads English and finds nothing in it that it can play: everyone stands still."
    return {"names": names, "note": note, "ok": not missing, "saved": prompt}


def _is_deaf(desk: Desk) -> bool:
    """Return whether the draft understands nothing of the prompt, and no camera or motion was chosen by hand."""
    if not find_engine(desk.sheet.engine).reads_prompt or desk.sheet.camera or any(card.motion for card in desk.cards):
        return False
    try:
        return not hears(checked_scene(desk, video_of(desk), desk.sheet.seed))
    except TroupeError:
        return False


# -- the brush --------------------------------------------------------------------


def editor_background(desk: Desk, card: Card) -> Image.Image:
    """Draw the photo with what was cut away dimmed, as the brush's background."""
    photo = desk.photo(card).convert("RGB")
    alpha = desk.cutout(card).getchannel("A").resize(photo.size)
    dim = Image.blend(photo.convert("L").convert("RGB"), Image.new("RGB", photo.size, (24, 20, 36)), 0.62)
    return shrunk(Image.composite(photo, dim, alpha), 1024, 1024)
