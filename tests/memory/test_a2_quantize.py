"""Quantised weights: near enough to the float ones, made tensor by tensor, kept on disk and never trusted blindly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
pytest.importorskip("optimum.quanto", reason="optimum-quanto is not installed (requirements-a2.txt)")

from safetensors import safe_open

from engine.a2 import loading
from engine.a2.adapters import adapters_of
from engine.a2.checkpoint import Checkpoint
from engine.a2.compute import choose_compute
from engine.a2.loading import load_checkpoint, use_loras
from engine.a2.options import A2Options, Lora
from engine.a2.recipe import shoot
from engine.errors import EngineUnavailable, Stopped, TroupeError
from engine.memory import cache as caches
from engine.memory import quantize
from engine.memory.cache import cache_folder, cached, delete
from engine.memory.quantize import quantise
from tests.tiny import NAMES, OPTIONS, TINY, TRIO, a_scene, change_json, copy_of_tiny, golden, latents_of, tiny

PRECISIONS = ("int8", "fp8")
SHARD = "transformer/diffusion_pytorch_model-00002-of-00002.safetensors"
SHORT = a_scene(TRIO, sampling={"steps": 1, "seed": 5})
TO_Q = "blocks.0.attn1.to_q.weight"


def load(folder: Path | None, precision: str = "int8", model: Path = TINY, **how: object) -> Checkpoint:
    options = A2Options(device="cpu", precision=precision)
    return load_checkpoint(model, choose_compute(options), cache=folder, **how)


def outputs(checkpoint: Checkpoint) -> torch.Tensor:
    """What text encoder and transformer make of some numbers: cheaper than latents, and as sensitive."""
    generator = torch.Generator().manual_seed(3)
    x, image = (torch.randn(shape, generator=generator) for shape in ((1, 36, 2, 4, 4), (1, 5, 24)))
    with torch.no_grad():
        text = checkpoint.text_encoder(torch.arange(1, 9)[None]).last_hidden_state
        dtype = checkpoint.compute.dtype
        inputs = (x.to(dtype), torch.tensor([500]), text, image.to(dtype))
        return checkpoint.transformer(*inputs, return_dict=False)[0]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def of_transformer(folder: Path) -> Path:
    (path,) = folder.glob("transformer-*.safetensors")
    return path


def data_begins(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


@pytest.fixture(scope="module", autouse=True)
def no_spare() -> Iterator[None]:
    """What is kept here is small: a nearly full disk has room for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caches, "_SPARE", 0)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with what the first load of the tiny model in int8 keeps. To be read, or copied."""
    folder = tmp_path_factory.mktemp("quantised")
    load(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "quantised"))


# ---------------------------------------------------------------------------
# The numbers


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_quantised_latents_are_near_the_float_ones(tmp_path, precision, name):
    scene, members, theirs = golden(name)
    ours = shoot(scene, members, OPTIONS, loaded=load(tmp_path, precision)).latents
    there = torch.from_numpy(theirs["latents"])
    assert torch.cosine_similarity(ours.flatten(), there.flatten(), dim=0) > 0.99
    assert not torch.equal(ours, there)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_second_load_gives_the_very_same_latents(tmp_path, precision):
    first = load(tmp_path, precision)
    changed = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = load(tmp_path, precision)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == changed
    assert first.notices == second.notices == ()
    assert torch.equal(latents_of(first, SHORT), latents_of(second, SHORT))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_blocks_linear_weights_are_quantised_and_nothing_else_is(tmp_path, precision):
    checkpoint, floats = load(tmp_path, precision), tiny()
    for name in ("transformer", "text_encoder"):
        ours, theirs = (dict(getattr(c, name).named_parameters()) for c in (checkpoint, floats))
        assert ours.keys() == theirs.keys()
        quantised = {key for key in ours if hasattr(ours[key], "_data")}
        linear = {f"{key}.weight" for key, m in getattr(floats, name).named_modules() if type(m) is torch.nn.Linear}
        assert quantised == {key for key in linear if "block" in key}
        assert all(ours[key]._data.element_size() == 1 for key in quantised)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() - quantised)


def test_what_is_not_quantised_is_loaded_as_the_libraries_load_it(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "BLOCKS", {"transformer": "none", "text_encoder": "none"})
    compute = replace(choose_compute(A2Options(device="cpu", precision="bf16")), quantised="int8")
    ours, theirs = load_checkpoint(TINY, compute, cache=tmp_path), tiny("bf16")
    for name in ("transformer", "text_encoder"):
        one, other = (getattr(checkpoint, name) for checkpoint in (ours, theirs))
        for (key, a), (same, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
            assert (key, a.dtype) == (same, b.dtype)
            assert torch.equal(a, b), key
        assert not any(tensor.is_meta for tensor in [*one.parameters(), *one.buffers()])
        assert [p.requires_grad for p in one.parameters()] == [False] * len(list(one.parameters()))
        assert not one.training
    assert torch.equal(outputs(ours), outputs(theirs))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (64, 33)])
def test_a_weight_is_within_half_a_step_of_its_own_row(precision, dtype, shape, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=generator) * 10.0 ** torch.arange(shape[0])[:, None].remainder(7)
    weight[1] = 0
    data, scale = quantise(weight, precision, dtype)
    error, largest = (data.float() * scale.float() - weight).abs(), weight.abs().amax(1, keepdim=True)
    step = largest / 127 / 2 if precision == "int8" else weight.abs() / 16 + largest / 448 / 512
    assert (error <= step * 1.001 + largest / 256 * (dtype is torch.bfloat16)).all()
    monkeypatch.setattr(quantize, "_PIECE", 7)
    again = quantise(weight, precision, dtype)
    assert torch.equal(data.float(), again[0].float())
    assert torch.equal(scale, again[1])


# ---------------------------------------------------------------------------
# Loading


def test_a_missing_or_cut_shard_is_named(tmp_path):
    copy = copy_of_tiny(tmp_path)
    (copy / SHARD).write_bytes((copy / SHARD).read_bytes()[:-9])
    with pytest.raises(EngineUnavailable, match=rf"{SHARD} of the model is cut off.* again"):
        load(tmp_path / "q", model=copy)
    (copy / SHARD).unlink()
    with pytest.raises(EngineUnavailable, match=rf"{SHARD} is missing.* again"):
        load(tmp_path / "q", model=copy)


def test_a_missing_tensor_is_named_before_anything_is_quantised(tmp_path):
    from safetensors.torch import load_file, save_file

    copy = copy_of_tiny(tmp_path)
    index = copy / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    kept = json.loads(index.read_text())["weight_map"]
    path = copy / "transformer" / kept.pop(TO_Q)
    change_json(index, weight_map=kept)
    save_file({name: tensor for name, tensor in load_file(path).items() if name != TO_Q}, path, {"format": "pt"})
    with pytest.raises(EngineUnavailable, match=rf"transformer lacks {TO_Q}.* again"):
        load(tmp_path / "q", model=copy)
    assert not list((tmp_path / "q").glob("transformer*"))


def test_loading_tells_how_far_and_can_be_stopped_between_tensors(tmp_path):
    told: list[str] = []

    def stop() -> bool:
        return len(told) > 0 and told[-1].startswith("transformer,")

    with pytest.raises(Stopped):
        load(tmp_path, on_load=lambda step, of, name: told.append(name), stop=stop)
    assert told[-1].startswith("transformer, ")
    assert told[-1].endswith(" %")
    assert [name.split("-")[0] for name in files(tmp_path)] == ["text_encoder"]


def test_loras_compute_beside_quantised_weights_and_come_out_again(tmp_path):
    from safetensors.torch import save_file

    plain = load(tmp_path)
    shape, before, kept = plain.transformer.get_parameter(TO_Q).shape, outputs(plain), files(tmp_path)
    rng = torch.Generator().manual_seed(1)
    down, up = torch.randn(4, shape[1], generator=rng), torch.randn(shape[0], 4, generator=rng)
    name = "transformer." + TO_Q.removesuffix(".weight")
    tensors = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    tensors["diffusion_model.blocks.1.ffn.0.diff_b"] = torch.randn(96, generator=rng)
    tensors["diffusion_model.blocks.1.ffn.0.diff"] = torch.randn(96, 48, generator=rng)
    save_file(tensors, tmp_path / "lora.safetensors")
    lora = Lora(tmp_path / "lora.safetensors", 0.5)
    weight = plain.transformer.get_parameter(TO_Q)
    use_loras(plain, adapters_of([lora]))
    assert plain.transformer.get_parameter(TO_Q) is weight  # still a view of the file that serves every mixture
    mixed = outputs(plain)
    floats = tiny()
    use_loras(floats, adapters_of([lora]))
    expected = outputs(floats)
    assert (mixed - expected).abs().max() < 0.1 * (mixed - before).abs().max()
    assert [each for each in files(tmp_path) if not each.startswith("lora")] == kept
    assert torch.equal(outputs(load(tmp_path, loras=(lora,))), mixed)
    use_loras(plain, adapters_of([]))
    assert torch.equal(outputs(plain), before)


def test_a_lora_beside_the_weights_adds_what_the_formula_says(tmp_path):
    from safetensors.torch import save_file

    name = "transformer." + TO_Q.removesuffix(".weight")
    files_, layer = [], tiny().transformer.get_submodule(TO_Q.removesuffix(".weight"))
    for seed, rank in ((1, 2), (2, 5)):
        rng = torch.Generator().manual_seed(seed)
        pair = {"lora_A": torch.randn(rank, 48, generator=rng), "lora_B": torch.randn(48, rank, generator=rng)}
        save_file({f"{name}.{key}.weight": value for key, value in pair.items()}, tmp_path / f"{seed}.safetensors")
        files_.append((Lora(tmp_path / f"{seed}.safetensors", 0.3 * seed), pair))
    checkpoint, x = tiny(), torch.randn(2, 7, 48)
    use_loras(checkpoint, adapters_of([lora for lora, _ in files_]), beside=True)
    changed = checkpoint.transformer.get_submodule(TO_Q.removesuffix(".weight"))
    expected = layer(x) + sum(lora.strength * x @ (pair["lora_B"] @ pair["lora_A"]).T for lora, pair in files_)
    assert torch.equal(changed.weight, layer.weight)
    assert torch.allclose(changed(x), expected, atol=1e-4)


def test_without_the_library_one_line_says_so(monkeypatch):
    real = quantize.importlib.util.find_spec
    monkeypatch.setattr(quantize.importlib.util, "find_spec", lambda name: None if "quanto" in name else real(name))
    with pytest.raises(EngineUnavailable, match=r"--precision int8 needs optimum-quanto.*requirements-a2.*bf16"):
        choose_compute(A2Options(device="cpu", precision="int8"))


# ---------------------------------------------------------------------------
# What is kept


def test_what_is_kept_is_plain_safetensors_and_memory_mapped(made):
    path = of_transformer(made)
    with safe_open(str(path), "pt") as file:
        assert {f"{TO_Q}._data", f"{TO_Q}._scale", "proj_out.weight"} <= set(file.keys())
    weight = load(made).transformer.get_parameter(TO_Q)
    assert weight._data.untyped_storage().nbytes() >= path.stat().st_size  # the whole file: a view of it, not a copy


SPOILED = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:99]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a bit of the length": lambda path: flip(path, 1),
    "a bit of the header": lambda path: flip(path, data_begins(path) * 2 // 3),
    "a bit of the checksums": lambda path: flip(path, path.read_bytes().index(b'"checksums"') + 14),
    "a bit of the data": lambda path: flip(path, data_begins(path) + 12345),
    "the last bit": lambda path: flip(path, -1),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_damaged_file_is_made_again_with_a_notice(folder, how):
    path = of_transformer(folder)
    whole = path.read_bytes()
    SPOILED[how](path)
    checkpoint = load(folder)
    assert checkpoint.notices == ("The int8 copy of the model's transformer was damaged: it was made again.",)
    assert path.read_bytes() == whole


def test_another_version_or_changed_weights_are_made_again_with_a_notice(folder, tmp_path, monkeypatch):
    whole = of_transformer(folder).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(caches, "_FORMAT", 0)
        assert len(load(folder).notices) == 2
    notices = load(folder).notices
    assert "transformer was made by another version, or the model has changed: it was made again" in notices[1]
    assert of_transformer(folder).read_bytes() == whole
    assert len(files(folder)) == 2
    copy = copy_of_tiny(tmp_path)
    load(folder, model=copy)
    os.utime(copy / SHARD, (1, 1))
    assert "the model has changed" in " ".join(load(folder, model=copy).notices)


def test_two_models_with_the_same_weights_do_not_write_each_others_copies_anew(folder, tmp_path):
    copy = copy_of_tiny(tmp_path)
    load(folder, model=copy)
    assert [load(folder, model=model).notices for model in (TINY, copy, TINY)] == [()] * 3


def test_layers_that_are_quantised_by_another_rule_are_made_again(folder, monkeypatch):
    monkeypatch.setitem(loading.BLOCKS, "transformer", "blocks.1.")
    assert load(folder).notices[0].endswith("it was made again.")
    assert not hasattr(load(folder).transformer.get_parameter(TO_Q), "_data")


def test_other_weights_of_the_same_shapes_have_a_file_of_their_own(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = copy_of_tiny(tmp_path)
    save_file({name: -tensor for name, tensor in load_file(copy / SHARD).items()}, copy / SHARD, {"format": "pt"})
    assert not any("transformer" in notice for notice in load(folder, model=copy).notices)
    assert len(list(folder.glob("transformer-int8-*"))) == 2


KILLED = """
import sys
from pathlib import Path
from engine.memory import cache
put = cache.Writer.put

def slowly(self, name, data):
    put(self, name, data)
    if name.startswith("blocks.1."):
        print("half", flush=True)
        sys.stdin.read()

cache.Writer.put, cache._SPARE = slowly, 0
from tests.memory.test_a2_quantize import load
load(Path(sys.argv[1]))
"""


def test_whoever_is_killed_in_the_middle_leaves_nothing_for_long(tmp_path, repo):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=repo, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().strip() == b"half"
        process.kill()
    assert not list(tmp_path.glob("transformer-*"))
    assert len([name for name in files(tmp_path) if name.endswith(".part")]) == 1
    if os.name == "nt":  # there a writer cannot be asked whether it is alive: a day has to pass
        for path in tmp_path.glob(".*.part"):
            os.utime(path, (0, 0))
    cached(tmp_path, loading.BLOCKS)
    assert [name.split("-")[0] for name in files(tmp_path)] == ["text_encoder"]
    assert load(tmp_path).notices == ()
    assert [name.split("-")[0] for name in files(tmp_path)] == ["text_encoder", "transformer"]


UploadRoom = namedtuple("Disk", "total used free")


def test_with_too_little_room_on_the_disk_it_works_without_and_says_so(tmp_path, made, monkeypatch):
    monkeypatch.setattr(caches, "_SPARE", 10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda path: UploadRoom(10**12, 10**12, 10**9))
    checkpoint = load(tmp_path / "new")
    assert files(tmp_path / "new") == []
    assert len(checkpoint.notices) == 2
    assert "transformer was not kept (1.0 GB are free, 1.0 GB are needed)" in checkpoint.notices[1]
    assert torch.equal(outputs(checkpoint), outputs(load(made)))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on a file's size")
def test_a_disk_that_fills_up_while_it_is_written_is_no_reason_to_fail(tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))  # between the two files' sizes
    try:
        checkpoint = load(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (notice,) = checkpoint.notices
    assert "transformer was not kept (File too large)" in notice
    assert [name.split("-")[0] for name in files(tmp_path)] == ["text_encoder"]


def test_a_folder_that_cannot_be_made_is_no_reason_to_fail(tmp_path):
    (tmp_path / "file").write_text("")
    checkpoint = load(tmp_path / "file" / "quantised")
    assert ["was not kept" in notice for notice in checkpoint.notices] == [True, True]


def test_what_is_kept_is_listed_with_its_size_and_can_be_deleted(folder):
    (folder / "notes.txt").write_text("somebody's")
    (folder / "other-int8-fp32-0123456789abcdef.safetensors").write_text("somebody's")
    flip(of_transformer(folder), 0)
    text, transformer = cached(folder, loading.BLOCKS)
    assert (text.component, text.precision, text.model) == ("text_encoder", "int8", "a2_tiny")
    assert (transformer.component, transformer.model) == ("transformer", "")
    for entry in (text, transformer):
        assert entry.bytes == entry.path.stat().st_size > 10_000
        delete(entry)
        delete(entry)
    assert files(folder) == ["notes.txt", "other-int8-fp32-0123456789abcdef.safetensors"]
    assert cached(folder, loading.BLOCKS) == cached(folder / "nowhere", loading.BLOCKS) == ()


def test_a_file_that_the_system_holds_is_told_so(folder, monkeypatch):
    def unlink(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    entry = cached(folder, loading.BLOCKS)[0]
    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(TroupeError, match=r"cannot be deleted .*when no video is being made"):
        delete(entry)


def test_it_is_kept_in_the_users_cache_unless_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("TROUPE_CACHE", raising=False)
    assert (cache_folder().parent.name, cache_folder().name) == ("troupe", "quantised") or os.name == "nt"
    monkeypatch.setenv("TROUPE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "quantised"
    load(None)
    assert len(cached(tmp_path / "quantised", loading.BLOCKS)) == 2


def test_a_download_of_the_hubs_is_listed_by_its_name(tmp_path):
    snapshot = tmp_path / "models--Someone--their--model" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    copy_of_tiny(tmp_path).rename(snapshot)
    load(tmp_path / "q", model=snapshot)
    assert {entry.model for entry in cached(tmp_path / "q", loading.BLOCKS)} == {"Someone/their--model"}


# ---------------------------------------------------------------------------
# Where it shows


def test_the_page_can_list_what_is_kept_without_torch(repo):
    code = "import sys, engine.memory.cache; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repo, timeout=900).returncode == 0


def test_a_run_of_one_precision_is_not_taken_up_in_another(tmp_path):
    keep = {"state": tmp_path / "state.safetensors"}
    first = latents_of(load(tmp_path), SHORT, **keep)
    assert torch.equal(latents_of(load(tmp_path), SHORT, **keep), first)
    assert not torch.equal(latents_of(tiny(), SHORT, **keep), first)  # a finished run's would be handed out as they are
