"""How much room there is, where the folder is not there yet and where the disk does not answer; and what is full."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from app.guard.disk_space import has_room
from app.guard.limits import Limits, UploadLimits
from app.guard.quota import Quota
from app.help import doctor
from app.models.views import model_html
from engine.disk.room import free_bytes, full_disk, is_full
from engine.errors import DiskFull, TroupeError
from engine.installing import disk_line
from engine.media.ffmpeg import write_fault
from engine.models import look
from engine.models.work import explain_disk

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def silent(monkeypatch):
    """No disk says how large it is."""

    def gone(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", gone)


def test_a_disk_is_asked_where_the_folder_will_be(tmp_path):
    free, why = free_bytes(tmp_path / "not" / "yet")
    assert free > 0
    assert why == f"at {os.path.realpath(tmp_path)}"


def test_a_link_counts_as_what_it_leads_to(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: asked.append(place) or Usage(100, 0, 100))
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "not yet")
    free_bytes(tmp_path / "link" / "clips")
    assert [Path(place).name for place in asked] == ["disk"]


def test_a_folder_below_one_that_may_not_be_entered_has_that_one_s_room(tmp_path, modes_count):
    (tmp_path / "locked").mkdir(mode=0)
    free, why = free_bytes(tmp_path / "locked" / "outputs")
    assert free > 0
    assert why.endswith("locked")


def test_a_disk_that_does_not_answer_is_not_taken_for_the_one_above_it(tmp_path, monkeypatch):
    (tmp_path / "share").mkdir()
    stat = os.stat

    def stale(path, **options):
        if Path(path).name == "share":
            raise OSError(errno.EHOSTDOWN, "Host is down")
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", stale)
    free, why = free_bytes(tmp_path / "share" / "clips")
    assert (free, "share" in why, "Host is down" in why) == (None, True, True)


def test_nothing_that_a_folder_is_called_raises(tmp_path, monkeypatch):
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for folder in (tmp_path / "round", tmp_path / ("n" * 300), tmp_path / "zero\0byte"):
        free, why = free_bytes(folder)
        assert free is None
        assert why.startswith("not known: ")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert free_bytes(Path("clips"))[0] is None


def test_a_disk_that_tells_no_size_has_no_known_room(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 0))
    free, why = free_bytes(tmp_path)
    assert (free, "tells no size" in why) == (None, True)


def test_where_the_disk_does_not_answer_nothing_is_refused_beforehand(silent, tmp_path):
    assert has_room(tmp_path, 10**15)
    UploadLimits(Limits(upload_bytes=10**15, upload_bytes_in_all=10**15), tmp_path).check("visitor", 10**12)
    Quota(Limits(), tmp_path).check_disk()
    (outputs,) = [each for each in doctor.examine(tmp_path) if each.what == "Outputs folder"]
    assert (outputs.level, "Input/output error" in outputs.said) == ("note", True)
    assert "free space not known on this disk" in model_html(look("owner/name"), None, free_bytes(tmp_path)[0])


def test_a_guest_is_refused_on_a_disk_that_is_nearly_full(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 10**6))
    assert not has_room(tmp_path, 10**6)
    with pytest.raises(TroupeError, match=r"disk of this Troupe is full\. Tell its owner"):
        UploadLimits(Limits(), tmp_path).check("visitor", 1)
    with pytest.raises(TroupeError, match=r"disk of this Troupe is nearly full\. Tell its owner"):
        Quota(Limits(), tmp_path).check_disk()


def windows_error(number: int) -> OSError:
    error = OSError(errno.EINVAL, "There is not enough space on the disk")
    error.winerror = number
    return error


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    windows_error(39),
    windows_error(112),
    DiskFull("the disk is full"),
    TroupeError("the preset cannot be written (No space left on device)"),
    RuntimeError("I/O error: No space left on device (os error 28)"),  # safetensors
    RuntimeError("I/O error: (os error 112)"),
    "out.mp4: Disk quota exceeded",
    "ERROR: Could not install packages due to an OSError: [WinError 112] zu wenig Platz",
]


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_a_full_disk_is_known_however_it_is_said(error):
    assert is_full(error)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EACCES, "Permission denied"), windows_error(5), TroupeError("no"), MemoryError(), "os error 281"],
    ids=repr,
)
def test_another_fault_is_no_full_disk(error):
    assert not is_full(error)


@pytest.mark.parametrize("error", [FULL[0], FULL[1], FULL[3]], ids=repr)
def test_a_full_disk_is_said_in_the_same_words_everywhere_with_what_to_do(error, tmp_path):
    said = [
        str(TroupeError(*full_disk(tmp_path, " and start again"))),
        str(write_fault(tmp_path / "clip.mp4", "", error)),
        str(explain_disk(error, tmp_path)),
        disk_line(error, tmp_path, 2 * 10**9),
    ]
    for line in said:
        assert line.startswith(f"the disk is full: {tmp_path}")
        assert ". Free some space" in line
    assert f"{tmp_path} needs 2.0 GB. Free some space and start again" in said[-1]
