"""Temporary files: those of killed renders go, those of live ones stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.disk.atomic import whole
from engine.errors import VideoError
from engine.media.video import Metadata, probe, read_metadata, write_video
from engine.scene.scene import Video

REPO = Path(__file__).resolve().parents[2]
VIDEO = Video(width=96, height=64, frames=10, fps=12)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leave_files(clip: Path, code: str) -> list[str]:
    """Two temporary files that another process made for `clip` and left; their names."""
    code = (
        f"import sys; from pathlib import Path; from engine.disk.atomic import beside; {code}\n"
        "for p in beside(Path(sys.argv[1])): p.write_text('x')"
    )
    command = [sys.executable, "-c", code, str(clip)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return files_in(clip.parent)


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot tell whether a process is there without ending it")
def test_what_a_killed_render_left_is_swept_away_by_the_next(tmp_path, moving_square):
    clip = tmp_path / "clip.mp4"
    assert len(leave_files(clip, "pass")) == 2
    others = [".clip.txt", ".clip.mine.part", ".other.00000000-1-00000000.part", "clip.part"]
    for name in others:
        (tmp_path / name).write_text("mine")
    write_video(moving_square(), clip, VIDEO)
    assert files_in(tmp_path) == sorted([*others, "clip.mp4"])


def test_the_files_of_a_render_that_still_runs_are_left_alone(tmp_path, moving_square):
    clip = tmp_path / "clip.mp4"
    held = []

    def frames():
        yield from moving_square(5)
        held.extend(files_in(tmp_path))
        write_video(moving_square(), clip, VIDEO)  # another one to the same place
        yield from moving_square(5)

    write_video(frames(), clip, VIDEO, metadata=Metadata(title="the slower one"))
    assert held, "the slower one's, while the other one began"
    assert read_metadata(clip) == {"title": "the slower one"}
    assert files_in(tmp_path) == ["clip.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_what_a_killed_writer_of_settings_left_goes_with_the_next(tmp_path):
    target = tmp_path / "settings.json"
    code = ("import os, sys; from pathlib import Path; from engine.disk.atomic import whole\n"
            "with whole(Path(sys.argv[1])) as growing: growing.touch(); os.kill(os.getpid(), 9)")  # fmt: skip
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=REPO)
    assert len(files_in(tmp_path)) == 1
    with whole(target) as growing:
        growing.write_text("{}", encoding="utf-8")
    assert files_in(tmp_path) == ["settings.json"]


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")
@pytest.mark.parametrize("there", [True, False])
def test_a_link_leads_to_its_target_and_stays_a_link(tmp_path, moving_square, there):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "t.mp4", tmp_path / "out.mp4"
    if there:
        target.write_text("old")
    link.symlink_to(target)
    write_video(moving_square(), link, VIDEO)
    assert link.is_symlink()
    assert probe(target).frames == 10
    assert files_in(tmp_path / "disk") == ["t.mp4"]
    with whole(link) as growing:
        assert growing.parent == target.parent
        growing.write_text("new")
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")
def test_a_link_to_a_folder_that_is_away_is_refused(tmp_path, moving_square):
    (tmp_path / "out.mp4").symlink_to(tmp_path / "away" / "t.mp4")
    with pytest.raises(VideoError, match="that folder is not there"):
        write_video(moving_square(), tmp_path / "out.mp4", VIDEO)
    assert not (tmp_path / "away").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_refused_and_stays(tmp_path, moving_square):
    os.mkfifo(tmp_path / "out.mp4")
    with pytest.raises(VideoError, match="it is no file"):
        write_video(moving_square(), tmp_path / "out.mp4", VIDEO)
    with pytest.raises(OSError, match="it is no file"), whole(tmp_path / "out.mp4"):
        pass
    assert (tmp_path / "out.mp4").is_fifo()


@pytest.mark.usefixtures("modes_count")
def test_a_write_protected_file_is_not_replaced(tmp_path, moving_square):
    (tmp_path / "out.mp4").write_text("mine")
    (tmp_path / "out.mp4").chmod(0o444)
    with pytest.raises(VideoError, match="write-protected"):
        write_video(moving_square(), tmp_path / "out.mp4", VIDEO)
    assert (tmp_path / "out.mp4").read_text() == "mine"


def test_another_machines_files_are_swept_only_when_they_are_old(tmp_path, moving_square):
    clip = tmp_path / "clip.mp4"
    foreign = leave_files(clip, "import platform; platform.node = lambda: 'another machine'")
    write_video(moving_square(), clip, VIDEO)
    assert files_in(tmp_path) == sorted([*foreign, "clip.mp4"])
    for name in foreign:
        os.utime(tmp_path / name, (0, 0))
    write_video(moving_square(), clip, VIDEO)
    assert files_in(tmp_path) == ["clip.mp4"]
