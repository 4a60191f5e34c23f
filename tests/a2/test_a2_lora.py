"""LoRA files: every layout that is about gives the weights that the formula gives, and wrong files are refused."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin
from safetensors.torch import save_file

from engine.a2.adapters import adapters_of, check_loras, read_loras
from engine.a2.files import read_checkpoint
from engine.a2.loading import use_loras
from engine.a2.options import Lora, check_speed
from engine.a2.recipe import Callbacks, load, shoot
from engine.door import command
from engine.door.arguments import parse
from engine.errors import EngineUnavailable
from engine.scene.engines import find_engine
from tests.tiny import OPTIONS, TINY, TRIO, a_scene, copy_of_tiny, latents_of, members_of, tiny

RANK = 4
# The tiny model's layers, by the names of Wan2.1's authors and by those of diffusers: (theirs, ours, in, out)
INSIDE = [
    (f"{part}.{theirs}", f"{ours}.{to}", 48, 48)
    for part, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
    for theirs, to in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
]
IMAGE = [("cross_attn.k_img", "attn2.add_k_proj", 48, 48), ("cross_attn.v_img", "attn2.add_v_proj", 48, 48)]
FFN = [("ffn.0", "ffn.net.0.proj", 48, 96), ("ffn.2", "ffn.net.2", 96, 48)]
LAYERS = [
    (f"blocks.{block}.{theirs}", f"blocks.{block}.{ours}", width, out)
    for block in range(3)
    for theirs, ours, width, out in (*INSIDE, *IMAGE, *FFN)
]
OUTSIDE = [
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1", 32, 48),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2", 48, 48),
    ("time_projection.1", "condition_embedder.time_proj", 48, 288),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj", 24, 24),
    ("head.head", "proj_out", 48, 64),
]


@pytest.fixture(scope="module")
def checkpoint():
    return tiny()


@pytest.fixture
def weights():
    return read_checkpoint(TINY)["transformer"]


@pytest.fixture(autouse=True)
def nothing_left_in(checkpoint):
    yield
    use(checkpoint, ())


def use(checkpoint, loras, **how) -> None:
    use_loras(checkpoint, adapters_of(loras), **how)


def matrices(layers, seed=0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """For each of diffusers' names: down (r, in), up (out, r)."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng) * 0.2

    return {ours: (draw(RANK, width), draw(out, RANK)) for _, ours, width, out in layers}


def in_layout(layout: str, layers, seed=0, alpha=None) -> dict[str, torch.Tensor]:
    """The same LoRA as different trainers write it."""
    down, up = ("lora_down", "lora_up") if layout in ("kohya", "distill") else ("lora_A", "lora_B")
    default = ".default" if layout == "bare" else ""
    tensors = {}
    for (theirs, ours, *_), (a, b) in zip(layers, matrices(layers, seed).values(), strict=True):
        name = {
            "diffusers": f"transformer.{ours}",
            "peft": f"base_model.model.{ours}",
            "distill": f"diffusion_model.{theirs}",
            "comfy": f"diffusion_model.{theirs}",
            "kohya": "lora_unet_" + theirs.replace(".", "_"),
            "bare": theirs,
        }[layout]
        tensors |= {f"{name}.{down}{default}.weight": a.clone(), f"{name}.{up}{default}.weight": b.clone()}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(float(alpha))
    return tensors


def put(folder: Path, tensors: dict[str, torch.Tensor], name: str = "style.safetensors", **metadata: str) -> Path:
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name, metadata or None)
    return folder / name


def state_of(checkpoint) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in checkpoint.transformer.state_dict().items()}


def dense(before: dict[str, torch.Tensor], *terms) -> dict[str, torch.Tensor]:
    """W + sum of s (alpha / r) B A, in float64; `terms` are (layers' matrices, s alpha / r)."""
    after = dict(before)
    for pairs, factor in terms:
        for name, (down, up) in pairs.items():
            key = f"{name}.weight"
            after[key] = (after[key].double() + factor * (up.double() @ down.double())).float()
    return after


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], within: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=within, msg=name)


# ---------------------------------------------------------------------------
# What goes into the weights


@pytest.mark.parametrize("layout", ["diffusers", "peft", "distill", "comfy", "kohya", "bare"])
@pytest.mark.parametrize("alpha", [None, 2])
def test_every_layout_gives_the_weights_of_the_formula(checkpoint, tmp_path, layout, alpha):
    layers = LAYERS if layout in ("bare",) else LAYERS + OUTSIDE
    before = state_of(checkpoint)
    use(checkpoint, [Lora(put(tmp_path, in_layout(layout, layers, alpha=alpha)), 0.7)])
    wanted = dense(before, (matrices(layers), 0.7 * (alpha or RANK) / RANK))
    assert_same(state_of(checkpoint), wanted)


@pytest.mark.parametrize("layout", ["diffusers", "distill", "kohya"])
def test_a_file_that_trains_a_few_layers_only_is_taken(checkpoint, tmp_path, layout):
    few, before = [LAYERS[13], LAYERS[20]], state_of(checkpoint)
    use(checkpoint, [Lora(put(tmp_path, in_layout(layout, few, alpha=RANK)))])
    assert_same(state_of(checkpoint), dense(before, (matrices(few), 1.0)))


def test_peft_s_own_settings_in_the_file_count(checkpoint, tmp_path):
    before = state_of(checkpoint)
    settings = {"transformer.lora_alpha": 8, "transformer.r": RANK, "transformer.alpha_pattern": {"attn1.to_q": 1}}
    path = put(tmp_path, in_layout("diffusers", LAYERS), lora_adapter_metadata=json.dumps(settings))
    use(checkpoint, [Lora(path)])
    pairs = matrices(LAYERS)
    special = {name: pair for name, pair in pairs.items() if name.endswith("attn1.to_q")}
    others = {name: pair for name, pair in pairs.items() if name not in special}
    assert_same(state_of(checkpoint), dense(before, (special, 1 / RANK), (others, 8 / RANK)))


def test_the_differences_of_step_distilled_files_are_put_in_too(checkpoint, tmp_path):
    """Norms, biases and modulations, which come as they are and not as a product."""
    before, rng = state_of(checkpoint), torch.Generator().manual_seed(3)
    places = {
        "blocks.1.diff_m": "blocks.1.scale_shift_table",
        "blocks.1.norm3.diff": "blocks.1.norm2.weight",
        "blocks.1.norm3.diff_b": "blocks.1.norm2.bias",
        "blocks.2.self_attn.norm_q.diff": "blocks.2.attn1.norm_q.weight",
        "blocks.2.cross_attn.norm_k_img.diff": "blocks.2.attn2.norm_added_k.weight",
        "blocks.0.self_attn.q.diff_b": "blocks.0.attn1.to_q.bias",
        "img_emb.proj.0.diff": "condition_embedder.image_embedder.norm1.weight",
        "time_projection.1.diff_b": "condition_embedder.time_proj.bias",
        "patch_embedding.diff": "patch_embedding.weight",
        "head.head.diff_b": "proj_out.bias",
        "head.diff_m": "scale_shift_table",
    }
    changes = {theirs: torch.randn(before[ours].shape, generator=rng) for theirs, ours in places.items()}
    file = {f"diffusion_model.{name}": tensor for name, tensor in changes.items()} | in_layout("distill", LAYERS)
    use(checkpoint, [Lora(put(tmp_path, file), 0.5)])
    wanted = dense(before, (matrices(LAYERS), 0.5))
    for theirs, ours in places.items():
        wanted[ours] = wanted[ours] + 0.5 * changes[theirs]
    assert_same(state_of(checkpoint), wanted)


def test_text_to_video_files_fit_but_for_the_difference_that_cannot(checkpoint, tmp_path):
    layers = [layer for layer in LAYERS if "_img" not in layer[0]]
    file = in_layout("distill", layers) | {"diffusion_model.patch_embedding.diff": torch.ones(48, 16, 1, 2, 2)}
    scene, path = a_scene(TRIO), put(tmp_path, file)
    shot = shoot(scene, members_of(scene), replace(OPTIONS, loras=(Lora(path),)), loaded=checkpoint)
    assert any("patch_embedding.weight was left out" in notice for notice in shot.notices)


def test_two_add_up_and_strength_zero_changes_nothing(checkpoint, tmp_path):
    before = state_of(checkpoint)
    first = put(tmp_path, in_layout("diffusers", LAYERS, seed=1), "a.safetensors")
    second = put(tmp_path, in_layout("kohya", LAYERS[:14], seed=2, alpha=2), "b.safetensors")
    use(checkpoint, [Lora(first, 0.0)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(checkpoint).items())
    use(checkpoint, [Lora(first, 0.8), Lora(second, -0.5)])
    wanted = dense(before, (matrices(LAYERS, 1), 0.8), (matrices(LAYERS[:14], 2), -0.5 * 2 / RANK))
    assert_same(state_of(checkpoint), wanted)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_taken_out_the_weights_are_bit_for_bit_the_checkpoint_s(tmp_path, precision):
    model = tiny(precision)
    before = state_of(model)
    use(model, [Lora(put(tmp_path, in_layout("diffusers", LAYERS + OUTSIDE)))])
    assert any(not torch.equal(tensor, before[name]) for name, tensor in state_of(model).items())
    use(model, ())
    after = state_of(model)
    assert all(torch.equal(tensor, before[name]) and tensor.dtype == before[name].dtype
               for name, tensor in after.items())  # fmt: skip


def test_bf16_weights_are_rounded_once_from_the_sum_of_all(tmp_path):
    model, layers = tiny("bf16"), LAYERS[:1]
    before = state_of(model)
    files = [put(tmp_path, in_layout("diffusers", layers, seed), f"{seed}.safetensors") for seed in range(3)]
    use(model, [Lora(path, 0.01) for path in files])
    wanted = dense({name: t.float() for name, t in before.items()}, *((matrices(layers, s), 0.01) for s in range(3)))
    key = f"{layers[0][1]}.weight"
    assert torch.equal(state_of(model)[key], wanted[key].to(torch.bfloat16))


def test_the_latents_are_those_of_diffusers_own_loader(checkpoint, tmp_path):
    pytest.importorskip("peft")
    path, scene = put(tmp_path, in_layout("comfy", LAYERS, alpha=2)), a_scene(TRIO)
    ours = latents_of(checkpoint, scene, loras=(Lora(path, 0.6),))
    theirs = tiny()
    state = WanLoraLoaderMixin.lora_state_dict(str(path))
    theirs.transformer.load_lora_adapter(state, adapter_name="style", prefix="transformer")
    theirs.transformer.set_adapters(["style"], [0.6])
    wanted = latents_of(theirs, scene)
    assert (ours - latents_of(checkpoint, scene)).abs().max() > 1e-2
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)


# ---------------------------------------------------------------------------
# What is refused


def wide(tensors: dict[str, torch.Tensor], factor: int) -> dict[str, torch.Tensor]:
    return {name: tensor.repeat(1, factor) if "lora_A" in name else tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: wide(in_layout("diffusers", LAYERS), 2), "another model"),
        (lambda: {name.replace("blocks.2", "blocks.39"): t for name, t in in_layout("comfy", LAYERS).items()}, "39"),
        (lambda: {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(4, 4),
                  "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.ones(4, 4)}, "double_blocks"),
        (lambda: {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(4, 4),
                  "transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight": torch.ones(4, 4)}, "single"),
        (lambda: {"model.weight": torch.ones(4, 4)}, "model.weight"),
        (lambda: dict(list(in_layout("comfy", LAYERS).items())[:1]), "self_attn.q"),
        (lambda: {**in_layout("comfy", LAYERS), "diffusion_model.blocks.0.self_attn.q.dora_scale": torch.ones(48)},
         "dora_scale"),
        (lambda: {"diffusion_model.blocks.0.self_attn.q.lokr_w1": torch.ones(4, 4)}, "lokr_w1"),
        (lambda: {**in_layout("comfy", LAYERS), "diffusion_model.blocks.0.norm3.diff": torch.ones(64)}, "norm2.weight"),
        (lambda: {}, "empty"),
    ],
)  # fmt: skip
def test_a_file_of_another_model_is_refused_by_name(weights, tmp_path, make, says):
    path = put(tmp_path, make(), "wrong.safetensors")
    with pytest.raises(EngineUnavailable) as caught:
        check_loras([Lora(path)], weights)
    assert says in str(caught.value)
    assert "wrong.safetensors" in str(caught.value)
    assert caught.value.remedy


def spoil(path: Path, how: str) -> Path:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif how == "torch":
        torch.save({"a": torch.ones(2)}, path)
    elif how == "text":
        path.write_text("not a model at all", encoding="utf-8")
    elif how == "nothing":
        path.write_bytes(b"")
    else:
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("how", "says"),
    [("cut", "cut off"), ("pickle", "pickle"), ("torch", "pickle"), ("text", "damaged"), ("nothing", "damaged"),
     ("gone", "no such file")],
)  # fmt: skip
def test_a_damaged_or_dangerous_file_is_refused_before_the_model_is_loaded(tmp_path, monkeypatch, how, says):
    path, scene = spoil(put(tmp_path, in_layout("comfy", LAYERS)), how), a_scene(TRIO)
    options = replace(OPTIONS, loras=(Lora(path),))
    monkeypatch.setattr("engine.a2.loading._load", lambda *_: pytest.fail("weights were loaded"))
    for refuse in (lambda: find_engine("a2").check(scene, options), lambda: shoot(scene, members_of(scene), options)):
        with pytest.raises(EngineUnavailable) as caught:
            refuse()
        assert says in str(caught.value)
        assert "style.safetensors" in str(caught.value)


def test_a_good_file_that_begins_like_a_pickle_is_taken(weights, tmp_path):
    """A safetensors file begins with its header's length, and that may be any number."""
    for padding in range(0, 256, 8):
        path = put(tmp_path, in_layout("diffusers", LAYERS[:1]), note="x" * padding)
        check_loras([Lora(path)], weights)
        if path.read_bytes()[0] == 0x80:
            return
    pytest.fail("no header of that length was made")


def test_a_refused_file_leaves_the_model_as_it_was(checkpoint, tmp_path):
    good = Lora(put(tmp_path, in_layout("comfy", LAYERS)))
    use(checkpoint, [good])
    before = state_of(checkpoint)
    bad = Lora(put(tmp_path, {"model.weight": torch.ones(2)}, "bad.safetensors"))
    with pytest.raises(EngineUnavailable):
        use(checkpoint, [good, bad])
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(checkpoint).items())


def test_the_check_reads_no_weights(weights, tmp_path):
    path = put(tmp_path, in_layout("kohya", LAYERS, alpha=2))
    shapes = weights.shapes
    changes = read_loras([Lora(path)], shapes, check_only=True)
    assert {side.device.type for pairs in changes.pairs.values() for side in pairs[0][:2]} == {"meta"}


# ---------------------------------------------------------------------------
# A run with LoRAs


def test_a_shot_names_what_changes_its_picture(checkpoint, tmp_path):
    scene, path = a_scene(TRIO), put(tmp_path, in_layout("comfy", LAYERS))
    shot = shoot(scene, members_of(scene), replace(OPTIONS, loras=(Lora(path, 0.8),)), loaded=checkpoint)
    assert any("style.safetensors at strength 0.8: changes the picture" in notice for notice in shot.notices)
    assert shoot(scene, members_of(scene), OPTIONS, loaded=checkpoint).notices == ()


def test_a_loaded_model_is_refitted_for_each_shot(checkpoint, tmp_path):
    scene, path = a_scene(TRIO), put(tmp_path, in_layout("comfy", LAYERS))
    plain = latents_of(checkpoint, scene)
    styled = latents_of(checkpoint, scene, loras=(Lora(path),))
    assert not torch.equal(plain, styled)
    assert torch.equal(latents_of(checkpoint, scene), plain)
    fresh = shoot(scene, members_of(scene), replace(OPTIONS, model=str(TINY), loras=(Lora(path),)))
    assert torch.equal(fresh.latents, styled)


def test_a_lora_is_fused_or_beside_as_the_model_is_run_whatever_was_before(tmp_path):
    """Fused where the weights are whole and floats, beside where they stream: bit for bit as in a fresh run."""
    scene = a_scene(TRIO)
    file = in_layout("diffusers", LAYERS + OUTSIDE)
    file["diffusion_model.blocks.1.ffn.0.diff_b"] = torch.full((96,), 0.3)
    lora = Lora(put(tmp_path, file), 0.5)
    ways = [
        {},
        {"offload": "blocks"},
        {},
        {"offload": "blocks", "resident_blocks": 2, "host": "mapped"},
        {"loras": ()},
        {},
    ]
    loaded = load(OPTIONS)
    for way in ways:
        options = replace(OPTIONS, **{"loras": (lora,), **way})
        again, fresh = (
            shoot(scene, members_of(scene), options, loaded=each).latents for each in (loaded, load(options))
        )
        assert torch.equal(again, fresh), way


@pytest.mark.parametrize("other", ["none", "strength", "trained further"])
def test_a_kept_run_does_not_go_on_with_other_loras(checkpoint, tmp_path, other):
    scene, kept, told = a_scene(TRIO), tmp_path / "run.safetensors", []
    path = put(tmp_path, in_layout("comfy", LAYERS))
    options = replace(OPTIONS, state=kept, loras=(Lora(path),))
    shoot(scene, members_of(scene), options, loaded=checkpoint)
    if other == "none":
        options = replace(options, loras=())
    elif other == "strength":
        options = replace(options, loras=(Lora(path, 0.9),))
    else:
        put(tmp_path, in_layout("comfy", LAYERS, seed=8))
    shoot(scene, members_of(scene), options, Callbacks(lambda stage, *_: told.append(stage)), checkpoint)
    assert "conditioning" in told


def test_turbo_runs_four_unguided_steps_of_euler_whatever_the_scene_says(checkpoint, tmp_path):
    path, steps = put(tmp_path, in_layout("distill", LAYERS)), []
    scene = a_scene(TRIO, sampling={"steps": 50, "guidance": 5.0, "flow_shift": 8.0, "seed": 5})
    options = replace(OPTIONS, loras=(Lora(path),), turbo=True)
    watch = Callbacks(on_step=lambda step: steps.append(step))
    shot = shoot(scene, members_of(scene), options, watch, checkpoint)
    assert [(step.step, step.of) for step in steps] == [(n, 4) for n in range(1, 5)]
    by_hand = a_scene(TRIO, sampling={"steps": 4, "guidance": 1.0, "flow_shift": 5.0, "seed": 5})
    same = shoot(by_hand, members_of(scene), replace(options, turbo=False, scheduler="euler"), loaded=checkpoint)
    assert torch.equal(shot.latents, same.latents)
    assert any(notice.startswith("Turbo: 4 steps") and "50" in notice for notice in shot.notices)
    assert any("euler instead of unipc" in notice for notice in same.notices)


@pytest.mark.parametrize(("asked", "made"), [(1, 4), (4, 4), (6, 6), (8, 8), (9, 4), (50, 4)])
def test_turbo_keeps_four_to_eight_steps_where_the_scene_asks_for_them(asked, made):
    from engine.a2.options import as_run

    scene = a_scene(TRIO, sampling={"steps": asked, "seed": 7})
    used = as_run(scene, replace(OPTIONS, turbo=True)).sampling
    assert (used.steps, used.guidance, used.flow_shift, used.seed) == (made, 1.0, 5.0, 7)


def test_euler_stands_on_the_noise_levels_that_the_distillation_used():
    from engine.a2.sampling import make_scheduler
    from engine.scene.scene import Sampling

    scheduler = make_scheduler("euler", Sampling(steps=4, flow_shift=5.0))
    levels = [5 * s / (1 + 4 * s) for s in (1, 0.75, 0.5, 0.25)]
    torch.testing.assert_close(scheduler.sigmas, torch.tensor([*levels, 0.0]))
    torch.testing.assert_close(scheduler.timesteps, 1000 * torch.tensor(levels))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"turbo": True}, "step-distilled"),
        ({"turbo": True, "loras": (Lora(Path("x.safetensors"), 0.0),)}, "step-distilled"),
        ({"turbo": True, "step_cache": True, "loras": (Lora(Path("x.safetensors")),)}, "step cache"),
        ({"loras": (Lora(Path("x.safetensors"), float("nan")),)}, "x.safetensors"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(how, says):
    with pytest.raises(EngineUnavailable, match=says):
        check_speed(replace(OPTIONS, **how))


# ---------------------------------------------------------------------------
# From a terminal


@pytest.mark.parametrize(
    ("text", "file", "strength"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("a.safetensors:-1", "a.safetensors", -1.0),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", 1.0),
        (r"C:\loras\a.safetensors:0.5", r"C:\loras\a.safetensors", 0.5),
        ("C:a.safetensors", "C:a.safetensors", 1.0),
        ("odd:name.safetensors", "odd:name.safetensors", 1.0),
    ],
)
def test_a_lora_s_file_and_strength_are_told_apart(text, file, strength):
    assert parse(["s.json", "-o", "o.mp4", "--lora", text]).loras == [Lora(Path(file), strength)]


def test_a_strength_that_is_none_is_refused_on_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit):
        command.main([str(tmp_path / "s.json"), "-o", "o.mp4", "--lora", "a.safetensors:strong"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "strong" in line


def test_a_checkpoint_that_is_another_still_checks_its_own_loras(tmp_path):
    folder = copy_of_tiny(tmp_path)
    path = put(tmp_path, wide(in_layout("diffusers", LAYERS), 2))
    with pytest.raises(EngineUnavailable, match="another model"):
        find_engine("a2").check(a_scene(TRIO), replace(OPTIONS, model=str(folder), loras=(Lora(path),)))
