"""The hub over HTTP: what a repository holds, and the bytes of a file from any point on.

Uses huggingface_hub's session and names, so HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and proxies count. Its own download
functions throw a partial file away when they end (since 1.18; in 2.4 one that a kill has left is not found again, since
each download names its own), so the bytes are taken here and kept by `store`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.a2.files import split_hub
from engine.a2.needed import needed_files
from engine.errors import TroupeError

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 1 << 20  # bytes read at once while hashing


class Cut(Exception):
    """The connection was cut or the hub is busy: worth another try. The message says it in a few words."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository. `etag` is the SHA-256 of its bytes, or of a small file the SHA-1 that git knows it by:
    also its name in the cache's `blobs` folder."""

    path: str
    size: int
    etag: str

    def matches(self, local: Path) -> bool:
        """Return whether the local file has these bytes. Raises OSError."""
        if local.stat().st_size != self.size:
            return False
        digest = hashlib.sha256() if len(self.etag) == 64 else hashlib.sha1(b"blob %d\0" % self.size)
        with local.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest() == self.etag


@dataclass(frozen=True)
class Listing:
    """The files of a repository that are needed, at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def bytes(self) -> int:
        """All of them together."""
        return sum(file.size for file in self.files)

    def to_data(self) -> dict[str, Any]:
        """Convert to plain data for a JSON file."""
        return {"commit": self.commit, "files": [asdict(file) for file in self.files]}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Listing:
        """Rebuild a listing from that data. Raises KeyError or TypeError for anything else."""
        files = tuple(RemoteFile(**file) for file in data["files"])
        for file in files:
            if not (isinstance(file.path, str) and isinstance(file.etag, str) and type(file.size) is int):
                raise TypeError("no listing")
            if "\0" in file.path + file.etag:
                raise TypeError("no listing")
        return cls(str(data["commit"]), files)


def fetch_listing(model: str, revision: str = "main") -> Listing:
    """Ask the hub which files the engine needs of a model, and how large they are. Raises TroupeError."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(split_hub(model)[0], revision=revision, files_metadata=True, timeout=30)
    except Exception as error:
        raise explain(error, model) from None
    by_path = {each.rfilename: each for each in found.siblings or ()}
    files, commit = [], found.sha or ""
    for path in needed_files(by_path, model):
        entry = by_path[path]
        etag, size = (entry.lfs.sha256, entry.lfs.size) if entry.lfs else (entry.blob_id, entry.size)
        if not etag or size is None or not commit:
            raise TroupeError(f"the hub does not say how large {path} is", "Use another HF_ENDPOINT.")
        files.append(RemoteFile(path, size, etag))
    return Listing(commit, tuple(files))


def read_from(model: str, commit: str, path: str, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes of a file from `start` on, as they arrive, each piece with the offset it belongs at: a server
    that does not know ranges begins at 0 again. Raises Cut, TroupeError."""
    from huggingface_hub import constants, get_session, hf_hub_url, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # offered by its __init__, not to checkers

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    url = hf_hub_url(split_hub(model)[0], path, revision=commit)
    try:
        with get_session().stream(
            "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True
        ) as response:
            if response.status_code in _RETRIED:
                raise Cut(f"the hub answers {response.status_code}")
            hf_raise_for_status(response)
            offset = start if response.status_code == 206 else 0
            for piece in response.iter_raw():
                yield offset, piece
                offset += len(piece)
    except (Cut, GeneratorExit):
        raise
    except Exception as error:
        if _is_transport(error):
            raise Cut("the connection was cut") from None
        raise explain(error, model) from None


def _is_transport(error: Exception) -> bool:
    """Return whether the network failed, rather than the hub said no. huggingface_hub 1.x is built on httpx, 2.x on
    httpx2: both derive from one class, which its own errors name."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    transport = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    return isinstance(error, transport) and not isinstance(error, HfHubHTTPError | OfflineModeIsEnabled)


def check_online() -> None:
    """Raise TroupeError where the person has switched the network off for hub libraries."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise TroupeError("HF_HUB_OFFLINE is set, so nothing is downloaded", "Unset it and start again.")


def explain(error: Exception, model: str) -> TroupeError:
    """Return the error, in words for a person, for a request that failed at the hub or on the way to it. Raises what it
    does not know."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(error, TroupeError):
        return error
    if isinstance(error, errors.OfflineModeIsEnabled):
        return TroupeError("HF_HUB_OFFLINE is set, so nothing is downloaded", "Unset it and start again.")
    if isinstance(error, errors.HFValidationError):
        return TroupeError(f"{model} is not a name that the hub knows", "Write it as owner/name.")
    if isinstance(error, errors.GatedRepoError):
        return TroupeError(
            f"{model} is only for those who have accepted its terms",
            f"Accept them at {hub}/{model}, then set HF_TOKEN to a token of yours.",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return TroupeError(
            f"{hub} has no {model} that you may read", "Check the name; for a private one set HF_TOKEN to a token."
        )
    if isinstance(error, errors.EntryNotFoundError | errors.RevisionNotFoundError):
        return Changed(f"{model} has changed on the hub since the download began", "Start it again.")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return TroupeError(f"{hub} refuses {model} ({status})", "Set HF_TOKEN to a token that may read it.")
    if status is not None:
        return TroupeError(f"{hub} answers with an error ({status})", "Try again later.")
    if _is_transport(error) or isinstance(error, OSError):
        return unreachable()
    if isinstance(error, ValueError | KeyError | TypeError):
        return TroupeError(f"{hub} does not answer as a model hub does", "Check HF_ENDPOINT.")
    raise error


class Changed(TroupeError):
    """What was listed is not there any more: ask for the list again."""


def unreachable(why: str = "") -> TroupeError:
    """Return the error for a hub that cannot be reached."""
    from huggingface_hub import constants

    return TroupeError(
        f"no network: {constants.ENDPOINT} cannot be reached" + (f" ({why})" if why else ""),
        "Connect (or set HTTPS_PROXY, or HF_ENDPOINT to a mirror) and start again; what has come is kept.",
    )
