"""Before the first frame: the cast measured, placed and lit, the camera aimed, the background made ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from engine.draft.backdrop import CLOSE_BLUR, FAR_BLUR, Backdrop, backdrop_of, studio
from engine.draft.camera import ACROSS, Aim, Box, Camera, aim_at, camera_of, inset_of
from engine.draft.direct import Act, Screenplay, direct
from engine.draft.layout import Player, StageFrame, place, stage_of
from engine.draft.light import Surroundings, make_tile
from engine.draft.measure import Shape, measure
from engine.draft.motion import Mover
from engine.draft.show import Actor, Show
from engine.draft.vocabulary import lookup, words
from engine.scene.cast import Member
from engine.scene.scene import Element, Placement, Scene

GOLDEN = 0.618
ROOTED_DEPTH = 0.94  # where a bust counts in the order from back to front
ROOTED_FROM = 0.975  # a cropped figure whose foot is at least this low is cut off by the frame's edge
SWING = 0.03  # of its height: how far a walker's sides swing out
SHARED = 0.1  # of their widths: how far one who comes closer may overlap a neighbour
LIFTED = 0.12  # of the frame's height: how far somebody lifts a thing at least
DETAIL = 1.15  # tiles are a little larger than they appear, so that warping keeps them crisp


def measure_cast(members: Sequence[Member]) -> dict[int, Shape]:
    """Measure the cut-outs, by cast index, without the background."""
    return {i: measure(m.picture, m.element.role) for i, m in enumerate(members) if m.element.role != "background"}


def place_cast(scene: Scene, plan: Screenplay, shapes: dict[int, Shape]) -> dict[int, Placement]:
    """Place the cast, by cast index; explicit placements are unchanged."""
    players = {i: Player(scene.cast[i], shape, plan.acts.get(i, Act())) for i, shape in shapes.items()}
    return place(players, stage_of(scene.video))


def prepare(scene: Scene, members: Sequence[Member], ask: Callable[[], None]) -> Show:
    """Prepare a scene to be played; `ask` is called between the steps and may raise Stopped."""
    ask()
    video, plan = scene.video, direct(scene)
    stage, shapes = stage_of(video), measure_cast(members)
    placements = place_cast(scene, plan, shapes)
    leads = [i for i in shapes if scene.cast[i].role == "character"]
    close = bool(leads) and all(_is_rooted(shapes[i], placements[i]) for i in leads)
    movers = {i: _mover(scene, plan, i, shapes, placements, stage) for i in shapes}
    camera = camera_of(plan.camera, video, scene.sampling.seed, _aim(scene, shapes, placements, movers), stage.ground)
    ask()
    backdrop = _backdrop(scene, members, shapes, camera, close)
    actors: dict[int, Actor] = {}
    for i in shapes:
        ask()
        actors[i] = _actor(members[i], shapes[i], placements[i], movers[i], camera, backdrop)
    for i, act in plan.acts.items():
        if act.holder in actors and i in actors:
            actors[i] = _attach(actors[i], actors[act.holder], act.holder, _held_behind(scene.cast[i]), video.height)
    return Show(
        camera,
        backdrop,
        actors,
        stack(scene, plan, shapes, placements),
        _vignette(video.width, video.height, scene.sampling.seed),
        _grade(),
    )


def _held_behind(element: Element) -> bool:
    """Check whether an object is held by its lower end, behind the head: umbrellas and balloons are."""
    return lookup(element, words().hold, "hand") == "stick"


def _is_rooted(shape: Shape, placement: Placement) -> bool:
    return "bottom" in shape.cropped and placement.y >= ROOTED_FROM


def _aim(scene: Scene, shapes: dict[int, Shape], placements: dict[int, Placement], movers: dict[int, Mover]) -> Aim:
    """Aim the camera at the middle of the upper bodies, or of the things; kept near the frame's middle."""
    leads = [i for i in shapes if scene.cast[i].role == "character"] or list(shapes)
    if not leads:
        return Aim(0.5, 0.5, 0.17)
    x = sum(placements[i].x for i in leads) / len(leads)
    y = sum(placements[i].y - 0.62 * placements[i].scale for i in leads) / len(leads)
    boxes = [_box(scene, shapes[i], placements[i], movers[i]) for i in shapes]
    aim = aim_at((min(max(x, 0.35), 0.65), min(max(y, 0.38), 0.6)), boxes)
    # A pan leaves everybody in the frame whose head is in it now.
    free = min((room for box in boxes for room in (box[0], 1 - box[2]) if room > 0), default=1.0) - 0.025
    side = min(scene.video.width, scene.video.height)
    return replace(aim, across=min(max(free * scene.video.width / side, ACROSS[0]), ACROSS[1]))


def _box(scene: Scene, shape: Shape, placement: Placement, mover: Mover) -> Box:
    """Compute the box in which the cut-out moves, in fractions of the frame; sides cut off anyway lie outside."""
    narrow = scene.video.height / scene.video.width
    half = placement.scale * shape.aspect * narrow / 2
    poses = [mover.pose(mover.seconds * step / 24) for step in range(25)]
    sway = max(abs(p.lean) + abs(p.hip) + abs(p.nod) for p in poses) * 0.5 * placement.scale * narrow
    start, end = -half, half
    if shape.cropped & {"left", "right"}:  # shoulders and elbows may leave the frame, the head not
        start, end = (2 * half * ((1 - side if placement.flip else side) - 0.5) for side in shape.head)
        start, end = min(start, end), max(start, end)
    elif "bottom" in shape.cropped:
        start, end = 0.6 * start, 0.6 * end
    bottom = 2.0 if _is_rooted(shape, placement) else placement.y
    rise = max(placement.scale * ((1 + p.near) * p.tall + p.rise) - 0.12 * p.near for p in poses)
    left, right = (f(p.travel * narrow for p in poses) for f in (min, max))
    top = min(max(placement.y - rise, 0.0), placement.y - 0.5 * placement.scale)
    first, last = placement.x + start - sway + left, placement.x + end + sway + right
    if shape.cropped & {"left", "right"}:  # its photo shows only a part of it: none of that may be lost
        first, last = max(first, 0.0), min(last, 1.0)
    return first, top, last, bottom


def _backdrop(
    scene: Scene, members: Sequence[Member], shapes: dict[int, Shape], camera: Camera, close: bool
) -> Backdrop:
    size = (scene.video.width, scene.video.height)
    picture = next((m.picture for m in members if m.element.role == "background"), None)
    if picture is None:
        picture = paint_studio(scene, members, shapes)
    blur = 0.0 if not shapes else CLOSE_BLUR if close else FAR_BLUR
    return backdrop_of(picture, size, camera.reach(), blur, 1.2 if close else camera.ground / camera.height)


def paint_studio(scene: Scene, members: Sequence[Member], shapes: dict[int, Shape]) -> Image.Image:
    """Paint a studio backdrop in colours that suit the cast, at the video's size (RGB)."""
    colours = [_mean_lab(members[i].picture, shapes[i]) for i in shapes]
    return studio((scene.video.width, scene.video.height), colours, scene.sampling.seed)


def _mean_lab(picture: Image.Image, shape: Shape) -> np.ndarray:
    small = picture.convert("RGBA").crop(shape.box).resize((32, 32), Image.Resampling.BOX, reducing_gap=2.0)
    pixels = np.asarray(small, np.float32) / 255
    solid = pixels[pixels[..., 3] > 0.5][:, :3]
    if not len(solid):
        return np.array([60.0, 0.0, 0.0])
    mean: np.ndarray = cv2.cvtColor(np.ascontiguousarray(solid[None]), cv2.COLOR_RGB2LAB)[0].mean(0)
    return mean


def _mover(
    scene: Scene,
    plan: Screenplay,
    i: int,
    shapes: dict[int, Shape],
    placements: dict[int, Placement],
    stage: StageFrame,
) -> Mover:
    shape, placement, order = shapes[i], placements[i], list(shapes).index(i)
    seed = np.random.default_rng([scene.sampling.seed, 3]).random()
    around = _Around(scene, shapes, placements, stage, inset_of(plan.camera, stage.aspect))
    return Mover(
        motion=plan.acts.get(i, Act()).motion,
        phase=float((seed + order * GOLDEN) % 1.0),
        seconds=max(scene.video.frames - 1, 1) / scene.video.fps,
        bpm=scene.direction.bpm,
        facing=shape.facing * (-1 if placement.flip else 1),
        rooted=_is_rooted(shape, placement),
        thing=scene.cast[i].role == "object",
        room=around.room(i),
        closest=around.closest(i),
    )


@dataclass(frozen=True)
class _Around:
    """What is around the cast: the frame's edges, the others, and `inset`, what the camera's move may cut off. All in
    frame heights."""

    scene: Scene
    shapes: dict[int, Shape]
    placements: dict[int, Placement]
    stage: StageFrame
    inset: float

    def _span(self, i: int) -> tuple[float, float]:
        half, x = self._half(i), self.placements[i].x * self.stage.aspect
        return x - half, x + half

    def _half(self, i: int) -> float:
        return self.placements[i].scale * self.shapes[i].aspect / 2

    def _others(self, i: int) -> list[int]:
        return [j for j in self.placements if j != i and self.scene.cast[j].role == "character"]

    def room(self, i: int) -> tuple[float, float]:
        """Compute how far one of the cast may go to the left and right until it leaves the frame or passes another.

        One who is cut off at a side stays there.
        """
        if self.shapes[i].cropped & {"left", "right"}:
            return 0.0, 0.0
        start, end = self._span(i)
        edge = 0.02 + self.inset + SWING * self.placements[i].scale
        left, right = start - edge, self.stage.aspect - end - edge
        for j in self._others(i):
            first, last = self._span(j)
            if self.placements[j].x < self.placements[i].x:
                left = min(left, start - last)
            else:
                right = min(right, first - end)
        return max(left, 0.0), max(right, 0.0)

    def closest(self, i: int) -> float:
        """Compute how much larger it may become, 0.1 for a tenth, before it leaves the frame or covers a neighbour.

        Its head and its sides count.
        """
        placement, half = self.placements[i], self._half(i)
        start, end = self._span(i)
        sides = min(start, self.stage.aspect - end) + half - self.inset - SWING * placement.scale
        least = min((placement.y - 0.04) / placement.scale, sides / half)
        for j in self._others(i):
            apart = abs(self.placements[j].x - placement.x) * self.stage.aspect
            least = min(least, (1 + SHARED) * apart / (half + self._half(j)))
        return max(least - 1.0, 0.0)


def _actor(
    member: Member, shape: Shape, placement: Placement, mover: Mover, camera: Camera, backdrop: Backdrop
) -> Actor:
    height = placement.scale * camera.height
    foot = (placement.x * camera.width, placement.y * camera.height)
    half = height * shape.aspect / 2
    behind = backdrop.behind((foot[0] - half, foot[1] - height, foot[0] + half, foot[1]))
    # However large the placement, a tile never needs to be much larger than the frame.
    pixels = round(min(height * DETAIL, 1.6 * max(camera.width, camera.height) / max(1.0, shape.aspect)))
    around = Surroundings(np.ascontiguousarray(behind), backdrop.light)
    shape = _as_shown(shape, placement, camera.width / camera.height)
    tile = make_tile(member.picture, shape, max(pixels, 4), placement.flip, member.element.role, around)
    return Actor(tile, foot, height, mover, mover.rooted)


def _as_shown(shape: Shape, placement: Placement, aspect: float) -> Shape:
    """Mark cropped sides that do not lie on the frame's edge as grazed: they fade out instead of being continued."""
    half = placement.scale * shape.aspect / aspect / 2
    outside = {"top": placement.y - placement.scale < 0.02, "bottom": _is_rooted(shape, placement)}
    outside |= {"left": placement.x - half < 0.02, "right": placement.x + half > 0.98}
    if placement.flip:
        outside |= {"left": outside["right"], "right": outside["left"]}
    hidden = frozenset(side for side in shape.cropped if outside[side])
    return replace(shape, cropped=hidden, grazed=shape.grazed | (shape.cropped - hidden))


def _attach(thing: Actor, holder: Actor, index: int, behind: bool, frame: int) -> Actor:
    """Attach a held object by its middle to the point of the holder that lies behind it.

    A lifted one rises far enough to be seen in a frame of `frame` pixels' height, and stays in it.
    """
    grip = (thing.foot[0] - holder.foot[0], holder.foot[1] - (thing.foot[1] - thing.size / 2))
    room = max(thing.foot[1] - thing.size - 0.04 * frame, 0.0)
    stroke = min(max(0.1 * holder.size, LIFTED * frame), room) / max(thing.size, 1.0)
    return replace(thing, holder=index, grip=grip, stroke=stroke, behind=behind)


def stack(scene: Scene, plan: Screenplay, shapes: dict[int, Shape], placements: dict[int, Placement]) -> list[int]:
    """Sort cast indices from back to front: by layer, then by foot.

    A held object comes directly in front of its holder, or behind. A bust's real feet are far below the frame, but
    things at the frame's lower edge are meant to be in front of it.
    """

    def key(i: int) -> tuple[int, float, int, int]:
        holder = plan.acts.get(i, Act()).holder
        first = i if holder not in shapes else holder
        depth = placements[first].y
        if _is_rooted(shapes[first], placements[first]):
            depth = min(depth, ROOTED_DEPTH + 0.01 * (depth - 1))
        layer = placements[i].layer or placements[first].layer
        return layer, depth, first, 0 if first == i else -1 if _held_behind(scene.cast[i]) else 1

    return sorted(shapes, key=key)


def _grade() -> np.ndarray:
    """Return the tone curve, a gentle S as in prints, (256,) uint8: it unifies what comes from different photos."""
    x = np.linspace(0, 1, 256)
    return np.round(255 * (x - 0.16 * np.sin(2 * np.pi * x) / (2 * np.pi))).astype(np.uint8)


def _vignette(width: int, height: int, seed: int) -> np.ndarray:
    """Compute a gentle vignette, (height, width, 3) uint8, dithered so that it shows no bands."""
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    fall = 1 - 0.17 * np.clip((x * x + y * y) / 2, 0, 1) ** 1.6
    grain = np.random.default_rng([seed, 5]).random((height, width), np.float32)
    return cv2.merge([np.clip(np.floor(fall * 255 + grain), 0, 255).astype(np.uint8)] * 3)
