"""How many cards work on a clip, and in which way."""

from __future__ import annotations

import pytest

from engine.a2.plan.degrees import divide

CLIP, HEADS = 32_760, 40  # 832x480x81 by a model of 14 billion parameters


@pytest.mark.parametrize(
    ("cards", "passes", "groups", "split"),
    [
        (1, 2, 1, 1),
        (2, 2, 2, 1),
        (2, 1, 1, 2),
        (2, 3, 1, 2),
        (3, 2, 2, 1),  # tokens divide by three, heads do not
        (3, 3, 3, 1),
        (4, 2, 2, 2),
        (4, 1, 1, 4),
        (8, 2, 2, 4),
        (8, 1, 1, 8),
        (8, 3, 1, 8),
        (16, 2, 2, 8),
    ],
)
def test_the_fewest_forwards_in_a_row(cards, passes, groups, split):
    found = divide(cards, CLIP, HEADS, passes)
    assert (found.groups, found.split) == (groups, split)


def test_what_does_not_divide_is_said():
    assert divide(2, 63, 40, 1).cards == 1
    assert "63 tokens and the model's heads do not divide" in divide(2, 63, 40, 1).why
    assert divide(3, CLIP, 40, 2).why.startswith("2 of 3 cards: the guidance's passes on 2 cards; among more of them")
    assert "attention cannot be divided" in divide(4, CLIP, HEADS, 1, divisible=False).why
    assert divide(4, CLIP, HEADS, 2, divisible=False).cards == 2


def test_nobody_gets_part_of_a_token_or_of_a_head():
    for cards in range(1, 17):
        for tokens in (63, 64, 120, CLIP):
            for heads in (2, 12, 40):
                for passes in (1, 2, 3):
                    found = divide(cards, tokens, heads, passes)
                    assert found.cards <= cards
                    assert found.groups <= passes
                    assert tokens % found.split == heads % found.split == 0
