"""What the draft reads in a prompt."""

from __future__ import annotations

import pytest
from test_draft_layout import character, prop, scene_of

from engine.draft.direct import direct

CAST = [character("Mia"), character("Ken"), prop("cup"), {"role": "background", "name": "stage"}]


def read(prompt: str, cast: list[dict] | None = None) -> tuple[str, dict[str, str], dict[str, str]]:
    scene = scene_of(CAST if cast is None else cast, prompt)
    plan = direct(scene)
    motions = {scene.cast[i].name: act.motion for i, act in plan.acts.items()}
    holders = {scene.cast[i].name: scene.cast[a.holder].name for i, a in plan.acts.items() if a.holder is not None}
    return plan.camera, motions, holders


@pytest.mark.parametrize(
    ("prompt", "mia", "ken"),
    [
        ("Mia dances while Ken walks.", "dance", "walk"),
        ("Mia and Ken are dancing on the stage", "dance", "dance"),
        ("MIA runs; ken stands still", "run", "idle"),
        ("dancing Mia and running Ken", "dance", "run"),
        ("Ken stands with Mia dancing beside him", "dance", "idle"),
        ("Mia does not dance", "idle", "idle"),
        ("The sidewalk is empty. Miami dances.", "idle", "idle"),
        ("everyone dances", "dance", "dance"),
        ("Mia sits. Then she walks away, Ken watches Mia.", "walk", "idle"),
        ("", "idle", "idle"),
        ("Mia can't dance, Ken won't walk", "idle", "idle"),
        ("Mia stops walking. No one dances.", "idle", "idle"),
        ("Mia's cup floats", "idle", "idle"),
        ("Mia's dancing while Ken\u2019s red cup floats", "dance", "idle"),
        ("Mia moves left, Ken looks up", "walk", "idle"),
    ],
)
def test_each_one_gets_the_motion_mentioned_with_the_name(prompt, mia, ken):
    _, motions, _ = read(prompt)
    assert (motions["Mia"], motions["Ken"]) == (mia, ken)


@pytest.mark.parametrize(
    ("prompt", "holder"),
    [
        ("Mia holds the cup", "Mia"),
        ("Mia dances while Ken is holding the cup", "Ken"),
        ("Ken walks, holding the cup, while Mia sways", "Ken"),
        ("Mia lifts the cup on the stage.", "Mia"),
        ("Ken presents the product", "Ken"),
        ("Mia dances with the cup, Ken walks", "Mia"),
        ("Ken dances with Mia on the stage; the cup shines", None),
        ("The cup floats between Mia and Ken", None),
        ("Mia looks at the cup", None),
        ("A cup held by Ken", "Ken"),
        ("The cup is carried by Ken while Mia dances", "Ken"),
        ("Ken holds Mia's cup", "Ken"),
    ],
)
def test_the_one_who_holds_the_object_gets_it(prompt, holder):
    assert read(prompt)[2].get("cup") == holder


def test_a_thing_can_move_by_itself():
    assert read("The cup spins slowly")[1]["cup"] == "turn"
    assert read("Mia lifts the cup")[1]["cup"] == "lift"
    assert read("Mia's cup floats")[1]["cup"] == "float"


@pytest.mark.parametrize(
    ("prompt", "camera"),
    [
        ("Slow push in on Mia", "push_in"),
        ("We zoom out", "pull_out"),
        ("The camera pans left", "pan_left"),
        ("panning to the right", "pan_right"),
        ("tilt up", "tilt_up"),
        ("tilts down to the shoes", "tilt_down"),
        ("the camera orbits Mia", "orbit"),
        ("Handheld, close", "handheld"),
        ("a static shot", "still"),
        ("Mia dances", "push_in"),
        ("Slow zoom out", "pull_out"),
        ("Do not pan left", "still"),
        ("The camera does not slowly zoom in", "still"),
        ("No zoom in, the camera pans right", "pan_right"),
        ("She moves left", "push_in"),
        ("Mia looks up at the sky", "push_in"),
        ("Mia moves around the room", "push_in"),
        ("The camera follows Mia and moves left", "pan_left"),
        ("As Mia dances, the camera moves around her", "orbit"),
        ("Moves in on Mia", "push_in"),
    ],
)
def test_the_camera_move_is_read_from_the_prompt(prompt, camera):
    assert read(prompt)[0] == camera


def test_the_cameras_verbs_move_nobody():
    assert read("The camera floats around, then runs past Mia")[1]["Mia"] == "idle"


def test_explicit_direction_wins_over_the_prompt():
    cast = [character("Mia", motion="float"), prop("cup")]
    scene = scene_of(cast, "Mia dances, pan left", direction={"camera": "still"})
    plan = direct(scene)
    assert (plan.camera, plan.acts[0].motion) == ("still", "float")


def test_an_object_told_to_be_held_finds_a_holder():
    scene = scene_of([character("Mia"), prop("cup", motion="hold")])
    assert direct(scene).acts[1].holder == 0
