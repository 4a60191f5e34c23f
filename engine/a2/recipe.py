"""From a scene and its cut-outs to frames: load_checkpoint, gather_references, condition, sample, decode."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from engine.a2 import attention, step_cache
from engine.a2.adapters import NO_ADAPTERS, Adapters, adapters_of
from engine.a2.checkpoint import Checkpoint
from engine.a2.compute import Compute, choose_compute
from engine.a2.computing import computing
from engine.a2.conditioning import Conditioning, condition
from engine.a2.decoding import decode
from engine.a2.ensemble import ALONE, Ensemble
from engine.a2.files import Place, locate
from engine.a2.geometry import ClipSize, size_of, size_of_latents
from engine.a2.loading import open_checkpoint
from engine.a2.models import A2
from engine.a2.moving import ComponentMover, settings_of
from engine.a2.notices import notices_of
from engine.a2.options import A2Options, as_run, of_the_model, sized
from engine.a2.phases import PhaseName, where
from engine.a2.plan.course import Course
from engine.a2.plan.fallbacks import tiling_of
from engine.a2.plan.sizes import ComponentSizes
from engine.a2.preview import LivePreview
from engine.a2.references import Canvas, gather_references
from engine.a2.sampling import Guidance, NotFinite, Run, Step, begin, sample
from engine.a2.state import fingerprint, load_run, save_latents, save_run
from engine.disk.walk import files_below
from engine.errors import EngineUnavailable
from engine.memory.card import claim
from engine.memory.host import free_for_us
from engine.memory.ledger import Ledger
from engine.memory.shortage import Shortage, give_back, is_shortage, measure
from engine.scene.cast import Member
from engine.scene.scene import Scene

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Callbacks:
    """What the work calls. `tell(stage, step, of, detail)` is called for "loading", "conditioning" and "sampling";
    `on_step` gets every sampling step with its latents; `stop` is asked often and ends the work with Stopped.
    `ensemble` are the processes that make it together."""

    tell: Callable[[str, int, int, str], None] = lambda *_: None
    on_step: Callable[[Step], None] | None = None
    stop: Callable[[], bool] | None = None
    ensemble: Ensemble = ALONE


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
    one. `asked` are the options that what is kept on disk belongs to. `alone`: whoever computes has the memory to
    itself. `remark` is told with every step."""

    asked: A2Options
    phase: PhaseName = "loading"
    begun: tuple[Run, Conditioning] | None = None
    alone: bool = False
    remark: str = ""

    @property
    def step(self) -> int:
        """The step that is being made."""
        return self.begun[0].step + 1 if self.begun is not None else 0

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Be in the phase of loading until exit; an error leaves it at that."""
        before, self.phase = self.phase, "loading"
        yield
        self.phase = before


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
    checkpoint = loaded or load(options)
    with _memory(checkpoint.compute, attempt), contextlib.ExitStack() as ours:
        if loaded is None:
            ours.callback(checkpoint.close)  # decoding needs the memory, and the blocks are done
        adapters = adapters_of(options.loras)
        course = _course(checkpoint, size_of(scene, checkpoint.spec), options, callbacks, attempt, adapters)
        ensemble = callbacks.ensemble
        with attempt.loading(), ensemble.lead_first():
            course.bring_all(ensemble.left_out)
        making = _Making(checkpoint, scene, options, callbacks, attempt, course)
        canvases = gather_references(scene, members, checkpoint.spec)
        belongs = _belongs(checkpoint, scene, canvases, attempt.asked, adapters)
        run, conditioning = making.begin(canvases, belongs)
        attempt.phase = "sampling"
        with ensemble.entered(course.turn("sampling", "transformer")):
            latents = making.sample(run, conditioning, belongs)
            notices = (*notices_of(checkpoint, asked, scene, options, run), *making.notices)
        if run.cache is not None:
            give_back()  # the hooks that kept hidden states refer to each other
    attempt.phase = "decoding"
    if options.save_latents is not None:
        save_latents(options.save_latents, latents)
    head = scene.video.trim_head
    return Shot(latents, frames(checkpoint, latents, options, head, callbacks), scene.video.frames - head, notices)


@dataclass
class _Making:
    """One attempt at a scene's latents."""

    checkpoint: Checkpoint
    scene: Scene
    options: A2Options
    callbacks: Callbacks
    attempt: Attempt
    course: Course
    notices: tuple[str, ...] = ()

    def begin(self, canvases: Sequence[Canvas], belongs: str) -> tuple[Run, Conditioning]:
        """Return the run that an earlier attempt has begun, or the one that was kept on disk, or a new one; with its
        conditioning."""
        options, sampling, device = self.options, self.scene.sampling, self.checkpoint.compute.device
        solver, share = options.solver(self.checkpoint.spec), self.callbacks.ensemble.share
        if self.attempt.begun is None and options.state is not None:
            kept = load_run(options.state, sampling, solver, belongs, device)
            if share(lambda: kept is not None):
                self.attempt.begun = kept or _unread(options.state)
            if kept is not None and kept[0].cache is not None and self.attempt.asked != options:
                kept[0].cache.whole.clear()  # passes may be computed in another way than they were
        if self.attempt.begun is None:
            conditioning = share(partial(
                condition, self.checkpoint, self.scene, canvases, self._tell, self.callbacks.stop, options.encode_tiled,
                self.course.turn,
            ))  # fmt: skip
            run = begin(conditioning, sampling, solver, device, options.step_cache)
            self.attempt.begun = run, conditioning
        return self.attempt.begun

    def sample(self, run: Run, conditioning: Conditioning, belongs: str) -> torch.Tensor:
        """Take the run to its end; return the latents. Every step is kept on disk, where that is asked."""
        options, callbacks, transformer = self.options, self.callbacks, self.checkpoint.transformer
        attention.set_attention(transformer, options.attention)
        spec, asked = self.checkpoint.spec, self.scene.sampling
        ensemble, stop = callbacks.ensemble, callbacks.ensemble.heeding(callbacks.stop)
        guidance = Guidance(asked.guidance, bool(options.batched_guidance), spec.image_scale(asked), ensemble)
        clip = size_of(self.scene, spec)
        live = LivePreview(options.preview, conditioning.colours) if options.preview is not None else None
        callbacks.tell("sampling", run.step, run.steps, self.attempt.remark)

        def on_step(step: Step) -> None:
            if options.state is not None and ensemble.leads:
                how = options.solver(spec), self.checkpoint.compute.precision
                save_run(options.state, run, conditioning, how, belongs)
            if live is not None:
                live.after_step(step.clean)
            if callbacks.on_step is not None:
                callbacks.on_step(step)
            callbacks.tell("sampling", step.step, step.of, self.attempt.remark)

        with (
            ensemble.splitting(transformer, clip.tokens, clip.unread) as unread,
            attention.attending(options.attention),
            computing(transformer, options, unread) as compiler,
        ):
            try:
                latents = sample(transformer, conditioning, run, guidance, on_step, stop)
            except NotFinite as error:
                halves = str(self.checkpoint.compute.dtype) == "torch.float16"
                raise NotFinite(error.step, _suspects(options, halves)) from None
            self.notices = compiler.notices if compiler is not None else ()
            return latents

    def _tell(self, step: int, of: int, what: str) -> None:
        self.attempt.phase = "prompt" if what == "prompt" else "references"
        self.callbacks.tell("conditioning", step, of, what)


def _unread(state: Path) -> NoReturn:
    raise EngineUnavailable(f"{state} was read by one process and not by another", "Generate it again.")


def _suspects(options: A2Options, halves: bool = False) -> list[str]:
    """List what was asked for that may make a model's numbers infinite or NaN."""
    found = [f"the LoRA {lora.path.name}" for lora in options.loras]
    if halves:
        found.append("the half precision that this card computes in (with --precision fp32)")
    found += [f"the {options.attention} attention"] if options.attention not in (None, "native") else []
    found += ["the 8-bit multiplication"] if options.w8a8 else []
    return found + ([f"the {options.precision} precision"] if options.precision in ("int8", "fp8") else [])


def frames(
    checkpoint: Checkpoint, latents: torch.Tensor, options: A2Options, skip: int,
    callbacks: Callbacks = Callbacks(), alone: bool = False,
) -> Generator[np.ndarray]:  # fmt: skip
    """Decode, and yield all frames but the first `skip`: the references leak into a clip's head. It is decoded all the
    same, since the VAE looks back at it. `alone` is the attempt's.

    Raises Shortage, or Stopped.
    """
    clip, attempt = size_of_latents(latents.shape), Attempt(options, "decoding", alone=alone)
    ensemble = callbacks.ensemble
    stop = callbacks.stop if ensemble.size == 1 else None  # several ask together, between two latent frames
    tiling = tiling_of(options, clip, checkpoint.compute.device.type != "cpu")
    with _memory(checkpoint.compute, attempt):
        course = _course(checkpoint, clip, options, Callbacks(stop=callbacks.stop, ensemble=ensemble), attempt)
        with ensemble.entered(course.turn("decoding", "vae")):
            for index, frame in enumerate(decode(checkpoint.vae, latents, tiling, stop, ensemble)):
                if index >= skip:
                    yield frame


def load(options: A2Options) -> Checkpoint:
    """Open the model as the options say; its components are loaded when they are needed. Raises Shortage or another
    EngineUnavailable."""
    compute = choose_compute(options)
    with _memory(compute, Attempt(options)):
        return open_checkpoint(locate(options.model, options.family), compute, options.loras, options.cache)


def preload(options: A2Options, callbacks: Callbacks = Callbacks()) -> Checkpoint:
    """Load all of the model, if it is to stay. Raises Shortage or another EngineUnavailable, or Stopped."""
    checkpoint, attempt = load(options), Attempt(options)
    with _memory(checkpoint.compute, attempt):
        _course(checkpoint, ClipSize(), options, callbacks, attempt, adapters_of(options.loras)).bring_all()
    return checkpoint


def _course(
    checkpoint: Checkpoint, clip: ClipSize, options: A2Options, callbacks: Callbacks, attempt: Attempt,
    adapters: Adapters = NO_ADAPTERS,
) -> Course:  # fmt: skip
    """Return the course of a clip with this checkpoint, within what is free here now."""
    import torch

    checkpoint.vae_dtype = torch.bfloat16 if options.vae_precision == "bf16" else torch.float32
    settings = settings_of(options, checkpoint, clip)
    on_load = partial(callbacks.tell, "loading")
    mover = ComponentMover(checkpoint, settings, adapters, on_load, callbacks.stop, attempt.loading)
    sizes = ComponentSizes(checkpoint.shapes, sized(clip, options), settings)
    ledger = Ledger(claim(checkpoint.compute.device), callbacks.ensemble.room(free_for_us()))
    return Course(ledger, mover, sizes, settings.together, attempt.alone)


def weights_of(options: A2Options) -> tuple[A2Options, tuple[tuple[str, int, int], ...]]:
    """Return what `load` depends on, options and files: equal where one loaded checkpoint serves both."""
    files = sorted(
        (path, status.st_size, status.st_mtime_ns) for path, status in _files_of(locate(options.model, options.family))
    )
    return of_the_model(options), tuple(files)


def _files_of(place: Place) -> Iterator[tuple[str, os.stat_result]]:
    """Yield all files of a checkpoint, with their status."""
    for part in place.parts.values():
        if part.is_dir():
            yield from files_below(part, os.stat)
        else:
            for path in part.parent.glob("*.safetensors"):
                yield str(path), path.stat()


def _belongs(
    checkpoint: Checkpoint, scene: Scene, canvases: Sequence[Canvas], options: A2Options, adapters: Adapters
) -> str:
    """Compute what a run on disk belongs to: another model, LoRA, cache or attention would not end on the same latents.
    How guidance is batched changes them by rounding only, and a run that lacks memory goes on without: it counts only
    with the step cache."""
    return fingerprint(
        scene,
        canvases,
        _identity(checkpoint),
        checkpoint.compute,
        options.solver(checkpoint.spec),
        adapters.identity,
        (step_cache.facts(), bool(options.batched_guidance)) if options.step_cache else "",
        options.attention or "native",
        *_only_if_used(options),
    )


def _only_if_used(options: A2Options) -> list[str]:
    """List what changes latents beyond rounding where it is used; without it, a run belongs to what it always did."""
    return ["w8a8"] * bool(options.w8a8) + ["VAE in bf16"] * (options.vae_precision == "bf16")


def _identity(checkpoint: Checkpoint) -> list[tuple[str, int]]:
    """Identify a checkpoint by its weight files' names and sizes: reading 30 GB to know it better would cost more than
    it saves."""
    files = {
        (f"{name}/{path.name}", path.stat().st_size)
        for name, part in checkpoint.files.items()
        for _, path in part.tensors.values()
    }
    family, heads = checkpoint.spec.family, checkpoint.shapes.transformer.heads
    return [*sorted(files), *([] if family == A2.family else [(family, heads)])]  # no file's size tells how many heads


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
