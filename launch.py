#!/usr/bin/env python3
"""Start Troupe: python launch.py [serve] | render SCENE -o OUT.mp4 | models | doctor | test

The first start makes `.venv` beside this file and installs requirements.txt into it; later ones go straight in. An
environment that already has the requirements (a Space, conda, your own) is used as it is. Until then only the standard
library is there, and even Python 3.6 must be able to read this file to be told that it is too old: so no newer syntax.
"""

import os
import signal
import sys

if __name__ == "__main__":  # ahead of the other imports, so that an early Ctrl-C prints one line, too
    for number in [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]:  # Windows: no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: (os.write(2, b"troupe: stopped.\n"), os._exit(128 + number)))
        if number is not None and os.name != "nt":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])  # `jump` has blocked it

import argparse
import contextlib
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

MINIMUM = (3, 11)
HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "troupe.json"  # written after a finished install, and only then
UNFINISHED = VENV / "troupe-unfinished"  # there while one is under way
LOCK = VENV / "troupe.lock"
LOG = VENV / "troupe-install.log"
SPACE_NEEDED = 2 * 10**9  # bytes: 1.2 GB installed, and pip's downloads on the way
ANEW = f"Delete the folder {VENV} and start again"
STORAGE = Path("/data")  # of a Space, where it has some
JUMPED = "TROUPE_JUMPED"  # set for the Python in .venv: it must not start another one


class Problem(Exception):
    """Something that a person can fix; shown as one line."""


class Ended(KeyboardInterrupt):
    """Ctrl-C, SIGTERM, or the terminal was closed; the argument is the signal's number."""


def main(argv: "list[str]") -> int:
    if sys.version_info < MINIMUM:
        say(f"troupe: this is Python {version()}; Troupe needs 3.11 or newer (python.org)")
        return 1
    from engine.surroundings import settle

    settle()
    if argv[:1] == ["--satisfied"]:  # called by another launch: does this Python satisfy these files?
        from engine.installing import satisfied

        return 0 if satisfied([Path(name) for name in argv[1:]]) else 3
    commands = {"serve": serve, "render": render, "models": models, "doctor": doctor, "test": test}
    command, rest = (argv[0], argv[1:]) if argv[:1] and argv[0] in commands else ("serve", argv)
    if command == "serve":
        serve_options(rest)  # before the installation: typing errors are reported first
    missing = [file.name for file in lists(command == "test") if not file.exists()]
    if missing:
        say(f"troupe: {missing[0]} is not in {HERE}. Download Troupe again")
        return 1
    try:
        on_signals(end)  # an exception, so that pip ends with us
        status = enter_environment(argv, dev=command == "test")
        if status is not None:
            return status
        on_signals(leave if command == "render" else None)  # render takes them over when it has been imported
        return commands[command](rest)
    except Problem as problem:
        say(f"troupe: {problem}")
        return 1
    except KeyboardInterrupt as stopped:
        say("troupe: stopped. Start it again to go on.")
        number: int = (stopped.args or (signal.SIGINT,))[0]
        return 128 + number


def on_signals(handler: "Callable[[int, object], None] | None") -> None:
    """Set the handler for SIGINT, SIGTERM and SIGHUP; None: Python's default. A signal that is ignored (nohup) stays
    ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            own = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(number, handler or own)


def end(number: int, _frame: object) -> None:
    raise Ended(int(number))


def leave(number: int, _frame: object) -> None:
    """Exit at once: an exception raised during an import can get lost."""
    say("troupe: stopped. Start it again to go on.")
    os._exit(128 + number)


def serve_options(argv: "list[str]") -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launch.py", description="Open Troupe in the browser.",
        epilog="Other commands: render SCENE.json -o OUT.mp4 (a video without a browser; see render --help), "
        "models (what the a2 engine needs: look, download, delete; see models --help), "
        "doctor (what is wrong here), test (all tests).",
    )  # fmt: skip
    parser.add_argument("--host", help="address to listen on (default: this machine only; 0.0.0.0: your network)")
    parser.add_argument("--port", type=port_number, help="port to listen on (default: 7860, or the next free one)")
    parser.add_argument("--share", action="store_true", help="make a public link as well")
    parser.add_argument("--share-for", type=float, default=24, metavar="HOURS", help="the link ends then (default: 24)")
    parser.add_argument(
        "--auth", action="append", default=[], metavar="NAME:PASSWORD",
        help="what guests log in with, instead of a password that is made up; can be given several times",
    )  # fmt: skip
    parser.add_argument("--no-auth", action="store_true", help="let guests in without a password")
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    parser.add_argument(
        "--outputs", type=Path, default=home_of_outputs(), help="folder for what you make (default: %(default)s)"
    )
    return parser.parse_args(argv)


def home_of_outputs() -> Path:
    """Return the default folder for clips: beside this file; on a Space its storage, or its home where it has none,
    since these files may be read-only there and are replaced with every build."""
    if "SPACE_ID" not in os.environ:
        return HERE / "outputs"
    from engine.surroundings import home

    return (STORAGE if os.access(str(STORAGE), os.W_OK) else home() or HERE) / "outputs"


def port_number(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: use 1 to 65535")
    return int(text)


# ---------------------------------------------------------------------------
# The commands


def serve(argv: "list[str]") -> int:
    from app.guard.access import Terms
    from app.start import serve_on_free_port
    from engine.errors import TroupeError

    options = serve_options(argv)
    on_space = "SPACE_ID" in os.environ  # the Space says where to listen, and has no browser
    try:
        outputs = Path(os.path.abspath(str(options.outputs)))
    except OSError:
        raise Problem("the folder that you are in is gone. Go to another one (cd), and start again") from None
    browser = not (options.no_browser or on_space)
    try:
        terms = Terms(tuple(options.auth), options.no_auth, options.share_for)
        serve_on_free_port(
            options.host, options.port, share=options.share, browser=browser, outputs=outputs, terms=terms
        )
    except TroupeError as error:
        raise Problem(error) from None
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(0)  # a library may be busy in a thread, such as with a cut-out: a normal exit would crash it


def render(argv: "list[str]") -> int:
    from engine.door.command import main as render_main

    return render_main(argv)


def models(argv: "list[str]") -> int:
    from engine.models.command import main as models_main

    return models_main(argv)


def doctor(argv: "list[str]") -> int:
    from app.help.doctor import main as doctor_main

    return doctor_main(argv, home_of_outputs())


def test(argv: "list[str]") -> int:
    """Run the style checks, then the tests. All of them run; return the first exit status that is not 0. All tests use
    up to four processes; tests chosen by `argv` run in one, which starts sooner."""
    python = [sys.executable, "-m"]
    argv = argv or ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"]
    # without PYTHONSAFEPATH: the tests import from the working directory
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    statuses = [
        subprocess.call([*python, *check], cwd=str(HERE), env=environment)
        for check in (["ruff", "format", "--check", "."], ["ruff", "check", "."], ["pytest", *argv])
    ]
    return next((status for status in statuses if status), 0)


# ---------------------------------------------------------------------------
# The environment


def enter_environment(argv: "list[str]", dev: bool) -> "int | None":
    """Make sure that a Python with the requirements runs: return None where this one has them; else start .venv's and
    return its exit status."""
    from engine.installing import satisfied

    jumped = os.environ.pop(JUMPED, None)
    inside = PYTHON.exists() and Path(sys.prefix).resolve() == VENV.resolve()
    if (stamped(dev) and stamp().get("python") == version()) if inside else satisfied(lists(dev)):
        return None
    if "SPACE_ID" in os.environ:
        raise Problem("the Space lacks some of requirements.txt. Rebuild it (Settings, Factory rebuild)")
    if inside or not stamped(dev):
        prepare(dev, getattr(sys, "_base_executable", sys.executable) if inside else sys.executable)
    if jumped and not inside:
        raise Problem(f"{PYTHON} does not start as it should. {ANEW}")
    return jump(argv)


def jump(argv: "list[str]") -> int:
    command = [str(PYTHON), str(HERE / "launch.py"), *argv]
    # the model's libraries need file names in UTF-8, whatever the terminal's encoding is
    environment = dict(os.environ, **{JUMPED: "1", "PYTHONUTF8": os.environ.get("PYTHONUTF8", "1")})
    if os.name != "nt":
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # signals are delivered once launch.py handles them again
        try:
            os.execve(command[0], command, environment)
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
            raise Problem(f"{PYTHON} does not start ({error.strerror}). {ANEW}") from None
    child = subprocess.Popen(command, env=environment)  # Windows' exec returns to the shell at once
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # the child gets it as well, and ends by it
            return child.wait()


def lists(dev: bool) -> "list[Path]":
    """Return the requirement files to install; the tests also need the model's libraries."""
    model = HERE / "requirements-a2.txt"
    more = [HERE / "requirements-dev.txt", *([model] if model.exists() else [])]
    return [HERE / "requirements.txt", *(more if dev else [])]


def version() -> str:
    return "{}.{}".format(*sys.version_info)


def stamp() -> "dict[str, str]":
    try:
        found: dict[str, str] = json.loads(STAMP.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def stamped(dev: bool) -> bool:
    """Return whether .venv is complete and was made for the current requirements."""
    found = stamp()
    return (
        PYTHON.exists() and not UNFINISHED.exists() and all(found.get(file.name) == digest(file) for file in lists(dev))
    )


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# ---------------------------------------------------------------------------
# Making it


def prepare(dev: bool, base: str) -> None:
    """Make or complete .venv. `base` is the Python to make it from."""
    from engine.installing import disk_line

    try:
        VENV.mkdir(exist_ok=True)
        with locked():
            if stamped(dev) and stamp().get("python") == version():
                return  # the launch that we waited for has done it
            state = "broken" if UNFINISHED.exists() else ask(dev)
            if state != "ready":
                STAMP.touch()
                os.replace(str(STAMP), str(UNFINISHED))  # atomic: the stamp becomes the mark
                if state == "broken":
                    make_venv(base)
                install(dev)
                if ask(dev) != "ready":
                    raise Problem(
                        f"pip says that it is finished, and {VENV} has not all of it: a setting of pip's sends it "
                        f"elsewhere. Look for target, prefix or root ({PYTHON} -m pip config list), take it out "
                        "and start again"
                    )
            STAMP.write_text(json.dumps(dict({"python": asked_version()}, **{f.name: digest(f) for f in lists(dev)})))
            with contextlib.suppress(FileNotFoundError):
                UNFINISHED.unlink()
    except OSError as error:
        unmade = f"{VENV} cannot be made ({error}). Move it away and start again"
        raise Problem(disk_line(error, HERE, SPACE_NEEDED) or unmade) from None
    if state != "ready":
        fetch_weights()


def ask(dev: bool) -> str:
    """Test .venv in a process of its own: return "ready", "lacking" or "broken" (or made by a Python that is too
    old)."""
    from engine.installing import pip_environment

    try:
        command = [str(PYTHON), str(HERE / "launch.py"), "--satisfied", *map(str, lists(dev))]
        nowhere = subprocess.DEVNULL
        status = subprocess.call(command, env=pip_environment(), stdout=nowhere, stderr=nowhere)
    except OSError:
        return "broken"
    return {0: "ready", 3: "lacking"}.get(status, "broken")


def asked_version() -> str:
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    return subprocess.check_output([str(PYTHON), "-c", code]).decode().strip()


def make_venv(base: str) -> None:
    from engine.disk.room import free_bytes
    from engine.installing import disk_line

    found = [child for child in VENV.iterdir() if child not in (LOCK, UNFINISHED)]
    say("Making .venv anew: it was not finished, or does not work here." if found else "First start: making .venv.")
    free, _ = free_bytes(VENV)
    if free is not None and free < SPACE_NEEDED:
        raise Problem(f"the disk is too full: {HERE} needs {SPACE_NEEDED // 10**9} GB. Free some space")
    for child in found:
        shutil.rmtree(str(child)) if child.is_dir() and not child.is_symlink() else child.unlink()
    made = subprocess.run([base, "-m", "venv", str(VENV)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        said = made.stdout.decode("utf-8", "replace").strip()
        if "ensurepip" in said or "No module named" in said:
            raise Problem(
                f"this Python has no venv module. On Debian and Ubuntu: sudo apt install python{version()}-venv"
            )
        reason = (said.splitlines() or ["no reason given"])[-1]
        raise Problem(disk_line(said, HERE, SPACE_NEEDED) or f"making .venv failed: {reason}")


def install(dev: bool) -> None:
    from engine.installing import Install, InstallFailed
    from engine.installing import install as run_pip

    files = tuple(lists(dev))
    say(f"Installing {' and '.join(file.name for file in files)}. This takes a few minutes, once.")
    try:
        run_pip(Install(PYTHON, files, HERE, SPACE_NEEDED, LOG), show)
    except InstallFailed as failed:
        raise Problem(failed) from None


def show(text: str) -> None:
    """Print the lines of pip's output that show progress, and none of its many others."""
    if text.startswith("Installing collected packages:"):
        say(f"  Installing {text.count(',') + 1} packages")
    elif re.match(r"\s*(Downloading|Building wheel)", text):
        say("  " + re.sub(r"(Downloading [^-]+)-([^-]+)-\S+", r"\1 \2", text.strip()))
    elif "WARNING: Retrying" in text:
        say("  The network does not answer; trying again")


def fetch_weights() -> None:
    """Prefetch the small cut-out model after the installation; where that fails, the first cut-out fetches it."""
    from engine.children import command_of, environment

    if not (HERE / "engine" / "cutout").is_dir():
        return
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.call(command_of("engine.cutout", python=str(PYTHON)), env=environment(), timeout=300)


@contextlib.contextmanager
def locked() -> "Iterator[None]":
    """Run the block with .venv locked, so that only one launch at a time changes it. The system releases the lock when
    its holder dies."""
    from engine.disk.lock import FileLock, Taken  # the standard library's: nothing else is installed yet

    try:
        lock = FileLock(LOCK)
    except Taken:
        say("Another start of Troupe is installing; waiting for it.")
        lock = FileLock(LOCK, patience=float("inf"))
    with lock:
        yield


def say(line: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    if str(HERE) not in sys.path:  # left out with -P, -I and PYTHONSAFEPATH
        sys.path.insert(0, str(HERE))
    sys.exit(main(sys.argv[1:]))
