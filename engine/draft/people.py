"""Where the characters stand: believable sizes against each other, nobody's face hidden, few empty halves of frames.

They stand in one line, those whom their photo cuts off at a side at that edge of the frame; where an upright frame
would make a long line small, in two staggered rows like a group photo.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

from engine.draft.measure import Shape
from engine.draft.stage import HEAD, MARGIN, Player, StageFrame, head_of, placement_at, spread
from engine.scene.scene import Placement

BOTTOM = 1.0  # where the cut line of a cropped bust lies: the frame's edge
OVERLAP = {
    "group": 0.3,
    "upright": 0.42,
    "crowd": 0.5,
    "busts": 0.5,
}  # how far the widths of neighbours may go into each other
SHOULDER = 0.105  # of the frame's width: how far the outer shoulder of a bust may leave it
ROWS_BELOW = 0.68  # a line that would have to shrink more than this stands in two rows where the frame is not wide
BACK = 0.82  # the size of the back row
TOLERANCE = 0.2  # of the narrower head: hair and hats may overlap that much


@dataclass(frozen=True)
class _Line:
    """Characters in one line: their cast indices from left to right, which ends of the line lie on the frame's edges
    (`pinned`), the width left free for things at the right, and the heights wished for."""

    order: list[int]
    pinned: frozenset[str]
    room: float
    wished: dict[int, float]
    shapes: dict[int, Shape]
    stage: StageFrame

    def bust(self, i: int) -> bool:
        return self.shapes[i].kind == "bust"

    @property
    def busts(self) -> bool:
        return all(self.bust(i) for i in self.order)

    @property
    def held(self) -> set[int]:
        """Those on the frame's edges."""
        ends = {"left": self.order[0], "right": self.order[-1]}
        return {ends[side] for side in self.pinned}

    def span(self) -> tuple[float, float]:
        """Return where the line may begin and end, in frame widths; busts may leave the frame by a shoulder."""
        first, last = (MARGIN - SHOULDER * self.bust(i) for i in (self.order[0], self.order[-1]))
        return (
            -0.01 if "left" in self.pinned else first,
            1.01 if "right" in self.pinned else 1 - self.room - last,
        )

    def fit(self) -> float:
        """Compute the factor that shrinks everybody into one line: the same for all, sizes stay believable."""
        count, (start, end) = len(self.order), self.span()
        kind = "crowd" if self.busts or count > 3 else "group" if self.stage.aspect > 0.8 else "upright"
        total = sum(self.stage.width(self.shapes[i], self.wished[i]) for i in self.order)
        return min(1.0, (end - start) * (1 + OVERLAP[kind] * (1 - 1 / count)) / total)


def place_people(players: dict[int, Player], placed: dict[int, Placement], stage: StageFrame) -> None:
    """Place each character that has no placement yet, into `placed`."""
    todo = [i for i, p in players.items() if p.leading and i not in placed]
    if not todo:
        return
    count = sum(p.leading for p in players.values())
    shapes = {i: players[i].shape for i in todo}
    wished = {i: _wished_scale(shapes[i], count, stage) for i in todo}
    order, pinned = _from_left_to_right(todo, shapes)
    line = _Line(order, pinned, _room_for_things(players, placed, count), wished, shapes, stage)
    factor, place = line.fit(), _one_line
    if len(todo) > 2 and stage.aspect < 1.2 and factor < ROWS_BELOW:
        factor, place = min(1.0, 1.7 * factor), _two_rows
    tries = [place(line, factor * 0.93**smaller) for smaller in range(6)]
    # The largest size at which no face is hidden; where there is none, a middle one.
    spots = next((spots for spots in tries if _is_clear(line, spots)), tries[2])
    placed.update({i: spots[i] for i in todo})


def _is_clear(line: _Line, spots: dict[int, Placement]) -> bool:
    """Part the heads, in place, and check that none covers another and that all crowns are in the frame.

    Those whom their photo cuts off at the top need not be.
    """
    apart = _part_heads(line, spots)
    return apart and all(p.y - p.scale > 0.025 or "top" in line.shapes[i].cropped for i, p in spots.items())


def _wished_scale(shape: Shape, count: int, stage: StageFrame) -> float:
    """Return the height to give a character, in frame heights, before the line is made to fit."""
    wide = {"bust": 0.86, "figure": 0.8, "mascot": 0.56, "card": 0.74}[shape.kind]
    widest = {"bust": 1.18, "figure": 0.8, "mascot": 0.7, "card": 0.74}[shape.kind]
    if shape.cropped >= {"top", "bottom"}:
        return 1.06  # a close-up photo fills the frame from edge to edge
    if "top" in shape.cropped and count == 1 and stage.width(shape, stage.ground) < 0.9:
        return stage.ground + 0.005  # its cut line lies on the frame's upper edge
    crowd = {1: 1.0, 2: 0.95, 3: 0.9}.get(count, 0.84)
    return min(wide * crowd, stage.scale(shape, widest) if count == 1 else 1.0)


def _room_for_things(players: dict[int, Player], placed: dict[int, Placement], count: int) -> float:
    """Return the width to leave free beside one or two characters for things on the ground, in frame widths."""
    free = [i for i, p in players.items() if not p.leading and p.act.holder is None and i not in placed]
    if not free or count > 2:
        return 0.0
    close = any(p.shape.kind == "bust" for p in players.values() if p.leading)  # things may stand in front of a bust
    if count == 2:
        return 0.06
    return 0.16 if close else 0.22 if len(free) == 1 else 0.34


def _from_left_to_right(todo: list[int], shapes: dict[int, Shape]) -> tuple[list[int], frozenset[str]]:
    """Order the line as in the cast, but with who is cut off at the left first and who is cut off at the right last.

    Those two, one a side at most, are pinned to the frame's edges, which are returned, too.
    """
    order, pinned = list(todo), set()
    for side, other, end in (("left", "right", 0), ("right", "left", len(todo))):
        cut = [i for i in todo if side in shapes[i].cropped and other not in shapes[i].cropped]
        if cut:
            order.remove(cut[0])
            order.insert(end, cut[0])
            pinned.add(side)
    return order, frozenset(pinned)


def _one_line(line: _Line, factor: float) -> dict[int, Placement]:
    scales = {i: s * factor for i, s in line.wished.items()}
    widths, (start, end) = [line.stage.width(line.shapes[i], scales[i]) for i in line.order], line.span()
    xs = spread(widths, start, end, line.pinned)
    if not line.pinned:  # too wide to leave room for things: little of it is cut off at the left
        least = min(-0.1 * sum(widths), 0.5 * (1 - sum(widths)))
        lost = max(least - (xs[0] - widths[0] / 2), 0.0)
        xs = [x + lost for x in xs]
    small = max(0.0, 0.45 - max(scales.values())) * 0.3  # a small group stands higher in an upright frame
    stage = StageFrame(line.stage.aspect, line.stage.ground - small)
    spots = {}
    for at, (i, x) in enumerate(zip(line.order, xs, strict=True)):
        shape, rank = line.shapes[i], _rank(at, len(xs), line.busts)
        if shape.cropped >= {"top", "bottom"}:
            rank = 0.0
        y = stage.ground - 0.055 * rank
        if "bottom" in shape.cropped:
            y = BOTTOM + 0.02 * (1 - rank)  # below the edge; who is in front is lower
        spots[i] = _at_edge(line, i, placement_at(x, y, scales[i] * (1 - 0.16 * rank)))
    return spots


def _rank(order: int, count: int, busts: bool) -> float:
    """Return how far back someone stands, 0 in front to 1: a zigzag, so that a crowd overlaps like a group photo.

    Of three busts the middle one is in front.
    """
    if count < 3:
        return 0.18 * order if count == 2 else 0.0
    odd = (order + (busts if count == 3 else count % 2 == 0)) % 2
    return odd * (0.45 if count == 3 else 1.0)


def _at_edge(line: _Line, i: int, at: Placement) -> Placement:
    """Move an end of a pinned line so that its cut side lies on the frame's edge; all others stay."""
    half = line.stage.width(line.shapes[i], at.scale) / 2
    if "left" in line.pinned and i == line.order[0]:
        return placement_at(half - 0.01, at.y, at.scale)
    if "right" in line.pinned and i == line.order[-1]:
        return placement_at(1.01 - half, at.y, at.scale)
    return at


# ---------------------------------------------------------------------------
# Two rows


def _two_rows(line: _Line, factor: float) -> dict[int, Placement]:
    """Place a group photo: the heads of the back row appear between those of the front row."""
    order, front = _seats(line)
    line = replace(line, order=order)
    scales = {i: line.wished[i] * factor * (1.0 if i in front else BACK) for i in order}
    widths, (start, end) = [line.stage.width(line.shapes[i], scales[i]) for i in order], line.span()
    # A row's neighbours are two seats apart: every seat is half as wide as whoever sits on it.
    xs = spread([w / 2 for w in widths], start + widths[0] / 4, end - widths[-1] / 4)
    tall = sum(scales[i] for i in front) / len(front)
    back = [scales[i] for i in order if i not in front]
    height = tall * (1 - 0.4 * HEAD) + HEAD * sum(back) / len(back)
    cut_off = any(line.bust(i) for i in front)  # by the frame's edge
    feet = 0.96 if cut_off else min(max(0.54 + height / 2, line.stage.ground - 0.04), 0.95)
    chin = feet - tall * (1 - (0.3 if cut_off else 0.6) * HEAD)
    spots = {}
    for i, x in zip(order, xs, strict=True):
        y = BOTTOM + 0.02 if "bottom" in line.shapes[i].cropped else feet
        if i not in front:
            y = min(
                max(chin + scales[i] * (1 - (0.47 if line.bust(i) else HEAD)), 0.6), 0.86 if cut_off else feet - 0.05
            )
        spots[i] = _at_edge(line, i, placement_at(x, y, scales[i]))
    return spots


def _seats(line: _Line) -> tuple[list[int], set[int]]:
    """Assign the seats from left to right; returns also who sits in front, which is every other seat.

    Those at the edges keep theirs; busts go in front, where the frame's edge cuts them off.
    """
    ends, last = line.held, len(line.order) - 1
    odd = 0 if "left" in line.pinned else last % 2 if "right" in line.pinned else 1
    rest = [i for i in line.order if i not in ends]
    free = sum(line.order[seat] not in ends for seat in range(odd, last + 1, 2))
    chosen = sorted(rest, key=lambda i: not line.bust(i))[:free]
    queues = {True: iter([i for i in rest if i in chosen]), False: iter([i for i in rest if i not in chosen])}
    order = [i if i in ends else next(queues[seat % 2 == odd]) for seat, i in enumerate(line.order)]
    return order, set(order[odd::2])


# ---------------------------------------------------------------------------
# Faces


def _part_heads(line: _Line, spots: dict[int, Placement]) -> bool:
    """Move characters apart, in place, until no head covers another; False where there is no room for that."""
    for _ in range(24):
        clear = True
        for one, other in combinations(spots, 2):
            heads = [head_of(line.shapes[i], spots[i], line.stage) for i in (one, other)]
            over = _overlap(*heads)
            if over <= 0:
                continue
            clear = False
            way = 1 if heads[1][0] + heads[1][2] >= heads[0][0] + heads[0][2] else -1
            share = 1.0 if {one, other} & line.held else 0.5
            for i, side in ((one, -way), (other, way)):
                if i not in line.held:
                    spots[i] = _shifted(line, i, spots[i], side * share * (over + 0.002))
        if clear:
            return True
    return False


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Measure how far one of two heads would have to move aside, in frame widths; 0 or less for not at all."""
    if min(one[3], other[3]) <= max(one[1], other[1]):
        return 0.0
    narrow = min(one[2] - one[0], other[2] - other[0])
    return min(one[2], other[2]) - max(one[0], other[0]) - TOLERANCE * narrow


def _shifted(line: _Line, i: int, at: Placement, by: float) -> Placement:
    """Move a character sideways, with the head inside the frame."""
    left, _, right, _ = head_of(line.shapes[i], at, line.stage)
    by = max(by, min(0.03 - left, 0.0)) if by < 0 else min(by, max(0.97 - right, 0.0))
    return placement_at(at.x + by, at.y, at.scale)
