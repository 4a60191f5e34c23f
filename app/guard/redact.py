"""Redaction of this machine's folders in what guests read. Gradio names every file by its absolute path; guests get an
alias for the upload folder, and the alias in what they send is translated back."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

_BROWSERS = "/;,?:@&=+$-_.!~*'()#"  # what JavaScript's encodeURI leaves as it is
ALIAS = "/troupe-uploads"


class Redaction:
    """Replaces folders in texts. `uploads` gets a name that guests can use, ALIAS; the `private` folders get none."""

    def __init__(self, uploads: Path, private: Sequence[Path]) -> None:
        self._uploads = str(uploads)
        folders = [str(folder) for folder in private if len(folder.parts) > 1]  # never a whole disk
        pairs = [(self._uploads, ALIAS), *((folder, "…") for folder in sorted(folders, key=len, reverse=True))]
        self._spelled = [(spelled, name) for folder, name in pairs for spelled in _spellings(folder)]
        self._bytes = [_in_json(spelled, plain) for spelled, _ in self._spelled for plain in (True, False)]

    def hide(self, text: str) -> str:
        for spelled, name in self._spelled:
            text = text.replace(spelled, name)
        return text

    def reveal(self, path: str) -> str:
        """Return the path that ALIAS stands for in the name of an uploaded file; every other text as it is."""
        rest = path.removeprefix(ALIAS)
        return self._uploads + rest if rest != path and rest[:1] in ("/", "\\") else path

    def is_needed(self, raw: bytes) -> bool:
        """Return whether JSON may contain a folder of this machine: most does not, and need not be parsed."""
        return any(spelled in raw for spelled in self._bytes)


def texts(data: Any) -> Iterator[tuple[Any, Any, str]]:
    """Yield every text in JSON data, a list or dict, as (container, key, text), so that it can be replaced."""
    waiting = [data]
    while waiting:
        box = waiting.pop()
        for key, value in list(box.items() if isinstance(box, dict) else enumerate(box)):
            if isinstance(value, str):
                yield box, key, value
            elif isinstance(value, dict | list):
                waiting.append(value)


def _spellings(folder: str) -> list[str]:
    """List the ways in which a folder can be written: as it is, URL-encoded (Gradio's way and a browser's), with
    slashes (Windows), and each of them HTML-escaped, as messages on the page are."""
    plain = [folder, quote(folder, safe="/"), quote(folder, safe=_BROWSERS), folder.replace(os.sep, "/")]
    return list(dict.fromkeys([*plain, *map(html.escape, plain)]))


def _in_json(text: str, plain: bool) -> bytes:
    return json.dumps(text, ensure_ascii=plain)[1:-1].encode("utf-8", "surrogatepass")
