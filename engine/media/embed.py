"""The cast inside its clip: an MP4 of Troupe's carries its scene with the pictures, so that all of it can come back.

They travel as a ZIP in a `uuid` box behind the film (ISO/IEC 14496-12, 4.2 and 11.1): players step over boxes that they
do not know. Nothing in it is trusted when it is read: an MP4 may come from anybody.
"""

from __future__ import annotations

import re
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from PIL import Image

from engine.errors import SceneError, VideoError
from engine.media.images import ALPHA_FLOOR, lowest, within
from engine.scene.cast import Member
from engine.scene.scene import MAX_CAST, MAX_VIEWS, Scene
from engine.scene.scene_file import scene_from_json, scene_to_json

BOX = uuid.UUID("5f1d7a52-7e0c-4f0e-9d0a-74726f757065").bytes
_LONGEST = 1024  # pixels of the longer side: a frame shows nobody larger
_QUALITY = 90
_SCENE, _PICTURE = "scene.json", re.compile(r"\d\d[a-c]?\.webp")
_MOST_BYTES = 64 * 10**6  # of the box in a clip
_MOST_BOXES = 1000
_AROUND, _END = 30 + 46, 22  # bytes of a ZIP beside names and contents: an entry's headers, and the list's end


def pack(scene: Scene, members: Sequence[Member]) -> bytes:
    """Encode the scene and the cast's pictures, as the engine used them, into a box; cut-outs have alpha."""
    data, cast = BytesIO(), []
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for index, member in enumerate(members):
            name, picture = f"{index:02d}.webp", within(member.picture, _LONGEST)
            archive.writestr(zipfile.ZipInfo(name), _webp(picture))  # without a date: same scene, same bytes
            views = {f"{index:02d}{letter}.webp": view for letter, view in zip("abc", member.views, strict=False)}
            for view_name, view in views.items():
                archive.writestr(zipfile.ZipInfo(view_name), _webp(within(view, _LONGEST)))
            changes: dict[str, Any] = {"image": name, "views": tuple(views)}
            if member.element.role != "background":
                changes["cutout"] = "auto" if _is_cut_out(picture) else "none"
            cast.append(member.element.model_copy(update=changes))
        archive.writestr(zipfile.ZipInfo(_SCENE), scene_to_json(scene.model_copy(update={"cast": tuple(cast)})))
    content = BOX + data.getvalue()
    return (8 + len(content)).to_bytes(4, "big") + b"uuid" + content


def _webp(picture: Image.Image) -> bytes:
    data = BytesIO()
    picture.save(data, "WEBP", quality=_QUALITY, alpha_quality=100, method=1)  # slower ones gain 7 %
    return data.getvalue()


def _is_cut_out(picture: Image.Image) -> bool:
    return picture.mode == "RGBA" and lowest(picture.getchannel("A")) < 255 - ALPHA_FLOOR


def unpack(clip: Path, folder: Path) -> Path | None:
    """Write a clip's scene and pictures into `folder`, which exists and is empty; returns the scene file's path.

    None where the clip brings none. Raises VideoError for one that is damaged or malicious; then nothing is written.
    """
    try:
        with clip.open("rb") as file:
            content = next(_boxes(file), None)
        if content is None:
            return None
        files = _files(content)
        scene = scene_from_json(files[_SCENE].decode("utf-8"))
        if {name for element in scene.cast for name in element.pictures} != set(files) - {_SCENE}:
            raise ValueError("a picture is missing, or nobody's")
        if any(element.cutout not in ("auto", "none") for element in scene.cast):
            raise ValueError("a mask from elsewhere")
    except (OSError, ValueError, KeyError, SceneError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        raise VideoError(f"what {clip.name} carries about its scene is damaged", "Choose another clip.") from None
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / _SCENE


def _boxes(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of our boxes among the file's top-level ones. Raises ValueError where one is too large."""
    for _ in range(_MOST_BOXES):
        start, head = file.tell(), file.read(8)
        if len(head) < 8:
            return
        size, kind, length = int.from_bytes(head[:4], "big"), head[4:], 8
        if size == 1:  # a 64-bit size follows
            size, length = int.from_bytes(file.read(8), "big"), 16
        if kind == b"uuid" and size and file.read(16) == BOX:
            if size > _MOST_BYTES:
                raise ValueError("too large")
            yield file.read(size - length - 16)
        if size < length:  # 0: it reaches to the end; anything else is no MP4
            return
        file.seek(start + size)


def _files(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_CAST * (1 + MAX_VIEWS) + 1:
            raise ValueError("too many files")
        claimed = sum(entry.file_size + 2 * len(entry.filename.encode()) + _AROUND for entry in entries)
        if claimed + _END > len(content):  # entries overlap (a ZIP bomb)
            raise ValueError("more than there is")
        for entry in entries:  # uncompressed and apart: nothing unpacks to more than the clip itself holds
            if entry.compress_type != zipfile.ZIP_STORED or not (
                entry.filename == _SCENE or _PICTURE.fullmatch(entry.filename)
            ):
                raise ValueError("not one of ours")
        return {entry.filename: archive.read(entry) for entry in entries}
