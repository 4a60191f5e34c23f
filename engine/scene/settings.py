"""A setting, declared once: beside the field that holds it, with all that page, command line and log need to know.

    steps: Annotated[int, Field(ge=1, le=200), Setting("Steps", help="More takes longer.", control="slider")] = 50

Type, range and default are the field's own (pydantic's), so that there is one range for one thing everywhere.
`declared` reads them back: the page makes a control of each, the command line a flag, the desk checks what a browser
sent.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Control = Literal["", "slider", "number", "checkbox", "radio", "dropdown"]
AS_PLANNED = "As planned"


@dataclass(frozen=True)
class Setting:
    """What people are told of a field that they may set, and where they set it.

    On the page: `label`, `help` and `control` (none: it is not there), inside the fold `group`; `choices` names the
    values of a choice; `step` of a number. `redraws`: "plan" where it changes only what the machine needs, "stage"
    where it changes what else is shown. `planned`: None leaves it to the plan for this machine, and only the machine's
    owner may say otherwise. `several_cards`: it is there only where this machine has more than one.

    On the command line: `flag` is the help of `--name` (empty: there is none), `flag_name` where it has another name,
    `metavar` what stands for its value; `parse` reads a value, and then the flag may be given several times.
    `holds_anyway`: values that may be said to an engine that does not have it, since they are true of it all the same;
    `refused`: why such an engine refuses the others, where it is not the engine's usual reason.
    """

    label: str = ""
    help: str = ""
    control: Control = ""
    group: str = ""
    choices: Mapping[Any, str] = field(default_factory=dict)
    step: float = 1
    redraws: Literal["", "plan", "stage"] = ""
    planned: bool = False
    several_cards: bool = False
    flag: str = ""
    flag_name: str = ""
    metavar: str = ""
    parse: Callable[[str], Any] | None = None
    holds_anyway: tuple[Any, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Declared:
    """A field with its setting: `kind` is its type without None, `choices` those of a Literal, `low` and `high` the
    range that its type allows (None: no end); `low` itself is not in it where `above`."""

    name: str
    kind: Any
    default: Any
    optional: bool
    choices: tuple[Any, ...]
    low: float | None
    high: float | None
    above: bool
    setting: Setting

    def taken(self, value: object, now: Any) -> Any:
        """Return the value that a browser sent, brought into range; `now`, the present value, where it cannot be
        one."""
        if self.choices or self.setting.choices:
            same = (each for each in self.offered if spelled(each) == value or _is_same(each, value))
            return next(same, now)
        if self.kind is bool:
            return value if isinstance(value, bool) else now
        if self.kind in (int, float):
            if value is None and self.optional:
                return None
            return self._number(value, now)
        return now

    def holds(self, value: object) -> bool:
        """Return whether a value that was saved may be used."""
        return _is_same(self.taken(value, MISSING), value)

    def range_said(self, in_json: bool = False) -> str:
        """Say what may be chosen, in a sentence; `in_json` for who writes values as JSON, where null leaves it open."""
        if self.choices or self.setting.choices:
            return f"Use {' or '.join(json.dumps(each) for each in self.offered)}."
        if self.kind is bool:
            return "Use true or false."
        low = f"{'more than ' if self.above else ''}{self.low:g}" if self.low is not None else "a number"
        ends = low if self.high is None else f"{low} to {self.high:g}"
        return f"Use {ends}{', or null' if in_json and self.optional else ''}."

    @property
    def offered(self) -> tuple[Any, ...]:
        """The values of a choice that the page offers."""
        return tuple(self.setting.choices) or (self.choices if not self.optional else (None, *self.choices))

    @property
    def lowest(self) -> float:
        """The lowest value that a control offers."""
        return self.setting.step if self.above else self.low or 0

    def _number(self, value: object, now: Any) -> Any:
        if not is_number(value):
            return now
        if self.low is not None and (value <= self.low if self.above else value < self.low):
            value = self.lowest
        return self.kind(value if self.high is None else min(value, self.high))


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value from outside is a number: neither a flag nor "not a number"."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def spelled(value: Any) -> str:
    """Format a value of a choice for the page's controls, which know texts only."""
    return {None: "", True: "on", False: "off"}[value] if value is None or isinstance(value, bool) else str(value)


def _is_same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def declared(model: type) -> Mapping[str, Declared]:
    """Return the declared settings of a pydantic model or dataclass, by field, in their order."""
    kind: Any = model  # the type checker takes the type of a dataclass for one without a hash
    found: Mapping[str, Declared] = _declared_of(kind)
    return found


@cache
def _declared_of(model: Any) -> Mapping[str, Declared]:
    found = {}
    hints = get_type_hints(model, include_extras=True)
    for name, default in _defaults(model).items():
        kind, extras = _unwrapped(hints[name])
        setting = next((each for each in extras if isinstance(each, Setting)), None)
        if setting is not None:
            found[name] = _declared(name, kind, extras, default, setting)
    return types.MappingProxyType(found)


def _defaults(model: type) -> dict[str, Any]:
    if issubclass(model, BaseModel):
        return {name: info.default for name, info in model.model_fields.items()}
    assert is_dataclass(model)
    return {each.name: None if each.default is MISSING else each.default for each in fields(model)}


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split Annotated into the type within and what it is annotated with."""
    return (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())


def _declared(name: str, kind: Any, extras: tuple[Any, ...], default: Any, setting: Setting) -> Declared:
    optional = False
    if get_origin(kind) in (Union, types.UnionType):
        parts = get_args(kind)
        optional = types.NoneType in parts
        (kind,) = (part for part in parts if part is not types.NoneType)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    ends: dict[str, Any] = {}
    for extra in extras:
        for constraint in extra.metadata if isinstance(extra, FieldInfo) else ():
            ends |= {end: getattr(constraint, end) for end in ("ge", "gt", "le", "lt") if hasattr(constraint, end)}
    low = ends.get("ge", ends.get("gt"))
    return Declared(name, kind, default, optional, choices, low, ends.get("le"), "gt" in ends, setting)
