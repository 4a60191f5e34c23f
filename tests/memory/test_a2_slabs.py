"""Blocks that stream through two slots compute what resident ones do, whatever happens to them on the way."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import random
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from diffusers import FirstBlockCacheConfig, WanTransformer3DModel
from safetensors.torch import load_file, save_file

from engine.a2.chunking import chunked
from engine.a2.recipe import Callbacks, load, shoot
from engine.a2.sampling import Guidance, begin, sample
from engine.errors import Stopped
from engine.memory import slabs as slabs_module
from engine.memory.copies import CudaCopies, PlainCopies
from engine.memory.homes import Waiting
from engine.memory.slabs import Slabs, interleave, stream_blocks
from engine.memory.staging import Staging
from tests.fake_cuda import FakeCuda
from tests.tiny import OPTIONS, TRIO, a_scene, conditioned, latents_of, members_of, tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint():
    return tiny()


def wan(layers: int = 5, dtype: torch.dtype = torch.float32) -> WanTransformer3DModel:
    torch.manual_seed(layers)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=8,
        freq_dim=16, ffn_dim=48, num_layers=layers, image_dim=8, added_kv_proj_dim=32,
    ).to(dtype).eval().requires_grad_(False)  # fmt: skip


def weighed(kind: str, layers: int = 5) -> WanTransformer3DModel:
    """A model whose weights are kept as "fp32", "bf16", "int8" or "fp8"."""
    model = wan(layers, torch.bfloat16 if kind == "bf16" else torch.float32)
    if kind in ("int8", "fp8"):
        quanto = pytest.importorskip("optimum.quanto")
        quanto.quantize(model.blocks, weights={"int8": quanto.qint8, "fp8": quanto.qfloat8}[kind])
        quanto.freeze(model.blocks)
    return model


def run(model: WanTransformer3DModel, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    like = model.patch_embedding.weight
    inputs = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 6, 8), torch.randn(2, 5, 8)
    x, text, image = (tensor.to(like.device, like.dtype) for tensor in inputs)
    with torch.no_grad():
        return model(x, torch.tensor([500, 500], device=like.device), text, image, return_dict=False)[0]


def bytes_alive() -> int:
    """What all tensors of the process take together."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.device == CPU]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


# ---------------------------------------------------------------------------
# The same numbers


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8", "fp8"])
def test_streamed_blocks_compute_what_resident_ones_do(kind):
    model = weighed(kind)
    expected = [run(model, seed) for seed in range(3)]
    for resident in (0, 1, 2, 5, 99):
        with stream_blocks(model, model.blocks, CPU, resident) as slabs:
            assert len(slabs.resident) == min(resident, 5)
            for seed in range(3):
                assert torch.equal(run(model, seed), expected[seed])
    assert torch.equal(run(model), expected[0])


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_any_number_of_blocks_streams(layers):
    model = wan(layers)
    expected = run(model)
    with stream_blocks(model, model.blocks, CPU):
        assert all(torch.equal(run(model), expected) for _ in range(3))


def test_a_text_encoder_streams_with_its_tied_weights(checkpoint):
    encoder = copy.deepcopy(checkpoint.text_encoder)
    tokens = torch.arange(24).reshape(2, 12)
    expected = encoder(tokens).last_hidden_state
    with stream_blocks(encoder, encoder.encoder.block, CPU):
        assert encoder.shared.weight is encoder.encoder.embed_tokens.weight
        for _ in range(2):
            assert torch.equal(encoder(tokens).last_hidden_state, expected)


@pytest.mark.parametrize(("batched", "resident"), [(False, None), (True, 0), (False, 2)])
def test_a_clip_is_the_same_with_its_blocks_streamed(checkpoint, batched, resident):
    scene = a_scene(TRIO)
    options = replace(OPTIONS, batched_guidance=batched, offload="blocks", resident_blocks=resident)
    shot = shoot(scene, members_of(scene), options)
    assert torch.equal(shot.latents, latents_of(checkpoint, scene, batched_guidance=batched))
    assert len(list(shot.frames)) == shot.count
    assert shot.notices == ()


def test_blocks_may_differ_in_size_and_kind():
    quanto = pytest.importorskip("optimum.quanto")
    model = wan()
    quanto.quantize(model.blocks[2], weights=quanto.qint8)
    quanto.freeze(model.blocks[2])
    model.blocks[4].to(torch.bfloat16)
    kinds = [block.ffn.net[0].proj.weight.dtype for block in model.blocks]
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    slabs = stream_blocks(model, model.blocks, CPU)
    assert [block.ffn.net[0].proj.weight.dtype for block in model.blocks] == kinds
    slabs.close()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_weights_with_strides_of_their_own_keep_them():
    block = torch.nn.Linear(6, 4).requires_grad_(False)
    block.weight = torch.nn.Parameter(torch.randn(6, 4).t(), False)
    model = torch.nn.Sequential(block)
    expected = block.weight.clone()
    with stream_blocks(model, [block], CPU):
        assert block.weight.stride() == (1, 4)
        model(torch.ones(1, 6))
        assert torch.equal(block.weight, expected)


# ---------------------------------------------------------------------------
# Blocks that are skipped, stopped, broken


def test_a_step_cache_that_skips_blocks_sees_the_same_numbers(checkpoint):
    def sampled(transformer, fetched):
        scene = a_scene(TRIO, sampling={"steps": 8, "guidance": 1.0, "seed": 5})
        ready = conditioned(checkpoint, scene)
        transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
        try:
            with transformer.cache_context("cond"):
                flow = begin(ready, scene.sampling, "unipc", CPU)
                return sample(transformer, ready, flow, Guidance(1.0), stop=lambda: False), len(fetched)
        finally:
            transformer.disable_cache()

    transformer, fetched = copy.deepcopy(checkpoint.transformer), []
    watched = [block.attn1.register_forward_pre_hook(lambda *_: fetched.append(1)) for block in transformer.blocks]
    expected, computed = sampled(transformer, fetched)
    assert 8 < computed < 24  # some steps were skipped, others were not
    for resident in (0, 1):
        fetched.clear()
        with stream_blocks(transformer, transformer.blocks, CPU, resident):
            latents, again = sampled(transformer, fetched)
        assert torch.equal(latents, expected)
        assert again == computed
    assert len(watched) == 3


def test_a_skipped_block_is_not_fetched():
    model, carried = wan(4), []

    class Counting(PlainCopies):
        def copy(self, target, source, after):
            carried.append(source)
            super().copy(target, source, after)

    slabs = Slabs(model, model.blocks, Counting(CPU), resident=1)  # the first; 1, 2 and 3 stream
    model.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    with model.cache_context("cond"):
        run(model)
        before = len(carried)
        for _ in range(5):
            run(model)
    assert len(carried) == before
    slabs.close()


def test_a_step_cache_may_come_off_after_the_streaming():
    model = wan()
    expected = run(model)
    for _ in range(2):
        slabs = stream_blocks(model, model.blocks, CPU)
        model.enable_cache(FirstBlockCacheConfig(threshold=0.0))
        slabs.close()
        with model.cache_context("cond"):
            assert torch.equal(run(model), expected)
        model.disable_cache()
        assert torch.equal(run(model), expected)


def test_a_step_cache_that_was_there_before_is_refused():
    model = wan()
    model.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ValueError, match="step cache"):
        stream_blocks(model, model.blocks, CPU)
    model.disable_cache()
    stream_blocks(model, model.blocks, CPU).close()


@pytest.mark.parametrize("resident", [0, 1])
def test_a_run_stopped_between_blocks_ends_on_the_same_latents(checkpoint, resident):
    scene = a_scene(TRIO, sampling={"steps": 4, "guidance": 3.0, "seed": 5})
    ready, transformer = conditioned(checkpoint, scene), copy.deepcopy(checkpoint.transformer)
    whole = sample(transformer, ready, begin(ready, scene.sampling, "unipc", CPU), Guidance(3.0))
    flow, stops = begin(ready, scene.sampling, "unipc", CPU), 0
    with stream_blocks(transformer, transformer.blocks, CPU, resident):
        while flow.step < 4:
            asked = iter(range(7 + stops % 3))  # a step asks six times
            try:
                sample(transformer, ready, flow, Guidance(3.0), stop=lambda asked=asked: next(asked, None) is None)
            except Stopped:
                stops += 1
    assert stops == 3
    assert torch.equal(flow.latents, whole)


def test_after_a_block_has_failed_the_next_forward_is_right():
    model = wan()
    expected = run(model)
    with stream_blocks(model, model.blocks, CPU):
        for failing in (0, 2, 3, 4):
            hook = model.blocks[failing].ffn.register_forward_pre_hook(lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run(model)
            hook.remove()
            assert torch.equal(run(model), expected)


def test_a_block_inside_another_of_the_same_slot_is_refused():
    model = wan(3)
    with stream_blocks(model, model.blocks, CPU):
        model.blocks[0].ffn.register_forward_pre_hook(lambda *_: model.blocks[2]())
        with pytest.raises(RuntimeError, match="block 2 was called while block 0 computes"):
            run(model)


# ---------------------------------------------------------------------------
# What is held, and given back


def test_ten_times_open_and_closed_leaves_nothing():
    model = weighed("fp32")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before, threads = bytes_alive(), set(threading.enumerate())
    for _ in range(10):
        slabs = stream_blocks(model, model.blocks, CPU, 1)
        run(model)
        held = [weakref.ref(slot.buffer) for slot in slabs._slots] + [weakref.ref(slabs)]
        slabs.close()
        slabs.close()
        del slabs
        assert not any(thing() is not None for thing in held)
        assert not any("forward" in vars(block) for block in model.blocks)
    assert bytes_alive() <= before
    assert set(threading.enumerate()) <= threads
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_a_model_that_is_dropped_is_hollow(kind):
    model = weighed(kind)
    before, slabs = bytes_alive(), stream_blocks(model, model.blocks, CPU, 5)
    slabs.close(restore=False)
    assert all(parameter.device.type == "meta" for parameter in model.parameters())
    assert before - bytes_alive() > 0.9 * slabs.device_bytes - 256 * len(model.state_dict())


def test_trained_weights_are_trained_again_after_closing():
    model = wan(2)
    model.proj_out.requires_grad_(True)
    with stream_blocks(model, model.blocks, CPU):
        assert not model.proj_out.weight.requires_grad
    assert model.proj_out.weight.requires_grad
    assert not model.blocks[0].ffn.net[0].proj.weight.requires_grad


def test_weights_are_let_go_one_by_one_while_they_are_packed(monkeypatch):
    from engine.memory import layout

    model = wan(3)
    originals = [weakref.ref(tensor) for tensor in [*model.parameters(), *model.buffers()]]
    alive, write = [], layout._write

    def watched(spec, tensor, buffer):
        alive.append(sum(original() is not None for original in originals))
        write(spec, tensor, buffer)

    monkeypatch.setattr(layout, "_write", watched)
    with stream_blocks(model, model.blocks, CPU, 1):
        assert alive == list(range(len(originals), 0, -1))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="who maps a file is read from /proc")
def test_a_file_that_weights_are_mapped_from_is_let_go(tmp_path: Path):
    model, file = wan(3), tmp_path / "model.safetensors"
    expected = run(model)
    save_file(model.state_dict(), file)
    model.load_state_dict(load_file(file), assign=True)
    mapped = Path("/proc/self/maps").read_text
    assert str(file) in mapped()
    with stream_blocks(model, model.blocks, CPU):
        gc.collect()
        assert str(file) not in mapped()
        assert torch.equal(run(model), expected)


def test_a_stop_while_packing_leaves_nothing():
    model = wan()
    before, told = bytes_alive(), []

    def stop(done: int, of: int) -> None:
        told.append((done, of))
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        stream_blocks(model, model.blocks, CPU, on_block=stop)
    assert told == [(0, 5), (1, 5), (2, 5)]
    assert bytes_alive() < before
    assert not any("forward" in vars(block) for block in model.blocks)


def test_a_shot_that_is_stopped_while_its_blocks_are_packed_closes_them():
    told, opened = [], []
    options, scene = replace(OPTIONS, offload="blocks"), a_scene(TRIO)
    threads = set(threading.enumerate())

    def stop() -> bool:
        loading = told[-1:] == [("loading", 3, 4, "transformer")]
        return loading and bool(opened.append(1) or opened[2:])  # once before it is read, then at each block

    checkpoint = load(options)
    with pytest.raises(Stopped):
        shoot(scene, members_of(scene), options, Callbacks(lambda *how: told.append(how), stop=stop), checkpoint)
    assert len(opened) == 3
    assert checkpoint.transformer is None
    assert set(threading.enumerate()) <= threads
    assert shoot(scene, members_of(scene), options, loaded=checkpoint).latents.isfinite().all()


@pytest.mark.parametrize("kind", ["fp32", "int8"])
@pytest.mark.parametrize("resident", [0, 2, 5])
def test_a_parked_model_holds_nothing_on_the_device_and_runs_again(kind, resident):
    model, taken = weighed(kind), []
    expected = run(model)

    class Counting(PlainCopies):
        def allocate(self, nbytes: int) -> torch.Tensor:
            buffer = super().allocate(nbytes)
            taken.append(weakref.ref(buffer))
            return buffer

    with Slabs(model, model.blocks, Counting(CPU), resident) as slabs:
        for _ in range(2):
            slabs.park()
            slabs.park()
            gc.collect()
            assert not any(buffer() is not None for buffer in taken)
            assert torch.equal(run(model), expected)
            assert not slabs.parked
        slabs.park()
    assert torch.equal(run(model), expected)
    assert not model._forward_pre_hooks


def test_a_parked_model_can_be_dropped():
    model = wan()
    slabs = stream_blocks(model, model.blocks, CPU, 1)
    slabs.park()
    slabs.close(restore=False)
    assert all(parameter.device.type == "meta" for parameter in model.parameters())


# ---------------------------------------------------------------------------
# Weights that are on disk


@pytest.mark.parametrize("kind", ["fp32", "int8"])
@pytest.mark.parametrize("host", ["pinned", "pageable", "mapped"])
@pytest.mark.parametrize("resident", [0, 2, 5])
def test_weights_on_disk_compute_the_same_and_come_back_as_they_were(kind, host, resident):
    model = weighed(kind)
    for name, parameter in model.named_parameters():
        if type(parameter.data) is torch.Tensor and "bias" not in name:  # as if it was mapped: a part of a larger one
            parameter.data = torch.cat([parameter.data.flatten(), torch.zeros(1)])[:-1].view_as(parameter)
    expected, tensors = run(model), dict(model.named_parameters())
    with stream_blocks(model, model.blocks, CPU, resident, waiting=Waiting(host, on_disk=True)) as slabs:
        assert torch.equal(run(model), expected)
        slabs.park()
        assert (slabs.device_bytes, slabs.host_bytes == 0) == (0, host == "mapped" or resident == 5)
        assert torch.equal(run(model), expected)
    for name, parameter in model.named_parameters():
        mapped = parameter.untyped_storage().nbytes() > parameter.nbytes if kind == "fp32" else False
        assert parameter is tensors[name] if mapped else torch.equal(parameter, tensors[name])


def test_what_is_not_on_disk_is_not_there_twice():
    """Such as a LoRA beside mapped weights."""
    model = wan(2)
    own = weakref.ref(model.blocks[1].ffn.net[0].proj.weight)
    whole = torch.randn(4000)
    model.blocks[1].ffn.net[0].proj.bias.data = whole[:48]
    bias = weakref.ref(model.blocks[1].ffn.net[0].proj.bias)
    with stream_blocks(model, model.blocks, CPU, waiting=Waiting("pinned", on_disk=True)):
        gc.collect()
        assert own() is None
        assert bias() is not None
    assert model.blocks[1].ffn.net[0].proj.bias is bias()


def test_blocks_from_disk_take_no_memory_on_the_host():
    model = wan()
    with stream_blocks(model, model.blocks, CPU, 2, waiting=Waiting("mapped", on_disk=True)) as slabs:
        run(model)
        assert slabs.host_bytes == 0
    with stream_blocks(model, model.blocks, CPU, 2, waiting=Waiting("mapped")) as slabs:
        assert slabs.host_bytes > 0  # there is no file that they could be read from


def test_resident_blocks_lend_just_enough_and_come_back_with_the_next_forward():
    model = wan(6)
    expected = run(model)
    with stream_blocks(model, model.blocks, CPU, 3, waiting=Waiting("mapped", on_disk=True)) as slabs:
        whole, block = slabs.device_bytes, slabs._homes[0].nbytes
        assert slabs.lend(1) == block
        assert slabs.device_bytes == whole - block
        assert slabs.lend(2 * block - 1) == 2 * block
        assert slabs.lend(1) == 0  # nothing is left to lend
        assert torch.equal(run(model), expected)
        assert slabs.device_bytes == whole
    with stream_blocks(model, model.blocks, CPU, 3) as slabs:
        assert slabs.lend(1) == 0  # they are nowhere else


@pytest.mark.parametrize("waiting", [Waiting(), Waiting("pinned", True), Waiting("mapped", True)], ids=str)
def test_another_number_of_blocks_can_stay_between_two_forwards(waiting):
    model = weighed("int8", 6)
    expected = run(model)
    with stream_blocks(model, model.blocks, CPU, 2, waiting=waiting) as slabs:
        for resident in (0, 6, 1, 5, 3, 3, 99, 2):
            slabs.rearrange(resident)
            assert slabs.resident == interleave(6, resident)
            assert torch.equal(run(model), expected)
        slabs.park()
        slabs.rearrange(4)
        assert torch.equal(run(model), expected)
        slabs.rearrange(5)
        slabs.lend(1)
        slabs.rearrange(2)
        assert torch.equal(run(model), expected)
    assert torch.equal(run(model), expected)


def test_modules_that_are_elsewhere_stay_there(checkpoint):
    encoder = copy.deepcopy(checkpoint.text_encoder)
    tokens, table = torch.arange(24).reshape(2, 12), encoder.get_input_embeddings()
    expected, weight = encoder(tokens).last_hidden_state, table.weight
    waiting = Waiting(elsewhere=[encoder.shared, encoder.encoder.embed_tokens])
    with stream_blocks(encoder, encoder.encoder.block, CPU, waiting=waiting):
        assert table.weight is weight
        assert torch.equal(encoder(inputs_embeds=table(tokens)).last_hidden_state, expected)


@pytest.mark.parametrize("way", ["park", "unpark"])
def test_where_there_is_no_room_to_move_to_everything_stays(way):
    model, short = wan(), []
    expected = run(model)

    class Short(PlainCopies):
        def allocate(self, nbytes: int) -> torch.Tensor:
            if short == ["unpark"]:
                raise RuntimeError("out of memory")
            return super().allocate(nbytes)

        def allocate_host(self, nbytes: int) -> torch.Tensor:
            if short == ["park"]:
                raise RuntimeError("out of memory")
            return super().allocate_host(nbytes)

    with Slabs(model, model.blocks, Short(CPU), 2) as slabs:
        if way == "unpark":
            slabs.park()
        short.append(way)
        with pytest.raises(RuntimeError, match="out of memory"):
            getattr(slabs, way)()
        assert slabs.parked == (way == "unpark")
        short.clear()
        assert torch.equal(run(model), expected)


def test_pieces_of_tokens_go_together_with_streaming():
    model = wan()
    expected = run(model)
    with stream_blocks(model, model.blocks, CPU, 1), chunked(model, 13):
        pieces = run(model)
    assert torch.allclose(pieces, expected, atol=1e-5)
    assert torch.equal(run(model), expected)


def test_a_model_opened_in_inference_mode_runs_outside_of_it():
    model = wan()
    expected = run(model)
    with torch.inference_mode():
        slabs = stream_blocks(model, model.blocks, CPU)
    assert torch.equal(run(model), expected)
    slabs.close()


@pytest.mark.parametrize(("count", "resident", "which"), [
    (40, 0, ()), (4, 1, (0,)), (8, 4, (0, 2, 4, 6)), (5, 2, (0, 2)), (3, 9, (0, 1, 2)), (0, 3, ()),
])  # fmt: skip
def test_resident_blocks_are_evenly_spread_from_the_first_on(count, resident, which):
    assert interleave(count, resident) == which


def test_what_weights_take_is_told():
    model = wan(5)
    block = sum(-(-t.nbytes // 256) * 256 for t in [*model.blocks[0].parameters(), *model.blocks[0].buffers()])
    rest = sum(-(-t.nbytes // 256) * 256 for name, t in [*model.named_parameters(), *model.named_buffers()]
               if not name.startswith("blocks."))  # fmt: skip
    for resident, slots in ((0, 2), (2, 2), (4, 1), (5, 0)):
        with stream_blocks(model, model.blocks, CPU, resident) as slabs:
            assert slabs.host_bytes == (5 - resident) * block
            assert slabs.device_bytes == rest + (resident + slots) * block


# ---------------------------------------------------------------------------
# The order of things on a card


class Block(torch.nn.Module):
    def __init__(self, cuda: FakeCuda, number: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((300 + number,), float(number)), False)
        self.cuda, self.fails = cuda, False

    def forward(self) -> bool:
        self.cuda.compute(self.weight)
        if self.fails:
            raise ZeroDivisionError
        return bool((self.weight == len(self.weight) - 300).all())


def blocks_on(cuda: FakeCuda, count: int) -> torch.nn.ModuleList:
    return torch.nn.ModuleList([Block(cuda, number) for number in range(count)])


class Lending(CudaCopies):
    """Pinned memory for the staging ring is had, though there is no card."""

    def staging(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(slabs_module, "Staging", functools.partial(Staging, chunk=512))


@pytest.mark.parametrize("seed", range(40))
def test_in_any_order_of_blocks_no_slot_is_overwritten_or_read_too_early(seed, small_chunks):
    chance = random.Random(seed)
    count = chance.randint(1, 7)
    cuda = FakeCuda(refuse_after=chance.choice([0, 1, 2, 100]))
    blocks = blocks_on(cuda, count)
    copies = chance.choice([CudaCopies, Lending])(CPU, cuda)
    waiting = Waiting(chance.choice(["pinned", "pageable", "mapped"]), chance.random() < 0.5)
    slabs = Slabs(blocks, blocks, copies, chance.randint(0, count), waiting=waiting)
    orders = [[], [*range(count)], [*range(count)][::-1], [0], chance.choices(range(count), k=9)]
    for number in [n for _ in range(4) for n in chance.choice(orders)]:
        blocks[number].fails = chance.random() < 0.1
        if blocks[number].fails:
            with pytest.raises(ZeroDivisionError):
                blocks[number]()
        else:
            assert blocks[number](), f"block {number} computed with another one's weights"
        between = chance.random()
        if between < 0.05:
            slabs.park()
        elif between < 0.1:
            slabs.lend(chance.randint(1, 5000))
        elif between < 0.15:
            slabs.rearrange(chance.randint(0, count))
        slabs.unpark()  # a model's forward does it
    slabs.close()
    assert cuda.faults == []
    assert cuda.registered == {}
    assert cuda.emptied >= 1


def test_parking_between_forwards_keeps_the_order():
    cuda = FakeCuda()
    blocks = blocks_on(cuda, 5)
    with Slabs(blocks, blocks, CudaCopies(CPU, cuda), 1) as slabs:
        for _ in range(3):
            assert all(block() for block in blocks)
            slabs.park()
            slabs.unpark()
        assert all(block() for block in blocks)
    assert not cuda.faults
    assert not cuda.registered


def test_forward_after_forward_each_block_is_copied_once_and_the_host_never_waits():
    cuda = FakeCuda()
    blocks = blocks_on(cuda, 6)
    slabs = Slabs(blocks, blocks, CudaCopies(CPU, cuda))
    for _ in range(3):
        assert all(block() for block in blocks)
    assert cuda.copied == 3 * 6 + 2  # two for the next forward
    assert cuda.host_waits == []
    assert slabs.notices == ()
    slabs.close()
    assert cuda.faults == []


@pytest.mark.parametrize("missing", ["wait", "mark_computed", "mark_copied", "drain"])
def test_a_missing_wait_would_be_found(missing):
    class Hasty(CudaCopies):
        pass

    setattr(Hasty, missing, lambda *_: None)
    cuda = FakeCuda()
    blocks = blocks_on(cuda, 5)
    slabs = Slabs(blocks, blocks, Hasty(CPU, cuda))
    right = [block() for _ in range(2) for block in blocks]
    slabs.close()
    assert cuda.faults or not all(right)


@pytest.mark.parametrize("granted", [0, 2])
@pytest.mark.parametrize("kind", [CudaCopies, Lending])
def test_where_memory_cannot_be_pinned_a_thread_carries_and_a_notice_says_so(granted, kind, small_chunks):
    cuda = FakeCuda(refuse_after=granted)
    model, threads = wan(), set(threading.enumerate())
    expected = run(model)
    slabs = Slabs(model, model.blocks, kind(CPU, cuda))
    opened = len(cuda.host_waits)
    assert len(slabs.notices) == 1
    assert slabs.notices[0].startswith(f"{5 - granted} of the model's 5 blocks")
    assert all(torch.equal(run(model), expected) for _ in range(3))
    assert "MainThread" not in cuda.host_waits[opened:]
    slabs.close()
    assert torch.equal(run(model), expected)
    assert set(threading.enumerate()) <= threads
    assert cuda.faults == []


def test_a_copy_that_fails_in_the_thread_is_raised_and_tried_again(small_chunks):
    class Failing(Lending):
        broken = False

        def copy(self, target, source, after):
            if self.broken:
                raise RuntimeError("CUDA error")
            super().copy(target, source, after)

    cuda = FakeCuda(refuse_after=0)
    blocks = blocks_on(cuda, 5)
    copies = Failing(CPU, cuda)
    with Slabs(blocks, blocks, copies):
        assert blocks[0]()
        assert blocks[3]()
        copies.broken = True
        with pytest.raises(RuntimeError, match="CUDA error"):
            [block() for block in blocks]
        copies.broken = False
        for block in blocks:  # what had failed before it was needed
            with contextlib.suppress(RuntimeError):
                block()
        assert all(block() for _ in range(2) for block in blocks)
    assert cuda.faults == []


def test_a_late_copy_of_a_skipped_block_does_not_overwrite_the_one_that_came_instead(small_chunks):
    begun, gate = threading.Event(), threading.Event()

    class Late(Lending):
        def copy(self, target, source, after):
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                gate.wait(60)
            super().copy(target, source, after)

        def wait(self, event):
            if begun.is_set():  # whatever the thread still has to do comes between the copy and the computing
                slabs._slots.staging._thread.submit(int).result(60)
            super().wait(event)

    cuda = FakeCuda(refuse_after=2)
    blocks = blocks_on(cuda, 4)
    slabs = Slabs(blocks, blocks, Late(CPU, cuda))  # 0 and 1 are pinned, 2 and 3 go through the thread
    assert blocks[0]()
    assert begun.wait(60)  # 2 is on its way to the slot of 0
    opener = threading.Timer(0.2, gate.set)
    opener.start()
    assert blocks[0]()
    assert all(block() for block in blocks)
    opener.join()
    slabs.close()
    assert cuda.faults == []


def test_whoever_forgets_to_close_gets_the_memory_unpinned():
    cuda = FakeCuda()
    blocks = blocks_on(cuda, 4)
    slabs = Slabs(blocks, blocks, CudaCopies(CPU, cuda))
    assert len(cuda.registered) == 4
    cuda.copy_stream.synchronize()
    del slabs, blocks
    gc.collect()
    assert cuda.registered == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card here")
@pytest.mark.parametrize("pinned", [True, False])
def test_on_a_card_the_numbers_are_the_same_and_its_memory_comes_back(pinned, monkeypatch):
    if not pinned:
        monkeypatch.setattr(CudaCopies, "pin", lambda *_: False)
    card, model = torch.device("cuda"), wan(6)
    expected = run(copy.deepcopy(model).to(card))
    before = torch.cuda.memory_allocated()
    for resident in (0, 2):
        slabs = stream_blocks(model, model.blocks, card, resident)
        assert bool(slabs.notices) != pinned
        assert all(torch.equal(run(model), expected) for _ in range(3))
        slabs.close()
    assert torch.cuda.memory_allocated() == before
    assert torch.equal(run(model.to(card)), expected)
