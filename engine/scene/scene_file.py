"""The scene file: JSON <-> the frozen models of scene.py.

Scenes are validated here: the rest of the program relies on it, and what is not valid is refused with the name of the
field and what to do about it. Image paths are relative to the scene file; whether the pictures themselves are readable
is checked where they are opened (`engine.media.images`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from engine.errors import SceneError
from engine.scene.engines import ENGINES, find_engine
from engine.scene.scene import (
    DRAFT,
    MAX_CAST,
    MAX_SIDE,
    MIN_SIDE,
    Direction,
    Element,
    Placement,
    Sampling,
    Scene,
    Video,
)
from engine.words import cut, listed, shown


def scene_from_json(text: str | bytes) -> Scene:
    """Parse and check a scene file's text. Raises SceneError, which names the first field that is wrong."""
    try:
        data = json.loads(text, object_pairs_hook=_noting_twins)
        _check_keys(data)
    except SceneError:
        raise
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        place = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise SceneError("", f"this is not JSON{place}", "A scene file is JSON text in UTF-8.") from None
    return scene_from_data(data)


def scene_from_data(data: Any) -> Scene:
    """Check parsed JSON. Raises SceneError, which names the first field that is wrong."""
    if not isinstance(data, dict):
        raise SceneError("", "a scene file holds one JSON object", 'It starts with {"version": 1, "cast": [ … ] }.')
    # Lax for lists only: JSON has no tuples. Everything else stays strict ("81" is not a number, 1 is not a flag).
    if isinstance(data.get("cast"), list):
        data = {**data, "cast": tuple(data["cast"])}
    _check_engine(data.get("engine", DRAFT))
    try:
        scene = Scene.model_validate(data)
    except ValidationError as error:
        raise _scene_error(error) from None
    find_engine(scene.engine).check_video(scene.video)
    return scene


def _check_engine(name: Any) -> None:
    """Raise SceneError for an engine that there is not."""
    if not isinstance(name, str) or name not in ENGINES:
        either = listed([repr(each) for each in sorted(ENGINES)], "or")
        raise SceneError("engine", f"{shown(name)} is not a choice", f"Use {either}.")


def scene_to_json(scene: Scene) -> str:
    """Write the scene file's text; `scene_from_json` gives the same scene back. Optional fields without a value are
    left out."""
    return json.dumps(scene.model_dump(exclude_none=True), ensure_ascii=False, indent=2) + "\n"


def load_scene(path: str | Path) -> Scene:
    """Read a scene file. Raises SceneError, which names the file or the field."""
    path = Path(path)
    try:
        data = path.read_bytes()
        text = data.decode(json.detect_encoding(data)).removeprefix("\ufeff")  # editors on Windows add the mark
    except FileNotFoundError:
        raise SceneError("", f"there is no scene file {path}", "Check the path.") from None
    except IsADirectoryError:
        raise SceneError("", f"{path} is a folder", "Name the scene file in it.") from None
    except UnicodeDecodeError:
        problem = f"{path} is not text in UTF-8"
        raise SceneError("", problem, "A scene file is JSON text: save it anew, with the encoding UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or "not a usable file name"
        raise SceneError("", f"{path} cannot be read ({reason})", "Check its name and permissions.") from None
    return scene_from_json(text)


class _Twins(dict[str, Any]):
    """An object in which a key is there twice: the second would silently win. `key`: which."""

    key = ""


def _noting_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(unique := dict(pairs)) == len(pairs):
        return unique
    twins = _Twins(unique)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            twins.key = key
            break
        seen.add(key)
    return twins


def _check_keys(data: Any, *place: str | int) -> None:
    """Refuse a key that is there twice, with its place in the whole. Raises SceneError."""
    if isinstance(data, _Twins):
        raise SceneError(_field((*place, data.key)), "the key is there twice", "Keep one of them.")
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        _check_keys(value, *place, key)


# ---------------------------------------------------------------------------
# From pydantic's report to a line a person can act on


def _scene_error(error: ValidationError) -> SceneError:
    first = error.errors(include_url=False)[0]
    field = _field(first["loc"])
    kind, context, value = first["type"], first.get("ctx", {}), first.get("input")
    if kind == "missing":
        return SceneError(field, "this is missing", "Add it.")
    if kind == "extra_forbidden":
        return SceneError(field, "there is no such field", f"Remove it, or use one of: {_known_keys(first['loc'])}.")
    if kind == "literal_error":
        return SceneError(field, f"{shown(value)} is not a choice", f"Use {context['expected']}.")
    if kind == "string_pattern_mismatch":
        return SceneError(field, f"{shown(value)} has control characters in it", "Write a plain file name.")
    if kind == "multiple_of":
        step = context["multiple_of"]
        return SceneError(field, f"{shown(value)} is not a multiple of {step}", f"Use {_nearest_side(value, step)}.")
    if kind == "too_long" and field == "cast":
        return SceneError(field, f"{len(value)} elements are too many", f"Use at most {MAX_CAST}.")
    if kind == "too_short" and field == "cast":
        return SceneError(field, "the cast is empty", "Add at least one character, object or background.")
    remedy = _REMEDIES.get(kind, "").format(**context) or f"{first['msg'].removeprefix('Input ').capitalize()}."
    return SceneError(field, f"{shown(value)} does not fit", remedy)


def _field(location: Sequence[str | int]) -> str:
    """Format a place in the JSON as a person writes it: `cast[1].placement.x`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{cut(part)}" for part in location).removeprefix(".")


# The type of pydantic's error -> what to do, where its own words are a programmer's
_REMEDIES = {
    "model_type": "It should be an object {{ … }}.",
    "model_attributes_type": "It should be an object {{ … }}.",
    "tuple_type": "It should be a list [ … ].",
    "string_type": "It should be a string in quotation marks.",
    "int_type": "It should be an integer.",
    "int_from_float": "It should be an integer, without a fraction.",
    "float_type": "It should be a number.",
    "bool_type": "It should be a boolean: true or false.",
    "greater_than_equal": "Use {ge} or more.",
    "greater_than": "Use more than {gt}.",
    "less_than_equal": "Use {le} or less.",
    "less_than": "Use less than {lt}.",
    "too_long": "Use at most {max_length} of them.",
    "string_too_long": "Use at most {max_length} characters.",
    "string_too_short": "Use at least {min_length} character.",
    "string_unicode": "There is half a character in it (one of a surrogate pair): write it anew.",
    "finite_number": "It should be a finite number.",
}


def _known_keys(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = Scene
    inner: dict[int | str, type[BaseModel]] = {
        "cast": Element, "placement": Placement, "video": Video, "sampling": Sampling, "direction": Direction
    }  # fmt: skip
    for part in location[:-1]:
        model = inner.get(part, model)
    return ", ".join(model.model_fields)


def _nearest_side(value: int, step: int) -> str:
    """Return the multiples of `step` below and above a width or height that are allowed."""
    low = value // step * step
    allowed = {min(max(side, MIN_SIDE), MAX_SIDE) for side in (low, low + step)}
    return " or ".join(map(str, sorted(allowed)))
