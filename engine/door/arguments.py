"""What may be said after `launch.py render`, and what of it goes together."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine import VERSION
from engine.errors import TroupeError
from engine.scene.engine import Engine, EngineOptions
from engine.scene.engines import ENGINES, all_engines, find_engine
from engine.scene.settings import Declared, declared

BAD_ARGUMENTS = 2  # the exit status


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments, checked one by one. Ends the program with one line and `BAD_ARGUMENTS` where one is
    wrong."""
    parser = Parser(prog="launch.py render", description="Make a video from a scene file, without a browser.")
    parser.add_argument("--version", action="version", version=f"Troupe {VERSION}")
    parser.add_argument("scene", help="the scene file (JSON); its image paths are relative to it")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.mp4", help="the video to write")
    parser.add_argument("--engine", choices=tuple(ENGINES), help="instead of the one that the scene names")
    parser.add_argument("--seed", type=int, help="instead of the one that the scene names")
    parser.add_argument(
        "--quality", choices=("fast", "standard", "best"), default="fast", help="of the cut-outs (default: fast)"
    )
    parser.add_argument(
        "--no-metadata",
        action="store_true",
        help="leave scene and prompt out of the file (it still says how it was made)",
    )
    _add_flags(parser)
    return parser.parse_args(argv)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting that an engine has declared one for; what several have is one flag."""
    known: set[str] = set()
    for engine in all_engines():
        groups: dict[str, argparse._ArgumentGroup] = {}
        for each in _flags_of(engine):
            if each.name in known:
                continue
            known.add(each.name)
            title = "" if each.setting.planned else each.setting.group  # here nothing is planned
            if title not in groups:
                heading = f"for the {engine.name} engine" + (f" ({title[0].lower()}{title[1:]})" if title else "")
                groups[title] = parser.add_argument_group(heading, engine.options.notes.get(title))
            groups[title].add_argument(
                _spelling(each), dest=each.name, default=None, help=each.setting.flag, **_how(each)
            )


def _flags_of(engine: Engine) -> list[Declared]:
    return [each for each in declared(engine.options).values() if each.setting.flag]


def _spelling(each: Declared) -> str:
    return "--" + (each.setting.flag_name or each.name).replace("_", "-")


def _how(each: Declared) -> dict[str, Any]:
    """Return the arguments with which argparse takes a setting's value."""
    metavar = {"metavar": each.setting.metavar} if each.setting.metavar else {}
    if each.setting.parse is not None:
        return {"action": "append", "type": each.setting.parse, **metavar}
    if each.kind is bool:
        return {"action": "store_true"}
    if each.choices:
        return {"choices": each.choices}
    return {"type": {int: int, float: float}.get(each.kind, str), **metavar}


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and where more is said."""

    def error(self, message: str) -> NoReturn:
        said = " ".join(message.split())
        self.exit(BAD_ARGUMENTS, f"troupe: {said}. See: python {self.prog} --help\n")


def options_of(arguments: argparse.Namespace, engine_name: str) -> EngineOptions:
    """Build the options for the engine of that name from its flags. Raises TroupeError where a flag does not go with it
    or with the others."""
    engine = find_engine(engine_name)
    own = {each.name: each for each in _flags_of(engine)}
    others = {each.name: each for other in all_engines() for each in _flags_of(other) if each.name not in own}
    for each in others.values():
        value = getattr(arguments, each.name)
        if value is not None and value not in each.setting.holds_anyway:
            raise TroupeError(f"{_said(each, value)}: {each.setting.refused or engine.refuses_flags}", _elsewhere(each))
    said = {each: getattr(arguments, each) for each in own if getattr(arguments, each) not in (None, "")}
    for name, value in said.items():
        if own[name].kind in (int, float) and not own[name].holds(value):
            raise TroupeError(f"{_said(own[name], value)} does not fit", own[name].range_said())
    options = engine.options(**{each: _typed(own[each], value) for each, value in said.items()})
    engine.check_flags(options)
    return options


def _typed(each: Declared, value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else Path(value) if each.kind is Path else value


def _said(each: Declared, value: Any) -> str:
    """Return a flag and its value as they were typed; without the value where `parse` has read it."""
    shown = "" if value is True or each.setting.parse is not None else f" {shlex.quote(str(value))}"
    return f"{_spelling(each)}{shown}"


def _elsewhere(each: Declared) -> str:
    """Say what to do with a flag that the engine does not have."""
    names = [engine.name for engine in all_engines() if each.name in declared(engine.options)]
    return f"Leave it out, or use --engine {' or '.join(names)}."


def check_written(arguments: argparse.Namespace, options: EngineOptions) -> None:
    """Refuse to write one file twice, or over one that is read. Raises TroupeError."""
    used = {os.path.realpath(arguments.scene): "the scene"}
    written = {"-o": arguments.output}
    for name, each in declared(type(options)).items():
        value = getattr(options, name)
        if isinstance(value, Path):
            written[_spelling(each)] = str(value)
        elif isinstance(value, tuple):
            used |= {os.path.realpath(part.path): _spelling(each) for part in value if hasattr(part, "path")}
    for flag, name in written.items():
        if other := used.get(os.path.realpath(name)):
            raise TroupeError(f"{flag} {shlex.quote(name)} is {other}, too", "Name another file.")
        used[os.path.realpath(name)] = flag
