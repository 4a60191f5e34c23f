"""The ffmpeg binary behind `engine.media.video`: starting it, what its complaints mean, and its metadata text format.

It is the one that imageio-ffmpeg carries, so nothing has to be installed on the machine. That package has no ffprobe:
facts about a clip are read from what ffmpeg itself prints.

Not its `write_frames`, and so not imageio's writer: it asks neither for ffmpeg's messages nor for its exit status, so a
disk that is full at the last byte goes unnoticed, and where the frames end in an error the half of a clip is completed.
Not PyAV: it reads strangers' files with C libraries inside the server's process, and takes 102 MB where this binary
takes 80.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from engine.disk.room import full_disk, is_full
from engine.errors import DiskFull, EncoderMissing, VideoError

_NAMED = "IMAGEIO_FFMPEG_EXE"  # imageio-ffmpeg's variable for another binary than its own


def executable() -> str:
    """Return the path of the ffmpeg binary. Raises EncoderMissing."""
    import imageio_ffmpeg

    try:
        found: str = imageio_ffmpeg.get_ffmpeg_exe()
        return found
    except RuntimeError:
        raise EncoderMissing("there is no ffmpeg binary to make videos with", _another()) from None


def _another() -> str:
    """Return the remedy for an ffmpeg that is missing or does not work."""
    if named := os.environ.get(_NAMED):
        return f"{_NAMED} says to use {named}: correct that variable, or remove it"
    return "Install it again: python -m pip install --force-reinstall imageio-ffmpeg"


class Process:
    """One running ffmpeg. Leaving it as a context manager kills it where it still runs.

    Its messages are drained by a thread, because a process whose stderr pipe is full stops and waits.
    """

    def __init__(self, arguments: list[str], *, feed: bool = False, read: bool = False) -> None:
        command = [executable(), "-hide_banner", "-nostdin", *arguments]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                stdout=subprocess.PIPE if read else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=_hears_the_terminal(),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise EncoderMissing(f"ffmpeg cannot be started ({error.strerror or error})", _another()) from None
        self._lines: deque[str] = deque(maxlen=400)
        self._drain = threading.Thread(target=self._read_messages, daemon=True)
        self._drain.start()

    def _read_messages(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line.decode("utf-8", "replace").rstrip())

    @property
    def stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def wait(self) -> tuple[int, str]:
        """Wait until it ends, and return its exit status and messages."""
        status = self._process.wait()
        self._drain.join()
        return status, "\n".join(self._lines)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._drain.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # ffmpeg has ended: the last buffered bytes cannot be written
                pass


def _hears_the_terminal() -> bool:
    """Check whether ffmpeg needs a session of its own, so that Ctrl-C does not reach it.

    It would close the file as if it were whole; Ctrl-C is ours to handle. But where this process leads a session that
    has no terminal, ffmpeg stays in it: whoever ends our process group then ends ffmpeg as well.
    """
    if os.name == "nt" or os.getsid(0) != os.getpid():
        return True
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def output_of(arguments: list[str]) -> tuple[int, bytes, str]:
    """Run ffmpeg to its end, and return exit status, standard output and messages."""
    with Process(arguments, read=True) as process:
        output = process.stdout.read()
        status, messages = process.wait()
    return status, output, messages


def write_fault(path: Path, messages: str, error: OSError | None = None) -> VideoError:
    """Return the error for a `path` that could not be written.

    ffmpeg's own messages tell more than our OSError, mostly a broken pipe, and come first.
    """
    if is_full(messages) or (error is not None and is_full(error)):
        return disk_full(path.parent)
    if "Unknown encoder" in messages:
        return EncoderMissing("this ffmpeg has no H.264 encoder (libx264)", _another())
    if error is not None and not isinstance(error, BrokenPipeError):
        return VideoError(f"{path} cannot be written ({error.strerror or error})", "Choose another output folder.")
    if not messages and os.environ.get(_NAMED):
        return EncoderMissing("ffmpeg ended without a word", _another())
    last = messages.splitlines()[-1] if messages else "it ended without a message"
    return VideoError(f"{path} could not be encoded (ffmpeg: {last[:200]})", "Try again, or choose another folder.")


def disk_full(folder: Path) -> DiskFull:
    """Return the error for a folder whose disk is full."""
    return DiskFull(*full_disk(folder, ", or choose an output folder on another disk."))


# ---------------------------------------------------------------------------
# ffmpeg's metadata text: `key=value` lines in which = ; # \ and the newline are escaped by a backslash

_HEADER = ";FFMETADATA1\n"


def metadata_text(tags: Mapping[str, str]) -> str:
    """Format tags as the text that `ffmpeg -f ffmetadata` reads.

    A value that ends in a backslash gets a space behind it: ffmpeg takes a newline after any backslash, even an escaped
    one, for a part of the value, and would swallow the next tag.
    """
    spaced = {key: f"{value} " if value.endswith("\\") else value for key, value in tags.items()}
    return _HEADER + "".join(f"{_escape(key)}={_escape(value)}\n" for key, value in spaced.items())


def parse_metadata(text: str) -> dict[str, str]:
    """Parse the global tags in ffmpeg's metadata text (sections, such as chapters, are left out)."""
    tags: dict[str, str] = {}
    text = text.removeprefix(_HEADER)
    for line in re.findall(r"(?:[^\\\n]|\\.)+", text, re.DOTALL):  # an escaped newline does not end the line
        if line.startswith("["):
            break
        key, separator, value = _split(line)
        if separator and not line.startswith((";", "#")):
            tags[key] = value
    return tags


def _escape(text: str) -> str:
    return re.sub(r"([=;#\\\n])", r"\\\1", text)


def _split(line: str) -> tuple[str, str, str]:
    match = re.match(r"((?:[^\\=]|\\.)*)(=?)(.*)", line, re.DOTALL)
    assert match is not None  # every part may be empty
    key, separator, value = match.groups()
    return _unescape(key), separator, _unescape(value)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
