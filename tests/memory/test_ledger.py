"""The account of what is held: sums, peaks by phase, what would be lacking; and how much of a card may be held."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from engine.memory import card
from engine.memory.hardware import Fact, Hardware, counting_as_free
from engine.memory.host import own_bytes
from engine.memory.ledger import NOTHING, Held, Ledger

MB = 2**20


def test_entries_add_up_and_are_replaced():
    ledger = Ledger()
    ledger.enter("model", Held(10, 3))
    ledger.enter("clip", Held(1, 1))
    ledger.enter("model", Held(4, 9))
    assert ledger.total == Held(5, 10)
    assert ledger.held("model") == Held(4, 9)
    assert ledger.held("nobody") == NOTHING
    assert not NOTHING
    assert Held(0, 1)


def test_peaks_are_those_of_the_phase_in_which_they_were_reached():
    ledger = Ledger()
    ledger.begin("first")
    ledger.enter("model", Held(10, 0))
    with ledger.during("work", Held(5, 2)):
        pass
    ledger.enter("model", Held(1, 20))
    ledger.begin("second")
    assert ledger.peaks == {"first": Held(15, 20), "second": Held(1, 20)}


def test_what_is_lacking_is_told_for_card_and_host():
    ledger = Ledger(card=100, host=50)
    ledger.enter("model", Held(80, 50))
    assert ledger.lack(Held(30, 0)) == Held(10, 0)
    assert ledger.lack(Held(20, 7)) == Held(0, 7)
    assert Ledger().lack(Held(10**15, 10**15)) == NOTHING  # nothing is known of the machine


def test_bytes_are_not_below_nothing():
    assert Held(5, 5) - Held(7, 1) == Held(0, 4)
    assert Held(5, 1) | Held(2, 3) == Held(5, 3)
    assert Held(5, 1) + Held(2, 3) == Held(7, 4)


@pytest.mark.parametrize(("free", "own", "allowed"), [(900, 0, 800), (100, 700, 700), (50, 700, 650), (1500, 0, 1000)])
def test_a_process_may_hold_what_is_free_and_what_it_holds_already(monkeypatch, free, own, allowed):
    torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
    from engine.memory.card import claim

    said = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free * MB, 1000 * MB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: own * MB)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *how: said.append(how))
    assert claim(torch.device("cuda:0")) == allowed * MB
    assert claim(torch.device("cuda")) == allowed * MB  # which is the first
    assert said == [(allowed / 1000, 0), (allowed / 1000, 0)]
    assert claim(torch.device("cpu")) is None

    def lent(_: object) -> None:
        raise RuntimeError("No CUDA GPUs are available")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lent)
    assert claim(torch.device("cuda")) is None


def test_what_is_held_can_be_asked_while_torch_is_being_imported(monkeypatch):
    for torch in (ModuleType("torch"), SimpleNamespace(cuda=SimpleNamespace())):
        monkeypatch.setitem(sys.modules, "torch", torch)
        assert card.own_bytes() == 0
    ready = SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 2, memory_reserved=lambda index: 5 + index
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=ready))
    assert card.own_bytes() == card.CONTEXT + 11


def test_a_process_knows_what_it_holds_itself(tmp_path, monkeypatch):
    before = own_bytes()
    held = bytearray(200 * MB)
    held[::4096] = b"x" * len(held[::4096])
    assert own_bytes() - before > 150 * MB
    status = tmp_path / "status"
    status.write_text("VmRSS:\t 900 kB\nRssAnon:\t 300 kB\n")
    assert own_bytes(status) == 300 * 1024
    assert own_bytes(tmp_path / "none") > 0  # asked in another way
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert own_bytes(tmp_path / "none") == 0


def test_our_own_is_counted_as_free_and_never_more_than_there_is():
    def machine(card: int | None, memory: int | None) -> Hardware:
        values = dict.fromkeys(Hardware.__dataclass_fields__) | {
            "vram_total": 24, "vram_free": card, "ram_total": 64, "ram_free": memory
        }  # fmt: skip
        return Hardware(**{name: Fact(value, "a test") for name, value in values.items()})

    found = counting_as_free(machine(6, 40), (17, 10))
    assert (found.vram_free.value, found.ram_free.value) == (23, 50)
    assert "our own model" in found.vram_free.why
    assert counting_as_free(machine(20, 60), (17, 10)).vram_free.value == 24
    assert counting_as_free(machine(None, None), (17, 10)) == machine(None, None)
    assert counting_as_free(machine(6, 40), (0, 0)) == machine(6, 40)
