"""`python launch.py models …`: what the a2 engine needs on this machine, from a terminal.

Exit status 0; 1 with one plain line that says what to do; 2 the arguments; 130 stopped with Ctrl-C, and a later start
goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from engine.a2.options import DEFAULT_MODEL
from engine.disk.room import free_bytes
from engine.door.arguments import Parser
from engine.errors import TroupeError
from engine.models.catalogue import ModelState, look
from engine.models.libraries import library_work, look_at_libraries
from engine.models.store import ModelStore
from engine.models.words import progress_words, words_for
from engine.models.work import DONE, STOPPED, Status, Work, begin
from engine.words import gigabytes

OK, FAILED, INTERRUPTED = 0, 1, 130  # and arguments.BAD_ARGUMENTS
SECONDS = 0.2  # between two looks


def main(argv: Sequence[str]) -> int:
    """Run `models` with the given arguments; return the exit status."""
    arguments = _parse(argv)
    try:
        match arguments.action:
            case "list":
                return _list(arguments.model)
            case "delete":
                return _delete(arguments.model, arguments.yes)
            case "install":
                return _work(library_work(), ["install"])
            case action:
                _check(look(arguments.model))
                return _work(ModelStore(arguments.model).work, [action, arguments.model])
    except TroupeError as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return _complain("stopped. What has come is kept: the same command goes on from there.", INTERRUPTED)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="launch.py models", description="What the a2 engine needs on this machine, and getting it.")
    parser.add_argument(
        "action", nargs="?", default="list", choices=("list", "download", "verify", "delete", "install"),
        help="list: what is here (default); download: get what is missing, from where it was cut off; verify: compare "
        "every byte with what the hub says; delete: remove it from the disk; install: the libraries (torch and others)",
    )  # fmt: skip
    parser.add_argument(
        "model", nargs="?", default=DEFAULT_MODEL, help="a name on the hub or a folder (default: %(default)s)"
    )
    parser.add_argument("--yes", action="store_true", help="delete without asking")
    return parser.parse_args(argv)


def _list(model: str) -> int:
    libraries, state = look_at_libraries(), look(model)
    print(f"Libraries: {'installed' if libraries.installed else 'missing: ' + ', '.join(libraries.missing)}")
    if not libraries.installed:
        print(f"  {libraries.advice or 'Get them with: python launch.py models install'}")
    print(f"{state.title}: {words_for(state)}")
    print(f"  {state.folder}")
    free, why = free_bytes(state.folder)
    print(f"Free on this disk: {gigabytes(free) if free is not None else why}")
    return OK


def _delete(model: str, sure: bool) -> int:
    state = look(model)
    if state.local:
        raise TroupeError(f"{state.folder} is a folder of your own", "Delete it yourself.")
    if state.state == "absent":
        raise TroupeError(f"{state.title} is not on this machine", "There is nothing to delete.")
    store = ModelStore(model)
    size = gigabytes(store.bytes_on_disk())
    if not sure:
        if sys.stdin is None or not sys.stdin.isatty():
            raise TroupeError(f"this would delete {size} in {store.root}", "Say that you mean it with --yes.")
        _say(f"Delete {size} in {store.root}? [y/N] ", end="")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return _complain("nothing was deleted", FAILED)
    delete(store)
    _say(f"{state.title} is deleted: {size} freed.")
    return OK


def delete(store: ModelStore) -> None:
    """Remove a checkpoint, unless something is at work on it. Raises Busy, TroupeError."""
    with store.work.held():
        store.delete()


def _check(state: ModelState) -> None:
    """Raise TroupeError for a folder of the person's own: nothing can be fetched into it or compared."""
    if state.local:
        whole = "whole, as far as its files say" if state.state == "installed" else f"not whole: {state.note}"
        raise TroupeError(f"{state.folder} is a folder of your own, and {whole}", "The hub has no list of it.")


def _work(work: Work, arguments: list[str]) -> int:
    """Start the process, or watch the one that does this work already; show how far it is until it ends."""
    if work.running():
        _say("This is under way already; watching it.")
        process = None
    else:
        work.forget()
        process = begin(arguments)
    teller = _StatusLine()
    with _heard() as interrupts:
        try:
            while not interrupts and (process.poll() is None if process else work.running()):
                teller.tell(work.status())
                time.sleep(SECONDS)
        finally:
            teller.clear()
        if interrupts and process:  # one that another has started is only watched
            work.stop()
            _patiently(process, interrupts)
    if interrupts:
        raise KeyboardInterrupt
    return _ended(work.status())


@contextlib.contextmanager
def _heard() -> Iterator[list[int]]:
    """Collect every Ctrl-C in a list instead of raising: an exception is lost where one comes in the middle of a
    finalizer."""
    interrupts: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def _patiently(process: subprocess.Popen[bytes], interrupts: list[int]) -> None:
    """Wait for its end, at most 5 s and until a second Ctrl-C; then kill it."""
    for _ in range(25):
        if process.poll() is not None:
            return
        if len(interrupts) > 1:
            break
        time.sleep(SECONDS)
    process.kill()


def _ended(status: Status | None) -> int:
    if status is None:
        return FAILED  # it has said why itself
    if status.state == DONE:
        _say(status.message)
        return OK
    if status.state == STOPPED:
        return _complain("stopped. What has come is kept: the same command goes on from there.", INTERRUPTED)
    return _complain(status.message, FAILED)


class _StatusLine:
    """Progress on stderr: one line that changes on a terminal, and in a log one for every tenth."""

    def __init__(self) -> None:
        self._live = sys.stderr is not None and sys.stderr.isatty()
        self._width = 0
        self._said = ""

    def tell(self, status: Status | None) -> None:
        if status is None or status.state != "running":
            return
        text = progress_words(status)
        if self._live:
            _say("\r" + text[:100].ljust(self._width), end="")
            self._width = min(100, len(text))
            return
        mark = f"{status.stage} {int(10 * status.share)}"
        if mark != self._said and status.stage:
            self._said = mark
            _say(text)

    def clear(self) -> None:
        if self._live and self._width:
            _say("\r" + " " * self._width + "\r", end="")


def _complain(line: str, status: int) -> int:
    _say(f"troupe: {line}")
    return status


def _say(text: str, end: str = "\n") -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(text, end=end, file=sys.stderr, flush=True)
