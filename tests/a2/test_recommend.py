"""Which model is recommended, and what is said of the others."""

from __future__ import annotations

import pytest

from engine.a2.models import RELEASES
from engine.a2.plan.recommend import advise, best_for
from engine.memory.hardware import Fact, Hardware
from engine.words import GIB


def a_machine(device: str, card: int | None, memory: int, disk: int = 500) -> Hardware:
    def fact(value: object) -> Fact:
        return Fact(value * GIB if type(value) is int else value, "here")  # type: ignore[arg-type]

    return Hardware(
        fact(device), fact("a card"), fact(card), fact(card), fact(memory), fact(memory), fact(memory // 2),
        fact(disk), fact(True), fact(False), fact("2.9"),
    )  # fmt: skip


@pytest.mark.parametrize("device", ["mps", "xpu", "cpu"])
def test_nothing_fits_a_card_that_the_model_does_not_compute_on(device):
    machine = a_machine(device, None if device == "mps" else 16, 32)
    assert best_for(machine) is None
    assert {advise(each, machine).runs for each in RELEASES} == {""}


def test_a_disk_that_the_model_has_filled_is_no_reason_against_it():
    best = best_for(a_machine("cuda", 24, 64, disk=2))
    assert best is not None
    assert "does not fit" not in advise(best, a_machine("cuda", 24, 64, disk=2)).runs
