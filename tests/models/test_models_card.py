"""The third part of the Models tab: what is there, in words; measured only when asked, in a process of its own."""

from __future__ import annotations

import sys

import pytest

from app.models import card
from app.models.card import card_html, measured
from engine.errors import TroupeError
from tests.machine.test_planner import machine


def test_a_card_is_named_with_its_memory():
    said = card_html(machine(8, 32, card="<RTX>"))
    assert "&lt;RTX&gt;, 8.0 of 8.0 GB free" in said
    assert "32 GB of memory" in said


def test_without_a_card_it_is_said_what_it_takes():
    assert "6 GB or more" in card_html(machine(0, 32))
    assert "6 GB or more" in card_html(None)


def command(code, monkeypatch):
    real = card.subprocess.Popen
    monkeypatch.setattr(card.subprocess, "Popen", lambda _, **how: real([sys.executable, "-c", code], **how))


def test_measuring_says_how_it_goes_and_that_it_is_done(monkeypatch):
    command("pass", monkeypatch)
    assert list(measured(machine(8, 32)))[-1].startswith("Measured")


def test_measuring_that_fails_says_what_to_do(monkeypatch):
    command("raise SystemExit(3)", monkeypatch)
    with pytest.raises(TroupeError, match="Close other programs"):
        list(measured(machine(8, 32)))


def test_measuring_that_takes_too_long_is_ended(monkeypatch):
    command("import time; time.sleep(600)", monkeypatch)
    monkeypatch.setattr(card, "_PATIENCE", 0.0)
    with pytest.raises(TroupeError, match="Measuring failed"):
        list(measured(machine(8, 32)))


def test_nothing_is_measured_before_the_libraries_are_there():
    with pytest.raises(TroupeError, match="libraries"):
        list(measured(None))
