"""One answer for all processes of a crew.

Who alone comes to another one, leaves the others waiting in their next exchange without end. So whether to stop is a
question to all. Before a block they need not wait for each other's answers: they hear at one block what was said at the
one before, while the card is busy with that.

No clock ends their waiting: loading may take minutes. That a process is gone is seen by the one that has started it
(crew.py), which then ends the others.
"""

from __future__ import annotations

from typing import Any


class Agreement:
    """Asks all processes of a group that works on the host. All have to ask the same things in the same order."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._said: tuple[Any, Any] | None = None  # what is under way, and where its result comes

    def any(self, mine: bool) -> bool:
        """Return whether it holds in any of them."""
        before = self._heard()
        self._say(mine or before)
        return self._heard()

    def any_before(self, mine: bool) -> bool:
        """Return whether it held in any of them when they were last asked this; ask again, without waiting."""
        before = self._heard()
        self._say(mine)
        return before

    def _say(self, mine: bool) -> None:
        import torch
        import torch.distributed as dist

        flag = torch.tensor([int(mine)])
        self._said = dist.all_reduce(flag, dist.ReduceOp.MAX, self._group, async_op=True), flag

    def _heard(self) -> bool:
        if self._said is None:
            return False
        (work, flag), self._said = self._said, None
        work.wait()
        return bool(flag)
