"""Models that are made of several repositories, or are one file of a repository that holds others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.a2.files import locate, read_checkpoint
from engine.a2.needed import needed_files
from engine.errors import EngineUnavailable, TroupeError
from engine.models import look
from engine.models.command import delete
from engine.models.download import download, verify
from engine.models.store import ModelStore
from engine.models.work import WorkProgress
from tests import hub as hubs
from tests.hub import TINY

FIXTURES = TINY.parent
SMALL, WAN, KIJAI = "gudaochangsheng/RefAlign-1.3B", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Kijai/WanVideo_comfy"
PHANTOM_FILE = "Phantom-Wan-1_3B_fp16.safetensors"


def _read_all(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shared() -> dict[str, bytes]:
    """What all of Wan2.1 share, by path."""
    return {path: data for path, data in _read_all(FIXTURES / "v3_tiny").items() if not path.startswith("transformer/")}


def get(model: str) -> str:
    store = ModelStore(model)
    with store.work.held():
        return download(model, WorkProgress(store.work, "download"))


@pytest.fixture
def relatives(hub):
    """RefAlign's and Phantom's repositories, as they are laid out, and that of what they share with all."""
    whole = {
        path: data for path, data in _read_all(FIXTURES / "v3_tiny").items() if not path.startswith("transformer/")
    }
    own = (FIXTURES / "refalign_tiny" / "model.safetensors").read_bytes()
    hub.others = {
        SMALL: {"model.safetensors": own, "README.md": b"# RefAlign", "assets/clip.mp4": b"\0" * 1000},
        WAN: {**whole, "transformer/config.json": b"{}", "transformer/diffusion_pytorch_model.safetensors": own},
        KIJAI: {PHANTOM_FILE: own, "Another-14B.safetensors": b"\0" * 90_000, "README.md": b"#"},
    }
    return hub


def test_a_model_in_two_repositories_comes_whole_and_only_what_is_needed(relatives):
    assert look(SMALL).state == "absent"
    get(SMALL)
    state = look(SMALL)
    needed = {path for path in relatives.others[WAN] if path.split("/")[0] in ("text_encoder", "tokenizer", "vae")}
    assert set(relatives.sent) == {"model.safetensors", *needed}
    assert (state.state, state.title) == ("installed", "RefAlign 1.3B")
    assert state.bytes == sum(relatives.sent.values())
    place = locate(SMALL)
    assert (place.spec.family, len(read_checkpoint(place))) == ("refalign", 3)
    assert look(WAN).state == "installed"


def test_a_second_model_takes_what_is_here(relatives):
    get(SMALL)
    relatives.sent.clear()
    get(f"{KIJAI}/{PHANTOM_FILE}")
    assert dict(relatives.sent) == {PHANTOM_FILE: len(relatives.others[KIJAI][PHANTOM_FILE])}
    phantom = look(f"{KIJAI}/{PHANTOM_FILE}")
    assert (phantom.state, phantom.title) == ("installed", "Phantom-Wan 1.3B")
    assert locate(phantom.model).spec.family == "phantom"
    delete(ModelStore(phantom.model))
    assert look(phantom.model).state == "absent"
    assert look(SMALL).state == "installed"


def test_a_download_of_two_repositories_that_was_cut_off_goes_on(relatives):
    relatives.others.pop(WAN)
    with pytest.raises(TroupeError):
        get(SMALL)
    assert look(SMALL).state in ("absent", "partly")
    relatives.others[WAN] = shared()
    get(SMALL)
    assert look(SMALL).state == "installed"
    assert relatives.sent["model.safetensors"] == len(relatives.others[SMALL]["model.safetensors"])


def test_a_damaged_file_of_what_is_shared_is_found(relatives):
    get(SMALL)
    victim = locate(SMALL).parts["vae"] / "diffusion_pytorch_model.safetensors"
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.resolve().write_bytes(data)
    with pytest.raises(TroupeError, match=r"damaged: vae/diffusion_pytorch_model\.safetensors"):
        verify(SMALL, WorkProgress(ModelStore(SMALL).work, "verify"))
    get(SMALL)
    assert verify(SMALL, WorkProgress(ModelStore(SMALL).work, "verify")).startswith("RefAlign 1.3B is sound")


def test_what_each_kind_of_repository_needs():
    v3 = [path for path in _read_all(FIXTURES / "v3_tiny") if not path.startswith("scheduler")]
    assert set(needed_files([*v3, "assets/a.mp4"], "Skywork/SkyReels-V3-R2V-14B")) == set(v3) - {"model_index.json"}
    assert set(needed_files(v3, "someone/like-v3")) == set(v3) - {"model_index.json"}
    shards = ["a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors", "a.safetensors.index.json", "config.json"]
    assert needed_files([*shards, "README.md"], "gudaochangsheng/RefAlign-14B") == shards
    model = [name.replace("a", "model", 1) if name.startswith("a") else name for name in shards]
    without = [name for name in model if not name.endswith("index.json")]
    assert needed_files([*without, "other.safetensors"], "gudaochangsheng/RefAlign-14B") == sorted(without)
    assert needed_files([*model, "other.safetensors"], "gudaochangsheng/RefAlign-14B") == sorted(model)
    assert needed_files([PHANTOM_FILE, "other.safetensors"], f"{KIJAI}/{PHANTOM_FILE}") == [PHANTOM_FILE]
    with pytest.raises(EngineUnavailable, match=r"has no gone\.safetensors"):
        needed_files([PHANTOM_FILE], f"{KIJAI}/gone.safetensors")


def test_a_releases_name_in_other_letters_is_the_same_model(relatives):
    get(SMALL)
    assert look(SMALL.lower()).state == "installed"
    assert locate(SMALL.lower()).spec.family == "refalign"


def test_deleting_one_file_of_a_repository_frees_what_had_come_of_it(relatives):
    own, name = relatives.others[KIJAI][PHANTOM_FILE], "Phantom-Wan-14B_fp16.safetensors"
    get(f"{KIJAI}/{PHANTOM_FILE}")
    relatives.others[KIJAI][name] = bytes(2 * len(own))
    relatives.cut[name] = [1000] + [0] * 40
    store = ModelStore(f"{KIJAI}/{name}")
    with pytest.raises(TroupeError):
        get(store.model)
    assert (look(store.model).state, store.bytes_on_disk()) == ("partly", 1000)
    delete(store)
    assert [path.stat().st_size for path in (store.root / "blobs").iterdir()] == [len(own)]
    assert look(f"{KIJAI}/{PHANTOM_FILE}").state == "installed"


def test_two_files_of_a_repository_may_be_of_two_commits(relatives, monkeypatch):
    later, other = "d0d0" + "0" * 36, f"{KIJAI}/Phantom-Wan-14B_fp16.safetensors"
    first, own = f"{KIJAI}/{PHANTOM_FILE}", relatives.others[KIJAI][PHANTOM_FILE]
    relatives.others[KIJAI]["Phantom-Wan-14B_fp16.safetensors"] = own
    relatives.cut[PHANTOM_FILE] = [1000] + [0] * 40
    with pytest.raises(TroupeError):
        get(first)
    for name, pattern in (("_LISTING", r"/api/models/([^/]+/[^/]+)/revision/(?:main|{})"),
                          ("_RESOLVE", r"/([^/]+/[^/]+)/resolve/(?:{})/(.+)")):  # fmt: skip
        monkeypatch.setattr(hubs, name, re.compile(pattern.replace("{}", f"{hubs.COMMIT}|{later}")))
    monkeypatch.setattr(hubs, "COMMIT", later)
    relatives.cut.clear()
    get(other)
    get(first)  # goes on with the commit that it began with
    assert [look(model).state for model in (first, other)] == ["installed"] * 2
    assert [locate(model).spec.family for model in (first, other)] == ["phantom"] * 2


@pytest.mark.parametrize(
    "data",
    ['{"commit":"x","files":[{"path":5,"size":"a","etag":null}]}', "[" * 5000,
     '{"commit":"x","files":[{"path":"m\\u0000","size":1,"etag":"e"}]}'],
)  # fmt: skip
def test_a_damaged_list_counts_as_none(relatives, data):
    get(SMALL)
    (ModelStore(SMALL).work.folder / "listing.json").write_text(data)
    assert look(SMALL).state == "installed"


def test_names_that_no_disk_takes_are_refused(hub):
    with pytest.raises(TroupeError, match="it is not a name on the hub"):
        look(f"a/b/{'d/' * 200}e.safetensors")


def test_a_file_of_ones_own_may_end_in_capitals(tmp_path):
    (tmp_path / "MINE.SAFETENSORS").write_bytes((FIXTURES / "refalign_tiny" / "model.safetensors").read_bytes())
    assert look(str(tmp_path / "MINE.SAFETENSORS"), "refalign").local


def test_a_release_is_of_its_own_family_whatever_else_is_said(relatives):
    get(SMALL)
    with pytest.raises(EngineUnavailable, match=r"RefAlign 1\.3B is of the family refalign, not v3-r2v"):
        locate(SMALL, "v3-r2v")
