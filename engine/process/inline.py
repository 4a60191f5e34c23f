"""The engine without a process of its own, for ZeroGPU Spaces: there the Space lends a GPU to one function, and runs it
in a process that it forks from ours.

The function is the same engine entry (`engine.process.worker.perform`), as a generator: what it yields comes back to
us, and closing it reaches it. Errors travel as messages, since the Space would turn an exception into its own.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

from engine.a2.options import A2Options
from engine.door.render import Progress, RenderRequest, Result, render
from engine.errors import EngineUnavailable, Stopped
from engine.memory.model_cache import Garage
from engine.process import messages
from engine.process.client import EngineDied
from engine.process.worker import perform
from engine.scene.scene import Scene

_BEAT = 0.5  # seconds between two looks at `stop`
_USE_THE_DRAFT = "Use the draft, which needs no GPU"

# What the time to ask for is reckoned from. The rate is taken low for the cards that Spaces lend, and was not measured
# there: too short a time ends a clip unfinished, too long a time only asks for more of the person's quota.
_WEIGHTS, _WIDTH, _LAYERS = 14e9, 5120, 40
_RATE = 100e12  # floating point operations a second
_BESIDES = 60.0  # seconds for the text encoder, the VAE and the film


class InlineEngine:
    """What `engine.process.client.EngineProcess` is, on a ZeroGPU Space. The model that `options` name is loaded here
    and now, on the way up, where no GPU time is counted: the forked process finds it in place.

    Has to be made before Gradio's launch, which counts the functions that want a GPU, and before torch is imported.
    """

    def __init__(self, options: A2Options | None = None) -> None:
        import spaces

        garage = Garage()

        def on_gpu(request: RenderRequest) -> Iterator[messages.FromEngine]:
            yield from _messages(request, garage)

        self._on_gpu = spaces.GPU(duration=gpu_seconds)(on_gpu)
        self._turn = threading.Lock()
        with contextlib.suppress(EngineUnavailable):  # without a model there is the draft
            _load(options or A2Options(), garage)

    def start(self) -> None:
        """All that can be done ahead is done."""

    def render(
        self,
        request: RenderRequest,
        on_progress: Callable[[Progress], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Result:
        """Make the clip, as `engine.door.render` does; the draft right here. Raises what the door raises, EngineFault,
        and EngineDied where the Space lends no GPU or takes it away."""
        if (request.engine or request.scene.engine) == "draft":
            return render(request, on_progress, stop)
        with self._turn, contextlib.closing(self._on_gpu(request)) as answers:
            try:
                for message in answers:
                    if isinstance(message, messages.Told) and on_progress is not None:
                        on_progress(message.progress)
                    elif isinstance(message, messages.Done):
                        return message.result
                    elif isinstance(message, messages.Failed):
                        raise messages.error_of(message)
                    if isinstance(message, messages.Halted) or (stop is not None and stop()):
                        raise Stopped
            except Exception as error:
                if told := _in_words(error):
                    raise told from None
                raise
        raise EngineDied("the Space's GPU went away before the clip was finished", "Generate it again.")

    def release(self) -> None:
        """The Space takes the memory back by itself."""

    def close(self, patience: float = 0.0) -> None:
        """There is nothing to end."""


def gpu_seconds(request: RenderRequest) -> int:
    """How long to ask for a GPU: what a diffusion transformer of this size computes (2 operations a weight and token,
    4 width a pair of tokens and layer), over a rate that is taken low."""
    scene: Scene = request.scene
    video, sampling = scene.video, scene.sampling
    tokens = ((video.frames - 1) // 4 + 1) * (video.height // 16) * (video.width // 16)
    forward = 2 * _WEIGHTS * tokens + 4 * _WIDTH * _LAYERS * tokens**2
    passes = sampling.steps * (2 if sampling.guidance > 1 else 1)
    return round(_BESIDES + passes * forward / _RATE)


def _load(options: A2Options, garage: Garage) -> None:
    from engine.a2 import recipe
    from engine.a2.options import check_installed

    check_installed()
    garage.fetch(recipe.weights_of(options), lambda: recipe.load(options))


def _messages(request: RenderRequest, garage: Garage) -> Iterator[messages.FromEngine]:
    """A job as a generator. Something comes out every half second at least, since a close is only heard there."""
    told: queue.SimpleQueue[messages.FromEngine] = queue.SimpleQueue()
    left = threading.Event()
    job = threading.Thread(
        target=perform, args=(messages.Render(1, request), told.put, left.is_set, garage), name="troupe-gpu-job"
    )
    job.start()
    try:
        while True:
            try:
                message = told.get(timeout=_BEAT)
            except queue.Empty:
                message = messages.Alive()
            yield message
            if isinstance(message, messages.Done | messages.Halted | messages.Failed):
                return
    finally:
        left.set()
        job.join()


def _in_words(error: Exception) -> EngineDied | None:
    """What the Space itself raises (no quota, no GPU free, time over) has a title and a message for the person."""
    title, message = getattr(error, "title", None), getattr(error, "message", None)
    if not isinstance(title, str) or "ZeroGPU" not in title:
        return None
    return EngineDied(f"{title}: {str(message).rstrip('.')}", f"{_USE_THE_DRAFT}, or try again later.")
