"""A clip brings its cast along, for every player stays a plain MP4, and what strangers put into one does no harm."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from engine.door.render import RenderRequest, gather, render
from engine.errors import VideoError
from engine.media.embed import BOX, pack, unpack
from engine.media.video import Metadata, probe, read_frames, read_scene, write_video
from engine.scene.cast import Member
from engine.scene.scene import Video
from engine.scene.scene_file import load_scene, scene_from_data


@pytest.fixture
def scene():
    return scene_from_data({
        "cast": [
            {"role": "character", "name": "Mia", "image": "mia photo.png",
             "placement": {"x": 0.3, "y": 0.9, "scale": 0.5}},
            {"role": "object", "name": "box", "image": "/home/ada/box.jpg", "cutout": "none"},
            {"role": "background", "name": "street", "image": "street.png"},
        ],
        "prompt": "Mia opens the box.", "video": {"width": 96, "height": 64, "frames": 5}, "sampling": {"seed": 7},
    })  # fmt: skip


@pytest.fixture
def members(scene):
    mia = Image.new("RGBA", (60, 90), (0, 0, 0, 0))
    ImageDraw.Draw(mia).ellipse((10, 10, 50, 80), fill=(200, 40, 40, 255))
    pictures = [mia, Image.new("RGBA", (2000, 1000), (10, 160, 10, 255)), Image.new("RGB", (120, 80), (20, 20, 200))]
    return tuple(Member(element, picture) for element, picture in zip(scene.cast, pictures, strict=True))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "opened").mkdir()
    return tmp_path / "opened"


def clip_with(path, box):
    frames = (np.zeros((64, 96, 3), np.uint8) for _ in range(5))
    video = Video(width=96, height=64, frames=5)
    write_video(frames, path, video, metadata=Metadata("t", "d", None, box))
    return path


def boxed(files, compression=zipfile.ZIP_STORED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    content = BOX + data.getvalue()
    return (8 + len(content)).to_bytes(4, "big") + b"uuid" + content


def test_scene_and_cast_come_back(scene, members, tmp_path, folder):
    clip = clip_with(tmp_path / "a.mp4", pack(scene, members))
    found = load_scene(unpack(clip, folder))
    assert (found.prompt, found.sampling, found.cast[0].placement) == (
        scene.prompt, scene.sampling, scene.cast[0].placement,
    )  # fmt: skip
    again, notices = gather(RenderRequest(found, folder, tmp_path / "none.mp4", confined=True))
    assert notices == ()
    for before, after in zip(members, again, strict=True):
        assert (before.element.role, before.element.name) == (after.element.role, after.element.name)
    mia = np.asarray(again[0].picture)
    assert mia[45, 30, 3] == 255
    assert mia[2, 2, 3] == 0
    assert abs(int(mia[45, 30, 0]) - 200) < 12
    assert max(again[1].picture.size) == 1024


def test_a_clip_with_a_cast_inside_is_a_clip_like_any_other(scene, members, tmp_path):
    plain, carrying = clip_with(tmp_path / "a.mp4", b""), clip_with(tmp_path / "b.mp4", pack(scene, members))
    assert probe(plain) == probe(carrying)
    for one, other in zip(read_frames(plain), read_frames(carrying), strict=True):
        assert np.array_equal(one, other)


def test_the_same_scene_gives_the_same_bytes(scene, members):
    assert pack(scene, members) == pack(scene, members)


def test_rendering_embeds_the_cast_unless_it_shall_not(scene, members, tmp_path, folder):
    for embed in (True, False):
        out = tmp_path / f"{embed}.mp4"
        render(RenderRequest(scene, tmp_path, out, members=members, embed_scene=embed, poster=False))
        assert (unpack(out, folder) is not None) == embed
        assert (read_scene(out) is not None) == embed
    assert b"/home/ada" not in (tmp_path / "True.mp4").read_bytes()


def test_clips_of_others_bring_nothing(tmp_path, folder):
    other = (24 + 5).to_bytes(4, "big") + b"uuid" + bytes(16) + b"other"
    for name, box in {"plain": b"", "other": other}.items():
        assert unpack(clip_with(tmp_path / f"{name}.mp4", box), folder) is None
    for name, content in {"empty": b"", "text": b"I am not a film", "zeros": bytes(4096)}.items():
        (tmp_path / name).write_bytes(content)
        assert unpack(tmp_path / name, folder) is None
    assert list(folder.iterdir()) == []


SCENE = '{"cast": [{"role": "object", "image": "00.webp"}], "prompt": "x"}'


def overlapping(count, padding):
    """A ZIP of which every entry's content holds all later entries, headers and all: 17 times what the file has."""
    names = [f"{number:02d}.webp" for number in range(count)] + ["scene.json"]
    inner, places, entries = SCENE.encode() + b" " * padding, [], []
    for name in reversed(names):
        head = (zlib.crc32(inner), len(inner), len(inner), len(name), 0)
        local = struct.pack("<4s5HIIIHH", b"PK\3\4", 20, 0, 0, 0, 0, *head) + name.encode()
        entries.append((name, head, len(local) + len(inner)))
        inner = local + inner
    for name, head, behind in entries:
        place = len(inner) - behind
        places.append(struct.pack("<4s6HIIIHHHHHII", b"PK\1\2", 20, 20, 0, 0, 0, 0, *head, 0, 0, 0, 0, place))
        places[-1] += name.encode()
    listing = b"".join(places)
    end = struct.pack("<4s4HIIH", b"PK\5\6", 0, 0, len(places), len(places), len(listing), len(inner), 0)
    content = BOX + inner + listing + end
    return (8 + len(content)).to_bytes(4, "big") + b"uuid" + content


@pytest.mark.parametrize(
    "box",
    [
        boxed({"scene.json": SCENE}),
        boxed({"scene.json": SCENE, "00.webp": b"x", "../evil.py": b"x"}),
        boxed({"scene.json": SCENE, "00.webp": b"x", "/etc/passwd": b"x"}),
        boxed({"scene.json": SCENE, "00.webp": bytes(10**6)}, zipfile.ZIP_DEFLATED),
        boxed({"scene.json": SCENE.replace("00.webp", "/etc/passwd"), "00.webp": b"x"}),
        boxed({"scene.json": SCENE.replace('"image"', '"cutout": "/etc/passwd", "image"'), "00.webp": b"x"}),
        boxed({"scene.json": "{}", "00.webp": b"x"}),
        boxed({"00.webp": b"x"}),
        overlapping(1, 0),
        overlapping(15, 100_000),
        boxed({"scene.json": SCENE, **{f"{number:02d}.webp": b"x" for number in range(30)}}),
        boxed({"scene.json": SCENE, "00.webp": b"x"})[:-30],
        (8 + 16 + 9).to_bytes(4, "big") + b"uuid" + BOX + b"not a zip",
        (2**31).to_bytes(4, "big") + b"uuid" + BOX + b"longer than it is",
    ],
)
def test_what_was_made_to_do_harm_is_refused_and_writes_nothing(tmp_path, folder, box):
    with pytest.raises(VideoError, match="damaged"):
        unpack(clip_with(tmp_path / "a.mp4", box), folder)
    assert list(folder.iterdir()) == []
    assert not (tmp_path / "evil.py").exists()
