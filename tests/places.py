"""Where the tests put things: never below the system's temp folder, whose files Gradio hands out, and under a name as
people give them. Troupe once passed 2,297 tests there, and could show its clips nowhere else."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

NAME = "Troupe's clips & more #1, 100 % für 影"
REPO = Path(__file__).resolve().parent.parent
HOME = Path(os.path.expanduser("~"))
PROJECT = ("app", "assets", "engine", "presets", "launch.py", "requirements.txt", "requirements-a2.txt")
_PREFIX = "troupe-tests-"
_DAY = 86_400.0


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder, or is it, links resolved."""
    return path.resolve().is_relative_to(folder.resolve())


@contextlib.contextmanager
def a_place(parents: Sequence[Path] = (REPO, HOME)) -> Iterator[Path]:
    """A new folder in the first of `parents` that can be written and lies outside the system's temp folder; removed in
    the end. Where all lie in the temp folder (a checkout in
    /tmp, and no home), that is another one meanwhile, for this process and those that it starts."""
    with contextlib.ExitStack() as undo:
        outside = [parent for parent in parents if not is_below(parent, Path(tempfile.gettempdir()))]
        base = next(filter(None, map(_made, outside)), None)
        if base is None:
            base = next(filter(None, map(_made, parents)), None)
            if base is None:
                raise RuntimeError(f"none of {', '.join(map(str, parents))} can be written: the tests need a folder")
            undo.enter_context(_temp(base / "temp"))
        undo.callback(shutil.rmtree, base, ignore_errors=True)
        yield base


def copy_project(source: Path, target: Path) -> Path:
    """The project without its tests, as a download has it: nothing installed, nothing made."""
    for name in PROJECT:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    return target


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that can only be read, by its mode; for root only while modes count (tests/modes.py)."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for each in folders:
        each.chmod(0o555)
    try:
        yield
    finally:
        for each in folders:
            each.chmod(0o755)


def files_in(folder: Path, *but: str) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder, by its path; `but`: names at the top that do not count. Nor does what
    Python keeps of what it has read."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.relative_to(folder).parts[0] not in but and "__pycache__" not in path.parts and path.is_file()
    }


def _made(parent: Path) -> Path | None:
    """A new folder; None where there can be none. What a killed run has left there goes after a day."""
    for old in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _DAY:
                shutil.rmtree(old, ignore_errors=True)
    try:
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError:
        return None


@contextlib.contextmanager
def _temp(folder: Path) -> Iterator[None]:
    folder.mkdir()
    told = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with patch.dict(os.environ, told), patch.object(tempfile, "tempdir", str(folder)):
        yield
