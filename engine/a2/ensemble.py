"""How the processes that make one clip work together. Here: there is only one.

Several (engine/a2/parallel/company.py) compute the same clip, each on a card of its own, and every one of them goes
through the whole recipe. Where their ways could part, the recipe asks its ensemble.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from engine.errors import StopCheck

if TYPE_CHECKING:
    import torch

    from engine.a2.plan.course import Component

T = TypeVar("T")


class Ensemble:
    """One process that makes a clip alone. `size`: how many there are. `leads`: this one writes the files and gets the
    frames. `splits`: every process computes a part of the tokens only. `left_out`: the components that it does not need
    before their turn."""

    size: int = 1
    leads: bool = True
    splits: bool = False
    left_out: tuple[Component, ...] = ()

    # -- the same for all --------------------------------------------------------------------

    def share(self, make: Callable[[], T]) -> T:
        """Return what `make` returns, called by the one that leads. Raises Stopped in all where it raises that."""
        return make()

    def lead_first(self) -> AbstractContextManager[None]:
        """Surround what each does for itself, such as loading, the one that leads before the others. Raises Stopped in
        all where one of them does."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def entered(self, turn: AbstractContextManager[None]) -> Iterator[None]:
        """Enter a turn, the one that leads before the others, and leave it on exit."""
        with contextlib.ExitStack() as stack:
            with self.lead_first():
                stack.enter_context(turn)
            yield

    def heeding(self, stop: StopCheck | None) -> StopCheck | None:
        """Return a stop that says the same in all of them: to be asked equally often in each."""
        return stop

    def room(self, free: int | None) -> int | None:
        """Return how many bytes of the host's memory are for this process, of what is free for it."""
        return free

    # -- the transformer -----------------------------------------------------------------------

    @contextlib.contextmanager
    def splitting(self, transformer: object, tokens: int, unread: int) -> Iterator[int]:
        """Give each process its part of the `tokens` until exit; yields how many of the last `unread` tokens of all are
        in this one's."""
        yield unread

    def in_turn(self, names: Sequence[str], act: Callable[[str], T]) -> dict[str, T]:
        """Do something for each name that is this process's, and return what came of it. The names are passes of the
        guidance, and what is done is a forward of the transformer."""
        return {name: act(name) for name in names}

    def passes(self, names: Sequence[str], run: Callable[[str], torch.Tensor]) -> list[torch.Tensor]:
        """Run the passes of a step, and return all of their velocities, in order."""
        return [run(name) for name in names]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of what each computed of its tokens."""
        return values

    def merged(self, told: Mapping[str, bool]) -> Mapping[str, bool]:
        """Return what all of them tell of their passes."""
        return told

    # -- the decoder ---------------------------------------------------------------------------

    def pieces(
        self, works: Sequence[Callable[[], torch.Tensor]], shapes: Iterable[Sequence[int]]
    ) -> Iterator[torch.Tensor]:
        """Do works, and yield what comes of them, in order and as float32 where others do them; nothing but to the one
        that leads. `shapes` are the results'."""
        for work in works:
            yield work()


ALONE = Ensemble()
