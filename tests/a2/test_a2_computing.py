"""How the blocks compute: keys and values of the context that are kept, eight bits, compiled; what may not change."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
pytest.importorskip("optimum.quanto", reason="optimum-quanto is not installed (requirements-a2.txt)")

from safetensors.torch import save_file
from torch.nn.functional import cosine_similarity

from engine.a2 import compiling, context, recipe, rescue
from engine.a2.adapters import adapters_of
from engine.a2.compiling import check_compiler
from engine.a2.computing import computing
from engine.a2.context import PASSES, Contexts
from engine.a2.loading import use_loras
from engine.a2.recipe import Callbacks, shoot
from engine.a2.references import gather_references
from engine.a2.state import fingerprint
from engine.errors import EngineUnavailable, Stopped
from engine.memory import multiply
from engine.memory.model_cache import ModelCache
from engine.memory.slabs import stream_blocks
from engine.scene.engine import Lora
from tests.tiny import OPTIONS, TRIO, a_scene, latents_of, members_of, tiny

CPU = torch.device("cpu")
SCENE = a_scene(TRIO)


@pytest.fixture(scope="module")
def checkpoint():
    return tiny()


@pytest.fixture(scope="module")
def eight_bit():
    return {kind: tiny(kind) for kind in ("int8", "fp8")}


@pytest.fixture
def counted(monkeypatch):
    """How often keys and values of a context were computed."""
    calls = []
    real = context.keys_values_of
    monkeypatch.setattr(context, "keys_values_of", lambda *how: calls.append(1) or real(*how))
    return calls


@pytest.fixture
def graphs(monkeypatch):
    """Compile without a compiler: the graphs are kept, and computed as they are."""
    made = []

    def keep(graph, inputs):
        made.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    yield made
    torch.compiler.reset()


def forward(model, text: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x, pictures = (torch.randn(shape, generator=generator) for shape in ((1, 36, 3, 8, 8), (1, 15, 24)))
    with torch.no_grad():
        return model(
            hidden_states=x, timestep=torch.tensor([500]), encoder_hidden_states=text,
            encoder_hidden_states_image=pictures, return_dict=False,
        )[0]  # fmt: skip


def texts(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    return [torch.randn(1, 512, 32, generator=generator) for _ in range(count)]


def lora(folder, model) -> Lora:
    pairs, generator = {}, torch.Generator().manual_seed(4)
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name.startswith("blocks."):
            pairs[f"transformer.{name}.lora_A.weight"] = torch.randn(4, layer.in_features, generator=generator) * 0.1
            pairs[f"transformer.{name}.lora_B.weight"] = torch.randn(layer.out_features, 4, generator=generator) * 0.1
    save_file(pairs, folder / "lora.safetensors")
    return Lora(folder / "lora.safetensors", 0.5)


# -- keys and values of the context ----------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"batched_guidance": True}, {"step_cache": True}, {"chunk": 10}], ids=str)
def test_what_is_kept_over_a_run_changes_no_bit(checkpoint, how):
    scene = a_scene(TRIO, sampling={"steps": 6, "guidance": 3.0, "seed": 5})
    assert torch.equal(latents_of(checkpoint, scene, keep_context=True, **how), latents_of(checkpoint, scene, **how))


@pytest.mark.parametrize(("keep", "batched"), [(False, False), (True, False), (True, True)])
def test_keys_and_values_are_computed_once_a_block_or_once_a_run(checkpoint, counted, keep, batched):
    latents_of(checkpoint, SCENE, chunk=10, keep_context=keep, batched_guidance=batched)
    blocks, passes, steps = len(checkpoint.transformer.blocks), 1 if batched else 2, 3
    assert len(counted) == blocks * passes * (1 if keep else steps)


def test_contexts_are_told_apart_and_only_so_many_are_kept(checkpoint):
    model, several = checkpoint.transformer, texts(PASSES + 1)
    wanted = [forward(model, text) for text in several]
    with computing(model, replace(OPTIONS, keep_context=True)):
        for _ in range(2):
            for text, expected in zip(several, wanted, strict=True):
                assert torch.equal(forward(model, text), expected)
        assert torch.equal(forward(model, several[0].clone()), wanted[0])
        assert torch.equal(forward(model, several[0], seed=1), forward(model, several[0].clone(), seed=1))


def test_what_is_kept_is_bounded():
    model, contexts = tiny().transformer, Contexts(keep=True)
    for text in texts(PASSES + 3):
        contexts.note(model, (), {"encoder_hidden_states": text})
        for index, block in enumerate(model.blocks):
            contexts.of(index, block.attn2, torch.zeros(1, 527, model.blocks[0].attn2.inner_dim))
    assert len(contexts._kept) == PASSES * len(model.blocks)


def test_a_lora_counts_in_what_is_kept_and_the_next_clip_has_none_of_it(checkpoint, tmp_path):
    plain = latents_of(checkpoint, SCENE, keep_context=True)
    loras = (lora(tmp_path, checkpoint.transformer),)
    changed = latents_of(checkpoint, SCENE, keep_context=True, loras=loras)
    assert torch.equal(changed, latents_of(checkpoint, SCENE, loras=loras))
    assert not torch.equal(changed, plain)
    assert torch.equal(latents_of(checkpoint, SCENE, keep_context=True), plain)


def test_an_error_leaves_the_model_as_it_was(checkpoint, eight_bit):
    for model in (checkpoint.transformer, eight_bit["int8"].transformer):
        before = [type(part) for part in model.modules()], [block.attn2.processor for block in model.blocks]
        with pytest.raises(KeyError), computing(model, replace(OPTIONS, keep_context=True, w8a8=True, chunk=9)):
            raise KeyError
        assert ([type(part) for part in model.modules()], [block.attn2.processor for block in model.blocks]) == before
        assert not model._forward_pre_hooks
        assert not any("forward" in vars(block) for block in model.blocks)


# -- quantised weights -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("pieces", [8, 24])
def test_a_weight_is_dequantised_once_whatever_the_number_of_pieces(eight_bit, monkeypatch, kind, pieces):
    model, made = eight_bit[kind].transformer, []
    real = multiply._dequantised
    monkeypatch.setattr(multiply, "_dequantised", lambda weight: made.append(hasattr(weight, "_scale")) or real(weight))
    with computing(model, replace(OPTIONS, chunk=48 // pieces)):
        forward(model, texts(1)[0])
    layers = sum(isinstance(part, torch.nn.Linear) and multiply.is_quantised(part) for part in model.blocks.modules())
    assert sum(made) == layers


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantised_blocks_compute_what_their_library_computes(eight_bit, kind):
    model, (text,) = eight_bit[kind].transformer, texts(1)
    wanted = forward(model, text)
    for how in ({}, {"chunk": 10}, {"keep_context": True}):
        with computing(model, replace(OPTIONS, **how)):
            torch.testing.assert_close(forward(model, text), wanted, rtol=0, atol=1e-5)


# Measured: 0.9999983 and 0.999966 against the same weights; against fp32 the weights' own rounding comes on top.
@pytest.mark.parametrize(("kind", "floor"), [("int8", 0.9999), ("fp8", 0.999)])
def test_eight_bit_products_stay_near_the_float_ones(checkpoint, eight_bit, kind, floor):
    model, (text,) = eight_bit[kind].transformer, texts(1)
    wanted, exact = forward(model, text), forward(checkpoint.transformer, text)
    for chunk in (0, 24):
        with computing(model, replace(OPTIONS, w8a8=True, chunk=chunk)):
            seen = forward(model, text)
        assert not torch.equal(seen, wanted)
        assert cosine_similarity(seen.flatten(), wanted.flatten(), dim=0) > floor
        assert cosine_similarity(seen.flatten(), exact.flatten(), dim=0) > floor


def test_eight_bit_products_stream_and_have_loras_beside(eight_bit, tmp_path):
    checkpoint, (text,) = eight_bit["int8"], texts(1)
    model, options = checkpoint.transformer, replace(OPTIONS, w8a8=True)
    with computing(model, options):
        plain = forward(model, text)
    use_loras(checkpoint, adapters_of((lora(tmp_path, model),)))
    try:
        with computing(model, options):
            resident = forward(model, text)
        with stream_blocks(model, model.blocks, CPU), computing(model, options):
            assert torch.equal(forward(model, text), resident)
    finally:
        use_loras(checkpoint, adapters_of(()))
    assert not torch.allclose(resident, plain, atol=1e-3)
    with computing(model, options):
        assert torch.equal(forward(model, text), plain)


def test_a_run_in_eight_bits_says_so_and_no_other_goes_on_with_it(eight_bit, tmp_path):
    checkpoint, kept, told = eight_bit["int8"], tmp_path / "run.safetensors", []
    options = replace(OPTIONS, precision="int8", w8a8=True, state=kept)
    shot = shoot(SCENE, members_of(SCENE), options, loaded=checkpoint)
    assert any("W8A8, int8" in notice and "changes the picture" in notice for notice in shot.notices)
    watch = Callbacks(lambda stage, *_: told.append(stage))
    shoot(SCENE, members_of(SCENE), options, watch, checkpoint)
    assert "conditioning" not in told
    shoot(SCENE, members_of(SCENE), replace(options, w8a8=None), watch, checkpoint)
    assert "conditioning" in told


def test_a_run_that_was_kept_before_there_were_such_choices_still_belongs(checkpoint):
    canvases = gather_references(SCENE, members_of(SCENE))
    folder = checkpoint.folder
    identity = sorted((f.relative_to(folder).as_posix(), f.stat().st_size) for f in folder.glob("*/*.safetensors"))
    before = fingerprint(SCENE, canvases, identity, checkpoint.compute, "unipc", (), "", "native")
    for options in (OPTIONS, replace(OPTIONS, attention="native"), replace(OPTIONS, compiled=True, keep_context=True)):
        assert recipe._belongs(checkpoint, SCENE, canvases, options, adapters_of(())) == before
    for how in ({"vae_precision": "bf16"}, {"w8a8": True}, {"attention": "cudnn"}):
        assert recipe._belongs(checkpoint, SCENE, canvases, replace(OPTIONS, **how), adapters_of(())) != before


def test_fast_is_spelled_out_where_no_plan_was_made():
    """On a processor the step cache is what is left of it; of so few steps it reuses none."""
    options = replace(OPTIONS, fast=True)
    shot = rescue.shoot(SCENE, members_of(SCENE), options, Callbacks(), ModelCache())
    assert "Fast: with the step cache." in shot.notices
    assert torch.equal(shot.latents, latents_of(tiny(), SCENE, step_cache=True))


# -- compiled ------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("how", [{}, {"w8a8": True}, {"keep_context": True}], ids=str)
@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_all_blocks_are_one_graph(checkpoint, eight_bit, graphs, kind, how, streamed):
    model, (text,) = (checkpoint if kind == "fp32" else eight_bit[kind]).transformer, texts(1)
    with computing(model, replace(OPTIONS, **how)):
        wanted = forward(model, text)
    with contextlib.ExitStack() as opened:
        if streamed:
            opened.enter_context(stream_blocks(model, model.blocks, CPU, 1))
        compiler = opened.enter_context(computing(model, replace(OPTIONS, compiled=True, **how)))
        torch.testing.assert_close(forward(model, text), wanted, rtol=0, atol=1e-5)
        assert "was compiled" in compiler.notices[0]
    assert len(model.blocks) > 1
    assert len(graphs) == 1


def test_in_pieces_the_functions_of_a_piece_are_compiled(checkpoint, graphs):
    model, (text,) = checkpoint.transformer, texts(1)
    wanted = forward(model, text)
    with computing(model, replace(OPTIONS, compiled=True, chunk=16)):
        torch.testing.assert_close(forward(model, text), wanted, rtol=0, atol=1e-5)
        assert len(graphs) == 3  # of equal pieces
        forward(model, text)
    assert len(graphs) == 3


@pytest.mark.parametrize("how", [{"step_cache": True}, {"batched_guidance": True}, {"offload": "blocks"}], ids=str)
def test_a_compiled_run_ends_where_it_should(checkpoint, graphs, how):
    scene = a_scene(TRIO, sampling={"steps": 6, "guidance": 3.0, "seed": 5})
    wanted = latents_of(checkpoint, scene, **how)
    shot = shoot(scene, members_of(scene), replace(OPTIONS, compiled=True, **how), loaded=checkpoint)
    torch.testing.assert_close(shot.latents, wanted, rtol=0, atol=1e-3)
    assert graphs
    assert any("was compiled" in notice for notice in shot.notices)


def test_a_lora_beside_the_weights_is_compiled_too(eight_bit, graphs, tmp_path):
    checkpoint, (text,) = eight_bit["int8"], texts(1)
    use_loras(checkpoint, adapters_of((lora(tmp_path, checkpoint.transformer),)))
    try:
        wanted = forward(checkpoint.transformer, text)
        with computing(checkpoint.transformer, replace(OPTIONS, compiled=True)) as compiler:
            torch.testing.assert_close(forward(checkpoint.transformer, text), wanted, rtol=0, atol=1e-4)
            assert "was compiled" in compiler.notices[0]
    finally:
        use_loras(checkpoint, adapters_of(()))


def test_a_stop_is_heard_between_compiled_blocks(checkpoint, graphs):
    asked = []
    watch = Callbacks(stop=lambda: bool(graphs) and asked.append(1) is None and len(asked) > 2)
    with pytest.raises(Stopped):
        shoot(SCENE, members_of(SCENE), replace(OPTIONS, compiled=True), watch, checkpoint)
    assert len(asked) == 3


def test_what_cannot_be_compiled_computes_as_it_is_and_says_so(checkpoint, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no such kernel")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    wanted = latents_of(checkpoint, SCENE)
    shot = shoot(SCENE, members_of(SCENE), replace(OPTIONS, compiled=True), loaded=checkpoint)
    torch.compiler.reset()
    assert torch.equal(shot.latents, wanted)
    assert any("could not be compiled" in notice and "no such kernel" in notice for notice in shot.notices)
    assert not any("was compiled" in notice for notice in shot.notices)


def test_memory_that_runs_out_while_compiling_is_told_as_that(checkpoint, monkeypatch):
    from engine.memory.shortage import Shortage

    def hungry(graph, inputs):
        raise torch.OutOfMemoryError("out of memory")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=hungry))
    with pytest.raises(Shortage):
        shoot(SCENE, members_of(SCENE), replace(OPTIONS, compiled=True), loaded=checkpoint)
    torch.compiler.reset()


def test_more_kinds_of_clips_than_pytorch_keeps_graphs_for(checkpoint, graphs, monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    model, (text,) = checkpoint.transformer, texts(1)
    for chunk in (0, 16, 0):
        for attention in ("native", "_native_math"):
            model.set_attention_backend(attention)
            with computing(model, replace(OPTIONS, compiled=True, chunk=chunk)) as compiler:
                forward(model, text)
            assert "was compiled" in compiler.notices[0]
    model.set_attention_backend("native")


@pytest.mark.parametrize(("device", "patch", "says"), [
    ("cpu", "torch._inductor.cpp_builder.get_cpp_compiler", "C\\+\\+ compiler"),
    ("cuda", "torch.utils._triton.has_triton", "triton"),
])  # fmt: skip
def test_where_nothing_compiles_it_is_refused_in_a_line(monkeypatch, device, patch, says):
    import torch._inductor.cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def missing(*_):
        if device == "cpu":
            raise InvalidCxxCompiler
        return False

    monkeypatch.setattr(patch, missing)
    with pytest.raises(EngineUnavailable, match=f"--compiled needs .*{says}"):
        check_compiler(torch.device(device))


def test_triton_without_a_c_compiler_is_refused(monkeypatch):
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    monkeypatch.setattr(compiling, "_has_c_compiler", lambda: False)
    with pytest.raises(EngineUnavailable, match="C compiler"):
        check_compiler(torch.device("cuda"))
