"""What needs torch: pieces that change nothing, formulas held against real runs, a calibration that ends."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from engine.a2.chunking import chunked, parts
from engine.a2.decoding import decode
from engine.a2.geometry import ClipSize, Tiling
from engine.a2.plan import footprint
from engine.a2.plan.calibration import calibrate
from engine.a2.plan.shapes import DEFAULT_CONFIGS, default_shapes, read_shapes, shapes_from
from tests.peak import FusedAttention, Live
from tests.tiny import TINY, a_scene, latents_of, tiny

SIZE = {"num_attention_heads": 3, "attention_head_dim": 64, "ffn_dim": 640, "num_layers": 2, "text_dim": 64,
        "image_dim": 96, "added_kv_proj_dim": 192, "in_channels": 36, "out_channels": 16}  # fmt: skip


def transformer(device: str = "cpu", dtype: torch.dtype = torch.float32, **config: object):
    """As the library loads it: some modules stay float32."""
    torch.manual_seed(3)
    with torch.device(device):
        model = WanTransformer3DModel(**{**SIZE, **config})
    for name, parameter in model.named_parameters():
        if not {"time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"} & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)
    model.rope.to(device)
    return model.eval().requires_grad_(False)


def forward(model, clip: ClipSize, dtype: torch.dtype = torch.float32, device: str = "cpu", batch: int = 1):
    config, generator = model.config, torch.Generator().manual_seed(5)

    def some(*shape: int) -> torch.Tensor:
        if device == "meta":
            return torch.empty(batch, *shape, dtype=dtype, device=device)
        return torch.randn(batch, *shape, generator=generator).to(dtype)

    x, text = some(config.in_channels, *clip.latent), some(512, config.text_dim)
    pictures, time = some(257 * clip.references, config.image_dim), torch.full((batch,), 500, device=device)
    with torch.no_grad():
        return model(x, time, text, pictures, return_dict=False)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [7, 64, 10_000])
def test_pieces_change_nothing(dtype, tokens):
    model, clip = transformer(dtype=dtype), ClipSize(128, 112, 13, references=2)
    whole = forward(model, clip, dtype)
    with chunked(model, tokens):
        pieces = forward(model, clip, dtype)
    # The same operations token by token; a library may sum a matrix of other height in another order.
    scale = whole.abs().max()
    assert (pieces - whole).abs().max() <= scale * (1e-5 if dtype == torch.float32 else 2e-2)
    assert torch.equal(forward(model, clip, dtype), whole)
    assert not any("forward" in vars(block) for block in model.blocks)


def test_pieces_leave_a_foreign_attention_alone():
    class Other:
        def __call__(self, attn, hidden_states, *_):
            return hidden_states * 2

    model, clip = transformer(), ClipSize(64, 64, 5, references=1)
    other = Other()
    model.blocks[0].attn1.processor = other
    whole = forward(model, clip)
    with chunked(model, 9):
        assert model.blocks[0].attn1.processor is other
        assert torch.allclose(forward(model, clip), whole, atol=1e-5)


def test_an_error_within_leaves_the_model_as_it_was():
    model = transformer()
    with pytest.raises(KeyError), chunked(model, 9):
        raise KeyError
    assert not any("forward" in vars(block) for block in model.blocks)


def test_a_whole_run_in_pieces_ends_on_the_same_latents():
    checkpoint, scene = tiny(), a_scene((("character", "Mia"), ("background", "stage")))
    whole = latents_of(checkpoint, scene)
    with chunked(checkpoint.transformer, 10):
        pieces = latents_of(checkpoint, scene)
    assert torch.allclose(whole, pieces, atol=1e-4)


@pytest.mark.parametrize(("length", "size"), [(1, 1), (10, 3), (12, 4), (5, 100)])
def test_parts_cover_everything_once(length, size):
    found = list(parts(length, size))
    assert [i for part in found for i in range(length)[part]] == list(range(length))
    assert max(part.stop - part.start for part in found) <= size


# ---------------------------------------------------------------------------
# Formulas


def near(predicted: int, measured: int) -> bool:
    return 0.87 <= predicted / measured <= 1.15


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "chunk"), [(1, 0), (2, 256)])
def test_denoising_of_a_small_model_takes_what_was_predicted(dtype, batch, chunk):
    clip = ClipSize(256, 256, 17, references=1)
    config = {"num_attention_heads": 4, "attention_head_dim": 128, "ffn_dim": 1400, "added_kv_proj_dim": 512}
    model = transformer(dtype=dtype, **config)
    shape = shapes_from({**DEFAULT_CONFIGS, "transformer": {**SIZE, "freq_dim": 256, **config}}).transformer
    with Live(model) as live, chunked(model, chunk):
        forward(model, clip, dtype, batch=batch)
    assert near(footprint.denoise_bytes(shape, clip, footprint.Forward(dtype.itemsize, batch, chunk)), live.peak)


@pytest.mark.parametrize(("batch", "chunk"), [(1, 0), (2, 0), (1, 4096), (1, 1024)])
def test_denoising_of_the_14b_model_takes_what_was_predicted(batch, chunk):
    """On "meta": the real model's operations and shapes, without its numbers. One block of 40: they are alike."""
    config = {**DEFAULT_CONFIGS["transformer"], "num_layers": 1}
    model, clip = transformer("meta", torch.bfloat16, **config), ClipSize()
    with Live(model) as live, FusedAttention(), chunked(model, chunk):
        forward(model, clip, torch.bfloat16, "meta", batch)
    assert near(
        footprint.denoise_bytes(default_shapes().transformer, clip, footprint.Forward(2, batch, chunk)), live.peak
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_text_encoder_takes_what_was_predicted(dtype):
    sizes = {"d_model": 256, "d_ff": 640, "num_heads": 32, "d_kv": 8, "num_layers": 2, "vocab_size": 100}
    model = UMT5EncoderModel(UMT5Config(**sizes, feed_forward_proj="gated-gelu")).to(dtype).eval()
    ids = torch.ones(1, 512, dtype=torch.long)
    with Live(model) as live, torch.no_grad():
        model(ids, ids)
    shape = shapes_from({**DEFAULT_CONFIGS, "text_encoder": sizes}).text
    assert 1 <= footprint.text_bytes(shape, dtype.itemsize) / live.peak <= 1.5  # fused attention needs a third less


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_the_image_encoder_takes_what_was_predicted(act):
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4,
             "image_size": 112, "patch_size": 14, "hidden_act": act}  # fmt: skip
    model = CLIPVisionModel(CLIPVisionConfig(**sizes)).eval()
    pixels = torch.zeros(2, 3, 112, 112)
    with Live(model) as live, torch.no_grad():
        model(pixels, output_hidden_states=True)
    assert near(footprint.image_bytes(shapes_from({**DEFAULT_CONFIGS, "image_encoder": sizes}).image, 2), live.peak)


@pytest.mark.parametrize("tiling", [None, Tiling(12, 6)])
def test_decoding_takes_what_was_predicted(tiling):
    """The formula counts a convolution's own copy of its input, which only real allocators show: up to a fifth."""
    sizes = {**DEFAULT_CONFIGS["vae"], "base_dim": 8}
    vae, clip = AutoencoderKLWan(**sizes).eval(), ClipSize(128, 96, 13)
    with Live(vae) as live:
        assert len(list(decode(vae, torch.zeros(1, 16, *clip.latent), tiling))) == 13
    shape = shapes_from({**DEFAULT_CONFIGS, "vae": sizes}).vae
    assert 1 <= footprint.decode_bytes(shape, clip, tiling) / live.peak <= 1.2


def test_encoding_takes_what_was_predicted():
    sizes = {**DEFAULT_CONFIGS["vae"], "base_dim": 8}
    vae, clip = AutoencoderKLWan(**sizes).eval(), ClipSize(128, 96, 13)
    with Live(vae) as live, torch.no_grad():
        vae.encode(torch.zeros(1, 3, 13, 96, 128))
    shape = shapes_from({**DEFAULT_CONFIGS, "vae": sizes}).vae
    assert 0.9 <= footprint.encode_bytes(shape, clip) / live.peak <= 1.25


def test_tiles_that_wait_on_the_host_give_the_same_picture():
    vae, latents = tiny().vae, torch.randn(1, 16, 3, 20, 28, generator=torch.Generator().manual_seed(1))
    stay, wait = (list(decode(vae, latents, Tiling(12, 6, parked))) for parked in (False, True))
    assert all((one == other).all() for one, other in zip(stay, wait, strict=True))


def test_a_calibration_gives_rates_and_can_be_stopped():
    shapes, steps = read_shapes(TINY), []
    speed = calibrate(shapes, "cpu", "fp32", lambda step, of: steps.append((step, of)))
    assert min(speed.matmul, speed.attention, speed.single, speed.convolution, speed.widen) > 0
    assert speed.copy is None
    assert steps == [(i, 5) for i in range(5)]
    assert calibrate(shapes, "cpu", "fp32", stop=lambda: True) is None
