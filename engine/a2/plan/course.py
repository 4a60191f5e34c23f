"""Which components are on the card at each stage of a clip, and what leaves for them: decided here, once.

The engine goes through a course with tensors (engine/a2/moving.py), the plan without (stages.py). Both write what they
hold into a ledger, and both let go of what the ledger says there is no room for: so a plan is a run on paper.

Text encoder and image encoder are used and dropped: once a clip at most, and their weights are mapped from a file. The
VAE waits on the host. The transformer stays for the next clip, and lends what its resident blocks take on the card to
whoever computes before and after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Literal, Protocol

from engine.a2.phases import PlannedPhase
from engine.memory.ledger import NOTHING, Held, Ledger

Component = Literal["text_encoder", "image_encoder", "vae", "transformer"]

COMPONENTS: tuple[Component, ...] = ("text_encoder", "image_encoder", "vae", "transformer")
_DROPPED: tuple[Component, ...] = ("text_encoder", "image_encoder")
_WORK, _LOADING = "what is computed", "what is loaded"

# Each turn of a clip: its phase, and the component that computes.
TURNS: tuple[tuple[PlannedPhase, Component], ...] = (
    ("prompt", "text_encoder"), ("references", "image_encoder"), ("references", "vae"), ("sampling", "transformer"),
    ("decoding", "vae"),
)  # fmt: skip


class Carrier(Protocol):
    """What brings components and lets them go. Every act returns what the component holds after it."""

    def held(self, name: Component) -> Held:
        """Return what a component holds now."""

    def bring(self, name: Component, fewer: int) -> Held:
        """Load it, if it is not, and put it where it computes, with `fewer` resident blocks than were asked for."""

    def aside(self, name: Component) -> Held:
        """Free the card's memory."""

    def lend(self, name: Component, card: int) -> Held:
        """Free at least so many bytes of the card, as far as that costs no memory elsewhere."""

    def drop(self, name: Component) -> Held:
        """Free all of it."""


class Sizes(Protocol):
    """What components will hold, and what is computed with them needs beside."""

    @property
    def components(self) -> tuple[Component, ...]:
        """The components that there are, in the order of work."""

    @property
    def resident_block(self) -> int:
        """What one resident block of the transformer takes on the card; 0 where none streams."""

    @property
    def reloads(self) -> bool:
        """Whether the transformer may be loaded anew for each clip where memory lacks: on a processor it need only be
        mapped again."""

    def present(self, name: Component) -> Held:
        """Return what it holds where it computes."""

    def loading(self, name: Component) -> Held:
        """Return what loading it takes beside."""

    def active(self, phase: PlannedPhase, name: Component) -> Held:
        """Return what computing takes beside the weights."""


class Course:
    """Takes a clip's components through their turns. `together`: all of them stay where they compute. `alone`: whoever
    computes has the card to itself, since memory ran out although there should have been enough."""

    def __init__(self, ledger: Ledger, carrier: Carrier, sizes: Sizes, together: bool, alone: bool = False) -> None:
        self.ledger, self.alone = ledger, alone
        self._carrier, self._sizes, self._together = carrier, sizes, together
        for name in COMPONENTS:
            ledger.enter(name, carrier.held(name))

    def bring_all(self, without: Collection[Component] = ()) -> None:
        """Load all components, where they stay together; not those that another process computes with."""
        if self._together and not self.alone:
            for name in self._sizes.components:
                if name not in without:
                    self._bring(name, 0)

    @contextlib.contextmanager
    def turn(self, phase: PlannedPhase, name: Component) -> Iterator[None]:
        """Make room, bring a component, and let go of it on exit, unless it stays."""
        self.begin(phase, name)
        try:
            yield
        finally:
            self.end(name)

    def begin(self, phase: PlannedPhase, name: Component) -> None:
        """Make room and bring a component; `end` has to follow."""
        self.ledger.begin(phase)
        work = self._sizes.active(phase, name)
        coming = self._sizes.present(name) - self.ledger.held(name)
        self._make_room(name, coming + (work | self._sizes.loading(name)))
        self._bring(name, self._too_many(name, coming + work))
        self.ledger.enter(_WORK, work)

    def end(self, name: Component) -> None:
        """Let go of a component, unless it stays."""
        self.ledger.enter(_WORK, NOTHING)
        if self._together:
            return
        if name in _DROPPED:
            self.ledger.enter(name, self._carrier.drop(name))
        elif name != "transformer":
            self.ledger.enter(name, self._carrier.aside(name))

    def _bring(self, name: Component, fewer: int) -> None:
        if self.ledger.held(name):
            self.ledger.enter(name, self._carrier.bring(name, fewer))
            return
        with self.ledger.during(_LOADING, self._sizes.loading(name)):
            self.ledger.enter(name, self._carrier.bring(name, fewer))

    def _make_room(self, name: Component, wanted: Held) -> None:
        """Let go of what does not compute now, the cheapest to bring again first, until there is room."""
        ledger, carrier = self.ledger, self._carrier
        if self._together:
            for other in COMPONENTS if self.alone else ():
                if other not in (name, "vae") and ledger.held(other):
                    ledger.enter(other, carrier.drop(other))
            return
        self._clear(name)
        if name == "transformer" or not ledger.held("transformer"):
            return
        if not self.alone and (lack := ledger.lack(wanted).card):
            ledger.enter("transformer", carrier.lend("transformer", lack))
        if self.alone or ledger.lack(wanted).card:
            ledger.enter("transformer", carrier.aside("transformer"))
        if self._sizes.reloads and ledger.lack(wanted).host:
            ledger.enter("transformer", carrier.drop("transformer"))

    def _clear(self, name: Component) -> None:
        """Let go of what another way of running has left where it computed: of all components together, or of a turn
        that broke off."""
        for other in _DROPPED:
            if other != name and self.ledger.held(other):
                self.ledger.enter(other, self._carrier.drop(other))
        if name != "vae" and self.ledger.held("vae").card:
            self.ledger.enter("vae", self._carrier.aside("vae"))

    def _too_many(self, name: Component, wanted: Held) -> int:
        """Return how many of the transformer's resident blocks there is no room for."""
        block = self._sizes.resident_block
        if name != "transformer" or not block:
            return 0
        return -(-self.ledger.lack(wanted).card // block)
