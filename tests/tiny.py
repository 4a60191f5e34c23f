"""What the tests of the a2 engine share. Not a test file: it is imported after torch is known to be there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from engine.a2.checkpoint import Checkpoint
from engine.a2.compute import choose_compute
from engine.a2.conditioning import Conditioning, condition
from engine.a2.loading import load_checkpoint
from engine.a2.options import A2Options
from engine.a2.recipe import shoot
from engine.a2.references import gather_references
from engine.door.render import RenderRequest, gather
from engine.scene.cast import Member
from engine.scene.scene import Scene
from engine.scene.scene_file import load_scene, scene_from_data

if TYPE_CHECKING:
    import torch

FIXTURES = Path(__file__).resolve().parent / "fixtures"
TINY = FIXTURES / "a2_tiny"
GOLDEN = FIXTURES / "golden"
NAMES = ("three_references", "two_references")

TRIO = (("character", "Mia"), ("object", "cup"), ("background", "stage"))
OPTIONS = A2Options(model=str(TINY), device="cpu", precision="fp32")


def golden(name: str) -> tuple[Scene, tuple[Member, ...], dict[str, np.ndarray]]:
    """A scene of the fixtures, its cast, and what the authors' code computes for it."""
    scene = load_scene(GOLDEN / f"{name}.json")
    members, _ = gather(RenderRequest(scene, GOLDEN, Path("none.mp4")))
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return scene, members, dict(arrays)


def apart(ours: object, theirs: np.ndarray) -> float:
    """How far two arrays of one shape are apart where they are most."""
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(np.float64) - theirs).max())


def tiny(precision: str = "fp32") -> Checkpoint:
    return load_checkpoint(TINY, choose_compute(A2Options(device="cpu", precision=precision)))


def a_scene(cast: Sequence[tuple[str, str]], video: dict | None = None, **fields: object) -> Scene:
    """A small a2 scene; `cast` is pairs of role and name."""
    data = {
        "engine": "a2",
        "cast": [{"role": role, "name": name, "image": f"{name}.png"} for role, name in cast],
        "prompt": "They meet.",
        "video": {"width": 64, "height": 64, "frames": 9, "trim_head": 0, **(video or {})},
        "sampling": {"steps": 3, "guidance": 3.0, "seed": 5},
    }
    return scene_from_data({**data, **fields})


def members_of(scene: Scene) -> tuple[Member, ...]:
    """Made-up pictures: every one of the cast has a colour of its own, (20 + 30 i) grey in red."""
    return tuple(Member(element, a_picture(i, element.role)) for i, element in enumerate(scene.cast))


def a_picture(index: int, role: str) -> Image.Image:
    colour = (20 + 30 * index, 90, 200)
    if role == "background":
        return Image.new("RGB", (90, 60), colour)
    picture = Image.new("RGBA", (60, 90), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rectangle((20, 10, 39, 79), fill=(*colour, 255))
    return picture


def conditioned(checkpoint: Checkpoint, scene: Scene, members: Sequence[Member] = ()) -> Conditioning:
    return condition(checkpoint, scene, gather_references(scene, members or members_of(scene)))


def latents_of(checkpoint: Checkpoint, scene: Scene, **options: object) -> torch.Tensor:
    return shoot(scene, members_of(scene), replace(OPTIONS, **options), loaded=checkpoint).latents


def copy_of_tiny(folder: Path) -> Path:
    target = folder / "checkpoint"
    shutil.copytree(TINY, target)
    return target


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")
