"""Clips: written whole or not at all, in the colours they were made in, telling what they should and no more."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import DiskFull, EncoderMissing, Stopped, VideoError
from engine.media.ffmpeg import metadata_text, parse_metadata
from engine.media.video import Metadata, poster, probe, read_frames, read_metadata, read_scene, write_video
from engine.scene.scene import Video

VIDEO = Video(width=96, height=64, frames=10, fps=12)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flat(colour: tuple[int, int, int], count: int = 5):
    return [np.full((VIDEO.height, VIDEO.width, 3), colour, np.uint8)] * count


# ---------------------------------------------------------------------------
# The clip


def test_a_clip_has_the_size_length_and_format_that_browsers_play(tmp_path, moving_square):
    clip = tmp_path / "clip.mp4"
    assert write_video(moving_square(10), clip, VIDEO) == 10
    facts = probe(clip)
    assert (facts.width, facts.height, facts.frames, facts.fps, facts.codec) == (96, 64, 10, 12.0, "h264")
    assert facts.seconds == pytest.approx(10 / 12)
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart: playable before all of it is there
    # the format's own record (avcC): High profile or below, 4:2:0, 8 bits
    profile = data[data.index(b"avcC") + 5]
    assert profile in (66, 77, 100)


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (210, 150, 120)]
)
def test_colours_come_back_as_they_went_in(tmp_path, colour):
    clip = tmp_path / "clip.mp4"
    write_video(flat(colour), clip, VIDEO)
    back = next(iter(read_frames(clip)))
    assert np.abs(back.astype(int) - colour).max() <= 3


def test_players_are_told_the_colour_matrix(tmp_path):
    clip = tmp_path / "clip.mp4"
    write_video(flat((200, 30, 30)), clip, VIDEO)
    data = clip.read_bytes()
    at = data.index(b"colrnclx") + 8
    assert data[at : at + 7] == bytes([0, 1, 0, 1, 0, 1, 0])  # primaries, transfer, matrix: BT.709; limited range


def test_movement_survives(tmp_path, moving_square):
    clip = tmp_path / "clip.mp4"
    write_video(moving_square(10), clip, VIDEO)
    back = list(read_frames(clip))
    assert len(back) == 10
    for made, read in zip(moving_square(10), back, strict=True):
        assert np.abs(made.astype(int) - read).mean() < 4


def test_the_poster_is_the_middle_frame(tmp_path, moving_square):
    clip = tmp_path / "clip.mp4"
    write_video(moving_square(11), clip, VIDEO)
    middle = list(moving_square(11))[5]
    for name, kind in (("poster.png", "PNG"), ("poster.jpg", "JPEG"), ("poster.webp", "WEBP")):
        with Image.open(poster(clip, tmp_path / name)) as picture:
            assert (picture.format, picture.size) == (kind, (96, 64))
            assert np.abs(np.asarray(picture).astype(int) - middle).mean() < 5


def test_memory_does_not_grow_with_length(tmp_path):
    """The writer holds one frame at a time: each is gone before the third after it is made."""
    alive = []

    class Counted(np.ndarray):
        def __del__(self):
            alive.pop()

    most = 0

    def frames():
        nonlocal most
        for _ in range(60):
            alive.append(None)
            most = max(most, len(alive))
            yield np.zeros((VIDEO.height, VIDEO.width, 3), np.uint8).view(Counted)

    write_video(frames(), tmp_path / "clip.mp4", VIDEO)
    assert most <= 3


def test_reading_can_be_left_in_the_middle(tmp_path, moving_square):
    clip = tmp_path / "clip.mp4"
    write_video(moving_square(40), clip, VIDEO)
    reading, before = read_frames(clip), set(threading.enumerate())
    next(reading)
    begun = set(threading.enumerate()) - before
    assert begun
    reading.close()  # the reader's thread ends with its ffmpeg
    assert not begun & set(threading.enumerate())


@pytest.mark.parametrize("name", ["out put.mp4", "100%d.mp4", "-y.mp4", "http:x.mp4", "käse 日本.mp4", "a'b;c.mp4"])
def test_any_file_name_will_do(tmp_path, monkeypatch, moving_square, name):
    if os.name == "nt" and ":" in name:
        pytest.skip("Windows has no such file names")
    monkeypatch.chdir(tmp_path)
    write_video(moving_square(), name, VIDEO, metadata=Metadata(title="t"))
    assert probe(name).frames == 10
    assert read_metadata(name) == {"title": "t"}
    assert files_in(tmp_path) == [name]


# ---------------------------------------------------------------------------
# Whole or not at all


def test_stop_kills_ffmpeg_and_the_thread_that_listens_to_it(tmp_path, moving_square):
    """Stop has to give the processor back at once, also while ffmpeg still holds frames in its queues."""
    asked = iter([False] * 100 + [True])
    before = set(threading.enumerate())
    video = Video(width=640, height=480)
    with pytest.raises(Stopped):
        write_video(moving_square(400, 640, 480), tmp_path / "clip.mp4", video, stop=lambda: next(asked))
    assert set(threading.enumerate()) <= before


def test_a_missing_folder_is_made(tmp_path, moving_square):
    clip = tmp_path / "a" / "b" / "clip.mp4"
    write_video(moving_square(), clip, VIDEO)
    assert files_in(clip.parent) == ["clip.mp4"]


def test_stop_leaves_nothing(tmp_path, moving_square):
    asked = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        write_video(moving_square(), tmp_path / "clip.mp4", VIDEO, stop=lambda: next(asked))
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("fault", [ZeroDivisionError, KeyboardInterrupt, OSError])
def test_a_fault_in_the_frames_leaves_the_old_clip(tmp_path, moving_square, fault):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"the old one")

    def frames():
        yield from moving_square(3)
        raise fault("in the engine")

    with pytest.raises(fault, match="in the engine"):
        write_video(frames(), clip, VIDEO, metadata=Metadata(title="t"))
    assert files_in(tmp_path) == ["clip.mp4"]
    assert clip.read_bytes() == b"the old one"


def test_a_new_clip_takes_the_old_ones_place(tmp_path, moving_square):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"the old one")
    write_video(moving_square(), clip, VIDEO)
    assert probe(clip).frames == 10


def test_no_frames_is_a_fault_and_not_an_empty_file(tmp_path):
    with pytest.raises(VideoError, match="no frames"):
        write_video([], tmp_path / "clip.mp4", VIDEO)
    assert files_in(tmp_path) == []


def test_a_frame_of_another_size_is_refused(tmp_path, moving_square):
    with pytest.raises(ValueError, match="should be"):
        write_video(moving_square(3, 96, 80), tmp_path / "clip.mp4", VIDEO)
    assert files_in(tmp_path) == []


def test_the_count_of_frames_is_told_as_they_are_written(tmp_path, moving_square):
    told = []
    write_video(moving_square(5), tmp_path / "clip.mp4", VIDEO, on_frame=told.append)
    assert told == [1, 2, 3, 4, 5]


# ---------------------------------------------------------------------------
# What can go wrong


def test_a_disk_that_tells_no_size_is_not_a_full_one(tmp_path, monkeypatch, moving_square):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    write_video(moving_square(), tmp_path / "clip.mp4", VIDEO)
    assert probe(tmp_path / "clip.mp4").frames == 10


def test_a_long_quiet_clip_is_not_refused_for_a_disk_on_which_it_fits(tmp_path, monkeypatch):
    """961 frames of 832x480 in which little moves are 2.7 MB."""
    sizes = shutil._ntuple_diskusage(10**7, 10**7 - 2_700_000, 2_700_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: sizes)
    black = np.zeros((480, 832, 3), np.uint8)
    assert write_video([black] * 3, tmp_path / "clip.mp4", Video(frames=961)) == 3


def test_a_file_name_that_is_too_long_is_a_plain_error(tmp_path, moving_square):
    with pytest.raises(VideoError, match="another name"):
        write_video(moving_square(), tmp_path / f"{'n' * 300}.mp4", VIDEO)
    assert files_in(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 256 KB. Only Linux makes one without a driver, and only for root."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def noise(count: int):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.integers(0, 256, (240, 320, 3), np.uint8)


def test_a_disk_that_fills_up_is_named_and_nothing_partial_stays(small_disk):
    with pytest.raises(DiskFull, match="Free some space"):
        write_video(noise(40), small_disk / "clip.mp4", Video(width=320, height=240, frames=8))
    assert files_in(small_disk) == []


def test_metadata_that_does_not_fit_is_a_full_disk(small_disk):
    with pytest.raises(DiskFull, match="Free some space"):
        write_video(flat((0, 0, 0)), small_disk / "clip.mp4", VIDEO, metadata=Metadata(description="x" * 400_000))
    assert files_in(small_disk) == []


def test_a_disk_that_is_full_already_is_said_before_the_work(small_disk):
    (small_disk / "rest").write_bytes(bytes(200_000))
    started = []

    def frames():
        started.append(True)
        yield from flat((0, 0, 0))

    with pytest.raises(DiskFull):
        write_video(frames(), small_disk / "clip.mp4", VIDEO)
    assert started == []


def test_a_full_disk_is_known_by_its_error_number(tmp_path, monkeypatch, moving_square):
    """The seam for machines on which no small disk can be mounted."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DiskFull, match="another disk"):
        write_video(moving_square(), tmp_path / "clip.mp4", VIDEO)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("kind", ["absent", "not a program"])
def test_a_missing_encoder_says_how_to_get_it(tmp_path, monkeypatch, moving_square, kind):
    import imageio_ffmpeg

    fake = tmp_path / "ffmpeg"
    if kind == "not a program":
        fake.write_text("x")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    with pytest.raises(EncoderMissing, match="pip install"):
        write_video(moving_square(), tmp_path / "out" / "clip.mp4", VIDEO)
    assert files_in(tmp_path / "out") == []


def test_no_encoder_package_says_how_to_get_it(tmp_path, monkeypatch, moving_square):
    import imageio_ffmpeg

    def none():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(EncoderMissing, match="pip install"):
        write_video(moving_square(), tmp_path / "clip.mp4", VIDEO)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_an_encoder_that_dies_is_a_plain_error(tmp_path, monkeypatch, moving_square):
    import imageio_ffmpeg

    fake = tmp_path / "ffmpeg"
    fake.write_text('#!/bin/sh\nfor last; do :; done\necho "something odd with $last" >&2\nexit 3\n')
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    with pytest.raises(VideoError, match="something odd") as caught:
        write_video(moving_square(300), tmp_path / "out" / "clip.mp4", VIDEO)
    assert str(caught.value).count(str(tmp_path / "out" / "clip.mp4")) == 2
    assert ".part" not in str(caught.value), "the name under which it grows is nobody's business"
    assert files_in(tmp_path / "out") == []


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_an_encoder_that_talks_without_end_does_not_block(tmp_path, monkeypatch, moving_square):
    import imageio_ffmpeg

    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\n'{sys.executable}' -c \"import sys; sys.stderr.write('x' * 400000)\"\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    with pytest.raises(VideoError):
        write_video(moving_square(5), tmp_path / "clip.mp4", VIDEO)


def test_a_locked_folder_is_a_plain_error(tmp_path, moving_square, modes_count):
    tmp_path.chmod(0o500)
    with pytest.raises(VideoError, match="another output folder"):
        write_video(moving_square(), tmp_path / "clip.mp4", VIDEO)
    tmp_path.chmod(0o700)


def test_a_file_where_the_folder_should_be_is_a_plain_error(tmp_path, moving_square):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(VideoError, match="another output folder"):
        write_video(moving_square(), tmp_path / "out" / "clip.mp4", VIDEO)
    with pytest.raises(VideoError, match="is a folder"):
        write_video(moving_square(), tmp_path, VIDEO)


@pytest.mark.parametrize("named", ["/no/such/ffmpeg", sys.executable])
def test_the_variable_that_names_another_ffmpeg_is_named_where_it_is_the_cause(
    tmp_path, moving_square, monkeypatch, named
):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", named)
    with pytest.raises(VideoError, match=f"IMAGEIO_FFMPEG_EXE says to use {named}"):
        write_video(moving_square(), tmp_path / "clip.mp4", VIDEO)


@pytest.mark.parametrize("content", [b"", b"not a video", None])
@pytest.mark.parametrize("reader", [probe, read_metadata, lambda path: next(read_frames(path)), read_scene])
def test_what_is_no_video_is_a_plain_error(tmp_path, reader, content):
    clip = tmp_path / "clip.mp4"
    if content is not None:
        clip.write_bytes(content)
    with pytest.raises(VideoError, match=r"clip\.mp4"):
        reader(clip)


# ---------------------------------------------------------------------------
# Metadata

NASTY = "quote \" ' = ; # \\ \n[CHAPTER]\n;no\n#no\ntab\t日本 🎭 é \u2028 end"


def test_the_scene_is_read_back_exactly(tmp_path, tiny_scene, moving_square):
    scene = tiny_scene(
        prompt=NASTY + "\r\n" + "x" * 3000, cast=[{"role": "character", "image": "a.png", "name": 'Zoë "#1"; = \\'}]
    )
    clip = tmp_path / "clip.mp4"
    write_video(moving_square(), clip, VIDEO, metadata=Metadata(title="A title", scene=scene))
    assert read_scene(clip) == scene


def test_words_of_any_kind_and_length_are_read_back(tmp_path, moving_square):
    clip = tmp_path / "clip.mp4"
    write_video(moving_square(), clip, VIDEO, metadata=Metadata(NASTY, (NASTY + "\n") * 2000 + "."))
    assert len(NASTY) * 2000 > 100_000
    assert read_metadata(clip) == {"title": NASTY, "description": (NASTY + "\n") * 2000 + "."}


@settings(max_examples=25)
@given(title=st.text(alphabet=st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=60))
def test_every_title_is_read_back(tmp_path, moving_square, title):
    clip = tmp_path / "clip.mp4"
    write_video(moving_square(2), clip, VIDEO, metadata=Metadata(title, "after it"))
    back = read_metadata(clip)
    assert back.get("title", "") in (title, title + " ")  # the space: a last backslash cannot stand last
    assert back["description"] == "after it"


@given(tags=st.dictionaries(st.text("ab=;#\\\n", min_size=1), st.text("ab=;#\\\n[ ")))
def test_metadata_text_is_parsed_as_it_was_written(tags):
    back = parse_metadata(metadata_text(tags))
    assert {key: value.removesuffix(" ") for key, value in back.items()} == {
        key: value.removesuffix(" ") for key, value in tags.items()
    }


def test_without_metadata_a_clip_tells_nothing(tmp_path, moving_square):
    clip = tmp_path / "secret-name.mp4"
    write_video(moving_square(), clip, VIDEO)
    assert read_metadata(clip) == {}
    assert read_scene(clip) is None
    data = clip.read_bytes()
    for word in (b"secret", b"Lavf", b"Lavc", b"x264", b"Troupe", b"options"):  # the encoder's own notes neither
        assert word not in data


def test_another_programs_comment_is_no_scene(tmp_path, tiny_scene, moving_square):
    clip = tmp_path / "clip.mp4"
    scene = tiny_scene()

    class Other(Metadata):
        def tags(self):
            return {"comment": "made with love"}

    write_video(moving_square(), clip, VIDEO, metadata=Other(scene=scene))
    assert read_scene(clip) is None
