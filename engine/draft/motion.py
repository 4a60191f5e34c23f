"""What actors do: poses over time. They move like paper puppets: they bend, lean, squash, hop and turn, without jumps.

A pose is relative to the actor's placement. Each motion is a function of time that starts and ends at rest, or is so
slow that it can start and end anywhere (idle, sway, hold: easing those in looks like a lurch); each actor has its own
phase. Lengths are in actor heights unless said otherwise, angles in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from engine.draft.easing import fade, glide, pulse, smooth, wave

FASTEST_BEAT = 2.6  # beats a second that a puppet follows; quicker music is danced in half time

CROSSING = 0.18  # frame heights: with less room than this a walker comes towards us instead of crossing


@dataclass(frozen=True)
class Pose:
    """Where and how an actor is at one moment.

    travel: to the right, in frame heights; rise: off the ground, in actor heights; near: coming closer (0.1 = a tenth
    larger); wide, tall: stretch about the foot; tilt: clockwise about the foot; lean, hip, nod: sideways bend of the
    whole body, of its middle and of its head, in actor heights; yaw: -1..1, a look to the side by shifting the relief;
    spin: turns about the vertical axis, flat like paper; roll: clockwise about the middle; glint: strength, 0..1, of
    the highlight that moves over a turning thing.
    """

    travel: float = 0.0
    rise: float = 0.0
    near: float = 0.0
    wide: float = 1.0
    tall: float = 1.0
    tilt: float = 0.0
    lean: float = 0.0
    hip: float = 0.0
    nod: float = 0.0
    yaw: float = 0.0
    spin: float = 0.0
    roll: float = 0.0
    glint: float = 0.0


@dataclass(frozen=True)
class Mover:
    """What a motion knows of its actor.

    `phase` 0..1 sets actors apart; `facing` -1, 0 or 1 as it appears; `rooted` is a bust cut off by the frame's edge,
    which must not lift, hop or spin; `room` how far it may travel to the left and right, in frame heights, `closest`
    how much larger it may become (0.2 = a fifth); `thing` an object, not a character.
    """

    motion: str
    phase: float
    seconds: float
    bpm: float = 110.0
    facing: int = 0
    rooted: bool = False
    thing: bool = False
    room: tuple[float, float] = (0.2, 0.2)
    closest: float = 0.2

    def pose(self, seconds: float) -> Pose:
        """Return the pose at that time."""
        return _MOTIONS[self.motion](self, seconds)

    @property
    def turned(self) -> int:
        """The side to move to, -1 or 1: the one that it faces, else one by its phase."""
        return self.facing or (1 if self.phase < 0.5 else -1)


def _idle(m: Mover, t: float) -> Pose:
    """Breathe, and shift the weight now and then; things keep still."""
    if m.thing:
        return Pose()
    breath = wave(0.27 * t + m.phase)
    return Pose(
        tall=1 + 0.007 * breath,
        wide=1 + 0.003 * breath,
        lean=0.008 * wave(0.11 * t + 0.7 * m.phase),
        nod=0.006 * wave(0.17 * t + m.phase),
        yaw=0.25 * wave(0.13 * t + m.phase),
    )


def _sway(m: Mover, t: float) -> Pose:
    ramp = fade(t, m.seconds) if m.thing else 1.0  # things start at rest, on their spot
    rate = _beats(m) / 4
    side = wave(rate * t + m.phase)
    late = wave(rate * t + m.phase - 0.14)  # the head comes after the body
    return Pose(
        tilt=1.8 * ramp * side,
        hip=0.022 * ramp * side,
        lean=0.02 * ramp * late,
        nod=0.018 * ramp * late,
        tall=1 + 0.012 * ramp * wave(2 * rate * t + 2 * m.phase),
        yaw=0.4 * ramp * late,
    )


def _walk(m: Mover, t: float) -> Pose:
    return _steps(m, t, rate=1.75, distance=0.42, bob=0.022, swing=2.6)


def _run(m: Mover, t: float) -> Pose:
    return _steps(m, t, rate=2.5, distance=0.75, bob=0.05, swing=3.4)


def _steps(m: Mover, t: float, rate: float, distance: float, bob: float, swing: float) -> Pose:
    """Move in steps like a paper puppet: hop for each foot, swing from foot to foot, lean into the way.

    An actor seen from the side crosses the frame where there is room, and so does a thing; any other comes closer, and
    a rooted one only bobs.
    """
    ramp = fade(t, m.seconds, 0.6)
    cycle = rate * t + m.phase
    hop = pulse(cycle)
    side = wave(cycle / 2)
    if m.rooted:
        return _carried(ramp, cycle, swing)
    lean = travel = near = 0.0
    way = glide(t / m.seconds, 0.22)
    if m.thing or (m.facing and sum(m.room) >= CROSSING):
        travel = _crossing(m, distance, way)
        lean = 0.03 * m.turned * ramp * (bob / 0.022) ** 0.5
    else:
        reach = 0.14 if distance < 0.5 else 0.2
        near = -reach + (reach + min(reach, m.closest)) * way
    return Pose(
        travel=travel,
        rise=bob * ramp * hop,
        near=near,
        tall=1 + 0.022 * ramp * (hop - 0.4),
        wide=1 - 0.012 * ramp * (hop - 0.4),
        tilt=swing * ramp * side,
        lean=lean - 0.02 * ramp * side,
        hip=0.016 * ramp * side,
        nod=0.014 * ramp * wave(cycle / 2 - 0.15),
        yaw=0.35 * ramp * wave(cycle / 2 - 0.1),
    )


def _carried(ramp: float, cycle: float, swing: float) -> Pose:
    """Bob and swing like somebody who is filmed close while walking."""
    side = wave(cycle / 2)
    return Pose(
        travel=0.012 * ramp * side,
        rise=-0.018 * ramp * pulse(cycle),
        tilt=0.25 * swing * ramp * side,
        lean=0.012 * ramp * wave(cycle / 2 - 0.1),
        nod=0.008 * ramp * wave(cycle / 2 - 0.2),
        yaw=0.3 * ramp * side,
    )


def _crossing(m: Mover, distance: float, way: float) -> float:
    """Compute the travel of an actor that crosses the frame, in frame heights; `way` is the part of it done, 0 to 1.

    The path is centred on the actor's place where there is room.
    """
    back, ahead = m.room if m.turned > 0 else m.room[::-1]
    length = min(distance, back + ahead)
    start = min(back, max(length / 2, length - ahead))
    return m.turned * (length * way - start)


def _beats(m: Mover) -> float:
    """Return the beats a second that the actor keeps: half of them for quick music."""
    beats = m.bpm / 60
    return beats / 2 if beats > FASTEST_BEAT else beats


def _dance(m: Mover, t: float) -> Pose:
    """Move on the beat: down on it, up between, the weight from side to side over two, a figure over eight."""
    ramp = fade(t, m.seconds, 0.5)
    beat = _beats(m) * t  # everybody shares the beat; the phase chooses the figure and the side
    mirror = 1 if m.phase < 0.5 else -1
    style = int(m.phase * 6) % 3
    up = pulse(beat)
    side = mirror * wave(beat / 2)
    late = mirror * wave(beat / 2 - 0.16)
    figure = mirror * wave(beat / 8 + 0.25 * style)
    hop = 0.0 if m.rooted else (0.03, 0.014, 0.05)[style] * up**1.5
    return Pose(
        travel=0.0 if m.rooted else 0.03 * ramp * (figure - mirror * wave(0.25 * style) * (1 - ramp)),
        rise=ramp * hop,
        tall=1 + ramp * (0.05 * up - 0.028),
        wide=1 - ramp * (0.036 * up - 0.02),
        tilt=ramp * (3.2, 2.2, 4.2)[style] * side * (0.4 if m.rooted else 1),
        hip=ramp * (0.035, 0.05, 0.02)[style] * side,
        lean=-ramp * (0.022, 0.03, 0.016)[style] * side,
        nod=ramp * 0.03 * late,
        yaw=ramp * 0.7 * late,
    )


def _turn(m: Mover, t: float) -> Pose:
    """Turn a thing or a bust to both sides in relief; a whole figure turns once around, as paper does."""
    ramp = fade(t, m.seconds, 0.9)
    look = wave(0.24 * (t - m.seconds / 2)) if m.seconds > 2 else wave((t / m.seconds) if m.seconds else 0)
    if m.thing or m.rooted:
        wide = math.cos(math.radians(24) * ramp * look)
        return (
            Pose(yaw=ramp * look, wide=wide, glint=ramp if m.thing else 0.0)
            if m.thing
            else _look_around(m, t, ramp * look)
        )
    length = max(min(2.8, 0.7 * m.seconds), 1e-6)
    spin = glide((t - (m.seconds - length) / 2) / length, 0.4)
    rise = math.sin(math.pi * spin) ** 2
    idle = _idle(m, t)
    return Pose(
        spin=m.turned * spin,
        rise=0.03 * rise,
        tall=idle.tall + 0.02 * rise,
        lean=idle.lean,
        yaw=idle.yaw + 1.5 * m.turned * math.sin(2 * math.pi * spin),
    )


def _look_around(m: Mover, t: float, look: float) -> Pose:
    """Turn a bust, which cannot turn around, to one side and to the other; `look` is -1..1."""
    idle = _idle(m, t)
    return Pose(yaw=1.4 * look, nod=0.02 * look, lean=0.012 * look, tall=idle.tall, wide=idle.wide)


def _hold(m: Mover, t: float) -> Pose:
    """Move calmly while presenting what is held; things keep still."""
    if m.thing:
        return Pose()
    idle = _idle(m, t)
    show = wave(0.16 * t + m.phase)
    return Pose(
        tall=idle.tall,
        wide=idle.wide,
        lean=0.014 * show,
        hip=0.006 * show,
        nod=0.012 * wave(0.16 * t + m.phase - 0.12),
        yaw=0.5 * show,
        tilt=0.5 * show,
    )


def _lift(m: Mover, t: float) -> Pose:
    """Move up in one eased move and stay there, hovering a little; a rooted actor only stretches."""
    up = smooth((t / m.seconds - 0.12) / 0.5) if m.seconds > 0 else 0.0
    hover = up * fade(t, m.seconds) * wave(0.4 * t + m.phase)
    if m.rooted:
        return Pose(tall=1 + 0.03 * up, nod=0.01 * up, yaw=0.3 * hover)
    height = 0.3 if m.thing else 0.16
    return Pose(
        rise=height * up + 0.012 * hover, tilt=1.5 * hover, yaw=0.5 * hover, tall=1 + 0.015 * math.sin(math.pi * up)
    )


def _float(m: Mover, t: float) -> Pose:
    """Move weightlessly: rise, drift and roll slowly; a rooted actor only bobs and sways."""
    ramp = fade(t, m.seconds, 1.1)
    if m.rooted:
        return Pose(
            rise=-0.02 * ramp * pulse(0.2 * t + m.phase),
            lean=0.02 * ramp * wave(0.2 * t),
            yaw=0.5 * ramp * wave(0.16 * t),
        )
    up = smooth(t / min(1.6, max(0.4 * m.seconds, 1e-6)))
    return Pose(
        rise=up * (0.13 if m.thing else 0.09) + 0.028 * ramp * wave(0.3 * t + m.phase),
        travel=0.012 * ramp * wave(0.19 * t + m.phase),
        roll=ramp * (5.0 if m.thing else 3.5) * wave(0.2 * t + m.phase),
        lean=0.012 * ramp * wave(0.23 * t + m.phase),
        yaw=0.8 * ramp * wave(0.17 * t + m.phase),
    )


_MOTIONS: dict[str, Callable[[Mover, float], Pose]] = {
    "idle": _idle,
    "walk": _walk,
    "run": _run,
    "dance": _dance,
    "turn": _turn,
    "hold": _hold,
    "lift": _lift,
    "float": _float,
    "sway": _sway,
}
