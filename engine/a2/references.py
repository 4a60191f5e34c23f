"""The cast as the model sees it: at most three canvases, or four, as its family takes them.

SkyReels-A2's way (section 2.2): characters, then objects, then the background. Subjects stand on white; the background
fills the frame. The other families have all of them whole, on white. What is computed here is what is shown to a
person: there is no second copy of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from engine.a2.models import A2, ModelSpec
from engine.a2.packing import pack, share_slots, split_evenly
from engine.media.images import flatten
from engine.scene.cast import Member
from engine.scene.scene import ROLES, Scene, label

SEMANTIC_SIZE = (512, 512)  # what goes to the image encoder's own preprocessing


@dataclass(frozen=True)
class Canvas:
    """One reference: `semantic` (512 x 512 RGB) goes to the image encoder, where the model has one, `spatial` (the
    video's size, RGB) to the VAE. `names` are those of the cast who stand on it."""

    role: str
    names: tuple[str, ...]
    semantic: Image.Image
    spatial: Image.Image


def gather_references(scene: Scene, members: Sequence[Member], spec: ModelSpec = A2) -> tuple[Canvas, ...]:
    """Make the exact canvases that a model of this family will see, in its order: characters, objects, background.

    Up to as many of the cast as it takes have a canvas each. More share: characters with characters, objects with
    objects, and the background keeps its own. Canvases that are left show further views of the cast: everybody's
    second, then everybody's third, each behind the one it belongs to. `members` are in the order of the scene's cast.
    """
    size = (scene.video.width, scene.video.height)
    named = [(member, label(member.element, i)) for i, member in enumerate(members)]
    groups = [[pair for pair in named if pair[0].element.role == role] for role in ROLES]
    shares = share_slots([min(len(group), 1) if role == "background" else len(group) for role, group in
                          zip(ROLES, groups, strict=True)], spec.references)  # fmt: skip
    parts = [
        (role, part)
        for role, group, share in zip(ROLES, groups, shares, strict=True)
        for part in split_evenly(group, share)
        if part
    ]
    more = _further_views(members, spec.references - len(parts)) if len(parts) == len(members) else {}
    canvases: list[Canvas] = []
    for role, part in parts:
        canvases.append(_canvas(role, [member.picture for member, _ in part], part, size, spec))
        for picture in more.get(id(part[0][0]), ()):
            canvases.append(_canvas(role, [picture], part, size, spec))
    return tuple(canvases)


def _further_views(members: Sequence[Member], free: int) -> dict[int, list[Image.Image]]:
    """Give the canvases that are free to further views; return these by their member's `id`."""
    rounds = range(max((len(member.views) for member in members), default=0))
    queue = [(member, member.views[turn]) for turn in rounds for member in members if turn < len(member.views)]
    given: dict[int, list[Image.Image]] = {}
    for member, picture in queue[: max(0, free)]:
        given.setdefault(id(member), []).append(picture)
    return given


def letterbox(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Fit the whole picture on white, in `size` (width, height). RGB.

    Padded to the shape first, in whole pixels of the photo, and then scaled (bicubic), as the model was trained and
    tested: to scale first would move edges by up to a pixel.
    """
    picture, (width, height) = flatten(picture), size
    x = y = 0
    if picture.height / picture.width < height / width:
        y = int((height / width * picture.width - picture.height) / 2)
    else:
        x = int((width / height * picture.height - picture.width) / 2)
    padded = Image.new("RGB", (picture.width + 2 * x, picture.height + 2 * y), (255, 255, 255))
    padded.paste(picture, (x, y))
    return padded.resize(size, Image.Resampling.BICUBIC)


def letterbox_sharp(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Fit the whole picture on white, in `size` (width, height). RGB.

    Scaled first (Lanczos, its sides cut down to whole pixels), and then padded, as SkyReels-V3, RefAlign and Phantom
    were trained; where the padding is odd, the pixel more is at the right and at the bottom.
    """
    picture, (width, height) = flatten(picture), size
    ratio = picture.width / picture.height
    inner = (width, int(width / ratio)) if ratio > width / height else (int(height * ratio), height)
    scaled = picture.resize((max(1, inner[0]), max(1, inner[1])), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", size, (255, 255, 255))
    canvas.paste(scaled, ((width - scaled.width) // 2, (height - scaled.height) // 2))
    return canvas


def cover(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Crop the picture in its middle to the shape of `size` (width, height), in whole pixels, and scale it (bicubic).
    RGB. As with `letterbox`, the order is the model's own."""
    picture, (width, height) = flatten(picture), size
    inner = (picture.width, picture.height)
    if picture.height / picture.width < height / width:
        inner = (max(1, int(picture.height / height * width)), picture.height)
    else:
        inner = (picture.width, max(1, int(picture.width / width * height)))
    left, top = (picture.width - inner[0]) // 2, (picture.height - inner[1]) // 2
    cropped = picture.crop((left, top, left + inner[0], top + inner[1]))
    return cropped.resize(size, Image.Resampling.BICUBIC)


def _canvas(
    role: str, pictures: Sequence[Image.Image], part: Sequence[tuple[Member, str]], size: tuple[int, int],
    spec: ModelSpec,
) -> Canvas:  # fmt: skip
    names = tuple(name for _, name in part)
    picture = pictures[0] if len(pictures) == 1 else pack(pictures, size)
    if not spec.in_channels:
        spatial = letterbox_sharp(picture, size)
        return Canvas(role, names, spatial, spatial)
    spatial = cover(picture, size) if role == "background" else letterbox(picture, size)
    return Canvas(role, names, letterbox(picture, SEMANTIC_SIZE), spatial)
