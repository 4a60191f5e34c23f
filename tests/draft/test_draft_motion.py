"""Motion without jumps: poses and cameras over time."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from engine.draft.camera import Aim, aim_at, camera_of
from engine.draft.easing import fade, glide, smooth
from engine.draft.motion import Mover, Pose
from engine.scene.scene import CAMERAS, MOTIONS, Video

FPS = 15
VIDEO = Video()  # 832x480, 81 frames at 15 a second
SECONDS = 80 / FPS

# The most that may change from one frame to the next at 15 frames a second.
LIMITS = {"travel": 0.045, "rise": 0.05, "near": 0.02, "wide": 0.05, "tall": 0.05, "tilt": 4.5, "lean": 0.035}
LIMITS |= {"hip": 0.05, "nod": 0.035, "yaw": 0.75, "spin": 0.06, "roll": 1.5, "glint": 0.2}


def movers(motion: str, **more: object) -> list[Mover]:
    return [
        Mover(motion, phase, SECONDS, facing=facing, thing=thing, rooted=rooted, room=(0.5, 0.5), **more)
        for phase in (0.0, 0.31, 0.77)
        for facing in (-1, 0, 1)
        for thing, rooted in ((False, False), (True, False), (False, True))
    ]


def poses(mover: Mover) -> dict[str, np.ndarray]:
    taken = [mover.pose(i / FPS) for i in range(81)]
    return {f.name: np.array([getattr(pose, f.name) for pose in taken]) for f in fields(Pose)}


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("bpm", [40.0, 110.0, 220.0])
def test_no_motion_jumps(motion, bpm):
    for mover in movers(motion, bpm=bpm):
        for name, values in poses(mover).items():
            assert np.abs(np.diff(values)).max() <= LIMITS[name], (mover, name)


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_starts_and_ends_softly(motion):
    for mover in movers(motion):
        for name, values in poses(mover).items():
            steps = np.abs(np.diff(values))
            if steps.max() > 1e-6:
                assert max(steps[0], steps[-1]) <= 0.25 * LIMITS[name], (mover, name)


@pytest.mark.parametrize("motion", [m for m in MOTIONS if m != "idle"])
def test_every_motion_moves_a_standing_figure(motion):
    moved = poses(Mover(motion, 0.2, SECONDS, facing=1))
    assert max(np.ptp(values) / LIMITS[name] for name, values in moved.items()) > 0.5


def test_idle_people_breathe_and_idle_things_keep_still():
    assert np.ptp(poses(Mover("idle", 0.2, SECONDS))["tall"]) > 0.005
    assert all(np.ptp(values) == 0 for values in poses(Mover("idle", 0.2, SECONDS, thing=True)).values())


@pytest.mark.parametrize("motion", ["idle", "sway", "hold"])
def test_calm_people_do_not_lurch_into_the_clip_or_out_of_it(motion):
    for phase in (0.05, 0.2, 0.45, 0.7, 0.9):
        moved = poses(Mover(motion, phase, SECONDS))
        for name, values in moved.items():
            steps = np.abs(np.diff(values))
            assert max(steps[:12].max(), steps[-12:].max()) <= 1.35 * max(steps[12:-12].max(), 1e-9), (phase, name)


def test_actors_with_different_phases_move_differently():
    one, other = (poses(Mover("sway", phase, SECONDS))["tilt"] for phase in (0.1, 0.6))
    assert np.abs(one - other).max() > 1


def test_a_bust_never_leaves_the_edge_it_is_cut_off_by():
    for motion in MOTIONS:
        moved = poses(Mover(motion, 0.3, SECONDS, rooted=True))
        assert moved["rise"].max() <= 0, motion
        assert np.ptp(moved["spin"]) == 0, motion


def test_dancers_land_on_the_beat():
    beat = 60 / 120
    rise = [Mover("dance", 0.3, 10.0, bpm=120).pose(n * beat).rise for n in range(4, 16)]
    between = [Mover("dance", 0.3, 10.0, bpm=120).pose((n + 0.5) * beat).rise for n in range(4, 16)]
    assert max(rise) < 0.1 * min(between)


def test_a_walker_goes_where_it_looks_and_stays_within_its_room():
    for facing in (-1, 1):
        travel = poses(Mover("walk", 0.3, SECONDS, facing=facing, room=(0.15, 0.3)))["travel"]
        assert np.sign(travel[-1] - travel[0]) == facing
        assert travel.min() >= -0.1501
        assert travel.max() <= 0.3001


def test_a_walker_seen_from_the_front_comes_closer():
    near = poses(Mover("walk", 0.3, SECONDS))["near"]
    assert near[-1] > near[0] + 0.1


def test_a_full_turn_ends_where_it_began():
    spin = poses(Mover("turn", 0.3, SECONDS))["spin"]
    assert spin[0] == 0
    assert abs(spin[-1]) == pytest.approx(1)


# ---------------------------------------------------------------------------
# Camera


@pytest.mark.parametrize("move", CAMERAS)
def test_no_camera_move_jumps(move):
    camera = camera_of(move, VIDEO, 42, Aim(0.5, 0.5, 0.17), 0.9)
    corners = [(0, 0), (832, 0), (0, 480), (832, 480)]
    seen = np.array([[camera.project(camera.view(i / FPS), x, y, 1.0) for x, y in corners] for i in range(81)])
    steps = np.linalg.norm(np.diff(seen, axis=0), axis=2)
    assert steps.max() < 6  # pixels
    if move not in ("still", "handheld"):
        assert steps.sum(0).max() > 15  # but it does move
        assert max(steps[0].max(), steps[-1].max()) < 0.35 * steps.max()


def test_a_still_camera_shows_placements_where_they_are():
    camera = camera_of("still", VIDEO, 42, Aim(0.4, 0.5, 0.17), 0.9)
    for seconds in (0.0, 2.0, SECONDS):
        assert camera.project(camera.view(seconds), 123.0, 234.0, 1.1) == pytest.approx((123.0, 234.0))


@pytest.mark.parametrize("move", CAMERAS)
@pytest.mark.parametrize("size", [(832, 480), (480, 832), (64, 64), (1920, 64)])
def test_the_background_reaches_beyond_what_the_camera_sees(move, size):
    video = Video(width=size[0], height=size[1])
    camera = camera_of(move, video, 7, Aim(0.35, 0.6, 0.17), 0.9)
    reach = camera.reach()
    more_x, more_y = (reach - 1) * size[0] / 2 + 1, (reach - 1) * size[1] / 2 + 1
    for i in range(81):
        y, offset, factor = camera.rows(camera.view(i / FPS))
        assert y.min() >= -more_y
        assert y.max() <= size[1] + more_y
        assert offset.min() >= -more_x
        assert (offset + factor * size[0]).max() <= size[0] + more_x


def test_what_is_far_moves_less_than_what_is_near():
    camera = camera_of("pan_left", VIDEO, 42, Aim(0.5, 0.5, 0.17), 0.9)
    far, near = (
        abs(np.diff([camera.project(camera.view(t), 400, y, float(camera.depth(y)))[0] for t in (0, SECONDS)])[0])
        for y in (100, 440)
    )
    assert far < 0.9 * near


def test_the_ground_moves_with_the_feet_that_stand_on_it():
    camera = camera_of("push_in", VIDEO, 42, Aim(0.5, 0.55, 0.17), 0.9)
    view = camera.view(SECONDS)
    x, y = camera.project(view, 300, 430, float(camera.depth(430)))
    rows, offset, factor = camera.rows(view)
    assert np.interp(y, np.arange(480), rows) == pytest.approx(430, abs=0.6)
    assert np.interp(y, np.arange(480), offset + factor * x) == pytest.approx(300, abs=0.6)


def test_a_push_in_cuts_nobody_off():
    boxes = [(0.05, 0.2, 0.3, 0.92), (0.6, 0.1, 0.93, 0.95)]
    aim = aim_at((0.5, 0.5), boxes)
    for left, top, right, bottom in boxes:
        assert aim.x + (left - aim.x) * (1 + aim.closer) >= 0
        assert aim.x + (right - aim.x) * (1 + aim.closer) <= 1
        assert aim.y + (top - aim.y) * (1 + aim.closer) >= 0
        assert aim.y + (bottom - aim.y) * (1 + aim.closer) <= 1.005


# ---------------------------------------------------------------------------
# Easing


def test_curves_start_at_nought_and_end_at_one():
    for curve in (smooth, glide):
        assert [curve(p) for p in (-1.0, 0.0, 1.0, 2.0)] == [0, 0, 1, 1]
        assert curve(0.5) == pytest.approx(0.5)


def test_a_fade_is_closed_at_both_ends_and_open_between():
    assert fade(0, 5) == 0
    assert fade(2.5, 5) == 1
    assert fade(5, 5) == 0
