"""A card that nobody has here: the engine runs on `cuda:0` with tensors that have shapes, types and devices, and no
data.

`FakeTensorMode` of PyTorch, and the few things around it: PyTorch's build for processors has no guard for CUDA devices,
so it gets the one of "meta", which does nothing; what asks a tensor for its numbers gets some; what is fused on a card
is not taken apart. `Card` counts the bytes that are alive on the card and on the host, by the phase of the ledger.

It does not see missing kernels, races or time. Not a test file: it is imported after torch is known to be there.
"""

from __future__ import annotations

import contextlib
import ctypes
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanEncoder3d
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from transformers.models.umt5.modeling_umt5 import UMT5Block

from engine.a2 import chunking, moving, recipe, sampling
from engine.a2.checkpoint import BLOCKS, Checkpoint
from engine.a2.compute import Compute
from engine.a2.geometry import ClipSize
from engine.a2.models import SKYREELS_A2, ReleasedModel
from engine.a2.options import A2Options
from engine.a2.plan.shapes import DEFAULT_CONFIGS, shapes_from
from engine.memory import slabs
from engine.memory.copies import PlainCopies
from engine.memory.ledger import Held, Ledger
from engine.memory.loading import _stays_float32
from engine.memory.quantize import as_weight, quantised_weights, stored_type
from engine.memory.weights import ComponentFiles
from engine.scene.scene import Sampling
from tests.peak import FusedAttention, Live
from tests.tiny import TRIO, a_scene, members_of

CARD, HOST = torch.device("cuda", 0), torch.device("cpu")
_CPU, _CUDA, _META = 0, 1, 14  # c10::DeviceType
_GUARDS = "_ZN3c104impl26device_guard_impl_registryE"


def lend_a_guard() -> str:
    """Let this build of PyTorch accept tensors on "cuda:0"; return why that cannot be done, empty where it can."""
    if torch.version.cuda is not None:
        return ""
    library = Path(torch.__file__).parent / "lib" / "libc10.so"
    if not library.exists():
        return "only on Linux is it known where PyTorch keeps its device guards"
    try:
        guards = (ctypes.c_void_p * 20).in_dll(ctypes.CDLL(str(library)), _GUARDS)
    except ValueError:
        return "this PyTorch keeps its device guards elsewhere"
    guards[_CUDA] = guards[_META] or guards[_CPU]
    return ""


class Card(Live):
    """Counts what is alive on the card and on the host. `peaks`: by phase, the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: Counter[str] = Counter()
        self.peaks: dict[str, Counter[str]] = {}
        self._phase = ""

    def begin(self, phase: str) -> None:
        self._phase = phase
        self._note()

    def peak_of(self, phase: str) -> Held:
        seen = self.peaks.get(phase, Counter())
        return Held(seen["cuda"], seen["cpu"])

    def count(self, device: str, size: int) -> None:
        self.alive[device] += size
        self._note()

    def _see(self, tensor: torch.Tensor) -> None:
        if isinstance(tensor, FakeTensor):
            super()._see(tensor)

    def _note(self) -> None:
        peak = self.peaks.setdefault(self._phase, Counter())
        for device, size in self.alive.items():
            peak[device] = max(peak[device], size)


# ---------------------------------------------------------------------------
# A checkpoint of fake tensors


def configs(layers: int | None = None, model: ReleasedModel = SKYREELS_A2) -> dict[str, dict[str, Any]]:
    """Return the released configurations, with so many layers in transformer and encoders (None: all)."""
    released = {**DEFAULT_CONFIGS, "transformer": model.transformer}
    few = {
        "transformer": ("num_layers",),
        "text_encoder": ("num_layers",),
        "image_encoder": ("num_hidden_layers",),
        "vae": (),
    }
    return {name: {**released[name], **(dict.fromkeys(keys, layers) if layers else {})} for name, keys in few.items()}


def fake_checkpoint(compute: Compute, layers: int | None = None, model: ReleasedModel = SKYREELS_A2) -> Checkpoint:
    """Return a checkpoint of the released sizes, nothing of which is loaded."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    def tokenize(_text: object, **_: object) -> types.SimpleNamespace:
        ids = torch.ones(1, 512, dtype=torch.long)
        return types.SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids))

    shapes = shapes_from(configs(layers, model), spec=model.spec)
    return Checkpoint(Path("nowhere"), compute, tokenize, CLIPImageProcessorPil(), shapes, model.spec, files_of())


def files_of() -> dict[str, ComponentFiles]:
    """Return the files of a fake checkpoint: none, unless a test says otherwise."""
    return {}


def load_fake(layers: int | None, card: Card, model: ReleasedModel) -> Any:
    """Return what stands for `load_component`: modules of the released sizes, with tensors that have no data. Those of
    a mapped file are made outside of what the card counts, as they take no memory of their own."""

    def load(checkpoint: Checkpoint, name: str, device: torch.device, on_load: Any = None, stop: Any = None) -> None:
        mapped = device == HOST and name in BLOCKS
        with _disable_current_modes():
            module = hollow_module(name, configs(layers, model)[name]).eval().requires_grad_(False)
            if mapped:
                with MODE:
                    _fill(module, name, checkpoint, device)
                card.overlook(module)
        if not mapped:
            _fill(module, name, checkpoint, device)
        setattr(checkpoint, name, module)
        if mapped:
            checkpoint.mapped.add(name)

    return load


MODE = FakeTensorMode(allow_non_fake_inputs=True)


def hollow_module(name: str, config: dict[str, Any]) -> torch.nn.Module:
    """Build a module without data."""
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    with init_empty_weights():
        if name == "transformer":
            return WanTransformer3DModel(**config)
        if name == "vae":
            return AutoencoderKLWan(**config)
        if name == "image_encoder":
            return CLIPVisionModel(CLIPVisionConfig(**config))
        encoder = UMT5EncoderModel(UMT5Config(**config, feed_forward_proj="gated-gelu", tie_word_embeddings=False))
    encoder.tie_weights()
    return encoder


def _fill(module: torch.nn.Module, name: str, checkpoint: Checkpoint, device: torch.device) -> None:
    """Give a hollow module tensors of the types that it is loaded with."""
    compute = checkpoint.compute
    quantised = quantised_weights(module, BLOCKS[name]) if name in BLOCKS and compute.quantised else set()
    made: dict[int, torch.nn.Parameter] = {}
    for path, part in module.named_modules():
        for last, parameter in part._parameters.items():
            full = f"{path}.{last}" if path else last
            if parameter is not None and id(parameter) not in made:
                dtype = _type(module, name, full, checkpoint)
                made[id(parameter)] = _weight(parameter, full in quantised, dtype, device, compute)
            if parameter is not None:
                part._parameters[last] = made[id(parameter)]
        for last, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[last] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)


def _type(module: torch.nn.Module, name: str, full: str, checkpoint: Checkpoint) -> torch.dtype:
    if name == "vae":
        return checkpoint.vae_dtype or torch.float32
    return checkpoint.compute.dtype if name in BLOCKS and not _stays_float32(module, full) else torch.float32


def _weight(
    like: torch.Tensor, quantised: bool, dtype: torch.dtype, device: torch.device, compute: Compute
) -> torch.nn.Parameter:
    if not quantised:
        return torch.nn.Parameter(torch.empty(like.shape, dtype=dtype, device=device), requires_grad=False)
    assert compute.quantised is not None
    data = torch.empty(like.shape, dtype=stored_type(compute.quantised), device=device)
    scale = torch.empty((like.shape[0], 1), dtype=compute.dtype, device=device)
    return as_weight(data, scale, compute.quantised)


# ---------------------------------------------------------------------------
# The engine on it


@contextlib.contextmanager
def fake_card(
    patch: Any, layers: int | None = None, card: int | None = None, model: ReleasedModel = SKYREELS_A2
) -> Iterator[Card]:
    """Let the engine compute on a card of `card` bytes that is not there, until exit; `patch` is a MonkeyPatch."""
    seen = Card()
    numbers = {torch.uint8: np.uint8}
    for name, answer in {
        "__float__": lambda _: 500.0, "__bool__": lambda _: True, "item": lambda _: 0,
        "numpy": lambda t, *_, **__: np.zeros(tuple(t.shape), numbers.get(t.dtype, np.float32)),
        "tolist": lambda t: np.zeros(tuple(t.shape)).tolist(), "data_ptr": lambda t: 64 * id(t),
    }.items():  # fmt: skip
        patch.setattr(FakeTensor, name, answer, raising=False)
    patch.setattr(torch.nn.Module, "to", _module_to)
    patch.setattr(slabs, "copies_for", PlainCopies)
    patch.setattr(moving, "load_component", load_fake(layers, seen, model))
    patch.setattr(recipe, "claim", lambda _: card)
    make = sampling.make_scheduler

    def make_begun(*how: Any) -> Any:
        scheduler = make(*how)
        scheduler.set_begin_index(0)  # else it would look for the number of the step in data that is not there
        return scheduler

    patch.setattr(sampling, "make_scheduler", make_begun)
    begin = Ledger.begin
    patch.setattr(Ledger, "begin", lambda ledger, phase: (begin(ledger, phase), seen.begin(phase))[0])
    with MODE, FusedAttention(), seen:
        yield seen


def _module_to(module: torch.nn.Module, *args: Any, **how: Any) -> torch.nn.Module:
    """Module.to for modules of fake tensors: the library's own cannot swap them."""
    device = torch.device(how.get("device") or args[0])
    done: dict[int, Any] = {}
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    if id(tensor) not in done:
                        done[id(tensor)] = _moved(tensor, device)
                    table[name] = done[id(tensor)]
    return module


def _moved(tensor: Any, device: torch.device) -> Any:
    moved = tensor.detach().to(device)
    return torch.nn.Parameter(moved, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else moved


# ---------------------------------------------------------------------------
# Clips

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LATENTS = 3  # that are decoded: memory does not grow with a clip's length


def compute_of(options: A2Options) -> Compute:
    """Return how the options compute on a card of today."""
    if options.precision in ("int8", "fp8"):
        return Compute(CARD, torch.bfloat16, options.precision)
    return Compute(CARD, _DTYPES[options.precision or "bf16"])


def clips(
    patch: Any, options: A2Options, clip: ClipSize, layers: int | None = 2, card: int | None = None,
    model: ReleasedModel = SKYREELS_A2,
) -> Card:  # fmt: skip
    """Make two clips one after the other, with other prompts and casts; return what was seen."""
    patch.setattr(recipe, "_identity", lambda _: [])
    with fake_card(patch, layers, card, model) as seen:
        checkpoint = fake_checkpoint(compute_of(options), layers, model)
        for number, cast in enumerate((TRIO[1:], TRIO)):
            latents = _LATENTS if number else 1  # of the first clip: only what stays behind it matters
            scene = a_scene(
                cast, prompt=f"{number}",
                video={"width": clip.width, "height": clip.height, "frames": clip.frames, "trim_head": 0},
                sampling={"steps": clip.steps, "guidance": 5.0 if clip.guided else 1.0, **_image(clip)},
            )  # fmt: skip
            shot = recipe.shoot(scene, members_of(scene), options, loaded=checkpoint)
            for _ in range(4 * latents - 3):
                next(shot.frames)
            shot.frames.close()
            del shot  # its latents: nobody has them any more when the next clip is made
    return seen


def _image(clip: ClipSize) -> dict[str, float]:
    """The guidance of the references with which a step has so many passes."""
    return {"image_guidance": 1.0 if clip.passes == 2 else 5.0} if clip.tail else {}


def clip_of(model: ReleasedModel, *size: int) -> ClipSize:
    """The size of a clip with three pictures, as the model makes it."""
    spec = model.spec
    numbers = Sampling(guidance=spec.guidance, image_guidance=spec.image_guidance)
    return ClipSize(*size, passes=spec.passes(numbers), tail=spec.tail(3), skips_text=spec.skips_text)


def shortened(patch: Any) -> None:
    """Compute only what differs in memory: the first two of a model's blocks, and of each shape the encoder's first
    three pieces. The others are like them."""
    blocks: dict[type, list[object]] = {}

    def first(block: object) -> bool:
        known = blocks.setdefault(type(block), [])
        if block not in known and len(known) < 2:
            known.append(block)
        return block in known

    def only_first(kind: type, name: str, instead: Callable[..., object], of: Callable[..., object]) -> None:
        compute = getattr(kind, name)
        patch.setattr(
            kind, name, lambda it, x, *how, **more: (compute if first(of(it)) else instead)(it, x, *how, **more)
        )

    only_first(WanTransformerBlock, "forward", lambda _, x, *__, **___: x, lambda it: it)
    only_first(chunking._Block, "__call__", lambda _, x, *__, **___: x, lambda it: it.block)
    only_first(UMT5Block, "forward", lambda _, x, *__, **___: x, lambda it: it)
    encode, came = WanEncoder3d.forward, dict[torch.Size, list[torch.Size]]()

    def encoded(encoder: Any, x: torch.Tensor, *how: Any, **more: Any) -> torch.Tensor:
        shapes = came.setdefault(x.shape, [])
        if len(shapes) < 3:
            out = encode(encoder, x, *how, **more)
            shapes.append(out.shape)
            return out
        return x.new_empty(shapes[0])

    patch.setattr(WanEncoder3d, "forward", encoded)
