"""Export: the same clip in other shapes, whole or not at all, and without its scene."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image

from engine.errors import DiskFull, Stopped, VideoError
from engine.media.export import KINDS, export
from engine.media.video import Metadata, probe, read_frames, read_metadata, write_video
from engine.scene.scene import Video
from engine.scene.scene_file import scene_from_data

FRAMES = 9


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Nine frames from black to red, with a scene inside."""
    path = tmp_path_factory.mktemp("clip") / "walk.mp4"
    frames = (np.full((64, 96, 3), (25 * number, 0, 0), np.uint8) for number in range(FRAMES))
    scene = scene_from_data({"cast": [{"role": "object", "image": "secret.png"}], "prompt": "my secret"})
    write_video(frames, path, Video(width=96, height=64, frames=FRAMES), metadata=Metadata("t", "d", scene))
    return path


def red_of(picture):
    return float(np.asarray(picture.convert("RGB"))[..., 0].mean())


def test_webm_and_gif_have_every_frame(clip, tmp_path):
    webm = probe(export(clip, tmp_path / "a.webm", "webm"))
    assert (webm.width, webm.height, webm.frames, webm.codec) == (96, 64, FRAMES, "vp9")
    with Image.open(export(clip, tmp_path / "a.gif", "gif")) as gif:
        assert (gif.format, gif.n_frames, gif.size) == ("GIF", FRAMES, (96, 64))
        assert gif.info["loop"] == 0


def test_frames_come_as_numbered_pictures(clip, tmp_path):
    with zipfile.ZipFile(export(clip, tmp_path / "a.zip", "frames")) as archive:
        assert archive.namelist() == [f"walk_{number:04d}.png" for number in range(1, FRAMES + 1)]
        pictures = [Image.open(archive.open(name)) for name in archive.namelist()]
        for picture, frame in zip(pictures, read_frames(clip), strict=True):
            assert np.array_equal(np.asarray(picture), frame)


def test_stills_are_the_first_and_the_last_frame(clip, tmp_path):
    first, last = (Image.open(export(clip, tmp_path / kind, kind)) for kind in ("first", "last"))
    assert red_of(first) < 10
    assert red_of(last) > 180


def test_the_scene_stays_behind(clip, tmp_path):
    assert "my secret" in str(read_metadata(clip))
    for kind, suffix in KINDS.items():
        assert b"secret" not in export(clip, tmp_path / f"a{suffix}", kind).read_bytes()


def test_progress_ends_with_all_frames(clip, tmp_path):
    for kind in ("webm", "frames"):
        told = []
        export(clip, tmp_path / kind, kind, lambda done, of, told=told: told.append((done, of)))
        assert told[-1] == (FRAMES, FRAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_stopping_leaves_nothing_behind(clip, tmp_path, kind):
    with pytest.raises(Stopped):
        export(clip, tmp_path / "out", kind, stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_said_and_an_older_file_stays(clip, tmp_path, kind, monkeypatch):
    (tmp_path / "out").write_text("older")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DiskFull):
        export(clip, tmp_path / "out", kind)
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "older"


@pytest.mark.parametrize("kind", [*KINDS, "avi"])
def test_what_is_no_clip_is_refused(tmp_path, kind):
    (tmp_path / "no.mp4").write_text("no")
    with pytest.raises(VideoError):
        export(tmp_path / "no.mp4", tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def test_a_large_clip_becomes_a_small_gif(tmp_path):
    frames = (np.full((128, 960, 3), 40 * number, np.uint8) for number in range(5))
    write_video(frames, tmp_path / "a.mp4", Video(width=960, height=128, frames=5))
    with Image.open(export(tmp_path / "a.mp4", tmp_path / "a.gif", "gif")) as gif:
        assert gif.size == (480, 64)
