"""Other families of models behind the same door, against what their authors' own code computes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from PIL import Image
from safetensors.torch import load_file, save_file

from engine.a2.compute import choose_compute
from engine.a2.conditioning import condition
from engine.a2.files import locate, read_checkpoint
from engine.a2.geometry import size_of
from engine.a2.loading import load_checkpoint
from engine.a2.models import A2, FAMILIES, PHANTOM, REFALIGN, RELEASES, SPECS, V3, release_of, released_as, spec_of
from engine.a2.options import A2Options
from engine.a2.plan.shapes import default_shapes, read_shapes
from engine.a2.recipe import shoot
from engine.a2.references import gather_references
from engine.a2.sampling import Guidance, begin, sample
from engine.errors import EngineUnavailable, SceneError
from engine.media.video import probe
from engine.scene.cast import Member
from engine.scene.scene import Sampling
from tests.tiny import FIXTURES, GOLDEN, a_picture, a_scene, apart, golden, members_of

NAMES = ("v3_three_references", "v3_one_reference")
V3_TINY, REFALIGN_TINY = FIXTURES / "v3_tiny", FIXTURES / "refalign_tiny"
OPTIONS = A2Options(model=str(V3_TINY), family="v3-r2v", device="cpu", precision="fp32")
CPU = choose_compute(OPTIONS)
FOUR = (("character", "Mia"), ("character", "Leo"), ("object", "cup"), ("background", "stage"))


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(locate(OPTIONS.model, OPTIONS.family), CPU)


@pytest.fixture
def refalign(tmp_path) -> Path:
    """A transformer alone, in Wan's own names, with what it shares with the others beside it."""
    folder = tmp_path / "mine"
    shutil.copytree(REFALIGN_TINY, folder)
    for part in ("text_encoder", "tokenizer", "vae"):
        shutil.copytree(V3_TINY / part, folder / part)
    return folder


# ---------------------------------------------------------------------------
# SkyReels-V3


@pytest.mark.parametrize("name", NAMES)
def test_the_conditioning_is_the_authors(checkpoint, name):
    scene, members, theirs = golden(name)
    ours = condition(checkpoint, V3.completed(scene), gather_references(scene, members, V3))
    parts = [part for part in ("noise", "references", "prompt_embeds", "negative_embeds") if part in theirs]
    assert len(parts) == (4 if V3.completed(scene).sampling.guidance > 1 else 3)
    for part in parts:
        assert apart(getattr(ours, part), theirs[part]) <= 1e-4, part


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", [{}, {"batched_guidance": True}, {"chunk": 7}])
def test_latents_and_frames_are_the_authors(checkpoint, name, how):
    scene, members, theirs = golden(name)
    shot = shoot(V3.completed(scene), members, replace(OPTIONS, **how), loaded=checkpoint)
    assert apart(shot.latents, theirs["latents"]) <= 1e-3
    assert apart(np.stack(list(shot.frames)), theirs["video"]) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_gives_the_authors_latents(repo: Path, tmp_path: Path, name):
    from safetensors.numpy import load_file as load

    out, latents = tmp_path / "out.mp4", tmp_path / "latents.safetensors"
    flags = ["--model", V3_TINY, "--family", "v3-r2v", "--device", "cpu", "--precision", "fp32"]
    command = [
        sys.executable,
        "launch.py",
        "render",
        GOLDEN / f"{name}.json",
        "-o",
        out,
        *flags,
        "--save-latents",
        latents,
    ]
    done = subprocess.run(list(map(str, command)), cwd=repo, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    _, _, theirs = golden(name)
    assert apart(load(latents)["latents"], theirs["latents"]) <= 1e-3
    assert probe(out).frames == len(theirs["video"])


def test_another_family_takes_the_same_weights_otherwise(checkpoint):
    scene, members, theirs = golden("v3_three_references")
    other = load_checkpoint(locate(OPTIONS.model, "phantom"), CPU)
    assert apart(shoot(V3.completed(scene), members, replace(OPTIONS, family="phantom"), loaded=other).latents,
                 theirs["latents"]) > 1e-2  # fmt: skip


def test_it_streams_and_quantises_like_the_others(checkpoint, tmp_path):
    scene, members, theirs = golden("v3_one_reference")
    scene = V3.completed(scene)
    eight = replace(OPTIONS, precision="int8", cache=tmp_path)
    found = [shoot(scene, members, each).latents for each in (eight, replace(eight, offload="blocks"))]
    assert torch.equal(*found)
    assert 0 < apart(found[0], theirs["latents"]) < 0.5


def test_a_run_that_was_cut_off_goes_on(checkpoint, tmp_path):
    scene, members, theirs = golden("v3_one_reference")
    options, seen = replace(OPTIONS, state=tmp_path / "state.safetensors"), []

    def stop_after_two() -> bool:
        return len(seen) >= 2

    from engine.a2.recipe import Callbacks
    from engine.errors import Stopped

    with pytest.raises(Stopped):
        shoot(V3.completed(scene), members, options, Callbacks(on_step=seen.append, stop=stop_after_two), checkpoint)
    resumed: list[int] = []
    on_step = Callbacks(on_step=lambda step: resumed.append(step.step))
    latents = shoot(V3.completed(scene), members, options, on_step, checkpoint).latents
    assert resumed[0] == 3
    assert apart(latents, theirs["latents"]) <= 1e-3


# ---------------------------------------------------------------------------
# Wan's own names


def test_a_forward_of_refalign_is_its_authors_from_wans_names(refalign):
    checkpoint = load_checkpoint(locate(str(refalign), "refalign"), CPU)
    with np.load(REFALIGN_TINY / "forward.npz") as arrays:
        given = {name: torch.from_numpy(array) for name, array in arrays.items()}
    assert apart(_forward(checkpoint, given), given["velocity"].numpy()) <= 1e-4
    assert apart(_forward(checkpoint, given, chunk=9), given["velocity"].numpy()) <= 1e-4
    plain = load_checkpoint(locate(str(refalign), "phantom"), CPU)
    assert apart(_forward(plain, given), given["velocity"].numpy()) > 0.1  # here the references read the prompt


def _forward(checkpoint, given, chunk: int = 0) -> torch.Tensor:
    """The velocity at the given timestep, by the way that a run goes: one step of Euler from there."""
    from engine.a2.chunking import chunked
    from engine.a2.conditioning import Conditioning

    latents, references = given["latents"], given["references"]
    conditioning = Conditioning(
        latents, None, None, given["prompt_embeds"], None, torch.zeros(17, 3), torch.zeros(0), references
    )
    run = begin(conditioning, Sampling(steps=1, guidance=1.0), "euler", torch.device("cpu"))
    run.scheduler.timesteps[0] = given["timestep"][0]
    run.scheduler.sigmas[0] = 1.0
    unread = references[0, 0].numel() // 4 if checkpoint.spec.skips_text else 0
    with chunked(checkpoint.transformer, chunk, unread=unread):
        return latents - sample(checkpoint.transformer, conditioning, run, Guidance(1.0))


def test_a_file_and_a_folder_of_wans_names_load_and_shoot(refalign, tmp_path):
    scene = REFALIGN.completed(a_scene(FOUR, sampling={"steps": 2, "seed": 5}))
    options = replace(OPTIONS, model=str(refalign), family="refalign")
    whole = shoot(scene, members_of(scene), options).latents
    assert whole.isfinite().all()
    single = replace(options, model=str(refalign / "model.safetensors"))
    assert torch.equal(shoot(scene, members_of(scene), single).latents, whole)
    prefixed = {
        f"model.diffusion_model.{name}": tensor for name, tensor in load_file(refalign / "model.safetensors").items()
    }
    (refalign / "model.safetensors").unlink()
    save_file(prefixed, refalign / "theirs.safetensors")
    assert torch.equal(shoot(scene, members_of(scene), options).latents, whole)
    streamed = replace(options, precision="int8", cache=tmp_path / "cache", chunk=11)
    eight = [shoot(scene, members_of(scene), each).latents for each in (streamed, replace(streamed, offload="blocks"))]
    assert torch.equal(*eight)


def test_shapes_are_read_from_wans_names_and_from_what_is_released(refalign):
    shapes = read_shapes(locate(str(refalign), "refalign"))
    files = read_checkpoint(locate(str(refalign), "refalign"))
    for name in REFALIGN.components:
        count = sum(int(np.prod(shape)) for shape, _ in files[name].tensors.values())
        assert shapes.weights_of(name).count == count, name
    assert (shapes.transformer.heads, shapes.transformer.dim, shapes.numbers) == (2, 48, "F32")
    billions = {
        "Skywork/SkyReels-V3-R2V-14B": 14.29,
        "gudaochangsheng/RefAlign-1.3B": 1.419,
        "Skywork/SkyReels-A2": 16.39,
    }
    for model, size in billions.items():
        assert default_shapes(model).transformer.weights.count / 1e9 == pytest.approx(size, abs=0.006), model


def test_a_file_that_is_no_transformer_is_told_so(refalign):
    save_file({"lora_A.weight": torch.zeros(2, 2)}, refalign / "model.safetensors")
    with pytest.raises(EngineUnavailable, match=r"no transformer in Wan's own names"):
        read_checkpoint(locate(str(refalign), "refalign"))


def test_a_transformer_alone_says_what_it_lacks_and_how_to_get_it(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(EngineUnavailable, match=r"tokenizer is not on this machine.*models download Wan-AI"):
        read_checkpoint(locate(str(REFALIGN_TINY), "refalign"))


def test_what_all_share_is_taken_from_another_checkpoint_and_said(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    there = _in_the_cache(tmp_path, "Skywork/SkyReels-V3-R2V-14B", V3_TINY)
    place = locate(str(REFALIGN_TINY), "refalign")
    assert place.parts["vae"] == there / "vae"
    assert load_checkpoint(place, CPU).notices == (
        f"The text encoder and vae came from {there}: they are the same for all of Wan2.1.",
    )
    lacking = tmp_path / "lacking"
    shutil.copytree(V3_TINY, lacking)
    shutil.rmtree(lacking / "text_encoder")
    assert locate(str(lacking), "v3-r2v").borrowed == ("text_encoder",)


def test_a_transformer_in_shards_is_found_beside_another_file(tmp_path):
    first, second = (tmp_path / f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    for path in (second, first, tmp_path / "other.safetensors"):
        shutil.copy(REFALIGN_TINY / "model.safetensors", path)
    assert locate(str(tmp_path), "refalign").parts["transformer"] == first


def test_shards_without_an_index_are_read_and_one_that_lacks_is_named(tmp_path):
    tensors = load_file(REFALIGN_TINY / "model.safetensors")
    names = sorted(tensors, reverse=True)
    for number, part in enumerate((names[:9], names[9:]), start=1):
        save_file({name: tensors[name] for name in part}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    for part in ("text_encoder", "tokenizer", "vae"):
        shutil.copytree(V3_TINY / part, tmp_path / part)
    assert set(read_checkpoint(locate(str(tmp_path), "refalign"))["transformer"].tensors) == set(tensors)
    with pytest.raises(EngineUnavailable, match="does not say which family"):
        locate(str(tmp_path))
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(EngineUnavailable, match=r"model-00001-of-00002\.safetensors"):
        read_checkpoint(locate(str(tmp_path), "refalign"))


@pytest.mark.parametrize(("name", "why"), [("a.pth", "can run code"), ("a.GGUF", "another program's")])
def test_weights_in_another_form_are_refused_with_the_reason(tmp_path, name, why):
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(EngineUnavailable, match=rf"{why}.*Take the \.safetensors file"):
        locate(str(tmp_path / name))


def _in_the_cache(cache: Path, model: str, folder: Path) -> Path:
    root = cache / f"models--{model.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("a" * 40)
    shutil.copytree(folder, root / "snapshots" / ("a" * 40))
    return root / "snapshots" / ("a" * 40)


# ---------------------------------------------------------------------------
# Which family


def test_the_family_is_asked_for_where_only_the_shapes_could_tell(tmp_path):
    for folder in (V3_TINY, REFALIGN_TINY, REFALIGN_TINY / "model.safetensors"):
        with pytest.raises(
            EngineUnavailable, match=r"does not say which family.*--family a2\|v3-r2v\|refalign\|phantom"
        ):
            locate(str(folder))
    assert locate(str(FIXTURES / "a2_tiny")).spec is A2  # its shapes are nobody else's here
    with pytest.raises(EngineUnavailable, match=r"not SkyReels-V3's: it takes 36 channels, not 16"):
        load_checkpoint(locate(str(FIXTURES / "a2_tiny"), "v3-r2v"), CPU)
    named = tmp_path / "SkyReels-V3-R2V-14B"
    shutil.copytree(V3_TINY, named)
    assert locate(str(named)).spec is V3


def test_names_and_the_hubs_own_folders_say_the_family(tmp_path, monkeypatch):
    from huggingface_hub import constants

    assert [release_of(each.model.upper()) for each in RELEASES] == list(RELEASES)
    for release in RELEASES:
        repository, _, file = release.model.partition("/")[2].partition("/")
        folder = f"/hub/models--{release.model.split('/')[0]}--{repository}/snapshots/abc"
        assert released_as(f"{folder}/{file}" if file else folder) is release
        assert spec_of(release.model) is release.spec
    assert released_as("/home/me/models/mine") is None
    for inside in ("/home/me/RefAlign-1.3B/v3", "/home/me/SkyReels-A2/mine", "/RefAlign-1.3B/v3/mine.safetensors"):
        assert released_as(inside) is None
    for own in ("/home/me/RefAlign-1.3B/", "/home/me/RefAlign-1.3B/model.safetensors"):
        assert released_as(own) is release_of("gudaochangsheng/RefAlign-1.3B")
    assert (spec_of("/home/me/mine"), spec_of("/home/me/mine", "phantom")) == (A2, PHANTOM)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    _in_the_cache(tmp_path, "Skywork/SkyReels-V3-R2V-14B", V3_TINY)
    assert locate("Skywork/SkyReels-V3-R2V-14B").spec is V3
    assert tuple(SPECS) == FAMILIES


# ---------------------------------------------------------------------------
# What a scene leaves open, and how many pictures there are


def test_numbers_that_a_scene_leaves_open_are_the_models_own():
    scene = a_scene(FOUR[:1], video={"fps": 30}, sampling={"flow_shift": 3.0})
    for spec in SPECS.values():
        full = spec.completed(scene)
        assert (full.sampling.steps, full.sampling.guidance) == (spec.steps, spec.guidance)
        assert (full.sampling.flow_shift, full.video.fps, full.video.frames) == (3.0, 30, 9)
    bare = scene.model_copy(update={"video": type(scene.video)(), "sampling": Sampling()})
    fourteen = release_of("Kijai/WanVideo_comfy/Phantom-Wan-14B_fp16.safetensors")
    assert PHANTOM.completed(bare, fourteen).video.frames == 121
    assert (V3.completed(bare).video.fps, A2.completed(bare).video) == (24, type(scene.video)())


def test_passes_follow_the_guidance():
    counts = {
        A2: [(1.0, None, 1), (5.0, None, 2)],
        V3: [(1.0, None, 1), (3.0, None, 2), (3.0, 2.0, 3)],
        REFALIGN: [(1.0, 5.0, 1), (7.5, None, 3), (7.5, 1.0, 2)],
    }
    for spec, cases in counts.items():
        for guidance, image, passes in cases:
            sampling = Sampling(guidance=guidance, image_guidance=image)
            guided = Guidance(guidance, False, spec.image_scale(sampling))
            assert spec.passes(sampling) == passes == len(guided.passes)


def test_four_pictures_have_a_canvas_each_and_further_views_take_what_is_free():
    scene = V3.completed(a_scene(FOUR))
    members = members_of(scene)
    assert [canvas.names for canvas in gather_references(scene, members, V3)] == [
        ("Mia",),
        ("Leo",),
        ("cup",),
        ("stage",),
    ]
    assert size_of(scene, V3).tail == 4
    assert size_of(a_scene(FOUR[:1]), PHANTOM).tail == 1
    two = a_scene(FOUR[:2])
    side = Image.new("RGBA", (40, 40), (1, 2, 3, 255))
    viewed = [
        Member(two.cast[0], a_picture(0, "character"), (side, side, side)),
        Member(two.cast[1], a_picture(1, "character"), (side,)),
    ]
    assert [canvas.names for canvas in gather_references(two, viewed, V3)] == [("Mia",), ("Mia",), ("Leo",), ("Leo",)]
    assert len(gather_references(two, viewed, A2)) == 3
    assert gather_references(two, viewed, V3)[1].spatial.getpixel((32, 32)) == (1, 2, 3)


def test_a_scenes_further_views_reach_the_model_and_come_back_with_the_clip(tmp_path):
    import json

    from engine.door.render import RenderRequest, render
    from engine.media.embed import unpack
    from engine.scene.scene_file import load_scene

    for name, colour in (("front", (200, 0, 0)), ("side", (0, 200, 0)), ("back", (0, 0, 200))):
        Image.new("RGB", (40, 60), colour).save(tmp_path / f"{name}.png")
    scene = {
        "version": 1, "engine": "a2", "prompt": "Mia turns.",
        "cast": [{"role": "character", "name": "Mia", "image": "front.png", "views": ["side.png", "back.png"],
                  "cutout": "none"}],
        "video": {"width": 64, "height": 64, "frames": 5, "trim_head": 0}, "sampling": {"steps": 1},
    }  # fmt: skip
    (tmp_path / "scene.json").write_text(json.dumps(scene))
    loaded = load_scene(tmp_path / "scene.json")
    assert (size_of(loaded, V3).references, size_of(loaded, A2).references) == (3, 3)
    request = RenderRequest(loaded, tmp_path, tmp_path / "out.mp4", options=OPTIONS)
    render(request)
    (tmp_path / "again").mkdir()
    back = load_scene(unpack(tmp_path / "out.mp4", tmp_path / "again"))
    assert back.cast[0].views == ("00a.webp", "00b.webp")
    with Image.open(tmp_path / "again" / "00b.webp") as picture:
        assert max(range(3), key=picture.convert("RGB").getpixel((20, 30)).__getitem__) == 2
    (tmp_path / "side.png").unlink()
    with pytest.raises(SceneError, match=r"cast\[0\]\.views\[0\]: there is no file 'side\.png'"):
        render(request)


def test_two_transformers_in_a_folder_are_told_apart_by_name(refalign):
    shutil.copytree(V3_TINY / "transformer", refalign / "transformer")
    with pytest.raises(EngineUnavailable, match=r"two models, model\.safetensors and the folder transformer"):
        locate(str(refalign), "refalign")
    assert locate(str(refalign / "model.safetensors"), "refalign").parts["transformer"].is_file()


@pytest.mark.parametrize("heads", ["true", "0", '"x"', "7", "null", "1e99"])
def test_a_number_of_heads_that_is_none_is_not_used(refalign, heads):
    (refalign / "config.json").write_text(f'{{"num_heads": {heads}}}')
    found = read_checkpoint(locate(str(refalign), "refalign"))["transformer"].config
    assert type(found["num_attention_heads"]) is int
    assert found["num_attention_heads"] > 1
