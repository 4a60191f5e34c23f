"""What guests read instead of this machine's folders. Gradio names every file by its whole path; guests get another
name for the upload folder, and what they send is translated back."""

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
    """`uploads` can be named by guests, as ALIAS; the `private` folders cannot, by any name."""

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
        """Return the path that a guest's name for an uploaded file stands for; every other text as it is."""
        rest = path.removeprefix(ALIAS)
        return self._uploads + rest if rest != path and rest[:1] in ("/", "\\") else path

    def is_needed(self, raw: bytes) -> bool:
        """Return whether some JSON may hold a folder of this machine: most does not, and need not be read."""
        return any(spelled in raw for spelled in self._bytes)


def texts(data: Any) -> Iterator[tuple[Any, Any, str]]:
    """Yield every text in JSON data, as (container, key, text), so that it can be replaced. `data` is a list or a
    dict."""
    waiting = [data]
    while waiting:
        box = waiting.pop()
        for key, value in list(box.items() if isinstance(box, dict) else enumerate(box)):
            if isinstance(value, str):
                yield box, key, value
            elif isinstance(value, dict | list):
                waiting.append(value)


def _spellings(folder: str) -> list[str]:
    """As it is, as in an address (Gradio's way and a browser's), with slashes (Windows), and each as in HTML, which
    messages on the page are."""
    plain = [folder, quote(folder, safe="/"), quote(folder, safe=_BROWSERS), folder.replace(os.sep, "/")]
    return list(dict.fromkeys([*plain, *map(html.escape, plain)]))


def _in_json(text: str, plain: bool) -> bytes:
    return json.dumps(text, ensure_ascii=plain)[1:-1].encode("utf-8", "surrogatepass")
