"""How attention is computed: native unless asked, others where they are installed and known to work."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from diffusers.models import attention_dispatch

from engine.a2 import attention
from engine.a2.attention import attend, attending, check_attention, set_attention, usable
from engine.a2.compute import Compute
from engine.a2.plan import calibration
from engine.a2.plan.calibration import calibrate, exact_kinds
from engine.a2.recipe import Callbacks, shoot
from engine.errors import EngineUnavailable
from tests.tiny import OPTIONS, TRIO, a_scene, latents_of, members_of, tiny

CPU = Compute(torch.device("cpu"), torch.bfloat16)
CUDA = Compute(torch.device("cuda"), torch.bfloat16)
OTHERS = ("flash", "flash3", "sage", "xformers")


@pytest.fixture(scope="module")
def checkpoint():
    return tiny()


@pytest.fixture
def card(monkeypatch):
    """A CUDA card that is only said to be there; `card(installed, capability)`."""

    def pretend(*installed: str, capability: tuple[int, int] = (8, 9)) -> None:
        real = importlib.util.find_spec
        monkeypatch.setattr(
            attention.importlib.util, "find_spec", lambda name: object() if name in installed else real(name)
        )
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)

    return pretend


def backends(transformer) -> set[str]:
    named = {name: module.processor._attention_backend for name, module in transformer.named_modules()
             if hasattr(module, "processor")}  # fmt: skip
    assert len(named) == 6
    return {str(getattr(backend, "value", backend)) for backend in named.values()}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_refused_on_the_cpu(name):
    with pytest.raises(EngineUnavailable, match=f"--attention {name}.*CUDA"):
        check_attention(name, CPU)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_installed_is_one_line_that_says_how_to_get_it(card, name):
    card()
    with pytest.raises(EngineUnavailable) as caught:
        check_attention(name, CUDA)
    assert "not installed" in str(caught.value)
    assert "Get it (" in str(caught.value)


@pytest.mark.parametrize("name", OTHERS)
def test_a_version_that_diffusers_cannot_use_is_refused(card, name):
    """Found on disk, but not usable: as with a version that is too old."""
    card("flash_attn", "flash_attn_interface", "sageattention", "xformers")
    with pytest.raises(EngineUnavailable, match=r"too old"):
        check_attention(name, CUDA)


@pytest.mark.parametrize(
    ("name", "compute", "capability", "says"),
    [
        ("flash", replace(CUDA, dtype=torch.float32), (8, 0), "fp32"),
        ("cudnn", replace(CUDA, dtype=torch.float32), (8, 0), "fp32"),
        ("sage", CUDA, (9, 0), "Hopper"),
    ],
)
def test_what_is_known_to_give_noise_is_refused(card, name, compute, capability, says):
    card("flash_attn", "sageattention", capability=capability)
    with pytest.raises(EngineUnavailable, match=says):
        check_attention(name, compute)


def test_what_is_installed_and_fits_is_taken(card, monkeypatch):
    card("sageattention")
    monkeypatch.setattr(attention_dispatch, "_CAN_USE_SAGE_ATTN", True)
    check_attention("sage", CUDA)
    check_attention("native", CPU)
    check_attention(None, CPU)
    assert usable(CUDA) == ("native", "cudnn", "sage")
    assert usable(CPU) == ("native",)


def test_native_is_set_whatever_the_environment_says(checkpoint, monkeypatch):
    scene = a_scene(TRIO)
    before = latents_of(checkpoint, scene)
    registry = attention_dispatch._AttentionBackendRegistry
    monkeypatch.setattr(registry, "_active_backend", attention_dispatch.AttentionBackendName.FLASH)
    assert torch.equal(latents_of(checkpoint, scene), before)
    assert backends(checkpoint.transformer) == {"native"}


def test_cudnn_comes_first_where_it_is_asked_for_and_is_native_to_diffusers(checkpoint):
    from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends

    before = _cur_sdpa_kernel_backends(with_priority=True)
    with attending("cudnn"):
        assert _cur_sdpa_kernel_backends(with_priority=True)[0] == SDPBackend.CUDNN_ATTENTION
    with attending(None), attending("native"):
        assert _cur_sdpa_kernel_backends(with_priority=True) == before
    scene = a_scene(TRIO)
    assert torch.equal(latents_of(checkpoint, scene, attention="cudnn"), latents_of(checkpoint, scene))
    assert backends(checkpoint.transformer) == {"native"}


def test_the_calibration_measures_what_runs_here_and_is_exact_enough(checkpoint, monkeypatch):
    """Of two stand-ins for kernels that need a card, one rounds like eight bits."""
    assert calibrate(checkpoint.shapes, "cpu", "fp32").attentions.keys() == {"native"}
    monkeypatch.setattr(calibration, "usable", lambda _: ("native", "cudnn", "flash", "sage"))

    def stand_in(kind, query, key, value):
        if kind == "flash":
            raise RuntimeError("no kernel image is available")
        seen = attend("native", query, key, value)
        return seen * 1.03 if kind == "sage" else seen

    monkeypatch.setattr(calibration, "attend", stand_in)
    assert exact_kinds(checkpoint.shapes, Compute(torch.device("cpu"), torch.float32)) == ("native", "cudnn")
    assert exact_kinds(checkpoint.shapes, CPU) == ("native", "cudnn")  # bf16 itself is exact enough
    speed = calibrate(checkpoint.shapes, "cpu", "fp32")
    assert speed.attentions.keys() == {"native", "cudnn"}
    assert speed.attention == speed.attentions["native"]


def test_another_kernel_is_used_and_named(checkpoint, monkeypatch):
    """PyTorch's plain attention stands in for a kernel that needs a card: it differs in the last bits only."""
    scene, used = a_scene(TRIO), []
    stand_in = replace(attention._KERNELS["flash"], name="_native_math")
    monkeypatch.setitem(attention._KERNELS, "flash", stand_in)
    real = attention_dispatch._AttentionBackendRegistry._backends["_native_math"]
    counted = {attention_dispatch.AttentionBackendName._NATIVE_MATH: lambda *a, **k: used.append(1) or real(*a, **k)}
    monkeypatch.setattr(
        attention_dispatch._AttentionBackendRegistry,
        "_backends",
        {**attention_dispatch._AttentionBackendRegistry._backends, **counted},
    )
    plain = latents_of(checkpoint, scene)
    assert not used
    shot = shoot(scene, members_of(scene), replace(OPTIONS, attention="flash"), loaded=checkpoint)
    assert used
    torch.testing.assert_close(shot.latents, plain, rtol=0, atol=1e-3)
    assert any("Attention flash" in notice and "changes the picture" in notice for notice in shot.notices)
    set_attention(checkpoint.transformer, "native")


def test_a_kept_run_does_not_go_on_with_another_kernel(checkpoint, tmp_path, monkeypatch):
    scene, kept, told = a_scene(TRIO), tmp_path / "run.safetensors", []
    monkeypatch.setitem(attention._KERNELS, "flash", replace(attention._KERNELS["flash"], name="_native_math"))
    shoot(scene, members_of(scene), replace(OPTIONS, state=kept), loaded=checkpoint)
    options = replace(OPTIONS, state=kept, attention="flash")
    shoot(scene, members_of(scene), options, Callbacks(lambda stage, *_: told.append(stage)), checkpoint)
    assert "conditioning" in told
    set_attention(checkpoint.transformer, "native")
