"""Frames to an H.264 MP4 that plays everywhere, and back again: the clip, its poster, and the scene it was made from.

A clip is written whole or not at all: it grows under a temporary name beside its target and takes the target's place
when it is finished. Frames are streamed both ways, so memory does not grow with the clip's length.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from engine.disk import atomic
from engine.disk.room import free_bytes
from engine.errors import SceneError, Stopped, TroupeError, VideoError
from engine.media.ffmpeg import Process, disk_full, metadata_text, output_of, parse_metadata, write_fault
from engine.scene.scene import Scene, Video
from engine.scene.scene_file import scene_from_json, scene_to_json

# veryfast: 81 frames of 832x480 cost 0.4 s of processor time, and its files are smaller than those of its neighbours.
_ENCODER = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p")

# Without the tags a player guesses the matrix from the height, and below 720 lines it guesses another one (BT.601).
_COLOUR = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")
_TO_YUV = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+bicubic,format=yuv420p"
_TO_RGB = "scale=flags=accurate_rnd+full_chroma_int+bicubic,format=rgb24"

# The file does not name ffmpeg, nor x264 and its settings (which are in an SEI unit, type 6).
_QUIET = ("-bitexact", "-bsf:v", "filter_units=remove_types=6", "-metadata:s:v", "encoder=H.264")


@dataclass(frozen=True)
class Metadata:
    """What a clip says about itself: `title` and `description` in a person's words, `scene` to make it again.
    `keepsake` is a box of `engine.media.embed` to append to the file."""

    title: str = ""
    description: str = ""
    scene: Scene | None = None
    keepsake: bytes = b""

    def tags(self) -> dict[str, str]:
        """Return the MP4 tags; the scene is stored as JSON in the comment."""
        scene = scene_to_json(self.scene) if self.scene is not None else ""
        tags = {"title": self.title, "description": self.description, "comment": scene}
        plain = str.maketrans({"\r": "\n", "\0": None})  # ffmpeg ends a tag at either
        return {key: value.replace("\r\n", "\n").translate(plain) for key, value in tags.items() if value}


@dataclass(frozen=True)
class Probe:
    """Facts about a clip: pixels, frames per second, number of frames, seconds, and the video codec's name."""

    width: int
    height: int
    fps: float
    frames: int
    seconds: float
    codec: str


def write_video(
    frames: Iterable[np.ndarray],
    path: str | Path,
    video: Video,
    *,
    metadata: Metadata | None = None,
    stop: Callable[[], bool] | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> int:
    """Encode `frames`, each (H, W, 3) uint8 RGB of the size that `video` says, into the MP4 `path`; return how many.

    `stop` is asked before every frame and `on_frame` told the number of frames done. The folder is created where it is
    missing; a file of that name is replaced once the new one is whole. Without `metadata` the clip has no tags. Raises
    Stopped, DiskFull, EncoderMissing or VideoError, and whatever `frames` raises; then nothing is left behind.
    """
    path = prepare_folder(Path(path), video)
    atomic.sweep(path)
    part, notes = atomic.beside(path)
    try:
        if metadata is not None:
            _write_notes(notes, metadata, path)
        job = _Job(path, part, notes if metadata is not None else None, video)
        count = _encode(frames, job, stop, on_frame)
        if metadata is not None and metadata.keepsake:
            _append(part, metadata.keepsake, path)
        _take_the_place(part, path)
        return count
    finally:
        atomic.remove(part, notes)


@dataclass(frozen=True)
class _Job:
    """The files of one encoding: `path` is the name that a person knows, `part` the temporary one that is written."""

    path: Path
    part: Path
    notes: Path | None
    video: Video


def prepare_folder(path: Path, video: Video) -> Path:
    """Create the output folder, and refuse early what would surely fail at the end; returns where `path` leads to.

    Raises VideoError and DiskFull.
    """
    try:
        path = atomic.destination(path)
    except OSError as error:  # also: the name is too long, or a folder on the way may not be looked into
        if error.errno == errno.EISDIR:
            raise VideoError(f"{path} is a folder", "Give the video a file name, such as out.mp4.") from None
        shown = path.name if len(path.name) <= 80 else f"{path.name[:79]}…"
        problem = f"{shown} cannot be written ({error.strerror or error})"
        raise VideoError(problem, "Choose another name or output folder.") from None
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"the output folder {folder} cannot be made ({error.strerror or error})"
        raise VideoError(problem, "Choose another output folder.") from None
    if not os.access(folder, os.W_OK):
        raise VideoError(f"nothing can be written into {os.path.abspath(folder)}", "Choose another output folder.")
    smallest = 100_000 + video.frames * video.width * video.height // 1600  # a still: 0.007 bits a pixel
    free, _ = free_bytes(folder)
    if free is not None and free < smallest:
        raise disk_full(folder)
    return path


def _write_notes(notes: Path, metadata: Metadata, path: Path) -> None:
    # A file and not the command line: a prompt may be longer than what a command line holds (32 K on Windows).
    try:
        notes.write_text(metadata_text(metadata.tags()), encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise write_fault(path, "", error) from None


def _append(part: Path, box: bytes, path: Path) -> None:
    try:
        with part.open("ab") as file:
            file.write(box)
    except OSError as error:
        raise write_fault(path, "", error) from None


def _encode(
    frames: Iterable[np.ndarray],
    job: _Job,
    stop: Callable[[], bool] | None,
    on_frame: Callable[[int], None] | None,
) -> int:
    size = f"{job.video.width}x{job.video.height}"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(job.video.fps)]
    tags = ["-f", "ffmetadata", "-i", f"file:{job.notes}"] if job.notes else []
    source = ["-map", "0:v", "-map_metadata", "1" if job.notes else "-1"]
    target = ["-movflags", "+faststart", "-f", "mp4", "-y", f"file:{job.part}"]
    command = ["-v", "error", *raw, "-i", "pipe:0", *tags, *source, "-vf", _TO_YUV, *_ENCODER, *_COLOUR, *_QUIET]
    count = 0
    with Process([*command, *target], feed=True) as process:
        for frame in frames:
            if stop is not None and stop():
                raise Stopped
            _feed(process, _checked(frame, job.video), job)
            count += 1
            if on_frame is not None:
                on_frame(count)
        _finish(process, job)
    if count == 0:
        raise VideoError("there are no frames to write", "Report this: an engine should make at least one.")
    return count


def _feed(process: Process, frame: np.ndarray, job: _Job) -> None:
    try:
        process.stdin.write(frame.data)
    except OSError as error:  # ffmpeg has ended; its messages say why
        raise _encoder_fault(job, process.wait()[1], error) from None


def _finish(process: Process, job: _Job) -> None:
    fault = None
    try:
        process.stdin.close()
    except OSError as error:
        fault = error
    status, messages = process.wait()
    if status or fault:
        raise _encoder_fault(job, messages, fault) from None


def _encoder_fault(job: _Job, messages: str, fault: OSError | None) -> VideoError:
    return write_fault(job.path, messages.replace(str(job.part), str(job.path)), fault)


def _checked(frame: np.ndarray, video: Video) -> np.ndarray:
    expected = (video.height, video.width, 3)
    if frame.shape != expected or frame.dtype != np.uint8:
        raise ValueError(f"a frame is {frame.dtype} {frame.shape}; it should be uint8 {expected}")
    return np.ascontiguousarray(frame)


def _take_the_place(part: Path, path: Path) -> None:
    try:
        atomic.replace(part, path, sync=True)
    except PermissionError:  # Windows, while a player holds the old file
        raise VideoError(
            f"{path} cannot be replaced", "Close the program that has it open, or choose another name."
        ) from None
    except OSError as error:
        raise write_fault(path, "", error) from None


# ---------------------------------------------------------------------------
# Reading


def probe(path: str | Path) -> Probe:
    """Read size, length and codec of a clip, its frames counted and not estimated. Raises VideoError."""
    # ffmpeg's list of packets, and not what it prints about a file: that is mixed with the file's own words.
    status, output, _ = output_of(["-v", "error", *_input(path), "-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-"])
    lines = output.decode("ascii", "replace").splitlines()
    facts = dict(re.findall(r"#(\w+) 0: (\S+)", "\n".join(lines)))
    durations = [int(line.split(",")[3]) for line in lines if not line.startswith("#")]  # stream, dts, pts, duration
    if status or "dimensions" not in facts or not sum(durations):
        raise _unreadable(path)
    width, height = (int(side) for side in facts["dimensions"].split("x"))
    seconds = float(sum(durations) * Fraction(facts["tb"]))
    return Probe(width, height, round(len(durations) / seconds, 3), len(durations), seconds, facts["codec_id"])


def read_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yield the clip's decoded frames, one after another, (H, W, 3) uint8 RGB. Raises VideoError."""
    size = probe(path)
    length = size.width * size.height * 3
    raw = ["-map", "0:v:0", "-vf", _TO_RGB, "-f", "rawvideo", "-fps_mode", "passthrough", "pipe:1"]
    with Process(["-v", "error", *_input(path), *raw], read=True) as process:
        while len(data := process.stdout.read(length)) == length:
            yield np.frombuffer(data, np.uint8).reshape(size.height, size.width, 3)
        if data or process.wait()[0]:
            raise _unreadable(path)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the clip's tags, such as `title`, `description` and `comment`. Raises VideoError."""
    status, output, _ = output_of(["-v", "error", *_input(path), "-bitexact", "-f", "ffmetadata", "pipe:1"])
    if status:
        raise _unreadable(path)
    tags = parse_metadata(output.decode("utf-8", "replace"))
    return {key: value for key, value in tags.items() if not key.endswith(("_brand", "_brands", "_version"))}


def read_scene(path: str | Path) -> Scene | None:
    """Read the scene a clip was made from; None where it has none, or another comment. Raises VideoError."""
    try:
        return scene_from_json(read_metadata(path).get("comment", ""))
    except SceneError:
        return None


def poster(path: str | Path, out: str | Path) -> Path:
    """Save the middle frame of the clip `path` as the picture `out` (.jpg, .webp or .png). Raises VideoError.

    The middle, because a clip's first frame is where nothing has happened yet.
    """
    out, size = Path(out), probe(path)
    middle = f"select=eq(n\\,{size.frames // 2}),{_TO_RGB}"
    raw = ["-map", "0:v:0", "-vf", middle, "-frames:v", "1", "-f", "rawvideo", "pipe:1"]
    status, data, _ = output_of(["-v", "error", *_input(path), *raw])
    if status or len(data) != size.width * size.height * 3:
        raise _unreadable(path)
    try:
        with atomic.whole(out) as part:
            picture = Image.frombytes("RGB", (size.width, size.height), data)
            picture.save(part, Image.registered_extensions()[out.suffix.lower()], quality=88)
    except OSError as error:
        raise write_fault(out, "", error) from None
    return out


def _input(path: str | Path) -> list[str]:
    if not Path(path).is_file():
        raise VideoError(f"there is no video {path}", "Check the path.")
    return ["-i", f"file:{path}"]  # `file:` keeps a name such as `http:x.mp4` or `-x.mp4` a name


def _unreadable(path: str | Path) -> TroupeError:
    return VideoError(f"{path} is not a video that can be read", "Choose another file; it may be cut off.")
