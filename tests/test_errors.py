"""The tree of errors: it names every one of them, and each survives a process border with all that it knows."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator

import pytest

import app
import engine
from engine import errors
from engine.errors import SceneError, TroupeError
from engine.memory.shortage import Need, Shortage

LIBRARIES = {"accelerate", "diffusers", "optimum", "peft", "safetensors", "torch", "transformers"}  # the model's


def family(kind: type[TroupeError] = TroupeError) -> Iterator[type[TroupeError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from family(below)


def load(module: str) -> None:
    """Import it; where that wants a library of the model's that is not here, the test is skipped."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in LIBRARIES:
            raise
        pytest.importorskip(library, reason=f"{module} may define an error, and needs {library}")


@pytest.fixture(scope="module")
def kinds() -> list[type[TroupeError]]:
    """Every class of the family, wherever it stands in the house."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own
        for package in (app, engine):
            for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not found.name.endswith("__main__"):
                    load(found.name)
    return [kind for kind in family() if kind.__module__.partition(".")[0] in ("app", "engine")]


MAKERS: dict[str, Callable[..., TroupeError]] = {
    "SceneError": lambda kind: kind("video.fps", "0 does not fit", "Use 1 to 60."),
    "Shortage": lambda kind: kind("sampling", "at step 12", Need(2**30, 5 * 2**30, 6 * 2**30, "the card's memory"), 12),
    "NotFinite": lambda kind: kind(7, ["the LoRA film.safetensors"]),
}


def made(kind: type[TroupeError]) -> TroupeError:
    return MAKERS.get(kind.__name__, lambda kind: kind("two\nlines", "do  this."))(kind)


def test_every_error_survives_a_process_border_with_all_that_it_knows(kinds):
    assert {"SceneError", "Shortage", "NotFinite", "Busy", "QueueFull", "EngineClosed"} <= {k.__name__ for k in kinds}
    for kind in kinds:
        error = made(kind)
        error.add_note("seen at noon")
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(again) is kind
            assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
            assert len(str(again).splitlines()) == 1


def test_an_error_is_the_same_after_two_borders():
    error = SceneError("video.fps", "0 does not fit", "Use 1 to 60.")
    twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))
    assert (twice.field, str(twice)) == ("video.fps", "video.fps: 0 does not fit. Use 1 to 60.")
    need = Need(None, None, None, "the computer's memory")
    short = pickle.loads(pickle.dumps(Shortage("decoding", "while decoding", need)))
    assert (short.where, str(short.alone())) == ("while decoding", str(short))


def test_the_drawn_tree_is_the_tree(kinds):
    """Each class under the one that it is a kind of, with its module where that is another one."""
    drawn, above = {}, []
    tree = (errors.__doc__ or "").split("\n\n")[1]
    for indent, name, words in re.findall(r"^((?:    )*)(\w+)(?: +(\S.*))?$", tree, re.MULTILINE):
        depth = len(indent) // 4
        above[depth:] = [name]
        drawn[name] = (above[depth - 1] if depth else "Exception", words)
    assert set(drawn) == {kind.__name__ for kind in kinds}
    for kind in kinds:
        parent, words = drawn[kind.__name__]
        assert parent == kind.__base__.__name__, kind.__name__
        module = re.match(r"((?:app|engine)\.[\w.]+): ", words)
        assert (module[1] if module else errors.__name__) == kind.__module__, kind.__name__
