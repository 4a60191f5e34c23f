"""From the prompt to direction: which camera move, who moves how, who holds what. The words are data: words.toml."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from engine.scene import CAMERAS, MOTIONS, Element, Scene, label

_TOKEN = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*|[.,;:!?]")


@dataclass(frozen=True)
class Words:
    """The table, ready to be looked up: phrases (tuples of lower-case words) to what they mean."""

    camera: dict[tuple[str, ...], str]
    motion: dict[tuple[str, ...], str]
    size: dict[tuple[str, ...], float]
    hold: dict[tuple[str, ...], str]
    grammar: dict[str, frozenset[tuple[str, ...]]]


@dataclass(frozen=True)
class Act:
    """What one of the cast does: a motion, and for a held object the cast index of the one who holds it."""

    motion: str = "idle"
    holder: int | None = None


@dataclass(frozen=True)
class Plan:
    """The direction of a scene: the camera move and an act for each index in the cast (the background has none)."""

    camera: str
    acts: dict[int, Act] = field(default_factory=dict)


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


def tokens(text: str) -> list[str]:
    """Words and punctuation, lower case; a possessive keeps to its name ("Mia's" is "mia")."""
    found = (token.replace("\u2019", "'") for token in _TOKEN.findall(text.casefold()))
    return [token.removesuffix("'s") if token not in ("it's", "he's", "she's") else token[:-2] for token in found]


def direct(scene: Scene) -> Plan:
    """Read the scene's direction; what is set explicitly wins over what the prompt says."""
    table = words()
    prompt = tokens(scene.prompt)
    motions, holders = _read_acts(scene, prompt, table)
    for i, element in enumerate(scene.cast):
        if element.motion is not None:
            motions[i] = element.motion
    _settle_holding(scene, motions, holders)
    acts = {
        i: Act(motions.get(i, "idle"), holders.get(i))
        for i, element in enumerate(scene.cast)
        if element.role != "background"
    }
    return Plan(scene.direction.camera or _read_camera(prompt, table), acts)


def lookup(element: Element, table: dict[tuple[str, ...], object], default: object) -> object:
    """What a word table says about an element, by its name first and its description second."""
    for text in (element.name, element.description):
        found = tokens(text)
        for i in reversed(range(len(found))):  # the head of an English noun phrase comes last: "coffee table"
            for length in (3, 2, 1):
                if i + 1 >= length and (value := table.get(tuple(found[i + 1 - length : i + 1]))) is not None:
                    return value
    return default


# ---------------------------------------------------------------------------
# Reading


def _match(table: dict | frozenset, prompt: list[str], at: int) -> int:
    """The length in words of the longest phrase of the table that starts here; 0 for none."""
    return next((n for n in (5, 4, 3, 2, 1) if tuple(prompt[at : at + n]) in table and at + n <= len(prompt)), 0)


def _read_camera(prompt: list[str], table: Words) -> str:
    for at in range(len(prompt)):
        if n := _match(table.camera, prompt, at):
            return table.camera[tuple(prompt[at : at + n])]
    return "push_in"


def _names(scene: Scene) -> dict[tuple[str, ...], int]:
    """Each name, and each label such as "character 2" of the nameless, with its index in the cast."""
    found: dict[tuple[str, ...], int] = {}
    for i, element in enumerate(scene.cast):
        if name := tuple(tokens(label(element, i))):
            found.setdefault(name, i)
    return found


@dataclass
class _Reader:
    """Where the reading stands: who is spoken of, since the last verb and before it, and which verb waits for its
    object or, at a start such as "dancing Mia", for its subject."""

    said: list[int] = field(default_factory=list)
    subjects: list[int] = field(default_factory=list)
    waiting: str | None = None
    holding: list[int] = field(default_factory=list)
    of_camera: bool = False  # "the camera floats around" moves nobody


def _read_acts(scene: Scene, prompt: list[str], table: Words) -> tuple[dict[int, str], dict[int, int]]:
    """Motions and holders by cast index. Subjects stand before their verb ("Mia and Ken dance"), or right after it
    where nobody was named yet ("dancing Mia"); a verb without a name keeps the subject ("Mia sings and sways")."""
    names, motions, holders, reader = _names(scene), {}, {}, _Reader()
    at = 0
    while at < len(prompt):
        if n := _match(names, prompt, at):
            _on_name(scene, names[tuple(prompt[at : at + n])], reader, motions, holders)
        elif n := _match(table.camera, prompt, at):
            pass  # "moves around", "pulls back": the camera's, nobody's motion
        elif n := _match(table.motion, prompt, at):
            if not reader.of_camera and not _negated(prompt, at, table):
                if prompt[at].endswith("ing") and _match(names, prompt, at + n):  # "running Ken"
                    reader.said, reader.subjects = [], []
                _on_verb(scene, table.motion[tuple(prompt[at : at + n])], reader, motions)
        elif n := _match(table.grammar["objects"], prompt, at) or _match(table.grammar["characters"], prompt, at):
            _on_pronoun(scene, tuple(prompt[at : at + n]), reader, table, motions, holders)
        elif prompt[at] in ".;!?":
            reader.said, reader.waiting, reader.holding, reader.of_camera = [], None, [], False
        elif (prompt[at],) in table.grammar["camera"]:
            reader.said, reader.subjects, reader.waiting, reader.of_camera = [], [], None, True
        elif (prompt[at],) in table.grammar["having"]:
            reader.holding = [i for i in reader.said or reader.subjects if scene.cast[i].role == "character"]
            reader.said, reader.waiting, reader.of_camera = [], "hold", False
        elif (prompt[at],) in table.grammar["clause"] and prompt[at] not in ("and", "then"):
            reader.said, reader.waiting, reader.of_camera = [], None, False
        at += max(n, 1)
    return motions, holders


def _negated(prompt: list[str], at: int, table: Words) -> bool:
    return any(tuple(prompt[max(0, at - n) : at]) in table.grammar["negation"] for n in (1, 2))


def _on_name(scene: Scene, index: int, reader: _Reader, motions: dict[int, str], holders: dict[int, int]) -> None:
    role = scene.cast[index].role
    if role == "background":
        return
    reader.of_camera = False
    if role == "object" and reader.waiting in ("hold", "lift") and reader.holding:
        holders.setdefault(index, reader.holding[0])
        motions[index] = reader.waiting
        return
    if reader.waiting and not reader.subjects and reader.waiting not in ("hold", "lift"):
        motions.setdefault(index, reader.waiting)  # "dancing Mia"
        reader.subjects, reader.waiting = [index], None
        return
    reader.said.append(index)


def _on_verb(scene: Scene, motion: str, reader: _Reader, motions: dict[int, str]) -> None:
    if reader.said:
        reader.subjects, reader.said = reader.said, []
    reader.waiting = motion
    reader.holding = [i for i in reader.subjects if scene.cast[i].role == "character"]
    for i in reader.subjects:
        grip = motion in ("hold", "lift") and scene.cast[i].role == "character"
        if motions.get(i, "hold") in ("hold", "idle"):  # holding goes along with whatever else they do
            motions[i] = "hold" if grip else motion


def _on_pronoun(
    scene: Scene, word: tuple[str, ...], reader: _Reader, table: Words, motions: dict[int, str], holders: dict[int, int]
) -> None:
    """ "the product", "she", "everyone": those of the role that the sentence can mean."""
    role = "object" if word in table.grammar["objects"] else "character"
    every = [i for i, element in enumerate(scene.cast) if element.role == role]
    if word not in table.grammar["groups"]:
        spoken = [i for i in reader.subjects if i in every]
        every = spoken[:1] or [i for i in every if i not in motions][:1] or every[:1]
    for i in every:
        _on_name(scene, i, reader, motions, holders)


def _settle_holding(scene: Scene, motions: dict[int, str], holders: dict[int, int]) -> None:
    """Whoever holds gets something to hold, and whatever is held somebody who holds it; without a partner a held
    object rests and a holder stands."""
    characters = [i for i, element in enumerate(scene.cast) if element.role == "character"]
    objects = [i for i, element in enumerate(scene.cast) if element.role == "object"]
    for i in objects:
        if scene.cast[i].motion not in (None, "hold", "lift"):
            holders.pop(i, None)  # it was told to do something else
        elif motions.get(i) == "hold" and i not in holders and characters:
            free = [c for c in characters if c not in holders.values()] or characters
            holders[i] = next((c for c in free if motions.get(c) in ("hold", "lift")), free[0])
    for c in characters:
        if motions.get(c) in ("hold", "lift") and c not in holders.values():
            spare = [i for i in objects if i not in holders and motions.get(i, "idle") == "idle"]
            if spare:
                holders[spare[0]] = c
                motions[spare[0]] = motions[c]
    for i in objects:
        if motions.get(i) == "hold" and i not in holders:
            motions[i] = "idle"
