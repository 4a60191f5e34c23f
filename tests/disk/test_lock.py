"""A lock has one holder, is let go of by whatever ends it, and keeps nobody out of a disk that knows none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.jobs.lock import FolderLock
from engine.disk.lock import FileLock, Taken, is_held
from engine.errors import TroupeError
from engine.models.work import Busy, Work

LONG = 120.0  # seconds; no test waits that long where all is well
HOLD = (
    "import sys, time; from pathlib import Path; from engine.disk.lock import FileLock\n"
    "lock = FileLock(Path(sys.argv[1])); print('held', flush=True)\n"
    "time.sleep(600)"
)
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no flock")


@contextmanager
def holder(repo: Path, path: Path, code: str = HOLD) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", code, str(path)]
    process = subprocess.Popen(command, cwd=repo, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_lock_has_one_holder_and_a_killed_one_lets_go(repo, tmp_path):
    path = tmp_path / "lock"
    with holder(repo, path) as other:
        assert is_held(path)
        with pytest.raises(Taken):
            FileLock(path)
        other.kill()
        with FileLock(path, patience=LONG):
            assert is_held(path)
    assert not is_held(path)


def test_a_lock_has_one_holder_within_a_process_too(tmp_path):
    path = tmp_path / "lock"
    with FileLock(path) as lock:
        with pytest.raises(Taken):
            FileLock(path)
        lock.release()
        lock.release()
        FileLock(path).release()


def test_who_waits_gets_it_when_it_is_let_go_of(tmp_path):
    path = tmp_path / "lock"
    first = FileLock(path)
    timer = threading.Timer(0.2, first.release)
    timer.start()
    with FileLock(path, patience=LONG):
        timer.join()
        assert first.file == -1


@posix
def test_a_program_that_the_holder_started_does_not_keep_the_lock(repo, tmp_path):
    path = tmp_path / "lock"
    code = HOLD.replace("print(", "import subprocess; subprocess.Popen(['sleep', '20'], stdout=2); print(")
    with holder(repo, path, code) as other:
        other.kill()
        other.wait()
        with FileLock(path, patience=15):
            pass


def test_those_who_only_ask_do_not_take_each_other_for_the_holder(tmp_path):
    path = tmp_path / "lock"
    FileLock(path).release()
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(lambda _: is_held(path), range(800)))


@posix
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_disk_that_knows_no_locks_keeps_nobody_out(tmp_path, monkeypatch, number):
    def without(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", without)
    work = Work(tmp_path / "work", tmp_path / "lock")
    with work.held():
        assert not work.running()
        assert not is_held(tmp_path / "lock")
    first, second = FolderLock(tmp_path / "outputs"), FolderLock(tmp_path / "outputs")
    first.release()
    second.release()
    left = sorted(path.name for path in (tmp_path / "outputs").iterdir())
    assert left == ["troupe.lock"], "and no marker that a killed one would leave for ever"


@posix
def test_some_network_disks_call_a_lock_that_is_taken_a_missing_permission(tmp_path, monkeypatch):
    def taken(*_):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("fcntl.flock", taken)
    with pytest.raises(Taken):
        FileLock(tmp_path / "lock")
    assert is_held(tmp_path / "lock")


def test_where_the_lock_cannot_be_opened_that_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "none" / "lock")
    with pytest.raises(FileNotFoundError):
        is_held(tmp_path / "none")


def test_the_words_in_a_lock_can_be_read_while_it_is_held(tmp_path):
    lock = FolderLock(tmp_path)
    try:
        lock.tell("http://here/")
        with pytest.raises(TroupeError, match=r"already open on .* at http://here/"):
            FolderLock(tmp_path)
    finally:
        lock.release()
    FolderLock(tmp_path).release()


def test_work_that_is_under_way_is_held_by_one_and_seen_by_all(repo, tmp_path):
    work = Work(tmp_path / "work", tmp_path / "lock")
    assert not work.running()
    with holder(repo, tmp_path / "lock"):
        assert work.running()
        with pytest.raises(Busy, match="under way already"), work.held():
            pass
    assert not work.running()


@posix
def test_who_may_only_read_the_lock_sees_whether_it_is_held(repo, tmp_path, modes_count):
    path = tmp_path / "lock"
    with holder(repo, path):
        path.chmod(0o444)
        assert is_held(path)
    path.chmod(0)
    assert not Work(tmp_path / "work", path).running()
