"""From noise to latents, step by step; stopped between two transformer blocks, and taken up again where it was.

Flow matching: the transformer predicts the velocity, a scheduler of diffusers integrates it. UniPC (arXiv 2302.04867)
is what the authors use; Euler is what step-distilled weights are made for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.a2.conditioning import Conditioning
from engine.a2.ensemble import ALONE, Ensemble
from engine.a2.models import COND, NOTHING, passes_of
from engine.a2.step_cache import Forward, Kept, StepCache
from engine.a2.stopping import stopping
from engine.errors import EngineUnavailable, StopCheck
from engine.scene.scene import Sampling

if TYPE_CHECKING:
    import torch

TRAIN_STEPS = 1000


@dataclass
class Run:
    """A run between two steps: all that the next one depends on.

    `latents` (1, 16, T, h, w) float32, on the device; `step` of `steps` are done; the scheduler holds the history of
    its earlier steps, and `cache` what the step cache needs of them (None: it is not used).
    """

    latents: torch.Tensor
    step: int
    steps: int
    scheduler: Any
    cache: Kept | None = None


@dataclass(frozen=True)
class Step:
    """What a callback gets after a step: `step` of `of` are done, this one took `seconds`. `latents` are those of the
    run; `clean` is what the model now predicts the finished clip to be (for previews). (1, 16, T, h, w) float32 both.
    """

    step: int
    of: int
    latents: torch.Tensor
    clean: torch.Tensor
    seconds: float


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: uncond + scale (cond - uncond), none at `scale` up to 1. With a guidance of the
    references, `image_scale`, it is nothing + image_scale (references - nothing) + scale (cond - references), where
    `references` is told the cast and the negative prompt, and `nothing` the negative prompt alone. `batched` runs all
    passes at once; otherwise the `ensemble` runs them."""

    scale: float
    batched: bool = False
    image_scale: float | None = None
    ensemble: Ensemble = ALONE

    @property
    def passes(self) -> tuple[str, ...]:
        """The passes of a step."""
        return passes_of(self.scale, self.image_scale)

    def combine(self, flows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Combine the velocities of the passes, in their order."""
        if len(flows) == 1:
            return flows[0]
        if len(flows) == 2:
            cond, uncond = flows
            return uncond + self.scale * (cond - uncond)
        cond, references, nothing = flows
        assert self.image_scale is not None
        return nothing + self.image_scale * (references - nothing) + self.scale * (cond - references)


class NotFinite(EngineUnavailable):
    """The latents became infinite or NaN, beyond what the precision can hold; the clip would be black. `step`:
    where."""

    def __init__(self, step: int, suspects: Sequence[str] = ()) -> None:
        self.step = step
        leave = f"Leave out {' and '.join(suspects)}" if suspects else "Try another precision, or load the model anew"
        problem = f"at step {step} the model's numbers became infinite or none at all (NaN): the clip would be black"
        super().__init__(problem, f"{leave}, and generate it again.")


def make_scheduler(name: str, sampling: Sampling) -> Any:
    """Make a scheduler of diffusers, ready for the first step. It works on the CPU, where 8 MB a step are nothing:
    UniPC solves a small system, for which the card's library would want some hundred MB when the card is full. Raises
    ValueError for an unknown name."""
    import diffusers

    classes: Any = diffusers  # their types are those of stand-ins, for where torch is missing
    if name == "unipc":
        scheduler = classes.UniPCMultistepScheduler(
            num_train_timesteps=TRAIN_STEPS,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=sampling.flow_shift,
        )
    elif name == "euler":
        scheduler = classes.FlowMatchEulerDiscreteScheduler(TRAIN_STEPS, shift=sampling.flow_shift)
        # Even steps before the shift, from all noise: left to itself it spends its last step on almost none.
        levels = [1 - step / sampling.steps for step in range(sampling.steps)]
        scheduler.set_timesteps(sigmas=levels, device="cpu")
        return scheduler
    else:
        raise ValueError(f"no scheduler {name!r}")
    scheduler.set_timesteps(sampling.steps, device="cpu")
    return scheduler


def begin(
    conditioning: Conditioning, sampling: Sampling, scheduler: str, device: torch.device, step_cache: bool = False
) -> Run:
    """Make a run before its first step."""
    made, kept = make_scheduler(scheduler, sampling), Kept() if step_cache else None
    return Run(conditioning.noise.to(device), 0, sampling.steps, made, kept)


def sample(
    transformer: Any,
    conditioning: Conditioning,
    run: Run,
    guidance: Guidance,
    on_step: Callable[[Step], None] | None = None,
    stop: StopCheck | None = None,
) -> torch.Tensor:
    """Take the run to its end; the final latents, (1, 16, T, h, w) float32 on the run's device.

    `stop` is asked before every transformer block. Stopped, or memory that runs out, leaves `run` as it was before that
    step: given to `sample` again it ends on the same latents, bit for bit. Raises NotFinite for numbers that are none.
    """
    import torch

    if conditioning.negative_embeds is None:
        guidance = replace(guidance, scale=1.0)
    forward = _forward(transformer, conditioning, run, guidance)
    cache = None
    if run.cache is not None:
        cache = StepCache(transformer, run.cache, run.steps, forward, guidance.ensemble)
    with (
        torch.no_grad(),
        stopping(transformer.blocks, stop, run.latents.device),
        cache.attached() if cache else contextlib.nullcontext(),
    ):
        while run.step < run.steps:
            begun = time.perf_counter()
            timestep = run.scheduler.timesteps[run.step]
            if cache:
                cache.begin(run.step)
            flow = _velocity(cache or forward, run, guidance)
            # A flow's sample is x = (1 - sigma) clean + sigma noise, and its velocity noise - clean.
            clean = torch.sub(run.latents, flow, alpha=float(timestep) / TRAIN_STEPS)
            # From here to the end of the step nothing asks for a stop: the scheduler's history, the cache's and the
            # step move on together.
            with _whole_or_not(run.scheduler):
                device, flow = run.latents.device, flow.cpu()
                following = run.scheduler.step(flow, timestep, run.latents.cpu(), return_dict=False)[0]
                if not following.isfinite().all():
                    raise NotFinite(run.step + 1)
                run.latents = following.to(device)
            run.step += 1
            if cache:
                cache.commit()
            if on_step is not None:
                on_step(Step(run.step, run.steps, run.latents, clean, time.perf_counter() - begun))
    return run.latents


ALL = "both"  # the passes of a step as one batch; runs that were kept name it so


def _velocity(forward: Forward, run: Run, guidance: Guidance) -> torch.Tensor:
    """Compute the velocity at the run's latents, guided where that is asked."""
    names = guidance.passes
    if guidance.batched and len(names) > 1:
        return guidance.combine(forward(ALL, run.latents, run.step).chunk(len(names)))
    return guidance.combine(guidance.ensemble.passes(names, lambda name: forward(name, run.latents, run.step)))


def _forward(transformer: Any, conditioning: Conditioning, run: Run, guidance: Guidance) -> Forward:
    """Return the transformer as a function of which pass, latents and step. What stays the same over a run is moved to
    the device once."""
    import torch

    dtype, device = transformer.dtype, run.latents.device

    def there(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return tensor.to(device, dtype) if tensor is not None else None

    condition, image = there(conditioning.condition), there(conditioning.image_embeds)
    references = there(conditioning.references)
    prompt, negative = there(conditioning.prompt_embeds), there(conditioning.negative_embeds)
    nothing = torch.zeros_like(references) if references is not None and NOTHING in guidance.passes else None
    told: dict[str, tuple[torch.Tensor | None, torch.Tensor | None]] = {}

    def forward(name: str, latents: torch.Tensor, step: int) -> torch.Tensor:
        batch, x = len(guidance.passes) if name == ALL else 1, latents.to(dtype)
        if name not in told:  # once: keys and values of the context are kept for these very tensors
            names = guidance.passes if name == ALL else (name,)
            texts = [prompt if each == COND else negative for each in names]
            tails = [nothing if each == NOTHING else references for each in names]
            told[name] = _together(texts), _together(tails)
        text, tail = told[name]
        if condition is not None:
            x = torch.cat([x, condition], dim=1)  # (1, 36, T, h, w)
        x = x.expand(batch, -1, -1, -1, -1)
        if tail is not None:
            x = torch.cat([x, tail], dim=2)  # (batch, 16, T + R, h, w)
        flow: torch.Tensor = transformer(
            hidden_states=x,
            timestep=run.scheduler.timesteps[step].to(device).expand(batch),
            encoder_hidden_states=text,
            encoder_hidden_states_image=image.expand(batch, -1, -1) if image is not None else None,
            return_dict=False,
        )[0]
        return flow[:, :, : latents.shape[2]].float()

    return forward


def _together(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Return the tensors as one batch; one alone as it is."""
    import torch

    there = [part for part in parts if part is not None]
    return torch.cat(there) if len(there) > 1 else there[0] if there else None


@contextlib.contextmanager
def _whole_or_not(scheduler: Any) -> Iterator[None]:
    """Restore the scheduler's history where a step fails in the middle. Its tensors are never written to."""
    before = {name: list(value) if isinstance(value, list) else value for name, value in vars(scheduler).items()}
    try:
        yield
    except BaseException:
        vars(scheduler).clear()
        vars(scheduler).update(before)
        raise
