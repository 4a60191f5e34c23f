"""The tree of errors a person can act on.

TroupeError
  x SceneError          a scene file or a field of it
  x ImageError          a picture that cannot be used
  x CutoutError         background removal failed
  x PresetError         a preset file
  + VideoError          writing or reading a clip
    x EncoderMissing
    x DiskFull
  x EngineUnavailable   the chosen engine cannot run here
  x Stopped             the person pressed Stop; not a fault

(x: raised as it is; +: a family.) Every error carries what is wrong and what to do about it; `str(error)` is one
plain line that a page or a terminal can show unchanged.
"""

from __future__ import annotations

from collections.abc import Callable


class TroupeError(Exception):
    """Something a person can act on: `problem` says what is wrong, `remedy` what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = _plain_line(problem)
        self.remedy = _plain_line(remedy)
        super().__init__(self.problem, self.remedy)  # both, so that the error survives pickling

    def __str__(self) -> str:
        if not self.remedy:
            return self.problem
        joint = " " if self.problem.endswith((".", "!", "?")) else ". "
        return f"{self.problem}{joint}{self.remedy}"


def _plain_line(text: str) -> str:
    """One line that any terminal can print: half a surrogate pair, from JSON or a file name, cannot be encoded."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


class SceneError(TroupeError):
    """A scene that cannot be used; `field` is its path in the JSON, such as `cast[1].placement.x`."""

    def __init__(self, field: str, problem: str, remedy: str = "") -> None:
        self.field = field = _plain_line(field)
        super().__init__(f"{field}: {problem}" if field else problem, remedy)

    # The message was built from the field: rebuild from the finished parts.
    def __reduce__(self) -> tuple[Callable[..., SceneError], tuple[str, str, str]]:
        return _rebuild_scene_error, (self.field, self.problem, self.remedy)


def _rebuild_scene_error(field: str, problem: str, remedy: str) -> SceneError:
    error = SceneError("", problem, remedy)
    error.field = field
    return error


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
