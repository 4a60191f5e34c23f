"""rembg's models: which one serves which quality, loaded once, one inference at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from engine.cutout import weights
from engine.cutout.weights import Unavailable
from engine.surroundings import silence

QUALITIES = {"fast": "u2netp", "standard": "u2net", "best": "birefnet-general-lite"}
_LADDER = ("birefnet-general-lite", "u2net", "u2netp")  # from best to fast; where one is out of reach, the next
_FORGET_AFTER = 300.0  # seconds until a model that could not be had is tried again
_MASK_SIDE = 1024  # pixels; no model looks at more

_IMPORTING = threading.Lock()  # numba's JIT setting is one for the whole process


class Session(Protocol):
    """The part of a rembg session's interface that is used here."""

    def predict(self, image: Image.Image) -> list[Image.Image]: ...


class Models:
    """The loaded models. Thread-safe: a model is loaded once, and one inference runs at a time.

    `load` makes a session for a model's name and raises Unavailable where it cannot be had; tests pass their own.
    """

    def __init__(
        self, load: Callable[[str], Session] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load or load_session
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._failures: dict[str, tuple[float, Unavailable]] = {}
        self._loading = {model: threading.Lock() for model in _LADDER}  # a long download holds up its own model only
        self._inference = threading.Lock()

    def mask(self, model: str, photo: Image.Image) -> Image.Image:
        """Predict the soft mask (L, white = subject) of an RGB photo. Raises Unavailable."""
        session = self._session(model)
        with self._inference:
            try:
                return session.predict(photo)[0]
            except Exception as error:  # out of memory, mostly
                raise Unavailable(f"it failed on this photo, {type(error).__name__}") from None

    def ready(self, model: str) -> None:
        """Load the model now. Raises Unavailable."""
        self._session(model)

    def _session(self, model: str) -> Session:
        with self._loading[model]:
            return self._loaded(model)

    def _loaded(self, model: str) -> Session:
        if model in self._sessions:
            return self._sessions[model]
        if model in self._failures:
            when, why = self._failures[model]
            if self._clock() - when < _FORGET_AFTER:
                # or every cut-out of a person without network would wait for the time-out
                raise Unavailable(str(why), why.remedy)
        try:
            self._sessions[model] = self._load(model)
        except Unavailable as error:
            self._failures[model] = (self._clock(), error.with_traceback(None))
            raise
        return self._sessions[model]


@cache
def shared_models() -> Models:
    """Return the process's only set of models, created at the first call: they are large."""
    return Models()


def ladder(quality: str) -> tuple[str, ...]:
    """Return the models to try for a quality, in order: its own, then the faster ones."""
    return _LADDER[_LADDER.index(QUALITIES[quality]) :]


def model_view(photo: Image.Image) -> Image.Image:
    """Scale a photo down to what a model's mask needs: rembg would scale a full-size mask back up, slowly."""
    view = photo.convert("RGB")
    view.thumbnail((_MASK_SIDE, _MASK_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return view


def load_session(model: str) -> Session:
    """Create a rembg session for a model by name, downloading missing weights. Raises Unavailable."""
    path: Path | None = None
    if model in weights.WEIGHTS:
        folder = weights.weights_folder()
        path = weights.find(model, folder) or weights.fetch(model, folder)
    else:
        folder = weights.home(model)
    try:
        base = _session_class(model)
    except (ImportError, KeyError) as error:
        raise Unavailable(f"rembg does not work here ({error})") from None
    try:
        session: Session = _placed(base, folder, path)(model, _options(), providers=["CPUExecutionProvider"])
        return session
    except Exception as error:  # rembg downloads inside its constructor: network, disk and hash errors of every kind
        if path is None:
            raise Unavailable("it could not be downloaded", weights.CONNECT) from None
        raise Unavailable(f"it could not be loaded ({type(error).__name__})") from None


def _session_class(model: str) -> type[Any]:
    """Import rembg's class for a model.

    rembg imports pymatting, whose very first import compiles for half a minute on two cores. Nothing of it is used here
    (`matte.estimate_foreground` is as good and needs no compiler), so it is imported with numba's JIT disabled.
    """
    silence()  # onnxruntime reports to its maker when it is imported
    import numba
    import onnxruntime  # noqa: F401 - before rembg, which ends the whole process where this is missing

    with _IMPORTING:
        config: Any = numba.config  # its names are defined at import, unknown to mypy
        before = config.DISABLE_JIT
        config.DISABLE_JIT = True
        try:
            from rembg.sessions import sessions_class
        finally:
            config.DISABLE_JIT = before
    by_name: dict[str, type[Any]] = {known.name(): known for known in sessions_class}
    return by_name[model]


def _placed(base: type[Any], folder: Path, path: Path | None) -> type[Any]:
    """Derive from rembg's session class one that uses our weights folder instead of the one in the environment."""

    class Placed(base):  # type: ignore[misc]  # a class that is known at run time only: rembg has no types
        @classmethod
        def download_models(cls, *args: Any, **kwargs: Any) -> str:
            return str(path) if path else super().download_models(*args, **kwargs)

        @classmethod
        def rembg_home(cls, *args: Any, **kwargs: Any) -> str:
            return str(folder)

        u2net_home = rembg_home  # its name in rembg before 2.0.70 or so

    return Placed


def _options() -> Any:
    """Return onnxruntime's session options, with its default of one thread per physical core.

    The graphics card is left to the video model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False  # planned ahead, the second run takes 200 MB more for good, and is no faster
    options.log_severity_level = 3
    return options
