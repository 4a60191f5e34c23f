"""The words that the draft knows: words.toml, ready to be looked up."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from engine.scene.prompt import replace_names
from engine.scene.scene import CAMERAS, MOTIONS, Element

_Said = TypeVar("_Said")  # the values of a word table

_NAME = re.compile(r"\ue000\d+\ue001")  # one of the cast, by its index: `named`
_TOKEN = re.compile(_NAME.pattern + r"(?:['\u2019]?s\b)?|[^\W_]+(?:['\u2019-][^\W_]+)*|[.,;:!?]")


@dataclass(frozen=True)
class Words:
    """The table, ready to be looked up: phrases (tuples of lower-case words) to what they mean."""

    camera: dict[tuple[str, ...], str]
    motion: dict[tuple[str, ...], str]
    size: dict[tuple[str, ...], float]
    hold: dict[tuple[str, ...], str]
    grammar: dict[str, frozenset[tuple[str, ...]]]


@cache
def words() -> Words:
    """Read words.toml. Raises ValueError where it names a camera or a motion that does not exist."""
    table = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
    for section, known in (("camera", CAMERAS), ("motion", MOTIONS)):
        if unknown := set(table[section]) - set(known):
            raise ValueError(f"words.toml: [{section}] has no {sorted(unknown)}")

    def flat(section: str) -> dict[tuple[str, ...], str]:
        return {tuple(tokens(phrase)): key for key, phrases in table[section].items() for phrase in phrases}

    size = {phrase: float(key) for phrase, key in flat("size").items()}
    grammar = {key: frozenset(tuple(tokens(p)) for p in phrases) for key, phrases in table["grammar"].items()}
    return Words(flat("camera"), flat("motion"), size, flat("hold"), grammar)


def named(prompt: str, names: Sequence[str]) -> str:
    """Replace each mention of a name in the prompt by a token of its own, whatever script the name is in."""
    prompt = prompt.translate({0xE000: None, 0xE001: None})
    return replace_names(prompt, names, {i: name_token(i) for i in range(len(names))})


def name_token(index: int) -> str:
    """Return the token that stands for the name of the cast member `index`."""
    return f"\ue000{index}\ue001"


def tokens(text: str) -> list[str]:
    """Split a text into words and punctuation, case-folded, without the possessive: "Mia's" is "mia".

    Tokens of names lose their plural, too.
    """
    return [name[0] if (name := _NAME.match(token)) else token.removesuffix("'s") for token in raw_tokens(text)]


def raw_tokens(text: str) -> list[str]:
    """Split a text as `tokens` does, but keep possessives and plurals."""
    return [token.replace("\u2019", "'") for token in _TOKEN.findall(text.casefold())]


def match(table: Container[tuple[str, ...]], prompt: list[str], at: int) -> int:
    """Return the length in words of the longest phrase of the table that starts at `at`; 0 for none."""
    return next((n for n in (5, 4, 3, 2, 1) if tuple(prompt[at : at + n]) in table and at + n <= len(prompt)), 0)


def lookup(element: Element, table: Mapping[tuple[str, ...], _Said], default: _Said) -> _Said:
    """Look up an element in a word table, by its name first and its description second; else `default`."""
    for text in (element.name, element.description):
        found = tokens(text)
        for i in reversed(range(len(found))):  # the head of an English noun phrase comes last: "coffee table"
            for length in (3, 2, 1):
                if i + 1 >= length and (value := table.get(tuple(found[i + 1 - length : i + 1]))) is not None:
                    return value
    return default
