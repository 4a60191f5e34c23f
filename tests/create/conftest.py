"""What the tests of the Create page share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from app.create.desk import Desk
from app.create.desks import Desks
from app.jobs.queue import JobQueue


@pytest.fixture
def desks(tmp_path: Path) -> Desks:
    return Desks(tmp_path / "desks")


@pytest.fixture
def desk(desks: Desks) -> Desk:
    return desks.new()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobQueue]:
    """A board whose queue stands still."""
    board = JobQueue(tmp_path, None)
    board.pause_queue()
    yield board
    board.close()


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Makes a cut-out of one colour."""

    def make(name: str = "mia.png", colour: str = "crimson") -> Path:
        image = Image.new("RGBA", (120, 200), (0, 0, 0, 0))
        ImageDraw.Draw(image).ellipse((30, 20, 90, 180), fill=colour)
        image.save(tmp_path / name)
        return tmp_path / name

    return make
