"""What a server and the engine's own process say to each other: one JSON object a line, typed and versioned.

Every message is a frozen dataclass below; `line_of` writes one, `read` reads one back and takes nothing else: another
name, another field or another type is a ChannelError. Both ends first name the protocol and Troupe's version, and part
where they differ. Pictures do not travel: a request with `members` is refused.

Not pydantic, which would save the fifty lines from `_typed` on: of its modes only the strict one for JSON refuses wrong
types and still makes a Path or a tuple of what JSON has, and that one does not take the lone surrogates by which Python
names files that are not in UTF-8 (2.14).
"""

from __future__ import annotations

import json
import os
import traceback
import types
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from engine import VERSION, errors
from engine.door.render import Progress, RenderRequest, Result
from engine.errors import EngineUnavailable, SceneError, TroupeError
from engine.scene.engine import EngineOptions
from engine.scene.engines import ENGINES, find_engine
from engine.scene.scene import Scene
from engine.scene.scene_file import scene_from_data

PROTOCOL = 3


class ChannelError(Exception):
    """A line that is no message of this version, or a value that cannot be written into one."""


# ---------------------------------------------------------------------------
# To the engine


@dataclass(frozen=True)
class Hello:
    """The first line: who is speaking."""

    protocol: int = PROTOCOL
    troupe: str = VERSION


@dataclass(frozen=True)
class RenderOrder:
    """Make this clip. `job` is a number that every message about it repeats."""

    job: int
    request: RenderRequest


@dataclass(frozen=True)
class StopOrder:
    """End this job at the next chance."""

    job: int


@dataclass(frozen=True)
class Release:
    """Free the model that is kept for the next job."""


@dataclass(frozen=True)
class Quit:
    """End the job, if there is one, and the process."""


# ---------------------------------------------------------------------------
# From the engine


@dataclass(frozen=True)
class Ready:
    """The first line of the engine: who is speaking."""

    pid: int
    python: str
    protocol: int = PROTOCOL
    troupe: str = VERSION


@dataclass(frozen=True)
class Alive:
    """The interpreter still runs, and holds so many bytes of the card and of the memory."""

    card: int = 0
    host: int = 0


@dataclass(frozen=True)
class Told:
    """How far a job is."""

    job: int
    progress: Progress


@dataclass(frozen=True)
class Done:
    """The clip is whole."""

    job: int
    result: Result


@dataclass(frozen=True)
class Halted:
    """The job was stopped, as asked."""

    job: int


@dataclass(frozen=True)
class Failed:
    """The job failed: the name of a class in engine.errors, what is wrong and what to do, and a SceneError's field. A
    fault of Troupe's own has no kind, and a traceback for the log."""

    job: int
    kind: str
    problem: str
    remedy: str = ""
    field: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Released:
    """No model is kept now."""


ToEngine = Hello | RenderOrder | StopOrder | Release | Quit
FromEngine = Ready | Alive | Told | Done | Halted | Failed | Released


# ---------------------------------------------------------------------------
# Errors


class EngineFault(Exception):
    """A fault of Troupe's own in the engine's process; the traceback from there is in its notes."""


def failure(job: int, error: BaseException) -> Failed:
    """Build the message for a job that failed."""
    if isinstance(error, MemoryError):
        error = EngineUnavailable("there is not enough memory for this clip", "Make it smaller or shorter.")
    if not isinstance(error, TroupeError):
        return Failed(
            job, "", f"{type(error).__name__}: {error}"[:400], trace="".join(traceback.format_exception(error))
        )
    kind = next(c.__name__ for c in type(error).__mro__ if getattr(errors, c.__name__, None) is c)
    return Failed(job, kind, error.problem, error.remedy, getattr(error, "field", ""))


def error_of(failed: Failed) -> Exception:
    """Rebuild the error that a job ended with, as the engine raised it."""
    kind = getattr(errors, failed.kind, None) if failed.kind else None
    if kind is SceneError:
        error = SceneError("", failed.problem, failed.remedy)  # the problem names the field already
        error.field = failed.field
        return error
    if isinstance(kind, type) and issubclass(kind, TroupeError):
        return kind(failed.problem, failed.remedy)
    fault = EngineFault(failed.problem)
    fault.add_note(failed.trace)
    return fault


def version_fault(said: Hello | Ready) -> str:
    """Compare the other end's versions with ours; return how they differ, empty where they do not."""
    if (said.protocol, said.troupe) == (PROTOCOL, VERSION):
        return ""
    return f"it is Troupe {said.troupe}, protocol {said.protocol}; this is Troupe {VERSION}, protocol {PROTOCOL}"


# ---------------------------------------------------------------------------
# Lines


def line_of(message: ToEngine | FromEngine) -> bytes:
    """Write a message as a line of ASCII. Raises ChannelError where a value cannot be sent."""
    data = {"say": type(message).__name__, **_plain(message, type(message).__name__)}
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def read(line: bytes, known: Any) -> Any:
    """Read the message in a line; `known` is ToEngine or FromEngine. Raises ChannelError."""
    shown = line[:80].decode("utf-8", "replace").rstrip()
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise ChannelError(f"this is no message: {shown!r}") from None
    kinds = {kind.__name__: kind for kind in get_args(known)}
    if not isinstance(data, dict) or data.get("say") not in kinds:
        raise ChannelError(f"this message is not known: {shown!r}")
    name = data.pop("say")
    return _typed(kinds[name], data, name)


def _plain(value: Any, where: str) -> Any:
    """Convert a value to JSON data. A path is made absolute: the two processes may work in different folders. Raises
    ChannelError where the value cannot be sent."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if value - value != 0:
            raise ChannelError(f"{where}: {value} cannot be sent")
        return value
    if isinstance(value, Path):
        return os.path.abspath(value)
    if isinstance(value, tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Scene):
        return value.model_dump(mode="json", exclude_unset=True)  # what is a default here is the same one there
    if is_dataclass(value) and not isinstance(value, type):
        whose = {"engine": value.engine} if isinstance(value, EngineOptions) else {}
        return whose | {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
    raise ChannelError(f"{where}: a {type(value).__name__} cannot be sent to another process")


def _typed(kind: Any, data: Any, where: str) -> Any:
    """Convert JSON data from `_plain` back to the type that its dataclass names. Raises ChannelError where it is
    none."""
    origin, choices = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(choices, data, where)
    if origin is Literal and any(data == choice and type(data) is type(choice) for choice in choices):
        return data
    if origin is tuple and isinstance(data, list):
        return _tuple(choices, data, where)
    if kind is EngineOptions and isinstance(data, dict):
        if data.get("engine") not in ENGINES:
            raise ChannelError(f"{where}: they are no known engine's")
        return _dataclass(find_engine(data.pop("engine")).options, data, where)
    if is_dataclass(kind) and isinstance(data, dict):
        return _dataclass(kind, data, where)
    if kind is Scene:
        try:
            return scene_from_data(data)
        except SceneError as error:
            raise ChannelError(f"{where}: {error}") from None
    if kind is Path and isinstance(data, str):
        return Path(data)
    if kind is float and type(data) is int:
        return float(data)
    if kind in (str, int, float, bool, types.NoneType) and type(data) is kind:
        return data
    raise ChannelError(f"{where}: {str(data)[:60]!r} is no {getattr(kind, '__name__', kind)}")


def _one_of(choices: tuple[Any, ...], data: Any, where: str) -> Any:
    for choice in choices:
        try:
            return _typed(choice, data, where)
        except ChannelError as error:
            fault = error
    raise fault


def _tuple(choices: tuple[Any, ...], data: list[Any], where: str) -> tuple[Any, ...]:
    kinds = (choices[0],) * len(data) if choices[1:] == (...,) else choices
    if len(kinds) != len(data):
        raise ChannelError(f"{where}: {len(data)} values instead of {len(kinds)}")
    return tuple(_typed(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True)))


def _dataclass(kind: Any, data: dict[str, Any], where: str) -> Any:
    kinds = get_type_hints(kind)
    odd = {f.name for f in fields(kind)} ^ data.keys()
    if odd:
        raise ChannelError(f"{where}: it has other fields ({', '.join(sorted(odd))})")
    return kind(**{name: _typed(kinds[name], value, f"{where}.{name}") for name, value in data.items()})
