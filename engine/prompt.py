"""The prompt and the names in it: who is mentioned, and where."""

from __future__ import annotations

import re


def mentions(prompt: str, name: str) -> list[tuple[int, int]]:
    """Where `name` stands in the prompt as words of its own, as (start, end) character offsets; case does not matter,
    and neither does a plural or possessive ending (`cups`, `Mia's`)."""
    words = name.split()
    if not words:
        return []
    pattern = r"(?<!\w)@?" + r"\s+".join(map(re.escape, words)) + r"(?:['’]?s)?(?!\w)"
    return [match.span() for match in re.finditer(pattern, prompt, re.IGNORECASE)]


def unmentioned(prompt: str, names: list[str]) -> list[str]:
    """The names that the prompt never says, in order."""
    return [name for name in names if not mentions(prompt, name)]
