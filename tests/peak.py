"""How many bytes of tensors are alive at once, for the tests and benches of engine.memory. Not a test file: it is
imported after torch is known to be there."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class Live(TorchDispatchMode):
    """Counts every tensor that an operation makes until it is freed; `peak` in bytes. What `known` modules hold does
    not count. Works on the "meta" device, too: so a model of 14 billion can be watched that no machine here holds."""

    def __init__(self, *known: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = {
            tensor.untyped_storage()._cdata for module in known for tensor in (*module.parameters(), *module.buffers())
        }
        self.holders: dict[int, int] = {}
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._see(tensor)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        if key not in self.holders:
            self.holders[key], self.sizes[key] = 0, storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        self.holders[key] += 1
        weakref.finalize(tensor, self._drop, key)

    def _drop(self, key: int) -> None:
        self.holders[key] -= 1
        if not self.holders[key]:
            del self.holders[key]
            self.now -= self.sizes.pop(key)


class FusedAttention(TorchFunctionMode):
    """On "meta" attention would be taken apart, with a matrix of tokens by tokens that no real device makes."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function is not scaled_dot_product_attention:
            return function(*args, **kwargs)
        query = args[0] if args else kwargs["query"]
        batch, heads, tokens, size = query.shape
        return query.new_empty(batch, tokens, heads, size).transpose(1, 2)
