"""`python launch.py render scene.json -o out.mp4`: the door, from a terminal.

Exit status 0 and the file written whole; or another one, one plain line on stderr that says what to do, and no partial
file: 1 something a person can mend, 2 the arguments, 3 a fault of Troupe's own, 128 + n where a signal ended it
(130 Ctrl-C, 143 terminated, 129 the terminal was closed).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from engine.door.arguments import check_written, options_of, parse
from engine.door.render import Progress, RenderRequest, Result, render
from engine.errors import SceneError, StopCheck, Stopped, TroupeError
from engine.scene.engine import Engine
from engine.scene.engines import find_engine
from engine.scene.scene import Scene
from engine.scene.scene_file import load_scene, scene_from_data
from engine.words import duration

OK, FAILED, FAULT = 0, 1, 3  # and arguments.BAD_ARGUMENTS


class _Ended(BaseException):
    """A signal asks for the end of the program; an exception, so that the temporary files are removed on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def main(argv: Sequence[str]) -> int:
    """Run `render` with the given arguments; return the exit status."""
    ending: list[int] = []
    arguments, kept = argparse.Namespace(state=None), None
    try:
        _watch_signals(ending)
        _open_standard_streams()
        arguments = parse(argv)
        kept = _stamp(arguments.state)
        return _run(arguments, stop=lambda: bool(ending))
    except Stopped:  # where the exception got lost in a library that swallows them all
        return _complain(_stopped(arguments.state, kept), 128 + (ending or [signal.SIGINT])[0])
    except _Ended as ended:
        return _complain(_stopped(arguments.state, kept), ended.status)
    except KeyboardInterrupt:
        return _complain(_stopped(arguments.state, kept), 128 + signal.SIGINT)
    except TroupeError as error:
        return _complain(str(error), FAILED)
    except MemoryError:
        return _complain("there is not enough memory. Make the video smaller or shorter.", FAILED)
    except Exception:
        if os.environ.get("TROUPE_DEBUG"):
            raise
        return _complain(f"this is a fault in Troupe, not yours. Please report it with {_log()}.", FAULT)


def _watch_signals(ending: list[int]) -> None:
    """Handle every signal that asks for the end: add its number to the list, and raise _Ended."""
    deaf_until = 0.0

    def end(number: int, _frame: object) -> None:
        nonlocal deaf_until
        ending.append(number)
        if time.monotonic() > deaf_until:  # an impatient second Ctrl-C should not interrupt the tidying up
            deaf_until = time.monotonic() + 2
            raise _Ended(number)

    python_says = sys.unraisablehook

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        """Pass on what Python cannot raise (a finalizer, a lock's callback during an import), except _Ended: `stop`
        sees the signal in the list."""
        if not isinstance(lost.exc_value, _Ended):
            python_says(lost)

    sys.unraisablehook = unraisable
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # ignored: by nohup, or by a shell's &
            signal.signal(number, end)


def _open_standard_streams() -> None:
    """Open the null device in place of a standard stream that is closed: else the next pipe gets its number, and
    libraries write their complaints into our frames."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)


def _run(arguments: argparse.Namespace, stop: StopCheck) -> int:
    scene_file, out = Path(arguments.scene), Path(arguments.output)
    _check_working_folder(scene_file, out, *filter(None, (arguments.save_latents, arguments.state)))
    if out.name.lower() == ".mp4":
        raise TroupeError(f"-o {shlex.quote(arguments.output)} has no name before the ending", "Such as -o out.mp4.")
    if out.suffix.lower() != ".mp4":
        raise TroupeError(
            f"-o {shlex.quote(arguments.output)}: a video is written as .mp4", "Name it so, such as -o out.mp4."
        )
    scene = _with_seed(load_scene(scene_file), arguments.seed)
    options = options_of(arguments, arguments.engine or scene.engine)
    check_written(arguments, options)
    request = RenderRequest(
        scene=scene,
        root=scene_file.parent,
        out=out,
        engine=arguments.engine,
        quality=arguments.quality,
        embed_scene=not arguments.no_metadata,
        poster=False,  # one file was asked for
        options=options,
        plan=True,
    )
    teller = _ProgressLine(request.made_by)
    try:
        result = render(request, teller.tell, stop)
    finally:
        teller.clear()
    _report(result)
    return OK


def _check_working_folder(*paths: str | Path) -> None:
    """Refuse paths that begin in a folder that is gone. Raises TroupeError."""
    if all(os.path.isabs(path) for path in paths):
        return
    try:
        os.getcwd()
    except OSError:
        raise TroupeError("the folder that you are in is gone", "Go to another one (cd), and start again.") from None


def _with_seed(scene: Scene, seed: int | None) -> Scene:
    if seed is None:
        return scene
    data = scene.model_dump()
    try:
        return scene_from_data({**data, "sampling": {**data["sampling"], "seed": seed}})
    except SceneError as error:
        raise TroupeError(f"--seed {seed}: {error.problem.partition(': ')[2]}", error.remedy) from None


# ---------------------------------------------------------------------------
# What the terminal shows


class _ProgressLine:
    """Progress on stderr: one line that changes on a terminal; a few plain ones in a log, and none of them in the
    first seconds, so that what fails at once leaves its one line only."""

    _PATIENCE = 2.0  # seconds
    _INTERVAL = 0.1  # seconds between two changes of the line

    def __init__(self, engine: Engine) -> None:
        self._stages = engine.all_stages
        self._live = sys.stderr is not None and sys.stderr.isatty()
        self._shown_at = 0.0
        self._width = 0
        self._stage = ""
        self._quarter = 0

    def tell(self, progress: Progress) -> None:
        text = self._sentence(progress)
        now = time.monotonic()
        if self._live and (now - self._shown_at >= self._INTERVAL or progress.step == progress.of):
            self._shown_at = now
            _say("\r" + text.ljust(self._width), end="")
            self._width = len(text)
        elif not self._live and self._stages[progress.stage].weight:
            if progress.stage != self._stage:
                self._stage, self._quarter = progress.stage, 0
            quarter = 4 * progress.step // progress.of
            if quarter > self._quarter and progress.elapsed >= self._PATIENCE:
                self._quarter = quarter
                _say(text)

    def clear(self) -> None:
        if self._live and self._width:
            _say("\r" + " " * self._width + "\r", end="")

    def _sentence(self, progress: Progress) -> str:
        text = f"{self._stages[progress.stage].counted or progress.stage} {progress.step} of {progress.of}"
        if progress.detail:
            text += f" ({progress.detail.replace('_', ' ')})"
        if progress.remaining is not None and progress.remaining >= 1:
            text += f", about {duration(progress.remaining)} left"
        return text


def _report(result: Result) -> None:
    for notice in result.notices:
        _say(notice)
    engine = find_engine(result.engine)
    kind = f"a {engine.name}" if engine.is_draft else engine.name
    _say(f"{result.path}: {result.frames} frames in {result.seconds:.1f} s ({kind})")


def _stamp(state: str | None) -> tuple[int, int] | None:
    """Read a file's time and size, by which it is seen whether it was written meanwhile; None where there is none."""
    if state is None:
        return None
    with contextlib.suppress(OSError, ValueError):
        found = os.stat(state)
        return found.st_mtime_ns, found.st_size
    return None


def _stopped(state: str | None, before: tuple[int, int] | None) -> str:
    """Say what a stopped run leaves behind."""
    if state is not None and _stamp(state) not in (None, before):
        return f"Stopped. {shlex.quote(state)} keeps the run: the same command goes on there."
    return "Stopped. Nothing was written."


def _complain(line: str, status: int) -> int:
    _say(f"troupe: {' '.join(line.split())}")
    return status


def _say(text: str, end: str = "\n") -> None:
    """Print to stderr. Where it is closed or its terminal is gone, nothing is printed, and nothing raised."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(text, end=end, file=sys.stderr, flush=True)


def _log() -> str:
    """Keep the traceback in a file; return how to call it in a sentence."""
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="troupe-", suffix=".log", delete=False) as file:
            traceback.print_exc(file=file)
        return file.name
    except OSError:
        return "what TROUPE_DEBUG=1 shows"
