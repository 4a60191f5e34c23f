"""A checkpoint that is not whole, or is not this model, says which file and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from PIL import Image
from safetensors.torch import load_file, save_file

from engine.a2.compute import choose_compute
from engine.a2.conditioning import encode_semantic, encode_text
from engine.a2.files import find_checkpoint, read_checkpoint
from engine.a2.loading import load_checkpoint
from engine.a2.options import A2Options
from engine.errors import EngineUnavailable, Stopped
from tests.tiny import TINY, change_json, copy_of_tiny, tiny

SHARD = "transformer/diffusion_pytorch_model-00002-of-00002.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
IMAGE = "image_encoder/model.safetensors"
CPU = A2Options(device="cpu", precision="fp32")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copy_of_tiny(tmp_path)


def load(folder: Path) -> None:
    load_checkpoint(folder, choose_compute(CPU))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


FILES = [SHARD, VAE, TEXT, IMAGE]
SMALL = ["transformer/config.json", "vae/config.json", "tokenizer/tokenizer.json",
         "image_processor/preprocessor_config.json"]  # fmt: skip


@pytest.mark.parametrize("name", [*FILES, *SMALL])
def test_a_missing_file_is_named_with_the_remedy(copy, name):
    (copy / name).unlink()
    with pytest.raises(EngineUnavailable, match=rf"{name} is missing.* again"):
        read_checkpoint(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["cut", "empty", "header cut", "zeros", "text"])
def test_a_damaged_file_is_named_with_the_remedy_before_any_weight_is_read(copy, name, how):
    path = copy / name
    data = path.read_bytes()
    {
        "cut": lambda: cut(path),
        "empty": lambda: path.write_bytes(b""),
        "header cut": lambda: path.write_bytes(data[:100]),
        "zeros": lambda: path.write_bytes(bytes(len(data))),
        "text": lambda: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    }[how]()
    with pytest.raises(EngineUnavailable, match=rf"{name} of the model is (cut off|damaged).* again"):
        read_checkpoint(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_tensor_of_another_shape_is_named_with_its_file(copy, name):
    path = copy / name
    tensors = load_file(path)
    tensor = max(tensors, key=lambda key: tensors[key].ndim)
    tensors[tensor] = torch.zeros(*tensors[tensor].shape[:-1], tensors[tensor].shape[-1] + 1)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(EngineUnavailable, match=rf"{name} of the model is another model's: {tensor} is .*config.json"):
        load(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_tensor_is_named_with_its_folder(copy, name):
    path = copy / name
    tensors = load_file(path)
    gone = sorted(tensors)[0]
    del tensors[gone]
    save_file(tensors, path, {"format": "pt"})
    index = path.parent / "diffusion_pytorch_model.safetensors.index.json"
    if index.exists():
        kept = json.loads(index.read_text())["weight_map"]
        change_json(index, weight_map={key: file for key, file in kept.items() if key != gone})
    with pytest.raises(EngineUnavailable, match=rf"{path.parent.name} lacks {gone}.* again"):
        load(copy)


def test_a_config_that_is_not_json_is_named(copy):
    (copy / "vae" / "config.json").write_text("{")
    with pytest.raises(EngineUnavailable, match=r"vae/config\.json of the model is damaged.* again"):
        read_checkpoint(copy)


def test_names_of_tensors_as_older_libraries_wrote_them_are_understood(copy):
    path = copy / IMAGE
    old = {f"vision_model.{name}": tensor for name, tensor in load_file(path).items()}
    save_file({**old, "vision_model.embeddings.position_ids": torch.arange(5)[None]}, path, {"format": "pt"})
    ours, theirs = load_checkpoint(copy, choose_compute(CPU)).image_encoder.state_dict(), load_file(TINY / IMAGE)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("words", ["shared", "both", "embed_tokens"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_checkpoint_as_transformers_4_wrote_it_gives_the_same_numbers(copy, tmp_path, projection, words, precision):
    """The real one was written by 4.49: other keys, more in its configurations, word vectors that are not tied."""
    pictures = {f"vision_model.{name}": tensor for name, tensor in load_file(copy / IMAGE).items()}
    if projection:
        pictures["visual_projection.weight"] = torch.randn(16, 24)
    save_file(pictures, copy / IMAGE, {"format": "pt"})
    old = {"dtype": None, "torch_dtype": "bfloat16", "transformers_version": "4.49.0"}
    kind = "CLIPVisionModelWithProjection" if projection else "CLIPVisionModel"
    change_json(copy / "image_encoder" / "config.json", **old, architectures=[kind])
    tensors = load_file(copy / TEXT)
    vectors = tensors["shared.weight"] if words == "shared" else tensors.pop("shared.weight")
    if words != "shared":
        tensors["encoder.embed_tokens.weight"] = vectors
    if words == "both":
        tensors["shared.weight"] = vectors.clone()
    save_file(tensors, copy / TEXT, {"format": "pt"})
    more = {"scalable_attention": True, "output_past": True, "tokenizer_class": "T5Tokenizer"}
    change_json(copy / "text_encoder" / "config.json", **old, **more, tie_word_embeddings=False)
    options = A2Options(device="cpu", precision=precision)
    picture = Image.new("RGB", (512, 512), (200, 10, 50))
    found = []
    for folder in (TINY, copy):
        checkpoint = load_checkpoint(folder, choose_compute(options), cache=tmp_path / "cache")
        with torch.no_grad():
            text = encode_text(checkpoint, "A man holds a cup.")
            found.append((text, encode_semantic(checkpoint, [picture])))
    for new, legacy in zip(*found, strict=True):
        assert new.abs().sum() > 0
        assert torch.equal(new, legacy)


@pytest.mark.parametrize(
    ("component", "values", "says"),
    [
        ("transformer", {"in_channels": 20}, "takes 20 channels, not 36"),
        ("transformer", {"image_dim": None}, "no reference pictures"),
        ("text_encoder", {"d_model": 64}, "64 numbers of a word, the transformer reads 32"),
        ("vae", {"z_dim": 48}, "not Wan2.1's"),
        ("transformer", {"num_layers": 1}, "num_layers is 1, and the weights have block 3"),
        ("transformer", {"num_layers": 0}, "num_layers is 0, and it should be a whole number above 0"),
        ("transformer", {"num_attention_heads": "x"}, 'num_attention_heads is "x"'),
        ("transformer", {"in_channels": "36"}, 'in_channels is "36"'),
        ("text_encoder", {"d_kv": True}, "d_kv is true"),
        ("vae", {"base_dim": None}, "base_dim is null"),
        ("image_encoder", {"patch_size": 0}, "patch_size is 0"),
    ],
)
def test_another_model_is_refused_before_it_is_read(copy, component, values, says):
    change_json(copy / component / "config.json", **values)
    with pytest.raises(EngineUnavailable, match=says):
        load(copy)


def test_a_folder_that_is_no_checkpoint_is_told_so(tmp_path):
    with pytest.raises(EngineUnavailable, match=r"is not a checkpoint"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere", "nowhere", "C:\\nowhere"])
def test_a_folder_that_is_not_there_is_told_so(model):
    with pytest.raises(EngineUnavailable, match=r"is not there.*--model.*--engine draft"):
        find_checkpoint(model)


def test_a_hub_id_is_never_downloaded_but_found_where_an_earlier_download_left_it(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EngineUnavailable, match=r"is not on this machine.*--engine draft"):
        find_checkpoint("Skywork/SkyReels-A2")
    snapshot = tmp_path / "models--someone--theirs" / "snapshots" / ("a" * 40)
    (snapshot.parent.parent / "refs").mkdir(parents=True)
    (snapshot.parent.parent / "refs" / "main").write_text("a" * 40)
    snapshot.parent.mkdir()
    copy_of_tiny(tmp_path).rename(snapshot)
    load(find_checkpoint("someone/theirs"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (A2Options(device="cuda:99"), "cuda:99"),
        (A2Options(device="teapot"), "teapot"),
        (A2Options(device="meta"), "meta"),
    ],
)
def test_a_device_that_is_not_there_is_told_so(options, says):
    with pytest.raises(EngineUnavailable, match=says):
        choose_compute(options)


def test_a_card_without_kernels_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla P40")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 1))
    with pytest.raises(EngineUnavailable, match=r"Tesla P40 \(compute capability 6\.1\).*Or use the draft"):
        choose_compute(A2Options(device="cuda"))


@pytest.mark.parametrize(("generation", "dtype"), [((7, 5), torch.float16), ((8, 6), torch.bfloat16)])
def test_a_card_without_bf16_computes_8_bits_in_float16_and_refuses_bf16(monkeypatch, generation, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_86"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "RTX 2070")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: generation)
    assert choose_compute(A2Options(precision="int8")).dtype == dtype
    if generation >= (8, 0):
        assert choose_compute(A2Options()).precision == "bf16"
        return
    assert choose_compute(A2Options()).precision == "int8"  # where nothing is asked for
    with pytest.raises(EngineUnavailable, match=r"RTX 2070 does not compute in it.*--precision int8"):
        choose_compute(A2Options(precision="bf16"))


def test_loading_tells_which_component_and_how_far():
    told: list[tuple[int, int, str]] = []
    load_checkpoint(TINY, choose_compute(CPU), lambda *how: told.append(how))
    assert [step for step, _, _ in told] == [0, 1, 2, 3, 4]
    assert {of for _, of, _ in told} == {4}
    assert [name for *_, name in told] == ["text_encoder", "image_encoder", "vae", "transformer", ""]


def test_loading_can_be_stopped_between_components():
    with pytest.raises(Stopped):
        load_checkpoint(TINY, choose_compute(CPU), stop=lambda: True)


def test_in_bf16_what_its_authors_keep_in_float32_stays_so():
    checkpoint = tiny("bf16")
    transformer = checkpoint.transformer
    kept = {name for name, tensor in transformer.named_parameters() if tensor.dtype == torch.float32}
    for name in ("scale_shift_table", "condition_embedder.time_embedder.linear_1.weight", "blocks.0.norm2.weight"):
        assert name in kept
    assert transformer.dtype == torch.bfloat16
    assert transformer.blocks[0].ffn.net[2].weight.dtype == torch.bfloat16
    assert next(checkpoint.text_encoder.parameters()).dtype == torch.bfloat16
    for whole in (checkpoint.vae, checkpoint.image_encoder):
        assert {tensor.dtype for tensor in whole.parameters()} == {torch.float32}


def test_what_is_loaded_neither_learns_nor_drops_out():
    checkpoint = tiny()
    for module in (checkpoint.transformer, checkpoint.vae, checkpoint.text_encoder, checkpoint.image_encoder):
        assert not module.training
        assert not any(tensor.requires_grad for tensor in module.parameters())


def test_weights_lie_aligned_as_streamed_ones_do():
    """Else a processor's matrix product rounds differently, and streaming changes the numbers."""
    checkpoint = tiny()
    for part in (checkpoint.transformer, checkpoint.text_encoder, checkpoint.vae, checkpoint.image_encoder):
        assert all(parameter.data_ptr() % 64 == 0 for parameter in part.parameters())
