"""What several tests share: pictures, clips and scenes small enough to be made in a blink."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image, ImageDraw

from engine.scene.scene import Scene
from engine.scene.scene_file import scene_from_data
from tests.modes import NotHere, counting
from tests.places import NAME, REPO, a_place

# PyTorch's threads would wait for each other turning in circles, and where others want the processor, too, keep each
# other from it: fifteen times as long was measured. Read when the library is loaded, here and in our child processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The same examples in every run, and however long they take: what a search by chance would find belongs to the day on
# which somebody searches (`--hypothesis-profile=default`, with more examples), not to somebody else's release.
settings.register_profile(
    "every run the same",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("every run the same")


# Neither are the tests' own requests to this machine for a proxy.
for _name in ("NO_PROXY", "no_proxy"):
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "localhost,127.0.0.1,::1")))


# A shell's background job starts with Ctrl-C ignored, one under nohup with SIGHUP, and so would every process that a
# test starts and interrupts.
for _name, _usual in (("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)):
    if (_number := getattr(signal, _name, None)) is not None and signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _usual)


# Whose tests start servers, browsers and other processes, install something, or run the model: left out with --quick.
_SLOW = {
    "a2_checkpoint", "a2_command", "a2_decoding", "a2_golden", "a2_inline", "a2_memory", "a2_parallel",
    "a2_parallel_ends", "a2_planned", "a2_process", "a2_quantize", "a2_rescue", "a2_resume", "a2_sampling",
    "a2_slabs", "a2_step_cache", "api", "bench_gpu", "browser", "clips", "clips_browser", "disk_space", "errors",
    "guard", "house", "image_memory", "installed", "kill", "launch", "metrics", "models", "models_command",
    "models_page", "own_machine", "page_tells", "process", "render_command", "sessions", "space", "strangers",
    "surroundings", "third_engine",
}  # fmt: skip

# Those that take longer than a minute, the longest first.
_LONGEST = ("browser", "installed", "clips_browser", "launch", "page_tells")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only what takes no time: for people at work")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --quick the slow files are not even read, unless they were named."""
    named = any(Path(argument.split("::")[0]).name == collection_path.name for argument in config.args)
    slow = collection_path.stem.removeprefix("test_") in _SLOW
    return True if config.option.quick and slow and not named else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first. Of several processes, each takes the next file when it has done its own: none is
    left alone with a long one in the end."""
    places = {f"test_{name}.py": place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """What all tests have imported is never garbage: the engine's own collections, many in a clip, pass over it. The
    tests with a whole model on paper take three quarters of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """`tmp_path` lies where people install Troupe, not in the temp folder; `--basetemp` names another place."""
    if config.option.basetemp is None:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        try:
            place = stack.enter_context(a_place())
        except RuntimeError as nowhere:
            raise pytest.UsageError(str(nowhere)) from None
        config.option.basetemp = str(place / NAME)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium for a file's tests."""
    from tests.live import chromium

    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def tab(browser: Any) -> Iterator[Any]:
    """A browser's tab for a file's tests, which `tests.live.forget` makes as good as new: a really new one takes three
    seconds of work to read and compile all scripts of the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    context.set_default_timeout(120_000)
    yield context.new_page()
    context.close()


SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def keep_signal_handlers() -> Iterator[None]:
    """`engine.door.command.main` takes signals over for good, as a program may. Here other tests come after it."""
    handlers, lost = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    yield
    sys.unraisablehook = lost
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture
def modes_count() -> Iterator[None]:
    """The modes of files and folders hold, as they do for an ordinary user; also where the tests run as root."""
    with ExitStack() as stack:
        try:
            stack.enter_context(counting())
        except NotHere as reason:
            pytest.skip(str(reason))
        yield


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return REPO


@pytest.fixture(scope="session")
def fast_weights() -> Path:
    """The real u2netp weights, fetched once."""
    from engine import cutout
    from engine.cutout import weights

    said: list[str] = []
    if not cutout.prepare("fast", said.append):
        pytest.skip(said[-1])
    path = weights.find("u2netp", weights.weights_folder())
    assert path is not None
    return path


@pytest.fixture
def moving_square() -> Callable[..., Iterator[np.ndarray]]:
    """`moving_square(count, width, height)`: frames in which a red square walks over a blue ground."""

    def frames(count: int = 10, width: int = 96, height: int = 64) -> Iterator[np.ndarray]:
        for index in range(count):
            frame = np.full((height, width, 3), (30, 60, 200), np.uint8)
            left = index * (width - 16) // max(1, count - 1)
            frame[24:40, left : left + 16] = (220, 40, 40)
            yield frame

    return frames


@pytest.fixture
def tiny_cast(tmp_path: Path) -> Path:
    """A folder with `hero.png` (alpha is its cut-out), `cup.png` (the same) and `place.png`; its path."""
    folder = tmp_path / "cast"
    folder.mkdir()
    for name, colour in (("hero.png", (200, 60, 60, 255)), ("cup.png", (60, 160, 90, 255))):
        picture = Image.new("RGBA", (120, 160), (0, 0, 0, 0))
        ImageDraw.Draw(picture).ellipse((30, 20, 90, 150), fill=colour)
        picture.save(folder / name)
    place = np.linspace((60, 90, 140), (200, 180, 150), 120, dtype=np.float32)[:, None].repeat(200, axis=1)
    Image.fromarray(place.astype(np.uint8)).save(folder / "place.png")
    return folder


@pytest.fixture
def tiny_scene() -> Callable[..., Scene]:
    """`tiny_scene(**fields)`: a valid scene over `tiny_cast`, 128x96, 8 frames; fields replace its own."""

    def scene(**fields: object) -> Scene:
        data = {
            "cast": [
                {"role": "character", "name": "Mia", "image": "hero.png"},
                {"role": "object", "name": "cup", "image": "cup.png"},
                {"role": "background", "image": "place.png"},
            ],
            "prompt": "Mia lifts the cup.",
            "video": {"width": 128, "height": 96, "frames": 8, "fps": 10},
        }
        return scene_from_data({**data, **fields})

    return scene
