"""From the prompt to direction: which camera move, who moves how, who holds what. The words are data: words.toml."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.draft.vocabulary import Words, match, name_token, named, raw_tokens, tokens, words
from engine.scene.scene import Scene, label


@dataclass(frozen=True)
class Act:
    """What one of the cast does: a motion, and for a held object its holder's index in the cast."""

    motion: str = "idle"
    holder: int | None = None


@dataclass(frozen=True)
class Screenplay:
    """The direction of a scene: the camera move and an act for each index in the cast (the background has none)."""

    camera: str
    acts: dict[int, Act] = field(default_factory=dict)


def direct(scene: Scene) -> Screenplay:
    """Read the scene's direction from the prompt; what the scene sets explicitly wins."""
    table, said = words(), _said(scene)
    prompt = tokens(said)
    names: dict[tuple[str, ...], int] = {(name_token(i),): i for i in range(len(scene.cast))}
    owners = {at for at, token in enumerate(raw_tokens(said)) if token.endswith("'s")}
    shots = _shots(prompt, names, table)
    motions, holders = _read_acts(scene, _Text(prompt, names, table, shots, owners))
    for i, element in enumerate(scene.cast):
        if element.motion is not None:
            motions[i] = element.motion
    _settle_holding(scene, motions, holders)
    acts = {
        i: Act(motions.get(i, "idle"), holders.get(i))
        for i, element in enumerate(scene.cast)
        if element.role != "background"
    }
    return Screenplay(scene.direction.camera or _read_camera(prompt, shots, table), acts)


def hears(scene: Scene) -> bool:
    """Check whether the prompt names anything that a draft can play: a motion or a camera move."""
    table, prompt = words(), tokens(_said(scene))
    return any(match(table.motion, prompt, at) or match(table.camera, prompt, at) for at in range(len(prompt)))


# ---------------------------------------------------------------------------
# Reading


def _said(scene: Scene) -> str:
    """Return the prompt, with a token for each mention of one of the cast."""
    return named(scene.prompt, [label(element, i) for i, element in enumerate(scene.cast)])


def _shots(prompt: list[str], names: dict[tuple[str, ...], int], table: Words) -> dict[int, int]:
    """Find where a camera move is named, and by how many words. "She moves left" is none: she is the subject."""
    found, subject, at = {}, "", 0
    opens = True  # whether a new subject may come: at the start, after a comma, after "while"
    while at < len(prompt):
        length = match(table.camera, prompt, at)
        shared = tuple(prompt[at : at + length]) in table.grammar["shared"]
        if length and (not shared or subject != "cast"):
            found[at] = length
        elif not length and (prompt[at],) in table.grammar["camera"]:
            subject, opens = "camera", False
        elif length := length or match(names, prompt, at) or match(table.grammar["characters"], prompt, at):
            subject, opens = "cast" if opens or not subject else subject, False
        elif prompt[at] in ".;!?":
            subject, opens = "", True
        elif prompt[at] == "," or (prompt[at],) in table.grammar["clause"]:
            opens = True
        at += max(length, 1)
    return found


def _read_camera(prompt: list[str], shots: dict[int, int], table: Words) -> str:
    """Return the first camera move that is not negated; "still" where all are, "push_in" where none is named."""
    for at, length in shots.items():
        if not _negated(prompt, at, table):
            return table.camera[tuple(prompt[at : at + length])]
    return "still" if shots else "push_in"


@dataclass
class _Reader:
    """The state of reading a prompt.

    `said`: cast members named since the last verb; `subjects`: those of the last verb; `waiting`: a verb that has no
    object yet or, at a start such as "dancing Mia", no subject; `holding`: the characters who hold what is named next.
    """

    said: list[int] = field(default_factory=list)
    subjects: list[int] = field(default_factory=list)
    waiting: str | None = None
    holding: list[int] = field(default_factory=list)
    of_camera: bool = False  # "the camera floats around" moves nobody


@dataclass(frozen=True)
class _Text:
    """A prompt to be read: its words, the names in the cast, the word table, where camera moves are named and by how
    many words, and the positions of possessives ("Mia's")."""

    prompt: list[str]
    names: dict[tuple[str, ...], int]
    table: Words
    shots: dict[int, int]
    owners: set[int]

    def owns(self, at: int, length: int) -> bool:
        """Check whether this name is only the possessive of what follows it: "Mia's red cup"."""
        if at + length - 1 not in self.owners:
            return False
        for after in range(at + length, min(at + length + 3, len(self.prompt))):
            if match(self.names, self.prompt, after) or match(self.table.grammar["objects"], self.prompt, after):
                return True
            if self.prompt[after] in ".,;:!?" or match(self.table.motion, self.prompt, after):
                return False
        return False

    def holder(self, at: int) -> int | None:
        """Return the cast index of the name after a "by" at this place, as in "(held) by Ann"; else None."""
        if self.prompt[at : at + 1] != ["by"]:
            return None
        at += 2 if self.prompt[at + 1 : at + 2] == ["the"] else 1
        length = match(self.names, self.prompt, at)
        return self.names[tuple(self.prompt[at : at + length])] if length else None


def _read_acts(scene: Scene, text: _Text) -> tuple[dict[int, str], dict[int, int]]:
    """Read motions and holders, by cast index.

    Subjects stand before their verb ("Mia and Ken dance"), or right after it where nobody was named yet ("dancing
    Mia"); a verb without a name keeps the subject ("Mia sings and sways").
    """
    prompt, names, table = text.prompt, text.names, text.table
    motions: dict[int, str] = {}
    holders: dict[int, int] = {}
    reader = _Reader()
    at = 0
    while at < len(prompt):
        if n := match(names, prompt, at):
            if not text.owns(at, n):
                _on_name(scene, names[tuple(prompt[at : at + n])], reader, motions, holders)
        elif n := text.shots.get(at, 0):
            pass  # "pans around", "pulls back": the camera's, nobody's motion
        elif n := match(table.motion, prompt, at):
            motion, by = table.motion[tuple(prompt[at : at + n])], text.holder(at + n)
            if motion in ("hold", "lift") and by is not None and scene.cast[by].role == "character":
                _on_held_by(scene, by, motion, reader, motions, holders)
            elif not reader.of_camera and not _negated(prompt, at, table):
                if prompt[at].endswith("ing") and match(names, prompt, at + n):  # "running Ken"
                    reader.said, reader.subjects = [], []
                _on_verb(scene, motion, reader, motions)
        elif n := match(table.grammar["objects"], prompt, at) or match(table.grammar["characters"], prompt, at):
            _on_pronoun(scene, tuple(prompt[at : at + n]), reader, table, motions, holders)
        else:
            _on_word(scene, prompt[at], reader, table)
        at += max(n, 1)
    return motions, holders


def _on_word(scene: Scene, word: str, reader: _Reader, table: Words) -> None:
    """Update the reader at punctuation and at function words, which decide whose the next verb is."""
    if word in ".;!?":
        reader.said, reader.waiting, reader.holding, reader.of_camera = [], None, [], False
    elif (word,) in table.grammar["camera"]:
        reader.said, reader.subjects, reader.waiting, reader.of_camera = [], [], None, True
    elif (word,) in table.grammar["having"]:
        reader.holding = [i for i in reader.said or reader.subjects if scene.cast[i].role == "character"]
        reader.said, reader.waiting, reader.of_camera = [], "hold", False
    elif (word,) in table.grammar["clause"] and word not in ("and", "then"):
        reader.said, reader.waiting, reader.of_camera = [], None, False


def _negated(prompt: list[str], at: int, table: Words) -> bool:
    """Check whether a verb is negated: "does not", "never", also with an adverb between: "does not slowly zoom in"."""
    if at and prompt[at - 1].endswith("ly"):
        at -= 1
    return any(tuple(prompt[max(0, at - n) : at]) in table.grammar["negation"] for n in (1, 2))


def _on_held_by(
    scene: Scene, by: int, motion: str, reader: _Reader, motions: dict[int, str], holders: dict[int, int]
) -> None:
    """Give the objects that were named to their holder `by`, as in "A cup held by Ann"."""
    for i in reader.said or reader.subjects:
        if scene.cast[i].role == "object":
            holders.setdefault(i, by)
            motions[i] = motion
    motions.setdefault(by, "hold")
    reader.said, reader.subjects, reader.waiting = [], [], None


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
        if motions.get(i, "hold") in ("hold", "idle"):  # a motion replaces holding: the held object stays held
            motions[i] = "hold" if grip else motion


def _on_pronoun(
    scene: Scene, word: tuple[str, ...], reader: _Reader, table: Words, motions: dict[int, str], holders: dict[int, int]
) -> None:
    """Resolve "the product", "she", "everyone" and the like to the cast members of that role that they can mean."""
    role = "object" if word in table.grammar["objects"] else "character"
    every = [i for i, element in enumerate(scene.cast) if element.role == role]
    if word not in table.grammar["groups"]:
        spoken = [i for i in reader.subjects if i in every]
        every = spoken[:1] or [i for i in every if i not in motions][:1] or every[:1]
    for i in every:
        _on_name(scene, i, reader, motions, holders)


def _settle_holding(scene: Scene, motions: dict[int, str], holders: dict[int, int]) -> None:
    """Give every holder an object and every held object a holder, in place, where there are any.

    A held object without a holder becomes idle, a holder without an object keeps its motion, and an object that the
    scene tells to do something else is released.
    """
    characters = [i for i, element in enumerate(scene.cast) if element.role == "character"]
    objects = [i for i, element in enumerate(scene.cast) if element.role == "object"]
    for i in objects:
        if scene.cast[i].motion not in (None, "hold", "lift"):
            holders.pop(i, None)  # the scene tells it to do something else
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
