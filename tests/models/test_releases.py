"""Models that are made of several repositories, or are one file of a repository that holds others."""

from __future__ import annotations

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
    assert needed_files([PHANTOM_FILE, "other.safetensors"], f"{KIJAI}/{PHANTOM_FILE}") == [PHANTOM_FILE]
    with pytest.raises(EngineUnavailable, match=r"has no gone\.safetensors"):
        needed_files([PHANTOM_FILE], f"{KIJAI}/gone.safetensors")
