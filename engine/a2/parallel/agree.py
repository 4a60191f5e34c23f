"""One answer for all processes of a crew.

Who alone comes to another one, leaves the others waiting in their next exchange without end. So whether to stop is a
question to all. Before a block they need not wait for each other's answers: they hear at one block what was said at the
one before, while the card is busy with that.

No clock ends their waiting: loading may take minutes. That a process is gone is seen by the one that has started it
(crew.py), which then ends the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_TICK, _PATIENCE = 0.001, 1.0  # seconds between two looks; until the person is told that others are waited for


class Agreement:
    """Asks all processes of a group that works on the host. All have to ask the same things in the same order."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._said: tuple[Any, Any] | None = None  # what is under way, and where its result comes

    def any(self, mine: bool, on_wait: Callable[[], object] = lambda: None) -> bool:
        """Return whether it holds in any of them. `on_wait` is called where the others let us wait."""
        before = self._heard()
        work = self._say(mine or before)
        begun = time.monotonic()
        while not work.is_completed():
            time.sleep(_TICK)
            if time.monotonic() - begun > _PATIENCE:
                on_wait()
                break
        return self._heard()

    def any_before(self, mine: bool) -> bool:
        """Return whether it held in any of them when they were last asked this; ask again, without waiting."""
        before = self._heard()
        self._say(mine)
        return before

    def _say(self, mine: bool) -> Any:
        import torch
        import torch.distributed as dist

        flag = torch.tensor([int(mine)])
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, self._group, async_op=True)
        self._said = work, flag
        return work

    def _heard(self) -> bool:
        if self._said is None:
            return False
        (work, flag), self._said = self._said, None
        work.wait()
        return bool(flag)
