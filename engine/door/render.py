"""The one door to every engine: a scene goes in, a whole MP4 comes out, and progress is told on the way.

`render` reads top-down: choose the engine, gather the cast, shoot, keep. Whoever calls it (the page, the command line)
knows nothing of the engines behind it; an engine knows nothing of files, metadata and remaining time.
"""

from __future__ import annotations

import contextlib
import math
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from engine import VERSION
from engine.errors import CutoutError, ImageError, SceneError, StopCheck, Stopped, TroupeError, VideoError
from engine.scene.cast import Member
from engine.scene.engine import FINISHING, GATHERING, Engine, EngineOptions, RunContext
from engine.scene.engines import find_engine
from engine.scene.metrics import all_metrics
from engine.scene.scene import Element, Scene, label
from engine.scene.scene_file import scene_from_data

if TYPE_CHECKING:
    from engine.media.video import Metadata
    from engine.memory.model_cache import ModelCache


@dataclass(frozen=True)
class RenderRequest:
    """What to make and where to put it.

    `root` is the folder that the scene's image paths are relative to; `confined` refuses those that lead out of it
    (a scene from a stranger). `engine` overrides the scene's own. `members` are cut-outs already in hand, one for each
    of the scene's cast in its order; then nothing is opened or cut out. `quality` and `cache` are `engine.cutout`'s.
    Without `embed_scene` the clip does not tell its scene or prompt. `poster` saves a picture beside the clip.
    `options` say how to run the engine, and are of its kind; None: as it runs by default. With `plan`, what they leave
    open is decided for this machine as it is now; a page does that before.
    """

    scene: Scene
    root: Path
    out: Path
    engine: str | None = None
    quality: str = "fast"
    cache: Path | None = None
    embed_scene: bool = True
    members: tuple[Member, ...] | None = None
    confined: bool = False
    poster: bool = True
    options: EngineOptions | None = None
    plan: bool = False

    @property
    def made_by(self) -> Engine:
        """The engine that makes it."""
        return find_engine(self.engine or self.scene.engine)


@dataclass(frozen=True)
class Progress:
    """How far it is: `step` of `of` in `stage`; seconds since the start, and seconds that are left in this stage (None
    while that would be a guess). `detail` says what it is about, such as the component that is loaded. Stages are the
    engine's, with the door's own before and after them (`Engine.all_stages`).
    """

    stage: str
    step: int
    of: int
    elapsed: float
    remaining: float | None
    detail: str = ""


@dataclass(frozen=True)
class Result:
    """A finished clip: its file, its poster (None where none was wanted), frames, the seconds it took, the engine,
    what the person should know about it (doubtful cut-outs and the like), and what was measured on it, by metric."""

    path: Path
    poster: Path | None
    frames: int
    seconds: float
    engine: str
    notices: tuple[str, ...]
    metrics: tuple[tuple[str, float], ...] = ()


def render(
    request: RenderRequest,
    on_progress: Callable[[Progress], None] | None = None,
    stop: StopCheck | None = None,
    cache: ModelCache | None = None,
) -> Result:
    """Make the clip; `stop` is asked often and ends the work with Stopped. Nothing partial is ever left behind. A
    `cache` keeps the model for the next call.

    Raises EngineUnavailable, SceneError, ImageError, CutoutError (these name the field), VideoError or Stopped.
    """
    from engine.media.video import prepare_folder, write_video  # here: asking for the door does not load numpy and PIL
    from engine.memory.model_cache import ModelCache

    engine = request.made_by
    options = request.options or engine.options()
    clock = _Clock(on_progress, {stage.name for stage in engine.stages if stage.weight})
    engine.available(options)
    scene = engine.completed(_with_engine(request.scene, request.engine), options)
    engine.check(scene, options)
    prepare_folder(request.out, scene.video)  # what would fail after hours of work should fail before them
    if request.plan:
        options = engine.planned(scene, options, request.out.parent)
    members, notices = _cast(request, scene, clock, stop)
    footage = engine.shoot(scene, members, RunContext(options, clock.tell, stop, cache or ModelCache()))
    clock.tell(footage.stage, 0, footage.count)
    with contextlib.closing(footage.frames) as frames:
        count = write_video(
            frames,
            request.out,
            scene.video,
            metadata=_metadata(scene, members, footage.note or engine.note, request.embed_scene),
            stop=stop,
            on_frame=lambda done: clock.tell(footage.stage, done, footage.count),
        )
    notices = (*notices, *footage.notices)
    poster = None
    if request.poster:
        clock.tell(FINISHING.name, 0, 1)
        poster, fault = _poster(request.out)
        notices = (*notices, *fault)
    metrics, unmeasured = _measure(request.out, scene)
    return Result(request.out, poster, count, clock.elapsed(), scene.engine, (*notices, *unmeasured), metrics)


def _with_engine(scene: Scene, engine: str | None) -> Scene:
    if engine is None or engine == scene.engine:
        return scene
    return scene_from_data(
        {**scene.model_dump(exclude_unset=True), "engine": engine}
    )  # each engine has its own idea of a valid length


# ---------------------------------------------------------------------------
# The cast


def gather(
    request: RenderRequest, on_member: Callable[[int], None] | None = None, stop: StopCheck | None = None
) -> tuple[tuple[Member, ...], tuple[str, ...]]:
    """Open the pictures of `request.scene` and cut them out; return the cast in the scene's order, and the notices
    about it.

    Raises SceneError, ImageError or CutoutError, which name the field; Stopped between two of them.
    """
    members: list[Member] = []
    notices: list[str] = []
    for index, element in enumerate(request.scene.cast):
        if stop is not None and stop():
            raise Stopped
        _check_paths(element, index, request)
        which = ""
        try:
            member, told = _member(element, request)
            for number, view in enumerate(element.views):
                which = f"views[{number}]"
                other, more = _member(element.model_copy(update={"image": view, "cutout": _of_view(element)}), request)
                member, told = replace(member, views=(*member.views, other.picture)), (*told, *more)
        except (ImageError, CutoutError) as error:
            field = f"cast[{index}].{which}" if which else _field_at_fault(element, index, error)
            raise type(error)(f"{field}: {error.problem}", error.remedy) from None
        members.append(member)
        notices.extend(f"{label(element, index)}: {notice}" for notice in told)
        if on_member is not None:
            on_member(index + 1)
    return tuple(members), tuple(notices)


def _of_view(element: Element) -> str:
    """Return how a further view is cut out: as the picture is; its mask fits no other."""
    return element.cutout if element.cutout in ("auto", "none") else "auto"


def _member(element: Element, request: RenderRequest) -> tuple[Member, tuple[str, ...]]:
    from engine import cutout
    from engine.media.images import open_with_notices

    if request.made_by.whole_photos and element.cutout == "none" and element.role != "background":
        # As it was opened: a model's numbers depend on every pixel, and a cut-out's working size is smaller.
        opened = open_with_notices(request.root / element.image)
        return Member(element, opened.picture.convert("RGBA")), opened.notices
    cut = cutout.cut_out_element(element, request.root, quality=request.quality, cache=request.cache)
    return Member(element, cut.picture), tuple(notice for notice in (cut.notice, *cut.doubts) if notice)


def _check_paths(element: Element, index: int, request: RenderRequest) -> None:
    """Raise SceneError where a file that the element names is not there, or, where that is asked, not within the
    root."""
    named = {"image": element.image, **{f"views[{i}]": view for i, view in enumerate(element.views)}}
    if element.role != "background" and element.cutout not in ("auto", "none"):
        named["cutout"] = element.cutout
    for key, name in named.items():
        field = f"cast[{index}].{key}"
        shown = repr(name if len(name) <= 200 else f"{name[:199]}…")
        if "\0" in name or (request.confined and not _is_within(request.root, name)):
            raise SceneError(field, f"{shown} leads out of the scene's folder", "Name a picture inside it.")
        try:
            there = (request.root / name).is_file()
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            reason = error.strerror or error
            raise SceneError(field, f"the file {shown} cannot be opened ({reason})", "Check its name.") from None
        if not there:
            raise SceneError(field, f"there is no file {shown}", "Paths are relative to the scene file.")


def _is_within(root: Path, name: str) -> bool:
    if _is_absolute(name):
        return False
    try:
        return (root / name).resolve().is_relative_to(root.resolve())  # resolved: a link may lead out, too
    except (OSError, RuntimeError):  # a name that is too long; links that run in a circle
        return False


def _is_absolute(name: str) -> bool:
    """Return whether a path is absolute on any system: a scene may have been written on another one. `C:a.png` is not
    absolute, but has a drive, and counts."""
    return PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)


def _field_at_fault(element: Element, index: int, error: ImageError | CutoutError) -> str:
    by_mask = element.cutout not in ("auto", "none") and Path(element.cutout).name in error.problem
    return f"cast[{index}].{'cutout' if by_mask else 'image'}"


def _cast(
    request: RenderRequest, scene: Scene, clock: _Clock, stop: StopCheck | None
) -> tuple[tuple[Member, ...], tuple[str, ...]]:
    if request.members is not None:
        if len(request.members) != len(scene.cast):
            raise ValueError(f"{len(request.members)} members for a cast of {len(scene.cast)}")
        return request.members, ()
    clock.tell(GATHERING.name, 0, len(scene.cast))
    return gather(request, lambda done: clock.tell(GATHERING.name, done, len(scene.cast)), stop)


# ---------------------------------------------------------------------------
# What is kept


def _metadata(scene: Scene, members: Sequence[Member], note: str, embed_scene: bool) -> Metadata:
    """Build the clip's metadata. The note about how it was made is always there, so that a draft says that it is one;
    without `embed_scene` nothing else is."""
    from engine.media import embed
    from engine.media.video import Metadata

    made_by = f"Made with Troupe {VERSION}, engine {scene.engine}."
    description = f"{note} {made_by}".strip()
    if not embed_scene:
        return Metadata(description=description)
    title = " ".join(scene.prompt.split())
    title = title if len(title) <= 80 else title[:79].rstrip() + "…"
    scene = _without_places(scene)
    return Metadata(title, description, scene, embed.pack(scene, members))


def _without_places(scene: Scene) -> Scene:
    """Cut absolute paths down to file names: a shared clip should not tell a person's folders."""

    def bare(name: str) -> str:
        return PureWindowsPath(name).name or name if _is_absolute(name) else name

    def without(element: Element) -> Element:
        named = {"image": bare(element.image), "cutout": bare(element.cutout)}
        return element.model_copy(update={**named, "views": tuple(map(bare, element.views))})

    cast = tuple(map(without, scene.cast))
    return scene.model_copy(update={"cast": cast})


def _measure(clip: Path, scene: Scene) -> tuple[tuple[tuple[str, float], ...], tuple[str, ...]]:
    """Measure every metric on a finished clip; a notice for each that fails: the clip itself is whole."""
    found, faults = [], []
    for metric in all_metrics():
        try:
            value = metric.measure(clip, scene)
        except TroupeError as error:
            faults.append(f"{metric.title} was not measured: {error}")
        except Exception:  # a fault of the metric's own must not cost the clip
            traceback.print_exc()
            faults.append(f"{metric.title} was not measured: something went wrong inside Troupe.")
        else:
            if value is not None and math.isfinite(value):
                found.append((metric.name, float(value)))
    return tuple(found), tuple(faults)


def _poster(clip: Path) -> tuple[Path | None, tuple[str, ...]]:
    from engine.media.video import poster

    try:
        return poster(clip, clip.with_suffix(".jpg")), ()
    except VideoError as error:  # the clip itself is whole: that counts
        return None, (f"There is no poster: {error}",)


# ---------------------------------------------------------------------------
# Time


class _Clock:
    """Measures, and forecasts the rest of a stage from the pace of its last steps.

    The pace is an exponential moving average (weight 0.1, corrected for its start like Adam's moments), so that one
    slow step does not make the remaining time jump, and a machine that slows down is noticed within some ten steps.
    """

    _WEIGHT = 0.1
    _FEWEST = 3  # steps before a forecast: the first ones still load and warm up

    def __init__(self, on_progress: Callable[[Progress], None] | None, long: Collection[str]) -> None:
        """Start the clock. `long`: the stages whose remaining time is forecast."""
        self._on_progress, self._long = on_progress, long
        self._start = self._last = time.monotonic()
        self._stage = ""
        self._pace = self._trust = 0.0
        self._steps = 0  # of this stage, in this run: one that is taken up again begins in the middle

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def tell(self, stage: str, step: int, of: int, detail: str = "") -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._pace, self._trust, self._steps = stage, 0.0, 0.0, 0
        else:
            self._steps += 1
        if self._steps > 1:  # the first step also holds the engine's preparations
            self._pace += self._WEIGHT * (now - self._last - self._pace)
            self._trust += self._WEIGHT * (1 - self._trust)
        self._last = now
        if self._on_progress is not None:
            foreseen = self._steps > self._FEWEST and stage in self._long
            remaining = self._pace / self._trust * (of - step) if foreseen else None
            self._on_progress(Progress(stage, step, of, now - self._start, remaining, detail))
