"""What stands for torch.cuda where there is no card: it keeps track of what may run before what, and finds faults.

Computing happens at once; copies happen as late as the waiting allows, so that what is not waited for has not come.
What may run before what is told by vector clocks: each stream knows how far every stream is for certain, and hands that
on through events. Not a test file: it is imported after torch is known to be there.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class FakeStream:
    cuda: FakeCuda
    name: str
    seen: Counter[str] = field(default_factory=Counter)  # of each stream: how many of its operations are surely over

    def wait_event(self, event: FakeEvent) -> None:
        with self.cuda.lock:
            self.seen |= event.seen  # the larger of each
            if self.name == "compute":
                self.cuda.run_copies(event.seen["copy"])

    def synchronize(self) -> None:
        self.cuda.wait_on_host(self.seen)
        self.cuda.compute_stream.seen |= self.seen  # what the host asks for from now on comes after


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.seen: Counter[str] = Counter()

    def record(self, stream: FakeStream) -> None:
        with self.cuda.lock:
            self.seen = stream.seen.copy()

    def synchronize(self) -> None:
        self.cuda.wait_on_host(self.seen)


class FakeCuda:
    """`refuse_after` registrations of host memory no more are granted. `faults` is what went wrong."""

    def __init__(self, refuse_after: int = 10**6) -> None:
        self.lock = threading.RLock()
        self.compute_stream, self.copy_stream = FakeStream(self, "compute"), FakeStream(self, "copy")
        self.faults: list[str] = []
        self.registered: dict[int, int] = {}
        self.host_waits: list[str] = []  # names of the threads that waited for the device
        self.copied = self.emptied = 0
        self._granted = refuse_after
        self._late: deque[tuple[int, Callable[[], object]]] = deque()
        self._last: dict[str, Counter[int]] = {"compute": Counter(), "copy": Counter()}  # who used which memory when

    # what torch.cuda has

    def Stream(self, _device: torch.device) -> FakeStream:
        return self.copy_stream

    def Event(self) -> FakeEvent:
        return FakeEvent(self)

    def current_stream(self, _device: torch.device) -> FakeStream:
        return self.compute_stream

    @contextlib.contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        assert stream is self.copy_stream
        with _Recorder(self):
            yield

    def synchronize(self, _device: torch.device) -> None:
        self.wait_on_host(self.copy_stream.seen)

    def empty_cache(self) -> None:
        self.emptied += 1

    def cudart(self) -> FakeCuda:
        return self

    def cudaHostRegister(self, address: int, nbytes: int, _flags: int) -> int:
        if address % mmap.PAGESIZE or nbytes % mmap.PAGESIZE or address in self.registered:
            self.faults.append("registered in a way that can share a page")
        if self._granted <= 0:
            return 2
        self._granted -= 1
        self.registered[address] = nbytes
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        if self._late:
            self.faults.append("unregistered under a copy")
        del self.registered[address]
        return 0

    # the order of things

    def compute(self, weight: torch.Tensor) -> None:
        """A block reads `weight`."""
        self._use(self.compute_stream, weight, "copy")

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        with self.lock:
            self._use(self.copy_stream, target, "compute")
            self._late.append((self.copy_stream.seen["copy"], lambda: target.copy_(source)))
            self.copied += 1

    def run_copies(self, upto: int) -> None:
        with self.lock:
            while self._late and self._late[0][0] <= upto:
                self._late.popleft()[1]()

    def wait_on_host(self, seen: Counter[str]) -> None:
        self.host_waits.append(threading.current_thread().name)
        self.run_copies(seen["copy"])

    def _use(self, stream: FakeStream, tensor: torch.Tensor, other: str) -> None:
        with self.lock:
            memory = tensor.untyped_storage().data_ptr()
            if stream.seen[other] < self._last[other][memory]:
                self.faults.append(f"{stream.name} before {other} was over")
            stream.seen[stream.name] += 1
            self._last[stream.name][memory] = stream.seen[stream.name]


class _Recorder(TorchDispatchMode):
    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__()
        self._cuda = cuda

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.copy_.default:
            target, source, non_blocking = args
            if not non_blocking:
                self._cuda.faults.append("a copy that the host waits for")
            self._cuda.copy(target, source)
            return target
        return func(*args, **(kwargs or {}))
