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

from engine.door.render import Progress, RenderRequest, Result, render
from engine.errors import EngineUnavailable, Stopped
from engine.memory.model_cache import ModelCache
from engine.process import messages
from engine.process.client import EngineDied
from engine.process.worker import perform
from engine.scene.engine import EngineOptions
from engine.scene.engines import all_engines

_BEAT = 0.5  # seconds between two looks at `stop`
_USE_THE_DRAFT = "Use the draft, which needs no GPU"


class InlineEngine:
    """The same as `engine.process.client.EngineProcess`, on a ZeroGPU Space. The models that its engines use are loaded
    in this process while it starts, where no GPU time is counted: the forked process inherits them.

    Has to be made before Gradio's launch, which counts the functions that want a GPU, and before torch is imported.
    """

    def __init__(self, options: EngineOptions | None = None) -> None:
        """Load the models. `options`: how to run the engine whose model is loaded; by default as it runs on its own."""
        import spaces

        cache = ModelCache()

        def on_gpu(request: RenderRequest) -> Iterator[messages.FromEngine]:
            yield from _messages(request, cache)

        self._on_gpu = spaces.GPU(duration=gpu_seconds)(on_gpu)
        self._turn = threading.Lock()
        for engine in all_engines():
            if engine.wants_gpu and (options is None or isinstance(options, engine.options)):
                with contextlib.suppress(EngineUnavailable):  # without a model there is the draft
                    engine.preload(options or engine.options(), cache)

    def start(self) -> None:
        """Do nothing: all that can be done ahead is done."""

    def render(
        self,
        request: RenderRequest,
        on_progress: Callable[[Progress], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Result:
        """Make the clip, as `engine.door.render` does; what wants no GPU in this process. Raises what the door raises,
        EngineFault, and EngineDied where the Space lends no GPU or takes it away."""
        if not request.made_by.wants_gpu:
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
        """Do nothing: the Space takes the memory back by itself."""

    def holds(self) -> None:
        """Return None: the card is only lent, and this machine has none that a clip could be planned for."""

    def close(self, patience: float = 0.0) -> None:
        """Do nothing: there is no process to end."""


def gpu_seconds(request: RenderRequest) -> int:
    """Return for how many seconds to ask for a GPU."""
    return request.made_by.gpu_seconds(request.scene, request.options or request.made_by.options())


def _messages(request: RenderRequest, cache: ModelCache) -> Iterator[messages.FromEngine]:
    """Run a job in a thread and yield its messages, at least one every half second: a closed generator notices that
    only where it yields."""
    told: queue.SimpleQueue[messages.FromEngine] = queue.SimpleQueue()
    left = threading.Event()
    job = threading.Thread(
        target=perform, args=(messages.RenderOrder(1, request), told.put, left.is_set, cache), name="troupe-gpu-job"
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
    """Return the error for what the Space itself raises (no quota, no GPU free, time over), which has a title and a
    message for the person; None for other errors."""
    title, message = getattr(error, "title", None), getattr(error, "message", None)
    if not isinstance(title, str) or "ZeroGPU" not in title:
        return None
    return EngineDied(f"{title}: {str(message).rstrip('.')}", f"{_USE_THE_DRAFT}, or try again later.")
