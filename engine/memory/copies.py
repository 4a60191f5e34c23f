"""What carries bytes from the host to the device: CUDA's streams and events, or, on the CPU, plain copies.

The two have the same methods, and nothing else in this package knows which device it is:

reads_anything               whether the device reads any memory by itself, pinned or not
allocate(n)                  n bytes on the device
allocate_host(n)             n bytes on the host, which `pin` can pin
pin(host) -> bool            let the device read them by itself; False: refused, and they stay as they are
unpin(host)
staging(n)                   n pinned bytes for a staging buffer; None: refused
event()                      an event, recorded nowhere yet
copy(target, source, after)  copy to the device once the event `after` is reached
mark_copied(event)           record `event`: it is reached when the copies so far are done
mark_computed(event)         record `event`: it is reached when what is computed so far is done
wait(event)                  what is computed from now on waits for the event; the host does not
hold(event)                  the host waits for the event
drain()                      the host waits for all copies
give_back()                  return device memory that PyTorch caches to the driver, for other libraries and programs
close()                      wait for all copies, and unpin everything
"""

from __future__ import annotations

import mmap
import weakref
from typing import Any

import torch

from engine.memory.host import physical_memory, pinned_limit

_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every context of the process


def copies_for(device: torch.device) -> PlainCopies | CudaCopies:
    """Return what copies to `device`: over a CUDA stream, or plainly."""
    return CudaCopies(device) if device.type == "cuda" else PlainCopies(device)


class PlainCopies:
    """Copies that are done when the call returns."""

    reads_anything = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def allocate(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, device=self.device)

    def allocate_host(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def pin(self, host: torch.Tensor) -> bool:
        return True  # there is no device that would have to read it by itself

    def unpin(self, host: torch.Tensor) -> None: ...

    def staging(self, nbytes: int) -> torch.Tensor | None:
        return None

    def event(self) -> None: ...

    def copy(self, target: torch.Tensor, source: torch.Tensor, after: None) -> None:
        target.copy_(source)

    def mark_copied(self, event: None) -> None: ...

    def mark_computed(self, event: None) -> None: ...

    def wait(self, event: None) -> None: ...

    def hold(self, event: None) -> None: ...

    def drain(self) -> None: ...

    def give_back(self) -> None: ...

    def close(self) -> None: ...


class CudaCopies:
    """Copies on a stream of their own. `cuda` is torch.cuda, or in tests what stands for it.

    Host memory is allocated as usual and then registered: PyTorch's own pinned allocator rounds up to a power of two
    (of 385 MB a block it would make 512) and never gives back what it once had.
    """

    reads_anything = False

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self.device = device
        self._cuda = cuda
        self._stream = cuda.Stream(device)
        self._pinned: dict[int, torch.Tensor] = {}
        self._allowed, _ = pinned_limit(physical_memory()[0][0])
        # For the driver, memory that is freed while registered stays so: where nobody calls close(), this undoes it.
        self._unpin_all = weakref.finalize(self, _unregister_all, cuda, self._pinned)
        self._unpin_all.atexit = False

    def allocate(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, device=self.device)

    def allocate_host(self, nbytes: int) -> torch.Tensor:
        """Allocate whole pages that hold nothing else: two registrations must not share one."""
        page = mmap.PAGESIZE
        room = torch.empty(-(-nbytes // page) * page + page, dtype=torch.uint8)
        start = -room.data_ptr() % page
        return room[start : start + nbytes]

    def pin(self, host: torch.Tensor) -> bool:
        page = mmap.PAGESIZE
        nbytes = -(-host.numel() // page) * page
        held = sum(each.numel() for each in self._pinned.values())
        if self._allowed is not None and held + nbytes > self._allowed:
            return False  # what is refused by the driver there costs others: a card's next allocation may fail for it
        if int(self._cuda.cudart().cudaHostRegister(host.data_ptr(), nbytes, _PORTABLE)):
            self._forget_error()
            return False
        self._pinned[host.data_ptr()] = host
        return True

    def unpin(self, host: torch.Tensor) -> None:
        if self._pinned.pop(host.data_ptr(), None) is not None:
            self._cuda.cudart().cudaHostUnregister(host.data_ptr())

    def staging(self, nbytes: int) -> torch.Tensor | None:
        try:
            return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        except RuntimeError:
            self._forget_error()
            return None

    def event(self) -> Any:
        return self._cuda.Event()

    def copy(self, target: torch.Tensor, source: torch.Tensor, after: Any) -> None:
        self._stream.wait_event(after)
        with self._cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def mark_copied(self, event: Any) -> None:
        event.record(self._stream)

    def mark_computed(self, event: Any) -> None:
        event.record(self._cuda.current_stream(self.device))

    def wait(self, event: Any) -> None:
        self._cuda.current_stream(self.device).wait_event(event)

    def hold(self, event: Any) -> None:
        event.synchronize()

    def drain(self) -> None:
        self._stream.synchronize()

    def give_back(self) -> None:
        self._cuda.empty_cache()

    def close(self) -> None:
        self.drain()
        self._unpin_all()
        self.give_back()

    def _forget_error(self) -> None:
        """Clear the error that a refused call leaves behind: the next kernel would be blamed for it."""
        try:
            torch.zeros(1, device=self.device)
            self._cuda.synchronize(self.device)
        except RuntimeError:
            pass


def _unregister_all(cuda: Any, pinned: dict[int, torch.Tensor]) -> None:
    while pinned:
        address, _ = pinned.popitem()
        cuda.cudart().cudaHostUnregister(address)
