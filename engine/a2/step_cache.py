"""The step cache: a pass whose first block adds much the same as before reuses what the other blocks added.

First-block cache, with diffusers' hooks: the first block always runs; where its residual differs by less than a
threshold from that of the last whole pass, what the other blocks added then is added again. It needs no calibration:
the ratios that MagCache wants belong to one model, one number of steps and one flow shift, and TaylorSeer extrapolates
on a fixed beat, whatever the model says.

What it keeps from step to step is as large as the model's hidden states, gigabytes for a real clip. A run on disk keeps
the latents of the last whole pass instead: running the model on them once more brings everything back, bit for bit.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.a2.ensemble import ALONE, Ensemble

if TYPE_CHECKING:
    import torch

THRESHOLD = 0.1  # of the first block's residual
WHOLE_AT_FIRST = 0.2  # of the steps: they decide the composition
WHOLE_AT_LAST = 1  # steps

Forward = Callable[[str, "torch.Tensor", int], "torch.Tensor"]  # which pass, latents, step -> velocity


@dataclass
class Kept:
    """What a run must keep to go on with the same cache. `whole` is, for each pass of the guidance by its name, the
    step at which it last ran through all blocks, and the latents then; `reused` counts the passes that did not."""

    whole: dict[str, tuple[int, torch.Tensor]] = field(default_factory=dict)
    reused: int = 0


def facts() -> str:
    """Return the cache's settings, which latents depend on where it is used."""
    return f"first block {THRESHOLD} {WHOLE_AT_FIRST} {WHOLE_AT_LAST}"


def make_config() -> Any:
    """Return the cache's settings as diffusers takes them."""
    from diffusers import FirstBlockCacheConfig

    return FirstBlockCacheConfig(THRESHOLD)


class StepCache:
    """Runs the passes of a step, with the cache where it may be used.

    Between `begin` and `commit` lies one step; what is stopped in between leaves `kept` as it was. Of several processes
    that make a clip all come to the same decisions, and each keeps what all have decided.
    """

    def __init__(
        self, transformer: Any, kept: Kept, steps: int, forward: Forward, ensemble: Ensemble = ALONE
    ) -> None:  # fmt: skip
        self._transformer, self._kept, self._forward, self._ensemble = transformer, kept, forward, ensemble
        self._window = range(math.ceil(WHOLE_AT_FIRST * steps), steps - WHOLE_AT_LAST)
        self._made: dict[str, bool] = {}  # the passes of this step that ran here: through all blocks?
        self._at: tuple[int, torch.Tensor] | None = None  # the step, and its latents

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Remove the hooks on exit; `begin` attaches them."""
        try:
            yield
        finally:
            self._detach()

    def begin(self, step: int) -> None:
        """Prepare for this step: attach the hooks and fill the cache with the last whole passes, or detach them."""
        self._made, self._at = {}, None
        if step not in self._window:
            self._detach()
        elif not self._transformer.is_cache_enabled:
            self._transformer.enable_cache(make_config())
            if self._ensemble.splits:
                self._decide_together()
            whole = self._kept.whole
            self._ensemble.in_turn(list(whole), lambda name: self._run(name, whole[name][1], whole[name][0]))

    def __call__(self, name: str, latents: torch.Tensor, step: int) -> torch.Tensor:
        """Run one pass of the guidance, and return its velocity."""
        if step not in self._window:
            return self._forward(name, latents, step)
        flow, self._made[name] = self._run(name, latents, step)
        self._at = step, latents
        return flow

    def commit(self) -> None:
        """Keep what the passes of this step have changed: the step is done."""
        if self._at is None:
            return
        for name, whole in self._ensemble.merged(self._made).items():
            if whole:
                self._kept.whole[name] = self._at
            else:
                self._kept.reused += 1

    def _decide_together(self) -> None:
        """Let the first block's residual be compared over the tokens of all processes: each would come to a decision of
        its own by its part, and the one that goes on would wait for the others without end."""
        import torch
        from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK

        hook = self._transformer.blocks[0]._diffusers_hook.get_hook(_FBC_LEADER_BLOCK_HOOK)

        def changed(residual: torch.Tensor) -> bool:
            before = hook.state_manager.get_state().head_block_residual
            if before is None:
                return True
            means = torch.stack([(residual - before).abs().mean(), before.abs().mean()])
            difference, size = self._ensemble.mean(means.float())
            return bool((difference / size).item() > hook.threshold)

        hook._should_compute_remaining_blocks = changed

    def _run(self, name: str, latents: torch.Tensor, step: int) -> tuple[torch.Tensor, bool]:
        """Run a pass with the hooks on; return its velocity, and whether it went through all blocks."""
        seen: list[bool] = []
        # A hook on the block itself would hear of a pass that skips it, too.
        within = self._transformer.blocks[-1].attn1.register_forward_pre_hook(lambda *_: seen.append(True))
        try:
            with self._transformer.cache_context(name):
                return self._forward(name, latents, step), bool(seen)
        finally:
            within.remove()

    def _detach(self) -> None:
        if self._transformer.is_cache_enabled:
            self._transformer.disable_cache()
