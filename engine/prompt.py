"""The names in a prompt: who is mentioned, and where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class Mention(NamedTuple):
    """One mention: `prompt[start:end]` is the name, `index` its place in the list of names."""

    start: int
    end: int
    index: int


def find_names(prompt: str, names: Sequence[str]) -> list[Mention]:
    """Where the names stand in the prompt as words of their own, in order and without overlaps; case does not matter.

    The longest name counts: "Anna Ann" is not a mention of "Ann". Plural and possessive endings (`cups`, `Mia's`) are
    allowed after a name and are not part of the mention.
    """
    longest_first = sorted((i for i, name in enumerate(names) if name.split()), key=lambda i: -len(names[i]))
    if not longest_first:
        return []
    choices = "|".join(f"(?P<n{i}>{_pattern(names[i])})" for i in longest_first)
    found = re.finditer(rf"(?<!\w)(?:{choices})(?=(?:['’]?s)?(?!\w))", prompt, re.IGNORECASE)
    return [Mention(*match.span(), int(match.lastgroup[1:])) for match in found]


def replace_names(prompt: str, names: Sequence[str], replacements: dict[int, str]) -> str:
    """The prompt with mentions of the names at these indices replaced."""
    for mention in reversed(find_names(prompt, names)):
        if mention.index in replacements:
            prompt = prompt[: mention.start] + replacements[mention.index] + prompt[mention.end :]
    return prompt


def _pattern(name: str) -> str:
    return r"\s+".join(map(re.escape, name.split()))
