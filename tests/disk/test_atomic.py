"""Files are written whole or not at all, also where Windows holds them for a moment."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from app.guard.ownership import Ownership
from engine.cutout import cache
from engine.disk import atomic
from engine.models.work import write_whole


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def windows(monkeypatch):
    """`windows(times)`: from now on so many of the tries to replace a file find it held by another program."""
    replace, tries = os.replace, []

    def begin(times: int) -> list[Path]:
        def held(source: Path, target: Path) -> None:
            tries.append(target)
            if len(tries) <= times:
                raise PermissionError(13, "Access is denied", str(source), 5, str(target))
            replace(source, target)

        monkeypatch.setattr(atomic, "_MAY_BE_HELD", True)
        monkeypatch.setattr(os, "replace", held)
        return tries

    return begin


def test_a_file_that_is_held_for_a_moment_is_replaced(tmp_path, windows):
    file = tmp_path / "desk.json"
    file.write_text("old")
    tries = windows(4)
    with atomic.whole(file) as growing:
        growing.write_text("new")
    assert (file.read_text(), len(tries), files_in(tmp_path)) == ("new", 5, ["desk.json"])


def test_a_file_that_stays_held_is_said_in_words_and_stays_as_it_was(tmp_path, windows, monkeypatch):
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    file = tmp_path / "desk.json"
    file.write_text("old")
    windows(10**6)
    with pytest.raises(PermissionError, match="another program has it open") as caught, atomic.whole(file) as growing:
        growing.write_text("new")
    assert (caught.value.errno, caught.value.filename) == (13, str(file))
    assert 1 <= sum(waited) <= 2  # seconds
    assert (file.read_text(), files_in(tmp_path)) == ("old", ["desk.json"])


def test_where_no_process_holds_files_a_refusal_is_not_waited_for(tmp_path, windows, monkeypatch):
    tries = windows(10**6)
    monkeypatch.setattr(atomic, "_MAY_BE_HELD", False)
    with pytest.raises(PermissionError, match="Access is denied"), atomic.whole(tmp_path / "a") as growing:
        growing.write_text("new")
    assert len(tries) == 1


def test_what_the_block_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a"
    file.write_text("old")

    def half(growing: Path) -> None:
        growing.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), atomic.whole(file) as growing:
        half(growing)
    assert (file.read_text(), files_in(tmp_path)) == ("old", ["a"])


def test_the_data_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append(os.fstat(file).st_ino), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("named"), replace(*paths)))
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("new")
    inode = source.stat().st_ino
    atomic.replace(source, target, sync=True)
    assert (order, target.read_text()) == ([inode, "named"], "new")


def test_a_person_s_protected_file_stays_and_one_of_our_own_is_replaced(tmp_path, modes_count):
    file = tmp_path / "a"
    file.write_text("old")
    file.chmod(0o444)
    with pytest.raises(OSError, match="write-protected"), atomic.whole(file) as growing:
        growing.write_text("new")
    assert file.read_text() == "old"
    write_whole(file, "new")
    assert file.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot tell whether a process is there without ending it")
def test_a_folder_is_swept_of_what_killed_writers_left_and_of_nothing_else(tmp_path):
    code = (
        "import sys; from pathlib import Path; from engine.disk.atomic import beside\n"
        "for name in ('one.bin', 'two.bin'): beside(Path(sys.argv[1]) / name)[0].write_text('x')"
    )
    root = Path(atomic.__file__).parent.parent.parent
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=True, timeout=120)
    assert len(files_in(tmp_path)) == 2
    mine, _ = atomic.beside(tmp_path / "three.bin")
    mine.write_text("x")
    (tmp_path / ".hidden.part").write_text("somebody's")
    atomic.sweep_folder(tmp_path)
    assert files_in(tmp_path) == sorted([mine.name, ".hidden.part"])


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no such modes")
def test_a_cut_out_that_is_kept_is_its_person_s_alone_and_leaves_nothing_beside_it(tmp_path):
    picture = Image.new("RGBA", (8, 8), (200, 30, 30, 90))
    cache.put(tmp_path, "0" * 64, picture)
    (kept,) = tmp_path.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    again = cache.get(tmp_path, "0" * 64, (8, 8))
    assert again is not None
    assert again.tobytes() == picture.tobytes()


def test_a_cut_out_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.put(tmp_path, "0" * 64, Image.new("RGBA", (8, 8)))
    assert files_in(tmp_path) == []


def test_who_owns_what_outlives_a_start_at_which_it_could_not_be_written_anew(tmp_path, monkeypatch, caplog):
    Ownership(tmp_path / "paper", tmp_path / "uploads").give("made:1", "visitor")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert Ownership(tmp_path / "paper", tmp_path / "uploads").claim("made:1", "visitor")
    assert "cannot be written down" in caplog.text
    assert files_in(tmp_path) == ["paper"]
    assert not Ownership(tmp_path / "paper", tmp_path / "uploads").claim("made:1", "somebody else")
