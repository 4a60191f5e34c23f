"""How many bytes of tensors are alive at once, for the tests and benches of engine.memory. Not a test file: it is
imported after torch is known to be there."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from engine.memory.layout import parts_of


class Live(TorchDispatchMode):
    """Counts every tensor that an operation makes until it is freed; `peak` in bytes. What `known` modules hold does
    not count. Works on the "meta" device, too: so a model of 14 billion can be watched that no machine here holds."""

    def __init__(self, *known: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, Any] = {}  # by address; kept, so that no other storage gets it
        self.holders: Counter[int] = Counter()
        self.sizes: dict[int, tuple[str, int]] = {}
        for module in known:
            self.overlook(module)

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                for part in parts_of(tensor):
                    self._see(part)
        return result

    def overlook(self, module: torch.nn.Module) -> None:
        """Never count what a module's tensors hold, nor views of it."""
        for tensor in (*module.parameters(), *module.buffers()):
            storages = [part.untyped_storage() for part in parts_of(tensor)]
            self.known |= {storage._cdata: storage for storage in storages}

    def count(self, device: str, size: int) -> None:
        """Note that so many bytes more (or less) are alive on a kind of device."""
        self.now += size
        self.peak = max(self.peak, self.now)

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        if not self.holders[key]:
            self.sizes[key] = tensor.device.type, storage.nbytes()
            self.count(*self.sizes[key])
        self.holders[key] += 1
        weakref.finalize(tensor, self._drop, key)

    def _drop(self, key: int) -> None:
        self.holders[key] -= 1
        if not self.holders[key]:
            del self.holders[key]
            device, size = self.sizes.pop(key)
            self.count(device, -size)


class FusedAttention(TorchFunctionMode):
    """On "meta" attention would be taken apart, with a matrix of tokens by tokens that no real device makes."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function is not scaled_dot_product_attention:
            return function(*args, **kwargs)
        query = args[0] if args else kwargs["query"]
        batch, heads, tokens, size = query.shape
        return query.new_empty(batch, tokens, heads, size).transpose(1, 2)
