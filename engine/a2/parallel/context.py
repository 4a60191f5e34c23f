"""Each process of a group computes a part of the tokens; only self-attention needs those of the others.

Attention is diffusers' own Ulysses, told by its processors' parallel configuration. Where tokens are divided and joined
is ours: `enable_parallelism` cannot be undone for the next clip, divides by the number of accelerators (none on a
processor), and its hook on the first block stands outside the step cache's, which then compares whole with divided
tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def configure(mesh: Any, split: int) -> Any:
    """Return diffusers' configuration for a mesh with the dimensions "ring", of one, and "ulysses", of `split`."""
    import torch.distributed as dist
    from diffusers import ContextParallelConfig
    from diffusers.models._modeling_parallel import ParallelConfig

    context = ContextParallelConfig(ulysses_degree=split, mesh=mesh)
    parallel = ParallelConfig(context_parallel_config=context)
    parallel.setup(dist.get_rank(), dist.get_world_size(), None, mesh=mesh)
    return parallel


@contextlib.contextmanager
def divided(transformer: Any, parallel: Any) -> Iterator[None]:
    """Let `transformer` (diffusers' WanTransformer3DModel) compute this process's tokens only, until exit. Batch and
    channels stay whole, and so does what it returns."""
    import torch
    import torch.distributed as dist

    config = parallel.context_parallel_config
    group, degree, index = config._ulysses_mesh.get_group(), config.ulysses_degree, config._ulysses_local_rank

    def part(x: torch.Tensor) -> torch.Tensor:
        mine: torch.Tensor = x.chunk(degree, dim=1)[index].contiguous()
        return mine

    def before_blocks(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return part(args[0]), *args[1:]

    def after_rope(_: Any, __: Any, angles: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(map(part, angles))

    def after_head(_: Any, __: Any, out: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(out) for _ in range(degree)]
        dist.all_gather(parts, out.contiguous(), group=group)
        return torch.cat(parts, dim=1)

    processors = [block.attn1.processor for block in transformer.blocks]
    hooks = [
        transformer.blocks[0].register_forward_pre_hook(before_blocks),
        transformer.rope.register_forward_hook(after_rope),
        transformer.proj_out.register_forward_hook(after_head),
    ]
    _tell(processors, parallel)
    try:
        yield
    finally:
        _tell(processors, None)
        for hook in hooks:
            hook.remove()


def _tell(processors: list[Any], parallel: Any) -> None:
    for processor in processors:
        processor._parallel_config = parallel


def unread_of(tokens: int, unread: int, split: int, index: int) -> int:
    """Return how many of the last `unread` of all tokens are in the part of process `index` of `split`."""
    size = tokens // split
    return max(0, min(size, (index + 1) * size - (tokens - unread)))
