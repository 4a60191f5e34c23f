"""Downloads, checks and installs for the Models tab: one of each kind at a time, in processes of their own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from app.machine.settings import OwnerSettings
from engine.a2.models import FAMILIES, Family, ReleasedModel, release_of
from engine.a2.options import DEFAULT_MODEL
from engine.errors import TroupeError
from engine.models import Status, Work, look
from engine.models.command import delete
from engine.models.libraries import library_work
from engine.models.store import ModelStore
from engine.models.work import FAILED, RUNNING, begin

if TYPE_CHECKING:
    from engine.a2.plan.recommend import Advice
    from engine.memory.hardware import Hardware


class Getting:
    """Starts, stops and reports downloads and checks of the chosen checkpoint, and installs of the libraries. The
    processes that it started end with this one."""

    def __init__(self, settings: OwnerSettings, hardware: Callable[[], Hardware | None] = lambda: None) -> None:
        self._settings, self._hardware = settings, hardware
        self._lock = threading.Lock()
        self._children: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}  # by the folder of their work
        self._said: dict[str, str] = {}  # the last error line of those that failed

    @property
    def model(self) -> str:
        """The chosen checkpoint: a hub id or a folder. Where none was chosen, or it is gone, the first that is whole
        here, else what fits this machine best."""
        chosen, _ = self._settings.model_in_use()
        with contextlib.suppress(TroupeError):
            if chosen:
                look(chosen)
                return chosen
        best = self.best()
        return best.model if best is not None else DEFAULT_MODEL

    @property
    def family(self) -> Family | None:
        """The family that the owner has named for the chosen checkpoint; None: its name says it."""
        chosen, family = self._settings.model_in_use()
        return family if chosen == self.model else None

    def best(self) -> ReleasedModel | None:
        """Return the release that fits this machine best; None where that is not known, or none does."""
        from engine.a2.plan.recommend import best_for  # here, as below: the page opens without it

        hardware = self._hardware()
        return best_for(hardware) if hardware is not None else None

    def about(self, model: str) -> Advice | None:
        """Return what a release asks of this machine; None for another checkpoint."""
        from engine.a2.plan.recommend import advise

        release = release_of(model)
        return advise(release, self._hardware()) if release is not None else None

    def choose(self, model: str, family: str = "") -> None:
        """Choose another checkpoint; an empty name leaves it to this machine again. `family` is its family, where its
        name does not say that. Raises TroupeError where it cannot be one."""
        model = model.strip()
        if model:
            look(model)
        self._settings.put(model=model, family=family if family in FAMILIES and release_of(model) is None else "")

    def start(self, kind: str) -> None:
        """Start to download, verify or install, unless that is running already."""
        with self._lock:
            work = self.work(kind)
            self._settle(work)
            if self._child(work) or work.running():
                return
            work.forget()
            self._said.pop(str(work.folder), None)
            errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed when it has been read
            arguments = [kind] if kind == "install" else [kind, self.model]
            if kind == "download":
                # else it might be another one by the next look
                self._settings.put(model=self.model, family=self.family or "")
            self._children[str(work.folder)] = begin(arguments, errors), errors

    def stop(self, kind: str) -> None:
        """Stop what is running; what was downloaded so far is kept."""
        with self._lock:
            work = self.work(kind)
            work.stop()
            child = self._child(work)
            if child is None:  # another process of Troupe has started it, and reads the stop file soon
                return
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def delete(self) -> None:
        """Delete the chosen checkpoint from the disk. Raises TroupeError."""
        state = look(self.model)
        if state.local:
            raise TroupeError(f"{state.folder} is a folder of your own", "Delete it yourself.")
        store = ModelStore(self.model)
        with self._lock:
            self._settle(store.work)
        delete(store)

    def status(self, kind: str) -> Status | None:
        """Return the status of this kind of work: running, or how the last run ended; None where there was none."""
        work = self.work(kind)
        with self._lock:
            self._settle(work)  # the page stops asking once it is shown an end
            alive, said = self._child(work) is not None, self._said.get(str(work.folder), "")
        status = work.status()
        if alive and status is None:
            return Status(kind)
        return Status(kind, state=FAILED, message=said) if said and status is None else status

    def work(self, kind: str) -> Work:
        """Return the files through which this kind of work is controlled."""
        return library_work() if kind == "install" else ModelStore(self.model).work

    def _settle(self, work: Work) -> None:
        """Wait for a process that has written its final status to exit, so that the next one can start."""
        status = work.status()
        child = self._child(work)
        if child is not None and status is not None and status.state != RUNNING:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(30)

    def _child(self, work: Work) -> subprocess.Popen[bytes] | None:
        """Return our process for this work if it is still running; of one that has ended, keep the last error line."""
        if (found := self._children.get(str(work.folder))) is None:
            return None
        child, errors = found
        if child.poll() is None:
            return child
        del self._children[str(work.folder)]
        errors.seek(0)
        with errors, child:  # closes the pipe as well
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
        print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
        self._said[str(work.folder)] = lines[-1].removeprefix("troupe: ") if lines and child.returncode else ""
        return None
