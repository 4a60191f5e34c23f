"""`python launch.py doctor`: check everything that Troupe needs, and say what to do about each line that is wrong."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from app.machine.settings import OwnerSettings
from app.port import FIRST, free_port
from engine.disk.room import free_bytes, nearest
from engine.errors import EngineUnavailable, TroupeError
from engine.installing import lacking

ROOT = Path(__file__).resolve().parent.parent.parent
GOOD: Final = "good"
NOTE: Final = "note"
BAD: Final = "bad"
_MARKS = {GOOD: "ok  ", NOTE: "note", BAD: "BAD "}
_ROOM = 2 * 10**9  # bytes free for clips, below which there is a note
_TIGHT = 200 * 10**6  # below which a clip may not fit


@dataclass(frozen=True)
class Finding:
    """The result of one check. Level `note`: Troupe works, but something optional is missing."""

    what: str
    level: Literal["good", "note", "bad"]
    said: str
    remedy: str = ""


def main(argv: Sequence[str], home: Path = ROOT / "outputs") -> int:
    """Print a line for every finding; return 0 where nothing is bad, else 1. `home`: the default folder for clips."""
    parser = argparse.ArgumentParser(prog="launch.py doctor", description="Check everything that Troupe needs.")
    parser.add_argument("--outputs", type=Path, default=home, help="the folder of your clips")
    worst = GOOD
    for finding in examine(parser.parse_args(argv).outputs.absolute()):
        print(f"{_MARKS[finding.level]}  {finding.what}: {finding.said}", flush=True)
        if finding.remedy:
            print(f"      {finding.remedy}", flush=True)
        worst = BAD if BAD in (worst, finding.level) else worst
    print("Something needs you: see the lines marked BAD." if worst == BAD else "Troupe can work here.")
    return int(worst == BAD)


def examine(outputs: Path, is_open: bool = False) -> Iterator[Finding]:
    """Run the checks one after the other, yielding a finding for each. A check that raises is a bad finding, too.
    `is_open`: Troupe itself asks, which has found its port."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", _python),
        ("Packages", lambda: _packages("Packages", "requirements.txt", BAD)),
        ("Video encoder", _encoder),
        ("Background remover", _cutout),
        ("Outputs folder", lambda: _outputs(outputs)),
        *([] if is_open else [("Port", _port)]),
        ("Graphics card", lambda: _card(outputs)),
        ("Video model: libraries", lambda: _packages("Video model: libraries", "requirements-a2.txt", NOTE)),
        ("Video model: weights", lambda: _weights(outputs)),
    ]
    for what, check in checks:
        try:
            yield check()
        except Exception as error:  # one failing check must not end the others
            yield Finding(what, BAD, f"the check failed ({type(error).__name__}: {error})", "Please report this line.")


def _python() -> Finding:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.maxsize < 2**32:
        return Finding("Python", BAD, f"{said}, 32 bit", "Install a 64-bit Python from python.org.")
    return Finding("Python", GOOD, said)


def _packages(what: str, file: str, level: Literal["note", "bad"]) -> Finding:
    found = [f"{name} is {here}, not {wanted}" if here else f"{name} is missing"
             for name, here, wanted in lacking([ROOT / file])]  # fmt: skip
    if not found:
        return Finding(what, GOOD, f"all of {file}")
    remedy = (
        "Delete the folder .venv and start Troupe again; it installs anew."
        if level == BAD
        else "Only the video model needs them: python launch.py models install."
    )
    return Finding(what, level, "; ".join(found), remedy)


def _encoder() -> Finding:
    import numpy as np

    from engine.media.video import probe, write_video
    from engine.scene.scene import Video

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "try.mp4"
        frames = (np.full((64, 64, 3), 10 * number, np.uint8) for number in range(5))
        write_video(frames, clip, Video(width=64, height=64, frames=5))
        found = probe(clip)
    return Finding("Video encoder", GOOD, f"writes {found.codec} MP4")


def _cutout() -> Finding:
    from engine import cutout

    if cutout.is_here("fast"):
        return Finding("Background remover", GOOD, "u2netp is here")
    remedy = "It is fetched with the first picture (5 MB); until then plain backgrounds only are removed."
    return Finding("Background remover", NOTE, "u2netp is not here yet", remedy)


def _outputs(outputs: Path) -> Finding:
    what = "Outputs folder"
    try:
        with tempfile.TemporaryFile(dir=nearest(outputs)):
            pass
    except OSError as error:
        problem = f"{outputs} cannot be written ({error.strerror})"
        return Finding(what, BAD, problem, "Name another one: --outputs FOLDER.")
    free, why = free_bytes(outputs)
    if free is None:
        return Finding(what, NOTE, f"{outputs} can be written; how much is free is {why}")
    said = f"{outputs}, {free / 10**9:.1f} GB free"
    if free < _TIGHT:
        return Finding(what, BAD, said, "Free some space, or name a folder on another disk: --outputs FOLDER.")
    return Finding(what, NOTE if free < _ROOM else GOOD, said, "That is little." if free < _ROOM else "")


def _card(outputs: Path) -> Finding:
    from engine.memory.hardware import ask_hardware

    hardware = ask_hardware(outputs if os.path.exists(outputs) else None)
    if hardware.device.value == "cuda":
        memory = hardware.vram_total.value
        size = f", {memory / 2**30:.1f} GB" if isinstance(memory, int) else ""
        return Finding("Graphics card", GOOD, f"{hardware.name.value}{size} ({hardware.device.why})")
    remedy = "The draft needs none; the video model needs an NVIDIA card with 6 GB or more and its driver."
    return Finding("Graphics card", NOTE, f"none that can be used: {hardware.device.why}", remedy)


def _port() -> Finding:
    asked = os.environ.get("GRADIO_SERVER_PORT", "")
    wanted = int(asked) if asked.isdigit() else FIRST
    try:
        port = free_port(None, wanted)
    except TroupeError as error:
        return Finding("Port", BAD, error.problem, error.remedy)
    if port != wanted:
        return Finding("Port", NOTE, f"{wanted} is taken (is Troupe open already?); {port} is free")
    return Finding("Port", GOOD, f"{port} is free")


def _weights(outputs: Path) -> Finding:
    from engine.a2.files import find_checkpoint, locate, read_checkpoint
    from engine.a2.options import DEFAULT_MODEL

    what, (model, family) = "Video model: weights", OwnerSettings(outputs / "settings.json").model_in_use()
    model = model or DEFAULT_MODEL
    try:
        find_checkpoint(model)
    except EngineUnavailable as error:
        return Finding(what, NOTE, error.problem, "To fetch it: the Models tab, or python launch.py models download.")
    try:
        found = read_checkpoint(locate(model, family))
    except EngineUnavailable as error:
        return Finding(what, BAD, error.problem, "To mend it: the Models tab, or python launch.py models download.")
    size = sum(component.bytes for component in found.values())
    return Finding(what, GOOD, f"{Path(model).name}, {size / 10**9:.1f} GB")
