"""Files that come and go over the network: Gradio takes and gives only what lies in the upload folder."""

from __future__ import annotations

from pathlib import Path

from gradio.processing_utils import save_file_to_cache

from engine.errors import SceneError


def uploaded(path: object, folder: Path) -> Path:
    """Return the uploaded file at this path. Gradio checks the files of well-formed calls; a hand-made call could name
    any file of this machine. Raises SceneError, in the same words whether there is such a file or not."""
    refusal = SceneError("", "this is not an uploaded file", "Upload the picture first.")
    try:
        found = Path(str(path)).resolve()
        if found.is_relative_to(folder.resolve()) and found.is_file():
            return found
    except (OSError, ValueError):
        pass
    raise refusal


def handed_out(path: Path, folder: Path) -> Path:
    """Return a copy of one file in the upload folder, to be named in an answer: Gradio hands out nothing from anywhere
    else, and no folder with what others made is to be opened for it. It is thrown away a day after it was last asked
    for. Raises OSError."""
    return Path(save_file_to_cache(path, str(folder)))
