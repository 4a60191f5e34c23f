"""A finished clip in other shapes: WebM, GIF, PNG frames in a ZIP, the first and the last frame as stills."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from engine.disk import atomic
from engine.errors import StopCheck, Stopped, VideoError
from engine.media.ffmpeg import Process, write_fault
from engine.media.video import probe, read_frames

KINDS: Mapping[str, str] = MappingProxyType(
    {"webm": ".webm", "gif": ".gif", "frames": ".zip", "first": ".first.png", "last": ".last.png"}
)
_GIF_WIDTH = 480  # pixels: small, because GIFs are large and are for chats and mails
_ENCODERS = {
    "webm": ["-c:v", "libvpx-vp9", "-crf", "31", "-b:v", "0", "-deadline", "good", "-cpu-used", "4", "-row-mt", "1",
             "-pix_fmt", "yuv420p", "-f", "webm"],
    "gif": ["-filter_complex", f"scale='min({_GIF_WIDTH},iw)':-2:flags=lanczos,split[a][b];[a]palettegen[p];"
            "[b][p]paletteuse=dither=bayer:bayer_scale=3", "-loop", "0", "-f", "gif"],
}  # fmt: skip


def export(
    clip: Path, out: Path, kind: str, on_frame: Callable[[int, int], None] | None = None, stop: StopCheck | None = None
) -> Path:
    """Encode `clip` as one of KINDS into `out`; `on_frame(done, of)` is told the progress.

    The scene that the clip carries is left out: these files are for showing. Raises VideoError, DiskFull,
    EncoderMissing or Stopped; then nothing is left behind.
    """
    if kind not in KINDS:
        raise VideoError(f"{kind!r} is not a kind of file", f"Use one of {', '.join(KINDS)}.")
    count = probe(clip).frames
    tell = (lambda done: on_frame(min(done, count), count)) if on_frame is not None else (lambda done: None)
    ask = stop or (lambda: False)
    try:
        with atomic.whole(out) as growing:
            if kind in _ENCODERS:
                _encode(clip, growing, kind, tell, ask)
            elif kind == "frames":
                _zip(clip, growing, tell, ask)
            else:
                _still(clip, growing, last=kind == "last", stop=ask)
    except OSError as error:
        raise write_fault(out, "", error) from None
    return out


def _encode(clip: Path, out: Path, kind: str, tell: Callable[[int], None], stop: StopCheck) -> None:
    source = ["-v", "error", "-i", f"file:{clip}", "-map_metadata", "-1", "-an"]
    command = [*source, *_ENCODERS[kind], "-progress", "pipe:1", "-y", f"file:{out}"]
    with Process(command, read=True) as process:
        for line in process.stdout:  # ffmpeg says twice a second how far it is
            if stop():
                raise Stopped
            if found := re.match(rb"frame=\s*(\d+)", line):
                tell(int(found[1]))
        status, messages = process.wait()
    if status:
        raise write_fault(out, messages)


def _zip(clip: Path, out: Path, tell: Callable[[int], None], stop: StopCheck) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for number, frame in enumerate(read_frames(clip), start=1):
            if stop():
                raise Stopped
            data = BytesIO()
            Image.fromarray(frame).save(data, "PNG", compress_level=3)
            archive.writestr(f"{clip.stem}_{number:04d}.png", data.getvalue())
            tell(number)


def _still(clip: Path, out: Path, last: bool, stop: StopCheck) -> None:
    frames = read_frames(clip)
    still = next(frames)
    if last:
        for frame in frames:
            still = frame
            if stop():
                raise Stopped
    elif stop():
        raise Stopped
    Image.fromarray(still).save(out, "PNG")
