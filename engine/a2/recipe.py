"""From a scene and its cut-outs to frames: load_checkpoint, gather_references, condition, sample, decode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.a2.checkpoint import Checkpoint, Compute, choose_compute, load_checkpoint
from engine.a2.conditioning import Conditioning, condition, too_long
from engine.a2.decoding import decode, tiling_for
from engine.a2.files import find_checkpoint
from engine.a2.options import A2Options
from engine.a2.references import Canvas, gather_references
from engine.a2.sampling import Guidance, Run, Step, begin, sample
from engine.a2.state import fingerprint, load_run, save_latents, save_run
from engine.cast import Member
from engine.errors import EngineUnavailable
from engine.scene import Scene

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Watch:
    """Who looks on. `tell(stage, step, of, detail)` hears of "loading", "conditioning" and "sampling"; `on_step` gets
    every sampling step with its latents; `stop` is asked often and ends the work with Stopped."""

    tell: Callable[[str, int, int, str], None] = lambda *_: None
    on_step: Callable[[Step, Conditioning], None] | None = None
    stop: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Shot:
    """A finished run: `latents` (1, 16, T, h, w) float32, normalised; `frames` decodes them when it is read, `count`
    of them, without the trimmed head; `notices` is what the person should know."""

    latents: torch.Tensor
    frames: Generator[np.ndarray]
    count: int
    notices: tuple[str, ...]


def shoot(
    scene: Scene,
    members: Sequence[Member],
    options: A2Options,
    watch: Watch = Watch(),
    loaded: Checkpoint | None = None,
) -> Shot:
    """Make a scene's latents, and the frames as they are asked for. `loaded` is a checkpoint that is in memory already.

    Raises EngineUnavailable, or Stopped. What `options.state` keeps then goes on from there the next time.
    """
    compute = loaded.compute if loaded else choose_compute(options)
    with _memory(compute):
        checkpoint = loaded or load_checkpoint(
            find_checkpoint(options.model),
            compute,
            lambda *how: watch.tell("loading", *how),
            watch.stop,
            cache=options.cache,
        )
        canvases = gather_references(scene, members)
        run, conditioning, keep = _start(checkpoint, scene, canvases, options, watch)
        guidance = Guidance(scene.sampling.guidance, options.batched_guidance)
        watch.tell("sampling", run.step, run.steps, "")

        def on_step(step: Step) -> None:
            keep()
            if watch.on_step is not None:
                watch.on_step(step, conditioning)
            watch.tell("sampling", step.step, step.of, "")

        latents = sample(checkpoint.transformer, conditioning, run, guidance, on_step, watch.stop)
    if options.save_latents is not None:
        save_latents(options.save_latents, latents)
    frames = decode(checkpoint.vae, latents, tiling_for(*latents.shape[3:]), watch.stop)
    head = scene.video.trim_head
    return Shot(latents, _without_head(compute, frames, head), scene.video.frames - head, _notices(checkpoint, scene))


def _start(
    checkpoint: Checkpoint, scene: Scene, canvases: Sequence[Canvas], options: A2Options, watch: Watch
) -> tuple[Run, Conditioning, Callable[[], None]]:
    """A run, new or taken up again, its conditioning, and how to keep it."""
    state, device = options.state, checkpoint.compute.device
    belongs = fingerprint(scene, canvases, _identity(checkpoint.folder), checkpoint.compute, options.scheduler)
    found = load_run(state, scene.sampling, options.scheduler, belongs, device) if state is not None else None
    if found is not None:
        run, conditioning = found
    else:
        conditioning = condition(checkpoint, scene, canvases, lambda *how: watch.tell("conditioning", *how), watch.stop)
        run = begin(conditioning, scene.sampling, options.scheduler, device)

    def keep() -> None:
        if state is not None:
            save_run(state, run, conditioning, options.scheduler, belongs)

    return run, conditioning, keep


def _without_head(compute: Compute, frames: Iterator[np.ndarray], head: int) -> Generator[np.ndarray]:
    """The references leak into the first frames. They are decoded all the same: the VAE looks back at them."""
    with _memory(compute):
        for index, frame in enumerate(frames):
            if index >= head:
                yield frame


def _identity(folder: Path) -> list[tuple[str, int]]:
    """A checkpoint by its weight files' names and sizes: reading 30 GB to know it better would cost more than it
    saves."""
    return sorted((f.relative_to(folder).as_posix(), f.stat().st_size) for f in folder.glob("*/*.safetensors"))


def _notices(checkpoint: Checkpoint, scene: Scene) -> tuple[str, ...]:
    if not too_long(checkpoint, scene.prompt):
        return checkpoint.notices
    return (*checkpoint.notices, "The prompt is longer than the model reads (512 tokens): its end was left out.")


@contextlib.contextmanager
def _memory(compute: Compute) -> Iterator[None]:
    """Too little memory is a person's matter, not a fault."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one, and the CPU's allocator has none of its own
        if "memory" not in str(error):
            raise
        problem = f"{compute.device} has too little memory for this clip"
        raise EngineUnavailable(problem, "Make it smaller or shorter, or use --precision int8.") from error
