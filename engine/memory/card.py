"""How much of a card this process may use, and what streaming to it takes. No torch here: plans count with it, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CONTEXT = 600 * 2**20  # bytes: the driver's own and the kernels', beside all tensors. An allowance, not a measurement

CHUNK = 32 * 2**20  # bytes of a staging buffer: a power of two, which is what the pinned allocator hands out
CHUNKS = 3  # one is filled while another is copied; the third evens out delays
ROWS = 2048  # tokens that are multiplied in 8 bits at a time: their products are int32 before they are scaled
SLOTS = 2  # places for a block on the card, into which streamed blocks are copied

_SPARE = 100 * 2**20  # bytes: what others take between two looks


def claim(device: torch.device) -> int | None:
    """Limit this process to what is free on the card or its own already, and return how many bytes that is; None
    without a card, or where it is lent and not there yet. Beyond it PyTorch raises its out-of-memory error, on every
    system: without a limit, drivers for Windows and WSL put what does not fit into the computer's memory instead, and
    everything takes ten times as long."""
    if device.type != "cuda":
        return None
    import torch

    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # a Space lends its card later
        return None
    allowed = min(total, max(0, free + torch.cuda.memory_reserved(device) - _SPARE))
    torch.cuda.set_per_process_memory_fraction(allowed / total, device.index or 0)  # "cuda" without one is the first
    return allowed


def own_bytes() -> int:
    """Return what this process holds of the cards: its tensors, what PyTorch keeps for the next ones, and the driver's
    context. 0 where no card is in use. Never loads torch."""
    import sys

    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    initialised = getattr(cuda, "is_initialized", None)  # while torch is imported in another thread it has not all yet
    if initialised is None or not initialised():
        return 0
    return CONTEXT + sum(int(cuda.memory_reserved(index)) for index in range(cuda.device_count()))
