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
from typing import NoReturn, get_args

from engine import VERSION
from engine.a2.options import DEFAULT_MODEL, A2Options, Attention, Lora
from engine.door import Progress, RenderRequest, Result, Stop, render
from engine.errors import EngineUnavailable, SceneError, Stopped, TroupeError
from engine.scene import Scene, load_scene, scene_from_data
from engine.words import duration

OK, FAILED, BAD_ARGUMENTS, FAULT = 0, 1, 2, 3


class _Ended(BaseException):
    """A signal asks for the end of the program; an exception, so that the temporary files are removed on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def main(argv: Sequence[str]) -> int:
    """Run `render` with the given arguments; the exit status."""
    ending: list[int] = []
    arguments = argparse.Namespace(state=None)
    try:
        _watch_signals(ending)
        _open_standard_streams()
        arguments = _parse(argv)
        return _run(arguments, stop=lambda: bool(ending))
    except Stopped:  # where the exception got lost in a library that swallows them all
        return _complain(_stopped(arguments), 128 + (ending or [signal.SIGINT])[0])
    except _Ended as ended:
        return _complain(_stopped(arguments), ended.status)
    except KeyboardInterrupt:
        return _complain(_stopped(arguments), 128 + signal.SIGINT)
    except TroupeError as error:
        return _complain(str(error), FAILED)
    except MemoryError:
        return _complain("there is not enough memory. Make the video smaller or shorter.", FAILED)
    except Exception:
        if os.environ.get("TROUPE_DEBUG"):
            raise
        return _complain(f"this is a fault in Troupe, not yours. Please report it with {_log()}.", FAULT)


def _watch_signals(ending: list[int]) -> None:
    """Let every signal that asks for the end raise, and put it into the list."""
    deaf_until = 0.0

    def end(number: int, _frame: object) -> None:
        nonlocal deaf_until
        ending.append(number)
        if time.monotonic() > deaf_until:  # an impatient second Ctrl-C should not interrupt the tidying up
            deaf_until = time.monotonic() + 2
            raise _Ended(number)

    python_says = sys.unraisablehook

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        """Where Python cannot raise (a finalizer, a lock's callback during an import), `stop` still hears of it."""
        if not isinstance(lost.exc_value, _Ended):
            python_says(lost)

    sys.unraisablehook = unraisable
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # ignored: by nohup, or by a shell's &
            signal.signal(number, end)


def _open_standard_streams() -> None:
    """Where one of the three is closed, let it lead nowhere: else the next pipe gets its number, and libraries write
    their complaints into our frames."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)


def _run(arguments: argparse.Namespace, stop: Stop) -> int:
    scene_file, out = Path(arguments.scene), Path(arguments.output)
    if out.suffix.lower() != ".mp4":
        raise TroupeError(
            f"-o {shlex.quote(arguments.output)}: a video is written as .mp4", "Name it so, such as -o out.mp4."
        )
    scene = _with_seed(load_scene(scene_file), arguments.seed)
    options = _a2_options(arguments, arguments.engine or scene.engine)
    _check_written(arguments)
    request = RenderRequest(
        scene=scene,
        root=scene_file.parent,
        out=out,
        engine=arguments.engine,
        quality=arguments.quality,
        embed_scene=not arguments.no_metadata,
        poster=False,  # one file was asked for
        a2=options,
    )
    teller = _Teller()
    try:
        result = render(request, teller.tell, stop)
    finally:
        teller.clear()
    _report(result)
    return OK


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="launch.py render", description="Make a video from a scene file, without a browser.")
    parser.add_argument("--version", action="version", version=f"Troupe {VERSION}")
    parser.add_argument("scene", help="the scene file (JSON); its image paths are relative to it")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.mp4", help="the video to write")
    parser.add_argument("--engine", choices=("draft", "a2"), help="instead of the one that the scene names")
    parser.add_argument("--seed", type=int, help="instead of the one that the scene names")
    parser.add_argument(
        "--quality", choices=("fast", "standard", "best"), default="fast", help="of the cut-outs (default: fast)"
    )
    parser.add_argument(
        "--no-metadata",
        action="store_true",
        help="leave scene and prompt out of the file (it still says how it was made)",
    )
    model = parser.add_argument_group("for the a2 engine")
    model.add_argument("--model", metavar="DIR", help="the checkpoint's folder, or a hub id that is on this machine")
    model.add_argument("--device", help="cpu, cuda, cuda:1, … (default: cuda where it is)")
    model.add_argument("--precision", choices=("fp32", "bf16", "int8", "fp8"), help="default: bf16, on the CPU fp32")
    model.add_argument(
        "--offload",
        choices=("none", "blocks"),
        help="blocks: each of the model's is brought when it computes (default: none)",
    )
    model.add_argument("--resident-blocks", type=int, metavar="N", help="how many stay all the same (default: none)")
    model.add_argument("--save-latents", metavar="FILE.safetensors", help="keep the final denoised latents as well")
    model.add_argument(
        "--state", metavar="FILE.safetensors", help="keep the run after every step; one that was cut off goes on there"
    )
    speed = parser.add_argument_group("for the a2 engine, for another picture or less time; each changes the picture")
    speed.add_argument(
        "--lora",
        action="append",
        type=_lora,
        metavar="FILE[:STRENGTH]",
        help="a LoRA for Wan2.1 14B image-to-video (.safetensors; strength 1 unless said); may be given several times",
    )
    speed.add_argument(
        "--turbo", action="store_true", default=None, help="4 to 8 steps, no guidance; needs a step-distilled --lora"
    )
    speed.add_argument(
        "--step-cache", action="store_true", default=None, help="reuse most of the steps that change little"
    )
    speed.add_argument("--attention", choices=get_args(Attention), help="default: native; others must be installed")
    speed.add_argument("--scheduler", choices=("unipc", "euler"), help="default: unipc, with --turbo euler")
    return parser.parse_args(argv)


def _lora(text: str) -> Lora:
    """`FILE`, or `FILE:STRENGTH`; the colon of a Windows drive is part of the file."""
    file, colon, strength = text.rpartition(":")
    if not colon or (len(file) == 1 and file.isalpha()):
        return Lora(Path(text))
    try:
        return Lora(Path(file), float(strength))
    except ValueError:
        if not file.lower().endswith(".safetensors"):  # a name with a colon in it
            return Lora(Path(text))
        raise argparse.ArgumentTypeError(f"{strength!r} in {text!r} is not a strength, such as 0.8") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # without the usage: one line
        sys.exit(_complain(f"{message}. See: python launch.py render --help", BAD_ARGUMENTS))


# What holds for the draft anyway may be said; what it would have to ignore is refused.
_TRUE_OF_THE_DRAFT = {
    "model": (),
    "device": ("cpu",),
    "precision": ("fp32",),
    "offload": ("none",),
    "resident_blocks": (),
    "save_latents": (),
    "state": (),
    "lora": (),
    "turbo": (),
    "step_cache": (),
    "attention": (),
    "scheduler": (),
}


def _a2_options(arguments: argparse.Namespace, engine: str) -> A2Options:
    if engine == "draft":
        _check_draft_flags(arguments)
        return A2Options()
    blocks = arguments.resident_blocks
    if blocks is not None and (blocks < 0 or arguments.offload != "blocks"):
        raise EngineUnavailable(
            f"--resident-blocks {blocks}: a number from 0 on, of blocks that stay while the others stream",
            "Use it with --offload blocks, or leave it out.",
        )
    return A2Options(
        model=arguments.model or DEFAULT_MODEL,
        device=arguments.device or "",
        precision=arguments.precision,
        offload=arguments.offload or "none",
        resident_blocks=blocks,
        save_latents=Path(arguments.save_latents) if arguments.save_latents else None,
        state=Path(arguments.state) if arguments.state else None,
        scheduler=arguments.scheduler,
        loras=tuple(arguments.lora or ()),
        turbo=bool(arguments.turbo),
        step_cache=bool(arguments.step_cache),
        attention=arguments.attention or "native",
    )


def _check_draft_flags(arguments: argparse.Namespace) -> None:
    if arguments.save_latents is not None:
        raise TroupeError("--save-latents: a draft has no latents to save", "Leave it out, or use --engine a2.")
    for name, true in _TRUE_OF_THE_DRAFT.items():
        value = getattr(arguments, name)
        if value is not None and value not in true:
            flag = "--" + name.replace("_", "-")
            shown = "" if value is True or name == "lora" else f" {shlex.quote(str(value))}"
            raise TroupeError(
                f"{flag}{shown}: the draft runs on the CPU, without a model",
                "Leave it out, or use --engine a2.",
            )


def _check_written(arguments: argparse.Namespace) -> None:
    """Refuse to write one file twice, or over one that is read."""
    used = {os.path.realpath(arguments.scene): "the scene"}
    used |= {os.path.realpath(lora.path): "--lora" for lora in arguments.lora or ()}
    written = {"-o": arguments.output, "--save-latents": arguments.save_latents, "--state": arguments.state}
    for flag, name in written.items():
        if not name:
            continue
        if other := used.get(os.path.realpath(name)):
            raise TroupeError(f"{flag} {shlex.quote(name)} is {other}, too", "Name another file.")
        used[os.path.realpath(name)] = flag


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


_STAGES = {
    "cast": "cutting out the cast",
    "frames": "frame",
    "loading": "loading the model,",
    "conditioning": "reading prompt and references,",
    "sampling": "step",
    "decoding": "frame",
}
_LONG_STAGES = ("frames", "sampling", "decoding")


class _Teller:
    """Progress on stderr: one line that changes on a terminal; a few plain ones in a log, and none of them in the
    first seconds, so that what fails at once leaves its one line only."""

    _PATIENCE = 2.0  # seconds
    _INTERVAL = 0.1  # seconds between two changes of the line

    def __init__(self) -> None:
        self._live = sys.stderr is not None and sys.stderr.isatty()
        self._shown_at = 0.0
        self._width = 0
        self._stage = ""
        self._quarter = 0

    def tell(self, progress: Progress) -> None:
        text = _sentence(progress)
        now = time.monotonic()
        if self._live and (now - self._shown_at >= self._INTERVAL or progress.step == progress.of):
            self._shown_at = now
            _say("\r" + text.ljust(self._width), end="")
            self._width = len(text)
        elif not self._live and progress.stage in _LONG_STAGES:
            if progress.stage != self._stage:
                self._stage, self._quarter = progress.stage, 0
            quarter = 4 * progress.step // progress.of
            if quarter > self._quarter and progress.elapsed >= self._PATIENCE:
                self._quarter = quarter
                _say(text)

    def clear(self) -> None:
        if self._live and self._width:
            _say("\r" + " " * self._width + "\r", end="")


def _sentence(progress: Progress) -> str:
    text = f"{_STAGES.get(progress.stage, progress.stage)} {progress.step} of {progress.of}"
    if progress.detail:
        text += f" ({progress.detail.replace('_', ' ')})"
    if progress.remaining is not None and progress.remaining >= 1:
        text += f", about {duration(progress.remaining)} left"
    return text


def _report(result: Result) -> None:
    for notice in result.notices:
        _say(notice)
    kind = "a draft" if result.engine == "draft" else result.engine
    _say(f"{result.path}: {result.frames} frames in {result.seconds:.1f} s ({kind})")


def _stopped(arguments: argparse.Namespace) -> str:
    """What a stopped run leaves behind."""
    if arguments.state and Path(arguments.state).is_file():
        return f"Stopped. {shlex.quote(arguments.state)} keeps the run: the same command goes on there."
    return "Stopped. Nothing was written."


def _complain(line: str, status: int) -> int:
    _say(f"troupe: {' '.join(line.split())}")
    return status


def _say(text: str, end: str = "\n") -> None:
    """Nobody listening (stderr closed, a terminal that is gone) is no reason to fail."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(text, end=end, file=sys.stderr, flush=True)


def _log() -> str:
    """Keep the traceback in a file; how to call it in a sentence."""
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="troupe-", suffix=".log", delete=False) as file:
            traceback.print_exc(file=file)
        return file.name
    except OSError:
        return "what TROUPE_DEBUG=1 shows"
