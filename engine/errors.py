"""The tree of errors a person can act on.

TroupeError
    SceneError             a scene file or a field of it
    ImageError             a picture that cannot be used
    CutoutError            background removal failed
    PresetError            a preset file
    VideoError             writing or reading a clip
        EncoderMissing     no ffmpeg
        DiskFull           the disk filled up meanwhile
    EngineUnavailable      the chosen engine cannot run here
        Shortage           engine.memory.shortage: memory ran out
        NotFinite          engine.a2.sampling: the model's numbers left their range
        CrewDied           engine.a2.parallel.crew: one of several cards' processes has ended
    EngineDied             engine.process.client: the engine's process ended before the clip was finished
        EngineClosed       engine.process.client: because Troupe is being closed
    Busy                   engine.models.work: the same work is under way already
    Changed                engine.models.hub: what was listed is not there any more
    InstallFailed          engine.installing: pip could not do it
    StoreError             app.jobs.store_errors: the list of jobs cannot be read or written
    QueueFull              app.jobs.queue: too many jobs are waiting
    Stopped                the person pressed Stop; not a fault

What has no module beside it stands here; only that keeps its class on the way out of the engine's process, the others
arrive as the one above them. Every error carries what is wrong and what to do about it; `str(error)` is one plain line
that a page or a terminal can show unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

StopCheck = Callable[[], bool]  # asked often by what takes long: true ends the work with Stopped


class TroupeError(Exception):
    """Something a person can act on: `problem` says what is wrong, `remedy` what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = _plain_line(problem)
        self.remedy = _plain_line(remedy)
        super().__init__(self.problem, self.remedy)

    # Without `__init__`, whose arguments are each class's own: some build the message from them.
    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[object, ...], dict[str, object]]:
        return _anew, (type(self), *self.args), self.__dict__

    def __str__(self) -> str:
        if not self.remedy:
            return self.problem
        joint = " " if self.problem.endswith((".", "!", "?")) else ". "
        return f"{self.problem}{joint}{self.remedy}"


def _anew(kind: type[BaseException], *args: object) -> BaseException:
    return kind.__new__(kind, *args)  # which keeps the arguments; pickle adds the attributes


def _plain_line(text: str) -> str:
    """Return the text as one line that any terminal can print: half a surrogate pair, from JSON or a file name, cannot
    be encoded."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


class SceneError(TroupeError):
    """A scene that cannot be used; `field` is its path in the JSON, such as `cast[1].placement.x`."""

    def __init__(self, field: str, problem: str, remedy: str = "") -> None:
        self.field = field = _plain_line(field)
        super().__init__(f"{field}: {problem}" if field else problem, remedy)


class ImageError(TroupeError):
    """A picture that cannot be opened, or should not be."""


class CutoutError(TroupeError):
    """Background removal failed."""


class PresetError(TroupeError):
    """A preset file that cannot be used."""


class VideoError(TroupeError):
    """A clip that cannot be written or read."""


class EncoderMissing(VideoError):
    """No ffmpeg binary could be found or started."""


class DiskFull(VideoError):
    """The disk filled up while a clip was written."""


class EngineUnavailable(TroupeError):
    """The chosen engine is not installed or cannot run on this machine."""


class Stopped(TroupeError):
    """The person pressed Stop. Not a fault: the job ends and nothing partial is kept."""

    def __init__(self, problem: str = "Stopped", remedy: str = "") -> None:
        super().__init__(problem, remedy)
