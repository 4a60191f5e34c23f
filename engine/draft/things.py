"""Where things stand: at somebody's hand, on the ground where they hide least, or alone as the heroes."""

from __future__ import annotations

from itertools import pairwise

from engine.draft.measure import Shape
from engine.draft.stage import HEAD, Player, StageFrame, placement_at, spread, unit_of
from engine.draft.vocabulary import lookup, words
from engine.scene.scene import Placement

MIN_OBJECT = 0.13
# Where on a thing it is gripped, over its height from its foot.
GRIPS = {"hand": 0.45, "handle": 0.93, "body": 0.5, "foot": 0.0, "palm": 0.03, "stick": 0.06}
ROW_STEP = 0.82  # how much of a row of products stays free above the next one in front
ROW_ROOM = 0.58  # of the frame's height: for all rows
FLAT_STEP = 0.07  # of the frame's height: rows of flat things are at least so far apart
STAGGER = 0.03  # of the frame's width: how far rows are moved against each other


def _object_scale(player: Player, unit: float, stage: StageFrame, largest: float = 0.52) -> float:
    """Compute a thing's scale beside people of height `unit`; small things become a little larger than life."""
    ratio = lookup(player.element, words().size, 0.3)
    if player.shape.kind == "card":
        ratio = max(ratio, 0.4)  # a print of a thing, not the thing
    length = unit * (ratio + 0.05)  # the longer side, roughly
    scale = length / max(1.0, player.shape.aspect)
    scale = max(scale, min(MIN_OBJECT, 0.42 * unit, stage.scale(player.shape, 0.3)))
    return min(scale, largest, stage.scale(player.shape, 0.5))


def in_hand(
    players: dict[int, Player], placed: dict[int, Placement], i: int, index: int, stage: StageFrame
) -> Placement:
    """Place thing `i` at its holder's hand, as large as fits into the frame there, and not before the face.

    `index` is the holder's.
    """
    holder, base = players[index], placed[index]
    others = sum(p.act.holder == index and j in placed for j, p in players.items() if j != i)
    grip, side, reach, height = _grip(players[i], holder, base, others)
    scale = _object_scale(players[i], unit_of(holder, base), stage, 0.55 * base.scale)
    x = base.x + side * reach * base.scale / stage.aspect
    hand = base.y - height * base.scale
    if 0 < base.x < 1 and 0 < hand < 1:
        least = 0.5 * scale
        aside = 2 * (0.97 - (x if side > 0 else 1 - x))
        scale = max(
            min(scale, (hand - 0.03) / (1 - GRIPS[grip]), stage.scale(players[i].shape, max(aside, 0.01))), least
        )
    y = hand + GRIPS[grip] * scale
    if grip not in ("palm", "stick"):  # with these grips the thing is beside or behind the face
        y = max(y, base.y - (1 - HEAD) * base.scale + scale)
    if "bottom" in holder.shape.cropped and grip != "handle":
        y = min(y, 0.97)
    return placement_at(x, y, scale)


def _grip(thing: Player, holder: Player, base: Placement, others: int) -> tuple[str, int, float, float]:
    """Choose how a thing is held, on which side, and where the hand is.

    The hand is given by its distance from the middle and its height, both in holder's heights. The side is where an arm
    reaches out or the holder looks, else the one with more room; a second thing goes to the other hand.
    """
    shape, grip = holder.shape, lookup(thing.element, words().hold, "hand")
    side = 1 if base.x <= 0.5 else -1
    turned = shape.reaching or (shape.facing if shape.kind == "figure" else 0)
    if turned:
        side = turned * (-1 if base.flip else 1)
    if others % 2:
        side = -side
    x, height = shape.hands[(side > 0) != base.flip]
    reach = abs(x)
    if shape.kind in ("mascot", "card"):  # no hands: the thing stands beside them
        return "foot", side, 0.5 * shape.aspect + 0.08, -0.02
    if shape.reaching and grip != "body" and not others:
        return "palm", side, reach, height
    if shape.kind == "bust":  # the hands are outside the picture: held up before the chest
        reach, height = 0.3 * min(shape.aspect, 1.0), 0.2
    if grip == "body":
        reach, height = 0.3 * reach, min(height, 0.45)
    return grip, side, reach, height


def place_things(players: dict[int, Player], placed: dict[int, Placement], stage: StageFrame) -> None:
    todo = [i for i, p in players.items() if not p.leading and i not in placed]
    leads = [i for i, p in players.items() if p.leading]
    if not leads:
        line_up(players, placed, todo, stage)
        return
    unit = sum(unit_of(players[i], placed[i]) for i in leads) / len(leads)
    tallest = max(placed[i].scale for i in leads)
    close = all("bottom" in players[i].shape.cropped for i in leads)
    for i in todo:
        scale = _object_scale(players[i], unit, stage, min(0.4 if close else 0.46, 0.62 * tallest))
        feet = max(placed[j].y for j in leads)
        y = 0.975 if close or feet > 0.97 else min(feet + 0.035, 0.97)
        if players[i].act.motion == "float":
            y -= 0.02 if close else 0.36  # in the air, beside them
        placed[i] = _find_spot(players, placed, i, scale, y, stage)


def line_up(players: dict[int, Player], placed: dict[int, Placement], todo: list[int], stage: StageFrame) -> None:
    """Place things of a scene without characters, in place: large, in their sizes against each other, in a line.

    In an upright frame they stand in as many rows as let them be largest.
    """
    if not todo:
        return
    ratios = {i: lookup(players[i].element, words().size, 0.3) ** 0.4 for i in todo}
    largest = max(ratios.values())
    tall = 0.62 if len(todo) == 1 else 0.5
    scales = {i: min(tall * ratios[i] / largest, stage.scale(players[i].shape, 0.66)) for i in todo}
    widths = {i: stage.width(players[i].shape, scales[i]) for i in todo}
    most = 1 if stage.aspect >= 1 or len(todo) < 3 else min(len(todo), 8)
    rows, factor = max((_shelve(todo, scales, widths, count) for count in range(1, most + 1)), key=lambda row: row[1])
    feet = _feet(rows, scales)
    y = stage.ground - 0.06 * (stage.aspect < 1.2)
    if len(rows) > 1:  # the whole of it a little below the frame's middle
        y = min(max(0.62 + factor * _depth(rows, scales) / 2, y), 0.93)
    for nth, row in enumerate(rows):
        aside = STAGGER * (-1) ** nth * (len(rows) > 1)
        xs = spread([widths[i] * factor for i in row], 0.05 + STAGGER + aside, 0.95 - STAGGER + aside)
        for order, (i, x) in enumerate(zip(row, xs, strict=True)):
            back = 0.02 * ((order + (len(row) % 2 == 0)) % 2) * (len(rows) == 1 and len(row) > 2)
            lift = 0.06 if players[i].act.motion == "float" else 0.0
            placed[i] = placement_at(x, y - factor * feet[nth] - back - lift, scales[i] * factor)


def _shelve(
    todo: list[int], scales: dict[int, float], widths: dict[int, float], count: int
) -> tuple[list[list[int]], float]:
    """Split things into rows from back to front, the shorter ones in front; returns also the factor that fits all."""
    least, more = divmod(len(todo), count)
    ends = [sum(least + (row < more) for row in range(end)) for end in range(count + 1)]
    rows = [todo[start:end] for start, end in pairwise(ends)]
    across = 0.9 - 2 * STAGGER * (count > 1)
    factor = min(1.0, across / max(sum(widths[i] for i in row) for row in rows))
    return rows, min(factor, ROW_ROOM / _depth(rows, scales)) if count > 1 else factor


def _feet(rows: list[list[int]], scales: dict[int, float]) -> list[float]:
    """Return how much higher than the front row each row stands, in frame heights at full scale."""
    steps = [max(ROW_STEP * max(scales[i] for i in row), FLAT_STEP) for row in rows[1:]]
    return [sum(steps[nth:]) for nth in range(len(rows))]


def _depth(rows: list[list[int]], scales: dict[int, float]) -> float:
    """Measure from the front row's feet to the highest thing's top, in frame heights at full scale."""
    return max(up + scales[i] for up, row in zip(_feet(rows, scales), rows, strict=True) for i in row)


def _find_spot(
    players: dict[int, Player], placed: dict[int, Placement], i: int, scale: float, y: float, stage: StageFrame
) -> Placement:
    """Search the ground for the spot, and the size, that hide least: no heads, few bodies, no other things."""
    shape = players[i].shape
    best, best_cost = None, float("inf")
    for step in range(5, 96, 1):
        for size in (1.0, 0.85, 0.7, 0.55):
            spot = placement_at(step / 100, y, max(scale * size, 0.02))
            cost = 3.0 * (1 - size) + _cost(players, placed, shape, spot, stage)
            if cost < best_cost - 1e-9:
                best, best_cost = spot, cost
    return best or placement_at(0.5, y, scale)


def _cost(
    players: dict[int, Player], placed: dict[int, Placement], shape: Shape, spot: Placement, stage: StageFrame
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
