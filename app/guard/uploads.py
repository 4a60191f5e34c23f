"""Files to and from Gradio, which reads and serves only what is in the upload folder."""

from __future__ import annotations

from pathlib import Path

from gradio.processing_utils import save_file_to_cache

from engine.errors import SceneError


def uploaded(path: object, folder: Path) -> Path:
    """Return the uploaded file at this path. Gradio checks the files of well-formed calls; a hand-made call could name
    any file of this machine. Raises SceneError, with the same message whether the file exists or not."""
    refusal = SceneError("", "this is not an uploaded file", "Upload the picture first.")
    try:
        found = Path(str(path)).resolve()
        if found.is_relative_to(folder.resolve()) and found.is_file():
            return found
    except (OSError, ValueError):
        pass
    raise refusal


def handed_out(path: Path, folder: Path) -> Path:
    """Copy a file into the upload folder, to be named in a response: Gradio serves nothing from anywhere else, and
    opening another folder to it would expose other visitors' files. The copy is deleted a day after it was last asked
    for. Raises OSError."""
    return Path(save_file_to_cache(path, str(folder)))
