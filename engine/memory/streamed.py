"""A block's forward that copies its weights to the device first, and how to replace the computation in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Streamed:
    """A block's forward that waits for the block's weights first. A step cache that skips blocks wraps it, and calls it
    only where there is something to compute."""

    def __init__(
        self, in_place: Callable[[int], AbstractContextManager[None]], index: int, compute: Callable[..., Any]
    ) -> None:
        self.in_place: Callable[[int], AbstractContextManager[None]] | None = in_place
        self.index = index
        self.__wrapped__ = compute  # where inspect.signature looks

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.in_place is None:  # closed, but something put on the block later still calls this
            return self.__wrapped__(*args, **kwargs)
        with self.in_place(self.index):
            return self.__wrapped__(*args, **kwargs)


def check_unwrapped(index: int, block: torch.nn.Module) -> None:
    """Raise ValueError where a block's forward is replaced already: whatever replaced it could, when it is removed,
    remove this one too, and the block would compute with another one's weights. Removes a closed Streamed that was left
    behind."""
    if isinstance(block.forward, Streamed) and block.forward.in_place is None:  # left by a cache that came off late
        del block.forward
    if block.forward != type(block).forward.__get__(block):
        raise ValueError(f"block {index} has a forward of its own already: open this before a step cache is put on")


def replace_compute(block: torch.nn.Module, compute: Callable[..., Any]) -> Callable[[], None]:
    """Replace a block's computation, under the streaming where it streams; return what undoes it."""
    forward = vars(block).get("forward")
    if isinstance(forward, Streamed):
        before, forward.__wrapped__ = forward.__wrapped__, compute

        def undo() -> None:
            forward.__wrapped__ = before

        return undo
    block.forward = compute
    return lambda: vars(block).pop("forward", None)
