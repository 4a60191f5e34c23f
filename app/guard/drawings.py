"""Uploaded drawings: Gradio's editor keeps what was painted, under a name that the client chooses, until a handler
takes it. What none takes would stay until the server ends; here it is limited and expires."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.errors import TroupeError

NAMES = 2  # drawings of one session that are kept
SECONDS = 600.0  # that a drawing is kept


@dataclass
class _Drawing:
    who: str
    session: str
    store: dict[str, Any]  # the editor's own, name -> drawing
    since: float = 0.0
    parts: dict[str, int] = field(default_factory=dict)  # bytes of each layer, as it was sent

    @property
    def size(self) -> int:
        return sum(self.parts.values())


class Drawings:
    """The drawings that no handler has taken yet. Of one visitor `most` bytes are kept: the oldest are dropped
    first."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._kept: OrderedDict[str, _Drawing] = OrderedDict()  # by name, the one that changed last at the end
        self._lock = threading.Lock()

    def note(self, who: str, session: str, name: str, part: tuple[str, int], store: dict[str, Any]) -> None:
        """Note a part (its name, its bytes) of a drawing that is about to arrive, and drop the oldest where there are
        too many. Raises TroupeError where the drawing is too large."""
        with self._lock:
            self._sweep()
            known = self._kept.pop(name, None)
            drawing = known if known and name in store else _Drawing(who, session, store)
            drawing.parts[part[0]] = part[1]
            if drawing.size > self._most:
                store.pop(name, None)
                raise TroupeError("This drawing is too large", "Paint on a smaller picture.")
            for each in [each for each, kept in self._kept.items() if each not in kept.store]:
                del self._kept[each]  # a handler has taken it
            drawing.since = self._clock()
            self._kept[name] = drawing
            self._thin(lambda each: each.session == session, lambda found: len(found) > NAMES)
            self._thin(lambda each: each.who == who, lambda found: sum(each.size for each in found) > self._most)

    def end(self, session: str) -> None:
        """Drop the drawings of a session that is over."""
        with self._lock:
            for name in [name for name, drawing in self._kept.items() if drawing.session == session]:
                self._drop(name)

    def sweep(self) -> None:
        """Drop the drawings that nobody has changed for ten minutes."""
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        late = self._clock() - SECONDS
        for name in [name for name, drawing in self._kept.items() if drawing.since <= late]:
            self._drop(name)

    def _thin(self, whose: Callable[[_Drawing], bool], too_much: Callable[[list[_Drawing]], bool]) -> None:
        """Drop the oldest of the drawings chosen by `whose`, until they are no longer `too_much`."""
        names = [name for name, drawing in self._kept.items() if whose(drawing)]
        while too_much([self._kept[name] for name in names]):
            self._drop(names.pop(0))

    def _drop(self, name: str) -> None:
        self._kept.pop(name).store.pop(name, None)
