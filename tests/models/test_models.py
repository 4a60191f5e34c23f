"""Getting a checkpoint: cut connections, killed processes, full disks, damaged files; every byte comes once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.a2.files import find_checkpoint, read_checkpoint
from engine.a2.needed import needed_files
from engine.errors import EngineUnavailable, TroupeError
from engine.models import download as downloads
from engine.models import look
from engine.models.store import ModelStore
from engine.models.work import Busy, Status, WorkProgress
from tests.hub import COMMIT, EXTRAS, MODEL, TINY, FakeHub

BIG = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"


def get(kind=downloads.download) -> str:
    store = ModelStore(MODEL)
    with store.work.held():
        return kind(MODEL, WorkProgress(store.work, "download"))


@contextmanager
def working(hub: FakeHub, cache: Path) -> Iterator[subprocess.Popen]:
    """The process that the page and the terminal start; it ends when its standard input is closed."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
    with subprocess.Popen(
        [sys.executable, "-m", "engine.models", "download", MODEL],
        cwd=TINY.parents[2], env=environment, stdin=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def until(condition, seconds: float = 180.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


# ---------------------------------------------------------------------------
# The whole way


def test_a_download_ends_where_the_engine_looks_and_brings_only_what_it_needs(hub):
    assert look(MODEL).state == "absent"
    assert "is installed" in get()
    folder = find_checkpoint(MODEL)
    read_checkpoint(folder)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(hub.needed)
    assert all((folder / path).read_bytes() == data for path, data in hub.needed.items())
    assert hub.sent == {path: len(data) for path, data in hub.needed.items()}
    assert not set(hub.sent) & set(EXTRAS)
    state = look(MODEL)
    assert (state.state, state.bytes, state.missing, state.folder) == ("installed", hub.bytes, 0, folder)


def test_other_tools_find_what_came_through_here(hub):
    get()
    from huggingface_hub import scan_cache_dir, snapshot_download

    assert Path(snapshot_download(MODEL, local_files_only=True)) == look(MODEL).folder
    report = scan_cache_dir(Path(look(MODEL).folder).parents[2])
    assert [repo.repo_id for repo in report.repos] == [MODEL]
    assert report.warnings == []


def test_where_links_cannot_be_made_the_files_lie_there_themselves(hub, monkeypatch):
    def no_links(self, target):
        raise OSError("a privilege is missing")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    get()
    folder = find_checkpoint(MODEL)
    assert (folder / BIG).read_bytes() == hub.needed[BIG]
    assert not (folder / BIG).is_symlink()
    assert look(MODEL).state == "installed"
    assert ModelStore(MODEL).bytes_on_disk() == hub.bytes, "once, not twice"


def test_nothing_is_asked_of_the_network_by_looking(hub):
    look(MODEL)
    get()
    asked = len(hub.asked)
    assert look(MODEL).state == "installed"
    assert "is here already" in get()
    assert len(hub.asked) == asked


def test_the_token_goes_to_the_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    get()
    sent = [{name.lower(): value for name, value in headers.items()} for _, headers in hub.asked]
    assert {headers.get("authorization") for headers in sent} == {"Bearer hf_mine"}


# ---------------------------------------------------------------------------
# Cut off


def test_a_cut_connection_goes_on_and_no_byte_comes_twice(hub):
    hub.cut[BIG] = [50_000, 1, 0, 100_000]
    get()
    assert hub.sent[BIG] == len(hub.needed[BIG])
    starts = [headers["Range"] for path, headers in hub.asked if path == f"/cdn/{MODEL}/{BIG}" and "Range" in headers]
    assert starts == ["bytes=50000-", "bytes=50001-", "bytes=50001-", "bytes=150001-"]


def test_a_busy_hub_is_asked_again(hub):
    hub.busy = 3
    get()
    assert look(MODEL).state == "installed"


def test_a_server_that_knows_no_ranges_sends_it_whole_again(hub):
    hub.ranges = False
    hub.cut[BIG] = [50_000]
    get()
    assert (find_checkpoint(MODEL) / BIG).read_bytes() == hub.needed[BIG]


def test_a_connection_that_stays_away_is_one_line_and_what_came_is_kept(hub):
    hub.cut[BIG] = [50_000, *[0] * 20]
    with pytest.raises(TroupeError, match=r"no network: http://127.* cannot be reached .*start again"):
        get()
    state = look(MODEL)
    assert state.state == "partly"
    assert state.bytes >= 50_000
    assert state.bytes + state.missing == hub.bytes
    sent = hub.sent[BIG]
    hub.cut.clear()
    get()
    assert hub.sent[BIG] - sent == len(hub.needed[BIG]) - 50_000


@pytest.mark.parametrize("end", ["kill", "stop", "parent"])
def test_a_download_that_ends_in_the_middle_goes_on_without_sending_a_byte_twice(hub, tmp_path, end):
    """Killed, as by a power cut; stopped by a person; and when whoever started it is gone."""
    hub.gate = threading.Event()
    store = ModelStore(MODEL)
    held_back = sum(min(len(data), hub.before_gate) for data in hub.needed.values())
    with working(hub, tmp_path / "cache") as process:
        assert until(lambda: store.bytes_on_disk() == held_back)
        assert store.work.running()
        if end == "kill":
            process.kill()
        elif end == "stop":
            store.work.stop()
        else:
            process.stdin.close()
        assert process.wait(180) != 0
    status = store.work.status()
    assert (status.kind, status.state) == ("download", "stopped")
    assert look(MODEL).state == "partly"
    assert look(MODEL).bytes == held_back
    hub.gate.set()
    first = hub.asked.copy()
    with working(hub, tmp_path / "cache") as again:
        assert again.wait(180) == 0
    assert look(MODEL).state == "installed"
    new = hub.asked[len(first) :]
    ranges = {headers["Range"] for path, headers in new if path.startswith("/cdn/") and "Range" in headers}
    assert ranges == {f"bytes={hub.before_gate}-"}
    assert not [path for path, _ in new if path.startswith("/api/")], "the list is remembered, too"


def test_a_second_download_at_once_is_told_so(hub):
    store = ModelStore(MODEL)
    with store.work.held():
        assert store.work.running()
        with pytest.raises(Busy), ModelStore(MODEL).work.held():
            pass
    assert not store.work.running()


def test_those_who_only_look_do_not_take_each_other_for_the_work(hub):
    work = ModelStore(MODEL).work
    with work.held():
        pass
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(lambda _: ModelStore(MODEL).work.running(), range(800)))


def test_a_status_tells_bytes_speed_and_remaining_time(hub, tmp_path):
    hub.gate = threading.Event()
    store = ModelStore(MODEL)
    with working(hub, tmp_path / "cache") as process:
        assert until(lambda: (found := store.work.status()) is not None and found.done > hub.before_gate)
        status = store.work.status()
        assert (status.state, status.total) == ("running", hub.bytes)
        hub.gate.set()
        assert process.wait(180) == 0
    status = store.work.status()
    assert (status.state, status.done) == ("done", hub.bytes)
    assert status.remaining is None


def test_speed_and_remaining_time_come_from_the_last_seconds(hub, monkeypatch):
    from engine.models import work

    now = 100.0
    monkeypatch.setattr(work, "time", SimpleNamespace(monotonic=lambda: now))  # other threads keep their clock
    progress = WorkProgress(ModelStore(MODEL).work, "download")
    progress.expect(10_000_000, done=4_000_000)
    progress._measured()
    for _ in range(4):
        now += 1.0
        progress.add(500_000)
        status = progress._measured()
    assert (status.speed, status.remaining) == (500_000.0, 8.0)
    now += 1000.0
    assert progress._measured().speed < 10_000


# ---------------------------------------------------------------------------
# Refusals, each one line that says what to do


@pytest.mark.parametrize(
    ("refuse", "says"),
    [
        ((403, "GatedRepo"), r"accepted its terms.*Accept them at http.*HF_TOKEN"),
        ((401, ""), r"refuses someone/tiny-a2 \(401\).*HF_TOKEN"),
        ((404, "RepoNotFound"), r"has no someone/tiny-a2 that you may read. Check the name"),
        ((403, ""), r"refuses someone/tiny-a2 \(403\)"),
        ((500, ""), r"answers with an error \(500\)"),
    ],
)
def test_a_refusal_is_one_line(hub, refuse, says):
    hub.refuse = refuse
    with pytest.raises(TroupeError, match=says):
        get()
    assert look(MODEL).state == "absent"


def test_no_network_is_one_line(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(TroupeError, match=r"no network: http://127.0.0.1:1 cannot be reached.*HF_ENDPOINT"):
        get()


def test_offline_mode_is_respected(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TroupeError, match=r"HF_HUB_OFFLINE is set"):
        get()
    assert hub.asked == []


def test_a_full_disk_is_said_before_the_first_byte(hub, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, hub.bytes // 2))
    with pytest.raises(TroupeError, match=r"too full: \d+ kB are missing .* has \d+ kB left. Free some space"):
        get()
    assert not hub.sent


def test_a_disk_that_fills_up_on_the_way_is_one_line(hub, tmp_path, monkeypatch):
    from engine.models.work import carry_out

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads._Fetch, "_connection", full)
    work = ModelStore(MODEL).work
    assert carry_out(work, "download", lambda progress: downloads.download(MODEL, progress)) == 1
    assert "the disk is full: " in work.status().message
    assert "Free some space and start again; what has come is kept." in work.status().message


def test_a_cache_that_cannot_be_written_is_one_line(hub, tmp_path, modes_count):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(TroupeError, match=r"cannot be written. Set HF_HOME"):
        get()


def test_a_cache_that_is_a_file_is_one_line(hub, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(TroupeError, match=r"cannot be used"):
        get()


def test_what_is_no_checkpoint_is_said_before_the_download(hub):
    for path in [path for path in hub.files if path.startswith("vae/")]:
        del hub.files[path]
    with pytest.raises(EngineUnavailable, match=r"no checkpoint that Troupe can read: it has no vae/config.json"):
        get()


@pytest.mark.parametrize("model", ["nowhere", "a/b/c", "../up", "/not/there"])
def test_what_is_neither_a_name_nor_a_folder_is_said(model):
    with pytest.raises(TroupeError, match=r"there is no folder .* not a name on the hub"):
        look(model)


# ---------------------------------------------------------------------------
# Damaged, deleted, somebody else's


def test_a_file_that_came_damaged_comes_again_by_itself(hub):
    hub.spoil[BIG] = 1
    get()
    assert (find_checkpoint(MODEL) / BIG).read_bytes() == hub.needed[BIG]


def test_a_file_that_stays_damaged_is_named(hub):
    hub.spoil[BIG] = 99
    with pytest.raises(TroupeError, match=rf"{BIG} came damaged, twice"):
        get()


@pytest.mark.parametrize("path", [BIG, "vae/config.json"])
def test_a_check_names_the_damaged_file_and_only_that_is_fetched_again(hub, path):
    get()
    assert "is sound" in get(downloads.verify)
    target = (find_checkpoint(MODEL) / path).resolve()
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    with pytest.raises(TroupeError, match=rf"damaged: {path}. Download again"):
        get(downloads.verify)
    state = look(MODEL)
    assert (state.state, state.missing) == ("partly", len(data))
    assert path in state.note
    hub.sent.clear()
    get()
    assert hub.sent == {path: len(data)}
    assert "is sound" in get(downloads.verify)
    assert look(MODEL).state == "installed"


def test_a_check_of_what_another_tool_has_fetched_asks_the_hub_what_it_should_be(hub, tmp_path):
    store = ModelStore(MODEL)
    shutil.copytree(TINY, store.snapshot(COMMIT))
    (store.root / "refs").mkdir()
    (store.root / "refs" / "main").write_text(COMMIT)
    assert look(MODEL).state == "installed"
    hub.refuse = (500, "")
    with pytest.raises(TroupeError, match="500"):
        get(downloads.verify)
    assert look(MODEL).state == "installed"


def test_what_was_fetched_without_the_demo_videos_is_whole_to_the_engine_too(hub):
    """huggingface_hub knows a list of the whole repository from another tool's attempt, and calls ours incomplete."""
    get()
    trees = ModelStore(MODEL).root / "trees"
    trees.mkdir()
    files = {path: {"size": len(data), "blob_id": "0" * 40} for path, data in hub.files.items()}
    (trees / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": files}))
    read_checkpoint(find_checkpoint(MODEL))


def test_deleting_leaves_nothing_and_frees_what_it_said(hub):
    get()
    store = ModelStore(MODEL)
    assert store.bytes_on_disk() == hub.bytes
    store.delete()
    assert not store.root.exists()
    assert look(MODEL).state == "absent"


def test_a_folder_of_ones_own_is_judged_by_its_files(tmp_path):
    shutil.copytree(TINY, tmp_path / "mine")
    state = look(str(tmp_path / "mine"))
    assert (state.state, state.local, state.missing) == ("installed", True, 0)
    (tmp_path / "mine" / BIG).unlink()
    state = look(str(tmp_path / "mine"))
    assert state.state == "partly"
    assert BIG in state.note


# ---------------------------------------------------------------------------
# Small things


def test_one_format_of_each_weight_is_chosen():
    names = [path.relative_to(TINY).as_posix() for path in TINY.rglob("*")]
    more = ["transformer/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin", "demo.mp4"]
    assert needed_files([*names, *more]) == needed_files(names)


def test_a_status_survives_its_file():
    status = Status("download", done=5, total=10)
    assert status.share == 0.5
    assert Status(**json.loads(json.dumps(status.__dict__))) == status


def test_looking_imports_no_torch(repo):
    code = "import sys, engine.models as m; m.look(); m.look_at_libraries(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stderr
