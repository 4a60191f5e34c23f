"""`python -m engine.models download|verify MODEL` or `install`: the process that does the work. See `work`.

It is started by the page or the terminal and ends with them: its standard input is a pipe that closes when they do.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

from engine.errors import TroupeError
from engine.models.download import download, verify
from engine.models.libraries import install_libraries, library_work
from engine.models.store import ModelStore
from engine.models.work import Busy, WorkProgress, carry_out
from engine.surroundings import settle


def main(arguments: list[str]) -> int:
    kind, model = arguments[0], (arguments[1:] or [""])[0]
    actions: dict[str, Callable[[WorkProgress], str]] = {
        "download": lambda progress: download(model, _tied(progress)),
        "verify": lambda progress: verify(model, _tied(progress)),
        "install": lambda progress: install_libraries(_tied(progress)),
    }
    settle()  # before huggingface_hub is imported: it reads the environment then
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this: that calls `Work.stop`
    try:
        return carry_out(library_work() if kind == "install" else ModelStore(model).work, kind, actions[kind])
    except Busy:
        return 0  # whoever watches, watches the other one
    except TroupeError as error:
        print(f"troupe: {error}", file=sys.stderr)
        return 1


def _tied(progress: WorkProgress) -> WorkProgress:
    def watch() -> None:
        while os.read(0, 1):
            pass
        progress.give_up()

    threading.Thread(target=watch, name="troupe-parent", daemon=True).start()
    return progress


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
