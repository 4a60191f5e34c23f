"""Memory that ran out: how to tell it from other faults, and the true numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import EngineUnavailable
from engine.memory.host import physical_memory
from engine.words import GIB

if TYPE_CHECKING:
    import torch

# What the libraries say where they have no type of their own for it: C10's allocators, cuBLAS, cuDNN, and the system.
_WORDS = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|unable to allocate|bad allocation"
    r"|bad_alloc|STATUS_ALLOC_FAILED|insufficient memory|error code: <1455>|paging file is too small", re.IGNORECASE,
)  # fmt: skip
# What they also say when something else is wrong: it counts only where next to nothing is free on the card.
_PERHAPS = re.compile(
    r"CUBLAS_STATUS_(NOT_INITIALIZED|EXECUTION_FAILED)|CUSOLVER_STATUS_(INTERNAL_ERROR|NOT_INITIALIZED)"
    r"|CUDNN_STATUS_(INTERNAL_ERROR|NOT_INITIALIZED|EXECUTION_FAILED)"
    r"|unable to find an engine to execute this computation", re.IGNORECASE,
)  # fmt: skip
_NEXT_TO_NOTHING = 2**30  # bytes; a library's handle and workspace take some hundred MB
_ASKED = re.compile(r"tried to allocate ([\d.]+) ?(bytes|KiB|MiB|GiB)", re.IGNORECASE)
_ALLOWED = re.compile(r"([\d.]+) ?(MiB|GiB) allowed", re.IGNORECASE)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class Shortage(EngineUnavailable):
    """Memory ran out in a phase of the work, `where` in words such as "at step 12". The engine catches it to try a
    fallback; where none is left, its message is what the person reads."""

    def __init__(self, phase: str, where: str, need: Need, step: int = 0) -> None:
        self.phase, self.where, self.need, self.step = phase, where, need, step
        super().__init__(f"memory ran out {where} ({need})", "Make the clip smaller or shorter.")

    def alone(self) -> Shortage:
        """Return a copy without traceback and causes: a traceback keeps everything alive that was in use."""
        return Shortage(self.phase, self.where, self.need, self.step)


@dataclass(frozen=True)
class Need:
    """The numbers when memory ran out, in bytes: what was `asked` for in vain (None: not told), `used` and `total`
    (None: not known) of `where`, a card or the computer's memory."""

    asked: int | None
    used: int | None
    total: int | None
    where: str

    def __str__(self) -> str:
        known = f"{self.used / GIB:.1f} of {self.total / GIB:.1f} GB" if self.used is not None and self.total else ""
        if self.asked is None:
            return f"{known} of {self.where} were in use" if known else f"of {self.where}"
        more = f"{self.asked / GIB:.2f} GB more" if self.asked >= GIB / 100 else f"{self.asked / 2**20:.1f} MB more"
        return f"{more} were needed with {known} of {self.where} in use" if known else f"{more} of {self.where}"


def is_shortage(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a card or on the host; an illegal access to it does not
    count."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == 12 or getattr(error, "winerror", None) in (8, 14, 1455)
    if not isinstance(error, Exception):
        return False
    return bool(_WORDS.search(str(error))) or (bool(_PERHAPS.search(str(error))) and _card_is_full())


def is_poisoned(error: BaseException) -> bool:
    """Return whether after an error, or what led to it, this process can no longer use its card: after an illegal
    memory access, for example, every call fails with the same error, even where the model is loaded anew."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        kinds = {kind.__name__ for kind in type(cause).__mro__}
        if ("AcceleratorError" in kinds or "CUDA error:" in str(cause)) and not is_shortage(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _card_is_full() -> bool:
    import sys

    torch: Any = sys.modules.get("torch")
    try:
        return torch is not None and torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < _NEXT_TO_NOTHING
    except RuntimeError:
        return False


def measure(error: BaseException, device: torch.device) -> Need:
    """Read how much memory there is, is in use and was asked for; to be called before what was in use is freed.
    `device` is what is computed on."""
    asked = _bytes(_ASKED.search(str(error)))
    if device.type == "cuda" and _is_the_cards(error):
        import torch

        try:
            free, total = torch.cuda.mem_get_info(device)
            used = total - free
            if (allowed := _bytes(_ALLOWED.search(str(error)))) is not None:
                used, total = torch.cuda.memory_reserved(device), allowed
            return Need(asked, used, total, "the card's memory")
        except RuntimeError:
            return Need(asked, None, None, "the card's memory")
    (ram, _), (left, _) = physical_memory()
    taken = ram - left if ram is not None and left is not None else None
    return Need(asked, taken, ram, "the computer's memory")


def give_back() -> None:
    """Collect garbage, such as a failed attempt's, and return the card's memory that PyTorch caches to the driver."""
    import gc
    import sys

    gc.collect()  # modules and their hooks refer to each other
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _is_the_cards(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "alloc_cpu" not in str(error) and "CPUAllocator" not in str(error)


def _bytes(found: re.Match[str] | None) -> int | None:
    return round(float(found[1]) * _UNITS[found[2].lower()]) if found else None
