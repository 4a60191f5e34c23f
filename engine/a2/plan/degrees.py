"""How many cards work on a clip, and in which way. Pure functions.

Two ways, and both together: the passes of the guidance on groups of cards, which talk once a step, and the tokens of a
pass over the cards of a group, which exchange heads for tokens in every block (Ulysses, arXiv 2309.14509).
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.a2.geometry import ClipSize
from engine.a2.options import A2Options
from engine.a2.plan.shapes import Shapes

UNDIVIDED = ("flash3", "xformers")  # kinds of attention that diffusers does not divide


@dataclass(frozen=True)
class Degrees:
    """`groups` of cards that compute passes of the guidance, each of `split` cards that share the tokens of one. `why`
    says in words what is done with the cards, and with those that are left over."""

    groups: int
    split: int
    why: str

    @property
    def cards(self) -> int:
        """How many work on the clip."""
        return self.groups * self.split


def degrees_of(clip: ClipSize, options: A2Options, shapes: Shapes) -> Degrees:
    """Choose how the cards that were asked for work on a clip."""
    divisible = options.attention not in UNDIVIDED
    return divide(options.cards or 1, clip.tokens, shapes.transformer.heads, clip.passes, divisible)


def divide(cards: int, tokens: int, heads: int, passes: int, divisible: bool = True) -> Degrees:
    """Choose for a clip of so many tokens, by a model of so many heads, with so many passes a step. Tokens and heads
    must divide by the cards that share a pass; `divisible`: they may be shared at all.

    The fewest forwards in a row win; of equal ways the one with more groups, which talk less, and then the one with
    fewer cards.
    """
    ways = [
        (groups, split)
        for groups in range(1, min(cards, passes) + 1)
        for split in range(1, cards // groups + 1)
        if split == 1 or (divisible and tokens % split == 0 and heads % split == 0)
    ]
    groups, split = min(ways, key=lambda way: (-(-passes // way[0]) / way[1], -way[0], way[0] * way[1]))
    return Degrees(groups, split, _why(cards, groups, split, tokens, divisible))


def _why(cards: int, groups: int, split: int, tokens: int, divisible: bool) -> str:
    """Say what is done with the cards."""
    used, done = groups * split, []
    if groups > 1:
        done.append(f"the guidance's passes on {groups} {'groups' if split > 1 else 'cards'}")
    if split > 1:
        done.append(f"the tokens of each over {split} cards" if groups > 1 else f"its tokens over {split} cards")
    how = " and ".join(done) or "as on one card"
    if used == cards:
        return f"{cards} cards: {how}"
    left = f"{tokens:,} tokens and the model's heads do not divide" if divisible else "this attention cannot be divided"
    return f"{used} of {cards} cards: {how}; among more of them {left}"
