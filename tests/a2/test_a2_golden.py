"""The a2 engine against what the SkyReels-A2 authors' own code computes, through the library and the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from engine.a2.conditioning import condition
from engine.a2.recipe import shoot
from engine.a2.references import gather_references
from engine.media.video import probe
from tests.tiny import GOLDEN, NAMES, OPTIONS, TINY, apart, golden, tiny

CONDITIONING, LATENTS = 1e-4, 1e-3


@pytest.fixture(scope="module")
def checkpoint():
    return tiny()


@pytest.mark.parametrize("name", NAMES)
def test_the_conditioning_is_the_authors(checkpoint, name):
    scene, members, theirs = golden(name)
    ours = condition(checkpoint, scene, gather_references(scene, members))
    for part in ("condition", "image_embeds", "prompt_embeds", "negative_embeds"):
        assert apart(getattr(ours, part), theirs[part]) <= CONDITIONING, part


@pytest.mark.parametrize("name", NAMES)
def test_latents_and_frames_are_the_authors(checkpoint, name):
    scene, members, theirs = golden(name)
    shot = shoot(scene, members, OPTIONS, loaded=checkpoint)
    assert apart(shot.latents, theirs["latents"]) <= LATENTS
    assert apart(np.stack(list(shot.frames)), theirs["video"]) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_gives_the_authors_latents(repo: Path, tmp_path: Path, name):
    from safetensors.numpy import load_file

    out, latents = tmp_path / "out.mp4", tmp_path / "new" / "latents.safetensors"
    flags = ["--engine", "a2", "--model", TINY, "--device", "cpu", "--precision", "fp32", "--save-latents", latents]
    command = [sys.executable, "launch.py", "render", GOLDEN / f"{name}.json", "-o", out, *flags]
    done = subprocess.run(list(map(str, command)), cwd=repo, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    _, _, theirs = golden(name)
    kept = load_file(latents)
    assert list(kept) == ["latents"]
    assert kept["latents"].dtype == np.float32
    assert apart(kept["latents"], theirs["latents"]) <= LATENTS
    assert probe(out).frames == len(theirs["video"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out.mp4"]
