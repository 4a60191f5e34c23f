"""Who stands where: believable sizes on a ground line, nobody's face hidden.

Sizes are fractions of the frame's height, positions fractions of the frame, as in `Placement`: (x, y) is the middle of
the cut-out's foot. The head is taken to be the top quarter of a character's box.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from engine.draft.direct import Act, lookup, words
from engine.draft.measure import Shape
from engine.scene import Element, Placement, Video

HEAD = 0.27  # of a character's height, from the top
BOTTOM = 1.0  # where the cut line of a cropped bust lies: the frame's edge
MIN_OBJECT = 0.13
OVERLAP = {"group": 0.3, "crowd": 0.5, "busts": 0.5}  # how far the widths of neighbours may go into each other
MARGIN = 0.055  # left and right of a line of people: they sway, and the camera comes closer
# Where on a thing it is gripped, over its height from its foot.
GRIPS = {"hand": 0.45, "handle": 0.93, "body": 0.5, "foot": 0.0, "palm": 0.03, "stick": 0.06}
BODY_HEIGHTS = {"bust": 1.75, "figure": 1.0, "mascot": 1.35, "card": 1.0}  # a whole person's height over the box's


@dataclass(frozen=True)
class Player:
    """One of the cast to be placed: its element, its measured cut-out, its act, its explicit placement if any."""

    element: Element
    shape: Shape
    act: Act

    @property
    def leading(self) -> bool:
        return self.element.role == "character"


@dataclass(frozen=True)
class Stage:
    """The frame and its ground line."""

    aspect: float  # width over height
    ground: float

    def width(self, shape: Shape, scale: float) -> float:
        """The width of a cut-out of that scale, as a fraction of the frame's width."""
        return scale * shape.aspect / self.aspect

    def scale(self, shape: Shape, width: float) -> float:
        """The scale at which a cut-out has that width."""
        return width * self.aspect / shape.aspect


def stage_of(video: Video) -> Stage:
    """The ground lies lower in a wide frame than in an upright one, where the eye wants room below the feet."""
    aspect = video.width / video.height
    return Stage(aspect, 0.92 if aspect > 1.2 else 0.9 if aspect > 0.8 else 0.86)


def place(players: dict[int, Player], stage: Stage) -> dict[int, Placement]:
    """A placement for each player, by cast index; explicit ones are returned unchanged."""
    placed = {i: p.element.placement for i, p in players.items() if p.element.placement is not None}
    _place_characters(players, placed, stage)
    held = [i for i, p in players.items() if p.act.holder is not None and i not in placed]
    for i in held:
        placed[i] = _in_hand(players, placed, i, stage)
    _place_objects(players, placed, stage)
    return {i: placed[i] for i in players}


# ---------------------------------------------------------------------------
# Characters


def _place_characters(players: dict[int, Player], placed: dict[int, Placement], stage: Stage) -> None:
    todo = [i for i, p in players.items() if p.leading and i not in placed]
    count = sum(p.leading for p in players.values())
    if not todo:
        return
    scales = {i: _character_scale(players[i].shape, count, stage) for i in todo}
    room = _room_for_objects(players, placed, count)
    busts = all(players[i].shape.kind == "bust" for i in todo)
    widest = (1.1 if busts else 1 - 2 * MARGIN) - room
    most = OVERLAP["busts" if busts else "crowd" if len(todo) > 3 else "group"]  # shoulders may, faces stay free
    overlap = 1 + most * (1 - 1 / len(todo))
    total = sum(stage.width(players[i].shape, scales[i]) for i in todo)
    shrink = min(1.0, widest * overlap / total)  # the same for all: sizes stay believable against each other
    scales = {i: s * shrink for i, s in scales.items()}
    widths = {i: stage.width(players[i].shape, scales[i]) for i in todo}
    small = max(0.0, 0.45 - max(scales.values())) * 0.3  # a small group stands higher in an upright frame
    stage = Stage(stage.aspect, stage.ground - small)
    for order, (i, x) in enumerate(_spread(todo, widths, room).items()):
        placed[i] = _stand(players[i].shape, x, scales[i], _rank(order, len(todo), busts), stage)


def _character_scale(shape: Shape, count: int, stage: Stage) -> float:
    """The height a character would like, before the line is made to fit."""
    wide = {"bust": 0.86, "figure": 0.8, "mascot": 0.56, "card": 0.74}[shape.kind]
    widest = {"bust": 1.18, "figure": 0.8, "mascot": 0.7, "card": 0.74}[shape.kind]
    if shape.cropped >= {"top", "bottom"}:
        return 1.06  # a close-up photo fills the frame from edge to edge
    crowd = {1: 1.0, 2: 0.95, 3: 0.9}.get(count, 0.84)
    return min(wide * crowd, stage.scale(shape, widest) if count == 1 else 1.0)


def _room_for_objects(players: dict[int, Player], placed: dict[int, Placement], count: int) -> float:
    """The width to leave free beside one or two characters for things on the ground."""
    free = [i for i, p in players.items() if not p.leading and p.act.holder is None and i not in placed]
    if not free or count > 2:
        return 0.0
    close = any(p.shape.kind == "bust" for p in players.values() if p.leading)  # things may stand in front of a bust
    if count == 2:
        return 0.06
    return 0.16 if close else 0.22 if len(free) == 1 else 0.34


def _spread(todo: list[int], widths: dict[int, float], room: float) -> dict[int, float]:
    """The x of each, in a line with even gaps; a line that is wider than the frame overlaps, everybody by the same part
    of the own width."""
    total, width = sum(widths.values()), 1.0 - room
    free = width - 2 * MARGIN - total
    gap = min(max(free / (len(todo) - 1), 0.0), 0.1) if len(todo) > 1 else 0.0
    part = 1.0
    if free < 0 and len(todo) > 1:
        ends = (widths[todo[0]] + widths[todo[-1]]) / 2
        part = max((width - 2 * MARGIN - ends) / (total - ends), 0.2)  # of the way from centre to centre
    way = [part * (widths[i] + widths[j]) / 2 + gap for i, j in pairwise(todo)]
    x = (width - sum(way) - (widths[todo[0]] + widths[todo[-1]]) / 2) / 2
    x = max(x, min(-0.1 * total, 0.5 * (1 - total)))  # too wide to leave room: little is lost at the left
    centres = [x + widths[todo[0]] / 2]
    for step in way:
        centres.append(centres[-1] + step)
    return dict(zip(todo, centres, strict=True))


def _rank(order: int, count: int, busts: bool) -> float:
    """How far back someone stands, 0 in front to 1: a zigzag, so that a crowd overlaps like a group photo; of three
    busts the middle one is in front."""
    if count < 3:
        return 0.18 * order if count == 2 else 0.0
    odd = (order + (busts if count == 3 else count % 2 == 0)) % 2
    return odd * (0.45 if count == 3 else 1.0)


def _stand(shape: Shape, x: float, scale: float, rank: float, stage: Stage) -> Placement:
    if shape.cropped >= {"top", "bottom"}:
        rank = 0.0
    scale *= 1 - 0.16 * rank
    y = stage.ground - 0.055 * rank
    if "bottom" in shape.cropped:
        y = BOTTOM + 0.02 * (1 - rank)  # below the edge; who is in front is lower
    half = stage.width(shape, scale) / 2
    if shape.cropped >= {"left"} and "right" not in shape.cropped:
        x = half - 0.01  # the cut side lies on the frame's edge
    elif shape.cropped >= {"right"} and "left" not in shape.cropped:
        x = 1.01 - half
    return Placement(x=round(x, 4), y=round(y, 4), scale=round(scale, 4))


# ---------------------------------------------------------------------------
# Objects


def _unit(player: Player, placement: Placement) -> float:
    """The height that a standing person would have beside this character, over the frame's."""
    return placement.scale * BODY_HEIGHTS[player.shape.kind]


def _object_scale(player: Player, unit: float, stage: Stage, largest: float = 0.52) -> float:
    """Things keep their size against people, small ones a little larger than life."""
    ratio = float(lookup(player.element, words().size, 0.3))
    if player.shape.kind == "card":
        ratio = max(ratio, 0.4)  # a print of a thing, not the thing
    length = unit * (ratio + 0.05)  # the longer side, roughly
    scale = length / max(1.0, player.shape.aspect)
    scale = max(scale, min(MIN_OBJECT, stage.scale(player.shape, 0.3)))
    return min(scale, largest, stage.scale(player.shape, 0.5))


def _in_hand(players: dict[int, Player], placed: dict[int, Placement], i: int, stage: Stage) -> Placement:
    """At the holder's hand, as large as fits into the frame there, and not before the face."""
    index = players[i].act.holder
    holder, base = players[index], placed[index]
    others = sum(p.act.holder == index and j in placed for j, p in players.items() if j != i)
    grip, side, reach, height = _grip(players[i], holder, base, others)
    scale = _object_scale(players[i], _unit(holder, base), stage, 0.55 * base.scale)
    x = base.x + side * reach * base.scale / stage.aspect
    hand = base.y - height * base.scale
    if 0 < base.x < 1 and 0 < hand < 1:
        least = 0.5 * scale
        aside = 2 * (0.97 - (x if side > 0 else 1 - x))
        scale = max(
            min(scale, (hand - 0.03) / (1 - GRIPS[grip]), stage.scale(players[i].shape, max(aside, 0.01))), least
        )
    y = hand + GRIPS[grip] * scale
    if grip not in ("palm", "stick"):  # those are beside or behind the face
        y = max(y, base.y - (1 - HEAD) * base.scale + scale)
    if "bottom" in holder.shape.cropped and grip != "handle":
        y = min(y, 0.97)
    return Placement(x=round(x, 4), y=round(y, 4), scale=round(scale, 4))


def _grip(thing: Player, holder: Player, base: Placement, others: int) -> tuple[str, int, float, float]:
    """How it is held, on which side, and the hand: its distance from the middle and its height, in holder's heights.
    The side is where an arm reaches out or the holder looks, else the one with more room; a second thing goes to the
    other hand."""
    shape, grip = holder.shape, str(lookup(thing.element, words().hold, "hand"))
    side = 1 if base.x <= 0.5 else -1
    turned = shape.reaching or (shape.facing if shape.kind == "figure" else 0)
    if turned:
        side = turned * (-1 if base.flip else 1)
    if others % 2:
        side = -side
    x, height = shape.hands[(side > 0) != base.flip]
    reach = abs(x)
    if shape.kind in ("mascot", "card"):  # all face: it stands at their side
        return "foot", side, 0.5 * shape.aspect + 0.08, -0.02
    if shape.reaching and grip != "body" and not others:
        return "palm", side, reach, height
    if shape.kind == "bust":  # the hands are outside the picture: held up before the chest
        reach, height = 0.3 * min(shape.aspect, 1.0), 0.2
    if grip == "body":
        reach, height = 0.3 * reach, min(height, 0.45)
    return grip, side, reach, height


def _place_objects(players: dict[int, Player], placed: dict[int, Placement], stage: Stage) -> None:
    todo = [i for i, p in players.items() if not p.leading and i not in placed]
    leads = [i for i, p in players.items() if p.leading]
    if not leads:
        _line_up(players, placed, todo, stage)
        return
    unit = sum(_unit(players[i], placed[i]) for i in leads) / len(leads)
    tallest = max(placed[i].scale for i in leads)
    close = all("bottom" in players[i].shape.cropped for i in leads)
    for i in todo:
        scale = _object_scale(players[i], unit, stage, min(0.4 if close else 0.46, 0.62 * tallest))
        feet = max(placed[j].y for j in leads)
        y = 0.975 if close or feet > 0.97 else min(feet + 0.035, 0.97)
        if players[i].act.motion == "float":
            y -= 0.02 if close else 0.36  # in the air, beside them
        placed[i] = _find_spot(players, placed, i, scale, y, stage)


def _line_up(players: dict[int, Player], placed: dict[int, Placement], todo: list[int], stage: Stage) -> None:
    """Products alone are the heroes: large, in a line, in their sizes against each other."""
    if not todo:
        return
    ratios = {i: float(lookup(players[i].element, words().size, 0.3)) ** 0.4 for i in todo}
    largest = max(ratios.values())
    tall = 0.62 if len(todo) == 1 else 0.5
    scales = {i: min(tall * ratios[i] / largest, stage.scale(players[i].shape, 0.66)) for i in todo}
    widths = {i: stage.width(players[i].shape, scales[i]) for i in todo}
    shrink = min(1.0, 0.9 / sum(widths.values()))
    widths = {i: w * shrink for i, w in widths.items()}
    for order, (i, x) in enumerate(_spread(todo, widths, 0.0).items()):
        rank = _rank(order, len(todo), False) * 0.5
        lift = 0.06 if players[i].act.motion == "float" else 0.0
        y = stage.ground - 0.06 * (stage.aspect < 1.2) - 0.04 * rank - lift
        placed[i] = Placement(x=round(x, 4), y=round(y, 4), scale=round(scales[i] * shrink, 4))


def _find_spot(
    players: dict[int, Player], placed: dict[int, Placement], i: int, scale: float, y: float, stage: Stage
) -> Placement:
    """The free spot along the ground that hides least: no heads, few bodies, no other things."""
    shape = players[i].shape
    best, best_cost = None, float("inf")
    for step in range(5, 96, 1):
        for size in (1.0, 0.85, 0.7, 0.55):
            spot = Placement(x=step / 100, y=round(y, 4), scale=max(round(scale * size, 4), 0.02))
            cost = 3.0 * (1 - size) + _cost(players, placed, shape, spot, stage)
            if cost < best_cost - 1e-9:
                best, best_cost = spot, cost
    return best or Placement(x=0.5, y=round(y, 4), scale=round(scale, 4))


def _cost(
    players: dict[int, Player], placed: dict[int, Placement], shape: Shape, spot: Placement, stage: Stage
) -> float:
    half = stage.width(shape, spot.scale) / 2
    outside = max(0.0, 0.03 + half - spot.x) + max(0.0, spot.x + half - 0.97)
    cost = 60 * outside + 0.3 * abs(spot.x - 0.5)
    for j, other in placed.items():
        reach = stage.width(players[j].shape, other.scale) / 2
        shared = min(spot.x + half, other.x + reach) - max(spot.x - half, other.x - reach)
        if shared <= 0:
            continue
        part = shared / max(2 * half, 1e-3)
        if players[j].leading:
            chin = other.y - (1 - HEAD) * other.scale
            hides_face = spot.y - spot.scale < chin and spot.y > other.y - other.scale
            rooted = "bottom" in players[j].shape.cropped
            cost += (0.7 if rooted else 1.5) * part + (30 if hides_face else 0) * part
        else:
            cost += 12 * part
    return cost
