"""What a card, a driver or a checkpoint may be like, and the engine goes on all the same or says it in time."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from engine.a2.compute import Compute, choose_compute
from engine.a2.conditioning import condition
from engine.a2.loading import load_checkpoint
from engine.a2.options import A2Options
from engine.a2.references import gather_references
from engine.a2.stopping import _AHEAD, _Pace, stopping
from engine.errors import EngineUnavailable, Stopped
from engine.memory import copies, host, quantize
from tests.fake_cuda import FakeCuda
from tests.tiny import OPTIONS, TINY, TRIO, a_scene, copy_of_tiny, latents_of, members_of, tiny

CPU = torch.device("cpu")


# ---------------------------------------------------------------------------
# Stopping


class _Events:
    """What stands for torch.cuda: events that are reached when the host waits for them."""

    def __init__(self) -> None:
        self.recorded, self.waited = [], []
        self.Event = lambda: self
        self.current_stream = lambda device: device

    def record(self, _stream: object) -> None:
        self.recorded.append(len(self.recorded))

    def synchronize(self) -> None:
        self.waited.append(len(self.recorded))


def test_the_host_never_asks_for_more_than_a_few_layers_ahead_of_the_card(monkeypatch):
    events = _Events()
    monkeypatch.setattr(torch, "cuda", events)
    pace = _Pace(torch.device("cuda", 0))
    for _ in range(10):
        pace.keep()
    assert len(events.recorded) == 10
    assert events.waited == list(range(_AHEAD + 1, 11)), "each time the oldest but two is waited for"


def test_a_layer_that_is_not_to_be_computed_is_not_begun():
    layers, done = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(4)), []
    for layer in layers:
        layer.register_forward_hook(lambda *_: done.append(1))
    with pytest.raises(Stopped), stopping(layers, lambda: len(done) == 2, CPU):
        torch.nn.Sequential(*layers)(torch.zeros(1, 2))
    assert len(done) == 2
    torch.nn.Sequential(*layers)(torch.zeros(1, 2))  # nothing is left behind
    assert len(done) == 6


@pytest.mark.parametrize("where", ["text_encoder", "image_encoder", "vae"])
def test_reading_prompt_and_cast_stops_in_the_middle_of_a_component(where):
    checkpoint, scene = tiny(), a_scene(TRIO, video={"frames": 33})
    parts = {
        "text_encoder": list(checkpoint.text_encoder.encoder.block),
        "image_encoder": list(checkpoint.image_encoder.encoder.layers),
        "vae": [checkpoint.vae.encoder],
    }
    begun: list[int] = []
    for part in parts[where]:
        part.register_forward_hook(lambda *_: begun.append(1))
    with pytest.raises(Stopped):
        condition(checkpoint, scene, gather_references(scene, members_of(scene)), stop=lambda: len(begun) == 1)
    assert len(begun) == 1
    whole = condition(checkpoint, scene, gather_references(scene, members_of(scene)))
    again = condition(tiny(), scene, gather_references(scene, members_of(scene)))
    assert torch.equal(whole.condition, again.condition), "what was broken off leaves nothing behind"


# ---------------------------------------------------------------------------
# Cards without bfloat16


def test_a_card_without_bfloat16_computes_in_float16_and_reads_the_prompt_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
    monkeypatch.setattr("engine.a2.compute._too_old", lambda _: "")
    found = choose_compute(A2Options(device="cuda"))
    assert (found.quantised, found.dtype, found.dtype_of("text_encoder")) == ("int8", torch.float16, torch.float32)
    with pytest.raises(EngineUnavailable, match="bf16"):
        choose_compute(A2Options(device="cuda", precision="bf16"))


def test_float16_gives_the_clip_that_float32_gives(tmp_path):
    scene = a_scene(TRIO)
    whole = latents_of(load_checkpoint(TINY, Compute(CPU, torch.float32, "int8"), cache=tmp_path), scene)
    half = load_checkpoint(TINY, Compute(CPU, torch.float16, "int8"), cache=tmp_path)
    assert {half.transformer.dtype, half.text_encoder.shared.weight.dtype} == {torch.float16, torch.float32}
    found = latents_of(half, scene)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), whole.flatten(), dim=0)
    assert float(cosine) > 0.9999
    assert not torch.equal(found, whole)


# ---------------------------------------------------------------------------
# Memory that is pinned


def test_on_windows_no_more_is_pinned_than_leaves_others_some(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(copies, "physical_memory", lambda: ((10 * 2**20, ""), (None, "")))
    carrier = copies.CudaCopies(CPU, FakeCuda())
    one, two = carrier.allocate_host(3 * 2**20), carrier.allocate_host(3 * 2**20)
    assert host.pinned_limit(10 * 2**20)[0] == 4 * 2**20
    assert carrier.pin(one)
    assert not carrier.pin(two), "without asking the driver, whose refusal would cost the next allocation"
    carrier.unpin(one)
    assert carrier.pin(two)
    carrier.close()


# ---------------------------------------------------------------------------
# Libraries and checkpoints as others made them


def test_quanto_is_imported_where_pytorch_was_built_for_cards_it_cannot_read(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a", "sm_120"])
    listed = torch.cuda.get_arch_list
    with quantize._plain_names(torch):
        assert torch.cuda.get_arch_list() == ["sm_75", "sm_120"]
    assert torch.cuda.get_arch_list is listed


@pytest.mark.parametrize("kind", ["T5Tokenizer", "T5TokenizerFast", "TokenizersBackend"])
def test_a_tokenizer_reads_as_its_own_file_says_whatever_class_its_configuration_names(tmp_path, kind):
    folder = copy_of_tiny(tmp_path) / "tokenizer"
    own = _a_tokenizer_of_t5()
    own.save(str(folder / "tokenizer.json"))
    words = {"tokenizer_class": kind, "extra_ids": 0, "legacy": True, "model_max_length": 512,
             "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    found = load_checkpoint(folder.parent, choose_compute(OPTIONS)).tokenizer
    for prompt in ("A man holds the cup.", "  Ｆｕｌｌ width, ﬁ ligature ", "一只猫在草地上", ""):
        padded = found([prompt], padding="max_length", max_length=40, truncation=True, return_attention_mask=True)
        ids = own.encode(prompt).ids
        assert padded.input_ids[0] == ids + [0] * (40 - len(ids))
        assert sum(padded.attention_mask[0]) == len(ids)


def _a_tokenizer_of_t5() -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,一只猫在草地上"
    words = [("▁", -2.0), ("▁the", -1.5), ("▁cup", -1.6), ("hold", -1.7)]
    known = [*((name, 0.0) for name in ("<pad>", "</s>", "<unk>")), *words, *((letter, -3.0) for letter in letters)]
    made = Tokenizer(models.Unigram(known, unk_id=2))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return made


def test_a_component_that_is_missing_is_taken_from_where_it_came_from_and_said(tmp_path, monkeypatch):
    import shutil

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    lacking = copy_of_tiny(tmp_path)
    for part in ("text_encoder", "tokenizer", "image_encoder", "image_processor"):
        shutil.rmtree(lacking / part)
    with pytest.raises(EngineUnavailable, match=r"tokenizer/tokenizer\.json is missing"):
        load_checkpoint(lacking, choose_compute(OPTIONS))
    root = tmp_path / "hub" / "models--Wan-AI--Wan2.1-I2V-14B-480P-Diffusers"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("a" * 40)
    shutil.copytree(TINY, root / "snapshots" / ("a" * 40))
    found = load_checkpoint(lacking, choose_compute(OPTIONS))
    (said,) = found.notices
    assert "text encoder and image encoder came from" in said
    scene = a_scene(TRIO)
    assert torch.equal(latents_of(found, scene), latents_of(tiny(), scene))
