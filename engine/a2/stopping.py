"""Stopping in the middle of a component's work: before each of its layers, and not long after on the card."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from engine.errors import StopCheck, Stopped

if TYPE_CHECKING:
    import torch

_AHEAD = 2  # layers that the host may ask for before the card has done them


@contextlib.contextmanager
def stopping(layers: Iterable[Any], stop: StopCheck | None, device: torch.device) -> Iterator[None]:
    """Ask `stop` before each of the layers computes, until exit, and raise Stopped where it says so.

    A card does what the host has asked for some thousand kernels later, which are many layers: so the host waits until
    all but the last two are done. That costs nothing: the card has work for as long as it takes to ask for more.
    """
    if stop is None:
        yield
        return
    pace = _Pace(device)

    def ask(*_: Any) -> None:
        pace.keep()
        if stop():
            raise Stopped

    hooks = [layer.register_forward_pre_hook(ask) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Pace:
    """Keeps the host from running far ahead of the card."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: deque[Any] = deque()

    def keep(self) -> None:
        """Wait until all but the last two of what was asked for is done."""
        if self._device.type != "cuda":
            return
        import torch

        mark = torch.cuda.Event()  # type: ignore[no-untyped-call]
        mark.record(torch.cuda.current_stream(self._device))
        self._marks.append(mark)
        if len(self._marks) > _AHEAD:
            self._marks.popleft().synchronize()
