"""The names in a prompt: who is mentioned, and where. All of Troupe matches names here: the prompt's check, renaming,
presets and the draft.

What is a word depends on the script. Letters that are written with spaces between words end a name only where no such
letter goes on; Chinese, Japanese and Thai know no spaces, and Korean puts its particles right behind a name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

_UNSPACED = (
    "\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f\u3105-\u312f\u31a0-\u31bf"  # kana, bopomofo
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaa7f"  # Thai
)  # and its neighbours: Lao, Tibetan, Burmese, Khmer, Tai
_HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
_PARTICLES = (
    "이가 가 이 은 는 을 를 의 에 에게 에게서 에서 와 과 도 만 로 으로 랑 이랑 하고 한테 께 께서 "
    "이는 이를 이의 이와 이도 야 아 씨 님 씨가 씨는 님이 님은 보다 처럼 까지 부터 마저 조차 라고 이라고 이나 나"
)
_APOSTROPHES = "'\u2018\u2019\u02bc\u00b4`\uff07"  # a telephone and a word processor write the third
_HYPHENS = "\\-\u2010\u2011\u2012\u2013"
_ZWJ, _EMOJI_FORM, _SKIN = "\u200d", "\ufe0f", "\U0001f3fb-\U0001f3ff"  # what makes another emoji of the one before


@dataclass(frozen=True)
class Mention:
    """One mention: `prompt[start:end]` is the name, `index` its place in the list of names."""

    start: int
    end: int
    index: int


def find_names(prompt: str, names: Sequence[str]) -> list[Mention]:
    """Find where the names stand in the prompt as words of their own, in order and without overlaps; case, Unicode's
    normal form and the kind of apostrophe do not matter.

    The longest name counts: "Anna Ann" is not a mention of "Ann". Plural and possessive endings (`cups`, `Mia's`) and
    Korean particles are allowed after a name and are not part of the mention.
    """
    longest_first = sorted((i for i, name in enumerate(names) if name.split()), key=lambda i: -len(names[i]))
    if not longest_first:
        return []
    choices = "|".join(f"(?P<n{i}>{_pattern(names[i])})" for i in longest_first)
    found = re.finditer(choices, prompt, re.IGNORECASE)
    return [Mention(*match.span(), int(match.lastgroup[1:])) for match in found if match.lastgroup]


def replace_names(prompt: str, names: Sequence[str], replacements: dict[int, str]) -> str:
    """Replace mentions of the names at these indices."""
    for mention in reversed(find_names(prompt, names)):
        if mention.index in replacements:
            prompt = prompt[: mention.start] + replacements[mention.index] + prompt[mention.end :]
    return prompt


def folded(text: str) -> str:
    """Normalise text for comparison: two names that come to the same here are one name to a person."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    text = re.sub(f"[{_HYPHENS}]", "-", re.sub(f"[{_APOSTROPHES}]", "'", text))
    return " ".join(text.replace(_EMOJI_FORM, "").split())


def _pattern(name: str) -> str:
    """Build a regular expression for a name as a word of its own."""
    name = unicodedata.normalize("NFC", name).replace(_EMOJI_FORM, "")
    words = [r"".join(map(_character, word)) for word in name.split()]
    return _before(name.split()[0][0]) + r"\s+".join(words) + _after(name.split()[-1])


def _character(one: str) -> str:
    """Build a regular expression for one character in all its spellings."""
    if one in _APOSTROPHES:
        return f"[{_APOSTROPHES}]"
    if re.match(f"[{_HYPHENS}]", one):
        return f"[{_HYPHENS}]"
    apart = unicodedata.normalize("NFD", one)  # macOS spells file names so
    spelled = f"(?:{re.escape(one)}|{re.escape(apart)})" if apart != one else re.escape(one)
    return f"{spelled}{_EMOJI_FORM}?" if unicodedata.category(one) == "So" else spelled


def _before(first: str) -> str:
    """Build a lookbehind for what must not stand before a name that begins so."""
    if re.match(f"[{_UNSPACED}]", first):
        return ""
    if unicodedata.category(first) == "So":
        return f"(?<!{_ZWJ})"
    return f"(?<!{_joined(first)})"


def _after(word: str) -> str:
    """Build a lookahead for what must not stand behind a name that ends with this word, and what may."""
    last = word[-1]
    if unicodedata.category(last) == "So" or last == _ZWJ or re.match(f"[{_SKIN}]", last):
        return f"(?![{_ZWJ}{_SKIN}])"
    if re.match(f"[{_UNSPACED}]", last):
        return f"(?![{_marks()}])"  # it would change the last syllable
    if re.match(f"[{_HANGUL}]", last):
        particles = "|".join(sorted(_particles(), key=len, reverse=True))
        return f"(?=(?:{particles})?(?!{_joined(last)}))"
    return f"(?=(?:[{_APOSTROPHES}]?s)?(?!{_joined(last)}))"


def _joined(edge: str) -> str:
    """Build a regular expression for a letter, digit or mark that makes one word with the letter at a name's edge."""
    if re.match(f"[{_HANGUL}]", edge):
        return f"[{_HANGUL}\\d]"
    return f"(?:[^\\W{_UNSPACED}{_HANGUL}]|[{_marks()}])"


@cache
def _particles() -> tuple[str, ...]:
    """Return the Korean particles as they are spelled, and as macOS spells them."""
    both = [(particle, unicodedata.normalize("NFD", particle)) for particle in _PARTICLES.split()]
    return tuple(dict.fromkeys(spelled for pair in both for spelled in pair))


@cache
def _marks() -> str:
    """Return all combining marks, for the inside of a character class: Python's `\\w` has none of them."""
    marks = [code for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M"]
    ranges: list[list[int]] = []
    for code in marks:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    plain = "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges if not low <= ord(_EMOJI_FORM) <= high)
    return plain
