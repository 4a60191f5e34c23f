"""Who owns what: files, desks and jobs, saved over a restart; sessions and events, only while the server runs."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections import OrderedDict
from pathlib import Path

from engine.disk import atomic

log = logging.getLogger("troupe.guard")

_FILE = re.compile(r"[0-9a-f]{64}/[^/\\\0]+")
_SESSIONS = 50_000  # remembered


class Ownership:
    """The owners of the upload folder's files, of desks and of jobs. A file can have several owners: each uploaded it.

    They are saved in the file `paper`, one line per entry, append-only while the server runs.
    """

    def __init__(self, paper: Path, uploads: Path) -> None:
        self._paper, self.uploads = paper, Path(os.path.normpath(uploads))
        self._owners: dict[str, set[str]] = {}
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self._load()
        self._before = frozenset(visitor for owners in self._owners.values() for visitor in owners)

    # -- desks and jobs --------------------------------------------------------

    def give(self, key: str, visitor: str) -> None:
        with self._lock:
            self._give(key, visitor)

    def claim(self, key: str, visitor: str) -> bool:
        """Return whether this is the visitor's. What nobody owns becomes theirs: ids cannot be guessed."""
        with self._lock:
            if key not in self._owners:
                self._give(key, visitor)
            return visitor in self._owners[key]

    def is_given(self, key: str) -> bool:
        """Return whether this desk or job has an owner."""
        with self._lock:
            return key in self._owners

    def is_known(self, visitor: str) -> bool:
        """Return whether this visitor owned anything when the server was started."""
        return visitor in self._before

    def theirs(self, who: str) -> set[str]:
        """Return the ids of the desks and jobs that somebody made (`made:` entries), over all of their cookies."""
        with self._lock:
            return {
                key.rpartition(":")[2]
                for key, owners in self._owners.items()
                if key.startswith("made:") and who in owners
            }

    def owner_of_session(self, key: str) -> str | None:
        """Return the owner of a session or event; None where it has none."""
        with self._lock:
            return self._sessions.get(key)

    def claim_session(self, key: str, visitor: str) -> bool:
        """Claim an id that a page generates while it is open, like `claim`: a session, an event, an upload's
        progress."""
        with self._lock:
            owner = self._sessions.setdefault(key, visitor)
            self._sessions.move_to_end(key)
            while len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
            return owner == visitor

    # -- files -----------------------------------------------------------------

    def file_key(self, path: str) -> str | None:
        """Return the key of a file in the upload folder: `<hash>/<name>`. None for every other path, however it is
        written."""
        if "\0" in path:
            return None
        whole = os.path.normpath(path)
        try:
            inside = Path(whole).relative_to(self.uploads).as_posix()
        except ValueError:
            return None
        return inside if _FILE.fullmatch(inside) else None

    def give_file(self, path: str, visitor: str) -> None:
        key = self.file_key(path)
        if key is not None:
            self.give(f"file:{key}", visitor)

    def has_file(self, path: str, visitor: str) -> bool:
        key = self.file_key(path)
        with self._lock:
            return key is not None and visitor in self._owners.get(f"file:{key}", ())

    def is_owned(self, path: str) -> bool:
        """Return whether this file has an owner."""
        with self._lock:
            return bool(self._owners.get(f"file:{self.file_key(path)}"))

    # -- saving ----------------------------------------------------------------

    def _give(self, key: str, visitor: str) -> None:
        owners = self._owners.setdefault(key, set())
        if visitor in owners:
            return
        owners.add(visitor)
        try:
            with open(self._paper, "a", encoding="utf-8") as paper:
                paper.write(json.dumps([key, visitor]) + "\n")
        except OSError:  # it is still in memory until the server ends
            log.warning("who owns what cannot be written down: %s", self._paper)

    def _load(self) -> None:
        """Read the saved owners, and rewrite the file without entries of files that are gone."""
        try:
            lines = self._paper.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                key, visitor = json.loads(line)
                gone = key.startswith("file:") and not (self.uploads / key[5:]).is_file()
            except (ValueError, TypeError, AttributeError, RecursionError):  # half a line, from a crash
                continue
            if not gone:
                self._owners.setdefault(key, set()).add(str(visitor))
        kept = "".join(json.dumps([key, who]) + "\n" for key, owners in self._owners.items() for who in sorted(owners))
        try:
            with atomic.whole(self._paper, even_protected=True) as growing:
                growing.write_text(kept, encoding="utf-8")
        except OSError:
            log.warning("who owns what cannot be written down: %s", self._paper)
