"""From a scene and its cut-outs to frames: load_checkpoint, gather_references, condition, sample, decode."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.a2 import attention, step_cache
from engine.a2.checkpoint import Checkpoint
from engine.a2.chunking import chunked
from engine.a2.compute import Compute, choose_compute
from engine.a2.conditioning import Conditioning, condition, too_long
from engine.a2.decoding import decode
from engine.a2.files import find_checkpoint
from engine.a2.geometry import size_of_latents
from engine.a2.loading import load_checkpoint, use_loras
from engine.a2.options import A2Options, as_run, of_the_model
from engine.a2.phases import PhaseName, where
from engine.a2.plan.fallbacks import tiling_of
from engine.a2.preview import LivePreview
from engine.a2.references import Canvas, gather_references
from engine.a2.sampling import Guidance, NotFinite, Run, Step, begin, sample
from engine.a2.state import fingerprint, load_run, save_latents, save_run
from engine.a2.streaming import step_aside, turn
from engine.disk.walk import files_below
from engine.memory.shortage import Shortage, is_shortage, measure
from engine.scene.cast import Member
from engine.scene.scene import Scene

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Callbacks:
    """What the work calls. `tell(stage, step, of, detail)` is called for "loading", "conditioning" and "sampling";
    `on_step` gets every sampling step with its latents; `stop` is asked often and ends the work with Stopped."""

    tell: Callable[[str, int, int, str], None] = lambda *_: None
    on_step: Callable[[Step], None] | None = None
    stop: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Shot:
    """A finished run: `latents` (1, 16, T, h, w) float32, normalised; `frames` decodes them when it is read, `count`
    of them, without the trimmed head; `notices` is what the person should know."""

    latents: torch.Tensor
    frames: Generator[np.ndarray]
    count: int
    notices: Sequence[str]


@dataclass
class Attempt:
    """How far a clip is, for another attempt after one that ran out of memory: the phase, and the run once there is
    one. `asked` are the options that what is kept on disk belongs to. `alone`: keep the transformer off the device
    while other components run, even if resident blocks must be moved to the host. `remark` is told with every step."""

    asked: A2Options
    phase: PhaseName = "loading"
    begun: tuple[Run, Conditioning] | None = None
    alone: bool = False
    remark: str = ""

    @property
    def step(self) -> int:
        """The step that is being made."""
        return self.begun[0].step + 1 if self.begun is not None else 0


def shoot(
    scene: Scene,
    members: Sequence[Member],
    options: A2Options,
    callbacks: Callbacks = Callbacks(),
    loaded: Checkpoint | None = None,
    attempt: Attempt | None = None,
) -> Shot:
    """Make a scene's latents; its frames are decoded as they are read. `loaded` is a checkpoint that is in memory
    already, `attempt` what an earlier attempt has done.

    Raises Shortage (an EngineUnavailable) where memory runs out, other EngineUnavailables, or Stopped. The next time
    the run then goes on from what `options.state` keeps; the last step is kept before anything is decoded.
    """
    attempt = attempt or Attempt(options)
    asked, scene = scene, as_run(scene, options)
    checkpoint = loaded or load(options, callbacks)
    with _memory(checkpoint.compute, attempt), contextlib.ExitStack() as ours:
        if loaded is None:
            ours.callback(checkpoint.close)  # decoding needs the memory, and the blocks are done
        use_loras(checkpoint, options.loras)
        attention.set_attention(checkpoint.transformer, options.attention)
        canvases = gather_references(scene, members)
        run, conditioning, keep = _start(checkpoint, scene, canvases, options, callbacks, attempt)
        attempt.phase = "sampling"
        guidance = Guidance(scene.sampling.guidance, bool(options.batched_guidance))
        callbacks.tell("sampling", run.step, run.steps, attempt.remark)
        live = LivePreview(options.preview, conditioning.colours) if options.preview is not None else None

        def on_step(step: Step) -> None:
            keep()
            if live is not None:
                live.after_step(step.clean)
            if callbacks.on_step is not None:
                callbacks.on_step(step)
            callbacks.tell("sampling", step.step, step.of, attempt.remark)

        with chunked(checkpoint.transformer, options.chunk):
            try:
                latents = sample(checkpoint.transformer, conditioning, run, guidance, on_step, callbacks.stop)
            except NotFinite as error:
                raise NotFinite(error.step, _suspects(options)) from None
    attempt.phase = "decoding"
    if options.save_latents is not None:
        save_latents(options.save_latents, latents)
    head, notices = scene.video.trim_head, _notices(checkpoint, asked, scene, options, run)
    return Shot(latents, frames(checkpoint, latents, options, head, callbacks.stop), scene.video.frames - head, notices)


def _suspects(options: A2Options) -> list[str]:
    """List what was asked for that may make a model's numbers infinite or NaN."""
    found = [f"the LoRA {lora.path.name}" for lora in options.loras]
    found += [f"the {options.attention} attention"] if options.attention != "native" else []
    return found + ([f"the {options.precision} precision"] if options.precision in ("int8", "fp8") else [])


def frames(
    checkpoint: Checkpoint, latents: torch.Tensor, options: A2Options, skip: int, stop: Callable[[], bool] | None = None
) -> Generator[np.ndarray]:
    """Decode, and yield all frames but the first `skip`: the references leak into a clip's head. It is decoded all the
    same, since the VAE looks back at it.

    Raises Shortage, or Stopped.
    """
    tiling = tiling_of(options, size_of_latents(latents.shape), checkpoint.compute.device.type != "cpu")
    with _memory(checkpoint.compute, Attempt(options, "decoding")), turn(checkpoint, "vae"):
        for index, frame in enumerate(decode(checkpoint.vae, latents, tiling, stop)):
            if index >= skip:
                yield frame


def load(options: A2Options, callbacks: Callbacks = Callbacks()) -> Checkpoint:
    """Load the model as the options say. Raises Shortage or another EngineUnavailable, or Stopped."""
    compute = choose_compute(options)
    with _memory(compute, Attempt(options)):
        folder, tell = find_checkpoint(options.model), lambda *how: callbacks.tell("loading", *how)
        return load_checkpoint(folder, compute, tell, callbacks.stop, options.loras, options.cache)


def weights_of(options: A2Options) -> tuple[A2Options, tuple[tuple[str, int, int], ...]]:
    """Return what `load` depends on, options and files: equal where one loaded checkpoint serves both."""
    found = files_below(find_checkpoint(options.model), os.stat)
    files = sorted((path, status.st_size, status.st_mtime_ns) for path, status in found)
    return of_the_model(options), tuple(files)


def _start(
    checkpoint: Checkpoint,
    scene: Scene,
    canvases: Sequence[Canvas],
    options: A2Options,
    callbacks: Callbacks,
    attempt: Attempt,
) -> tuple[Run, Conditioning, Callable[[], None]]:
    """Begin a run or load the one that was kept; return it, its conditioning, and a function that keeps it."""
    state, device, solver = options.state, checkpoint.compute.device, options.solver
    belongs = _belongs(checkpoint, scene, canvases, attempt.asked)
    if attempt.begun is None and state is not None:
        attempt.begun = load_run(state, scene.sampling, solver, belongs, device)
    if attempt.begun is None:

        def tell(step: int, of: int, what: str) -> None:
            attempt.phase = "prompt" if what == "prompt" else "references"
            callbacks.tell("conditioning", step, of, what)

        step_aside(checkpoint, attempt.alone)
        conditioning = condition(checkpoint, scene, canvases, tell, callbacks.stop, options.encode_tiled)
        attempt.begun = begin(conditioning, scene.sampling, solver, device, options.step_cache), conditioning
    run, conditioning = attempt.begun

    def keep() -> None:
        if state is not None:
            save_run(state, run, conditioning, solver, belongs)

    return run, conditioning, keep


def _belongs(checkpoint: Checkpoint, scene: Scene, canvases: Sequence[Canvas], options: A2Options) -> str:
    """Compute what a run on disk belongs to: another model, LoRA, cache or attention would not end on the same latents.
    How guidance is batched changes them by rounding only, and a run that lacks memory goes on without: it counts only
    with the step cache."""
    return fingerprint(
        scene,
        canvases,
        _identity(checkpoint.folder),
        checkpoint.compute,
        options.solver,
        checkpoint.fused.loras,
        (step_cache.facts(), bool(options.batched_guidance)) if options.step_cache else "",
        options.attention,
    )


def _identity(folder: Path) -> list[tuple[str, int]]:
    """Identify a checkpoint by its weight files' names and sizes: reading 30 GB to know it better would cost more than
    it saves."""
    return sorted((f.relative_to(folder).as_posix(), f.stat().st_size) for f in folder.glob("*/*.safetensors"))


def _notices(checkpoint: Checkpoint, asked: Scene, scene: Scene, options: A2Options, run: Run) -> tuple[str, ...]:
    """List what the person should know: above all, everything that changes the picture."""
    of_streams = (notice for slabs in checkpoint.streams.values() for notice in slabs.notices)
    told = list(dict.fromkeys((*checkpoint.notices, *of_streams)))
    if too_long(checkpoint, scene.prompt):
        told.append("The prompt is longer than the model reads (512 tokens): its end was left out.")
    for lora in options.loras:
        if lora.strength:
            told.append(f"LoRA {lora.path.name} at strength {lora.strength:g}: changes the picture.")
    told += [f"Of {left_out} was left out: it does not fit this model." for left_out in checkpoint.fused.left_out]
    if options.turbo:
        used, wanted = scene.sampling, asked.sampling
        told.append(
            f"Turbo: {used.steps} steps, guidance {used.guidance:g} and flow shift {used.flow_shift:g} instead of "
            f"{wanted.steps}, {wanted.guidance:g} and {wanted.flow_shift:g}. Changes the picture: expect less motion, "
            "and less difference between seeds. The negative prompt is not used."
        )
    elif options.solver != "unipc":
        told.append(f"Scheduler {options.solver} instead of unipc: changes the picture.")
    if run.cache is not None and run.cache.reused:
        told.append(f"Step cache: {run.cache.reused} passes were reused. Changes the picture.")
    if effect := attention.effect(options.attention):
        told.append(effect)
    if options.encode_tiled:
        told.append("To save memory the cast was encoded in tiles: changes the picture a little.")
    return tuple(told)


@contextlib.contextmanager
def _memory(compute: Compute, attempt: Attempt) -> Iterator[None]:
    """Raise a Shortage, with the phase and the numbers, where memory runs out: it is for the person to act on, not a
    fault."""
    try:
        yield
    except Shortage:
        raise
    except Exception as error:
        if not is_shortage(error):
            raise
        step = attempt.step
        raise Shortage(attempt.phase, where(attempt.phase, step), measure(error, compute.device), step) from error
