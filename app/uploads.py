"""Files that came over the network: only what lies in the upload folder is one."""

from __future__ import annotations

from pathlib import Path

from engine.errors import SceneError


def uploaded(path: object, folder: Path) -> Path:
    """The uploaded file at this path. Gradio checks the files of well-formed calls; a hand-made call could name any
    file of this machine. Raises SceneError, in the same words whether there is such a file or not."""
    refusal = SceneError("", "this is not an uploaded file", "Upload the picture first.")
    try:
        found = Path(str(path)).resolve()
        if found.is_relative_to(folder.resolve()) and found.is_file():
            return found
    except (OSError, ValueError):
        pass
    raise refusal
