"""One repository in the hub's cache on disk.

    models--owner--name/
        refs/main              the commit that counts; written last, so that a half copy is never taken for a whole one
        snapshots/<commit>/…   the files by path: links into blobs, or the files themselves where links cannot be made
        blobs/<etag>           the bytes; <etag>.troupe while they come
        troupe/                ours: the list of what is needed, and the status of the work under way

The layout is huggingface_hub's (its guide "Understand caching"), so every other tool finds what came through here, and
`find_checkpoint` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from pathlib import Path

from engine import surroundings
from engine.a2.files import split_hub
from engine.disk.atomic import replace
from engine.disk.walk import files_below
from engine.errors import TroupeError
from engine.models.hub import Listing, RemoteFile
from engine.models.work import Work, write_whole


class ModelStore:
    """Where a hub id's files are, will be, and are kept while they come; of one file of a repository (owner/name/FILE)
    that file alone, with a list and a status of its own. Reads and writes files only."""

    def __init__(self, model: str) -> None:
        from huggingface_hub import constants

        self.model = model
        self.cache = surroundings.expanded(constants.HF_HUB_CACHE)
        repository, self._file = split_hub(model)
        name = "models--" + repository.replace("/", "--")
        self.root = self.cache / name
        own = f"troupe-{self._file.replace('/', '--')}" if self._file else "troupe"
        self.work = Work(self.root / own, self.cache / ".locks" / name / f"{own}.lock")
        self._listing_file = self.root / own / "listing.json"
        self._damaged_file = self.root / own / "damaged.json"

    # -- the list -------------------------------------------------------------

    def listing(self) -> Listing | None:
        """Read what the hub said when a download began here; None where none did."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return Listing.from_data(json.loads(self._listing_file.read_text(encoding="utf-8")))
        return None

    def keep_listing(self, listing: Listing) -> None:
        """Write the listing, so that a later start goes on with the same files."""
        write_whole(self._listing_file, json.dumps(listing.to_data(), indent=1))

    def forget_listing(self) -> None:
        """Delete the listing, so that the next download asks the hub again."""
        self._listing_file.unlink(missing_ok=True)

    def damaged(self) -> set[str]:
        """Read the paths that a check found to be damaged."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return set(json.loads(self._damaged_file.read_text(encoding="utf-8")))
        return set()

    def keep_damaged(self, paths: set[str]) -> None:
        """Write the paths of damaged files, until they have come again; for none, delete the list."""
        if paths:
            write_whole(self._damaged_file, json.dumps(sorted(paths)))
        else:
            self._damaged_file.unlink(missing_ok=True)

    @property
    def holds_others(self) -> bool:
        """Whether files of other models are in the same repository."""
        return bool(self._file)

    # -- the files ------------------------------------------------------------

    def commit(self) -> str:
        """Read the commit that counts, empty where there is none."""
        with contextlib.suppress(OSError):
            return (self.root / "refs" / "main").read_text(encoding="utf-8").strip()
        return ""

    def snapshot(self, commit: str) -> Path:
        """Return the folder with the files of a commit."""
        return self.root / "snapshots" / commit

    def here(self, listing: Listing, file: RemoteFile) -> Path | None:
        """Return the whole file, as far as its size tells; None where it is not here."""
        for path in (self.snapshot(listing.commit) / file.path, self._blob(file)):
            if _size(path) == file.size:
                return path
        return None

    def is_placed(self, listing: Listing) -> bool:
        """Return whether all of its files are where their paths say, whichever commit counts."""
        return all((self.snapshot(listing.commit) / file.path).is_file() for file in listing.files)

    def part(self, file: RemoteFile) -> Path:
        """Return the partial file that a file's bytes are written to."""
        return self.root / "blobs" / f"{file.etag}.troupe"

    def bytes_here(self, listing: Listing) -> int:
        """Count the listing's bytes that are on this disk, damaged ones not counted."""
        bad = self.damaged()
        return sum(
            file.size
            if file.path not in bad and self.here(listing, file)
            else min(file.size, max(0, _size(self.part(file))))
            for file in listing.files
        )

    def place(self, listing: Listing, file: RemoteFile, grown: bool) -> None:
        """Put a file where its path says; `grown`: its bytes are those of `part`, else a blob that is here already."""
        pointer, blob = self.snapshot(listing.commit) / file.path, self._blob(file)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if grown:
            replace(self.part(file), blob)
        if _size(pointer) == file.size and not grown:
            return
        pointer.unlink(missing_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # Windows without the right to link, a disk that knows none
            replace(blob, pointer)

    def finish(self, listing: Listing) -> None:
        """Let this commit count from now on: everything of it is here."""
        (self.root / "refs").mkdir(exist_ok=True)
        write_whole(self.root / "refs" / "main", listing.commit)

    def delete(self) -> None:
        """Remove the whole repository from the cache, or the one file. Raises TroupeError."""
        if self.root.is_symlink():
            raise TroupeError(f"{self.root} is a link to another place", "Remove it yourself.")
        try:
            if self._file:
                listing = self.listing()
                parts = {self.part(file) for file in listing.files} if listing is not None else set()
                for path in {path for each in self._pointers() for path in (each.resolve(), each)} | parts:
                    path.unlink(missing_ok=True)
                shutil.rmtree(self.work.folder, ignore_errors=True)
            elif self.root.exists():
                shutil.rmtree(self.root)
        except OSError as error:
            raise TroupeError(
                f"{error.filename or self.root} cannot be removed ({error.strerror})", "Close what uses it, try again."
            ) from None

    def bytes_on_disk(self) -> int:
        """Count the bytes that deleting would free. Links do not count."""
        if self._file:
            sizes = {path.resolve(): _size(path) for path in self._pointers()}
            listing = self.listing()
            parts = (_size(self.part(file)) for file in listing.files) if listing is not None else ()
            return sum(sizes.values()) + sum(max(0, size) for size in parts)
        found = (status for name in ("blobs", "snapshots") for _, status in files_below(self.root / name))
        return sum(status.st_size for status in found if stat.S_ISREG(status.st_mode))

    def _pointers(self) -> list[Path]:
        """Find the one file in every commit that is here."""
        return [path for path in (self.root / "snapshots").glob(f"*/{self._file}") if path.is_file()]

    def _blob(self, file: RemoteFile) -> Path:
        return self.root / "blobs" / file.etag


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
