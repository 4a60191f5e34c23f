"""The missing bytes of a checkpoint: fetched from where they were cut off, verified, put where `find_checkpoint` looks.

Runs in a process of its own (`work.carry_out`), which may end at any moment: what has come stays in a partial file.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.disk.room import free_bytes
from engine.errors import TroupeError
from engine.models import hub
from engine.models.catalogue import look, missing_sources, own_sources
from engine.models.hub import Listing, RemoteFile
from engine.models.store import ModelStore
from engine.models.work import WorkProgress
from engine.words import gigabytes

MARGIN = 10**9  # bytes that stay free on the disk
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds before another try, as long as no byte comes
AT_ONCE = 4  # files


def download(model: str, progress: WorkProgress) -> str:
    """Download what is missing of a hub id, and of what it shares with others; return a sentence about the result.
    Raises TroupeError."""
    state = look(model)
    if state.state == "installed":
        return f"{state.title} is here already, in {state.folder}."
    hub.check_online()
    progress.say("asking")
    stores = [ModelStore(source) for source in missing_sources(model)]
    wanted = [(store, _listing(store)) for store in stores]
    check_room(*wanted)
    total = sum(listing.bytes for _, listing in wanted)
    progress.expect(total, sum(store.bytes_here(listing) for store, listing in wanted))
    for store, listing in wanted:
        try:
            _Fetch(store, listing, progress).run()
        except hub.Changed:
            store.forget_listing()
            raise
        store.keep_damaged(set())
        store.finish(listing)
    return f"{state.title} is installed: {gigabytes(total)} in {look(model).folder}."


def _listing(store: ModelStore) -> Listing:
    """Return what is needed of a repository, as it was asked when a download began, or as the hub says now: at the
    commit that counts here already, since others' files are of that."""
    listing = store.listing()
    if listing is None:
        listing = hub.fetch_listing(store.model, (store.commit() if store.holds_others else "") or "main")
        store.keep_listing(listing)
    return listing


def check_room(*wanted: tuple[ModelStore, Listing]) -> None:
    """Raise TroupeError, with both numbers, where the disk has no room for what is missing."""
    store = wanted[0][0]
    missing = sum(listing.bytes - each.bytes_here(listing) for each, listing in wanted)
    free, _ = free_bytes(store.cache)
    if free is not None and missing + MARGIN > free:
        raise TroupeError(
            f"the disk is too full: {gigabytes(missing)} are missing and {gigabytes(MARGIN)} should stay free, but "
            f"{store.cache} has {gigabytes(free)} left",
            "Free some space, or set HF_HOME to a folder on a larger disk.",
        )


class _Fetch:
    """Downloads some files at once; the first fault ends all of them."""

    def __init__(self, store: ModelStore, listing: Listing, progress: WorkProgress) -> None:
        self._store, self._listing, self._progress = store, listing, progress
        self._failed = threading.Event()

    def run(self) -> None:
        (self._store.root / "blobs").mkdir(parents=True, exist_ok=True)
        damaged = self._store.damaged()
        wanted = []
        for file in self._listing.files:
            if file.path not in damaged and self._store.here(self._listing, file):
                self._store.place(self._listing, file, grown=False)
            else:
                wanted.append(file)
        self._progress.say("fetching")
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="troupe-fetch") as pool:
            for done in [pool.submit(self._file, file) for file in wanted]:
                done.result()

    def _file(self, file: RemoteFile) -> None:
        if self._failed.is_set():
            return
        try:
            part = self._store.part(file)
            for last in (False, True):
                self._bytes(file, part)
                if self._failed.is_set():
                    return
                self._progress.say("checking", file.path)
                if file.matches(part):
                    self._store.place(self._listing, file, grown=True)
                    self._progress.say("fetching")  # the others
                    return
                part.unlink()
                self._progress.add(-file.size)
                if last:
                    raise TroupeError(f"{file.path} came damaged, twice", "Try again later.")
        except BaseException:
            self._failed.set()
            raise

    def _bytes(self, file: RemoteFile, part: Path) -> None:
        """Download the rest of the partial file, over as many connections as it takes. Raises TroupeError where the hub
        cannot be reached."""
        tries = 0
        part.touch()
        while (start := part.stat().st_size) != file.size:
            if start > file.size:  # not what we left there
                part.unlink()
                part.touch()
                continue
            try:
                self._progress.say("fetching", file.path)
                self._connection(file, part, start)
                cut = hub.Cut("the connection was cut")  # an end that comes too early
            except hub.Cut as error:
                cut = error
            if self._failed.is_set():
                return
            grown = part.stat().st_size
            if grown == file.size:
                return
            tries = 0 if grown > start else tries + 1
            if tries == len(PAUSES):
                raise hub.unreachable(str(cut)) from None
            self._progress.say("waiting", f"{cut}; trying again in {PAUSES[tries]:.0f} s")
            self._failed.wait(PAUSES[tries])

    def _connection(self, file: RemoteFile, part: Path, start: int) -> None:
        """Download over one connection, until it ends or another file has failed. Raises Cut."""
        with part.open("r+b", buffering=0) as target:
            expected = start
            for offset, piece in hub.read_from(self._store.model, self._listing.commit, file.path, start):
                if offset != expected:  # a server without ranges sends everything again
                    self._progress.add(offset - expected)
                    target.truncate(offset)
                target.seek(offset)
                target.write(piece)
                self._progress.add(len(piece))
                expected = offset + len(piece)
                if self._failed.is_set() or expected > file.size:
                    return


def verify(model: str, progress: WorkProgress) -> str:
    """Compare every byte that is here with what the hub says; return a sentence about it. A damaged file is named, and
    the next download fetches it again. Raises TroupeError."""
    state = look(model)
    if state.state == "absent":
        raise TroupeError(f"{state.title} is not on this machine", "Download it first.")
    stores = [ModelStore(source) for source in own_sources(model)]
    wanted = [(store, store.listing() or _asked(store, progress)) for store in stores]
    here = [
        [(file, path) for file in listing.files if (path := store.here(listing, file))] for store, listing in wanted
    ]
    progress.expect(sum(file.size for each in here for file, _ in each))
    damaged: set[str] = set()
    lacking: list[RemoteFile] = []
    for (store, listing), files in zip(wanted, here, strict=True):
        bad = _damaged(files, progress)
        store.keep_damaged(bad)
        damaged |= bad
        lacking += [file for file in listing.files if file not in {each for each, _ in files}]
    return _verdict(state.title, sorted(damaged), lacking)


def _asked(store: ModelStore, progress: WorkProgress) -> Listing:
    """Ask the hub what belongs to the commit that is here."""
    hub.check_online()
    progress.say("asking")
    listing = hub.fetch_listing(store.model, store.commit() or "main")
    store.keep_listing(listing)
    return listing


def _damaged(files: Sequence[tuple[RemoteFile, Path]], progress: WorkProgress) -> set[str]:
    """Compare files with what the hub says; return the paths of those that differ."""
    found = set()
    for file, path in files:
        progress.say("checking", file.path)
        if not file.matches(path):
            found.add(file.path)
        progress.add(file.size)
    return found


def _verdict(title: str, damaged: Sequence[str], lacking: Sequence[RemoteFile]) -> str:
    if damaged:
        raise TroupeError(f"damaged: {', '.join(damaged)}", "Download again: only that is fetched.")
    if lacking:
        raise TroupeError(f"{title} is sound so far, but {len(lacking)} files are missing", "Download them.")
    return f"{title} is sound: every file is what the hub says."
