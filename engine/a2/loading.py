"""Loading a checkpoint's components: which, how far, how long; and what is wrong with a file that cannot be."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.a2.adapters import Fused, check_loras, identity, read_loras, refit
from engine.a2.checkpoint import BLOCKS, Checkpoint
from engine.a2.compute import Compute, quiet
from engine.a2.files import COMPONENTS, read_checkpoint
from engine.a2.geometry import CONDITION_CHANNELS, LATENT_CHANNELS
from engine.a2.streaming import STREAMED, open_streams
from engine.errors import EngineUnavailable, StopCheck, Stopped
from engine.memory.cache import cache_folder
from engine.memory.loading import Alter, Quantisation, load_quantised
from engine.memory.shortage import is_shortage
from engine.memory.weights import ComponentFiles, check_shapes, missing_tensors
from engine.scene.engine import Lora

if TYPE_CHECKING:
    import torch

_ALIGNMENT = 64  # bytes; PyTorch's own allocator on a processor

OnLoad = Callable[[int, int, str], None]  # step, of, the component's name


def load_checkpoint(
    folder: Path,
    compute: Compute,
    on_load: OnLoad | None = None,
    stop: StopCheck | None = None,
    loras: Sequence[Lora] = (),
    cache: Path | None = None,
) -> Checkpoint:
    """Load a diffusers folder. `on_load` is called before each component, now and then while one is quantised, and once
    at the end. `loras` are fused into the transformer's weights while they are still floats. `cache` is where quantised
    weights are kept, None for the usual folder; those with LoRAs are not kept: there would be 15 GB for each mixture.

    Raises Stopped, or EngineUnavailable, which names the file that is missing, cut off or of another model.
    """
    import torch

    weights = read_checkpoint(folder)
    check_loras(loras, weights["transformer"])  # a wrong file should be told of before the minutes of loading
    kinds = _kinds()
    parts: dict[str, Any] = {}
    notices: list[str] = []
    fused = Fused()
    for step, name in enumerate(COMPONENTS):
        if stop is not None and stop():
            raise Stopped
        if on_load is not None:
            on_load(step, len(COMPONENTS), name)
        _check_config(name, weights[name].config)
        with _naming(name):
            hollow, home = _hollow(kinds[name], weights[name]), compute.home
            if compute.quantised and name in BLOCKS:
                fused, alter = _fusing(loras, weights[name]) if name == "transformer" else (fused, None)
                how = Quantisation(compute.quantised, BLOCKS[name], compute.dtype, home, cache or cache_folder(), alter)
                notices += load_quantised(hollow, weights[name], how, _in_percent(on_load, step, name), stop)
                parts[name] = hollow.eval().requires_grad_(False)
            else:
                dtype = torch.float32 if name in ("vae", "image_encoder") else compute.dtype
                parts[name] = _load(kinds[name], weights[name], dtype).to(home)
                if compute.device.type == "cpu" and not (compute.offload == "blocks" and name in STREAMED):
                    _align(parts[name])
    with _naming("tokenizer"), quiet():
        parts["tokenizer"] = kinds["tokenizer"].from_pretrained(folder / "tokenizer", local_files_only=True)
    with _naming("image_processor"), quiet():
        parts["image_processor"] = kinds["image_processor"].from_pretrained(
            folder / "image_processor", local_files_only=True
        )
    checkpoint = Checkpoint(folder, compute, **parts, notices=tuple(notices), fused=fused)
    use_loras(checkpoint, loras)
    checkpoint.streams = open_streams(parts, compute, stop)
    if on_load is not None:
        on_load(len(COMPONENTS), len(COMPONENTS), "")
    return checkpoint


def use_loras(checkpoint: Checkpoint, loras: Sequence[Lora]) -> None:
    """Fuse exactly these into the transformer's weights, in place of others. Raises ValueError where the weights are
    quantised (other LoRAs mean loading anew), and EngineUnavailable, which names the file."""
    if checkpoint.fused.loras == identity(loras):
        return
    if checkpoint.compute.quantised:
        raise ValueError("this checkpoint was quantised with other LoRAs")
    weights, slabs = read_checkpoint(checkpoint.folder)["transformer"], checkpoint.streams.get("transformer")
    with slabs.changing() if slabs is not None else contextlib.nullcontext():
        checkpoint.fused = refit(checkpoint.transformer, weights, checkpoint.fused, loras)


def _fusing(loras: Sequence[Lora], weights: ComponentFiles) -> tuple[Fused, Alter | None]:
    """Return what the LoRAs will have done, and the function that does it to every tensor that is read; None where
    there are no LoRAs."""
    if not identity(loras):
        return Fused(), None
    changes = read_loras(loras, {name: shape for name, (shape, _) in weights.tensors.items()})
    return Fused(identity(loras), tuple(changes.names), tuple(changes.left_out)), changes.fused


def _kinds() -> dict[str, Any]:
    """Return the class of each component. The image processor is the one that resizes with Pillow, as the authors' did:
    the other one needs torchvision and gives other numbers."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import AutoTokenizer, CLIPVisionModel, UMT5EncoderModel

    try:
        processor = importlib.import_module("transformers.models.clip.image_processing_pil_clip").CLIPImageProcessorPil
    except ImportError:  # before transformers 5 it was the plain one
        processor = importlib.import_module("transformers").CLIPImageProcessor
    return {
        "tokenizer": AutoTokenizer,
        "text_encoder": UMT5EncoderModel,
        "image_processor": processor,
        "image_encoder": CLIPVisionModel,
        "vae": AutoencoderKLWan,
        "transformer": WanTransformer3DModel,
    }


def _check_config(component: str, config: dict[str, Any]) -> None:
    """Refuse a model of another kind before its gigabytes are read. Raises EngineUnavailable."""
    channels, wanted = config.get("in_channels"), LATENT_CHANNELS + CONDITION_CHANNELS
    if component == "transformer" and (channels != wanted or config.get("image_dim") is None):
        raise EngineUnavailable(
            f"transformer/config.json is not SkyReels-A2's: it takes {channels} channels, not {wanted}"
            if channels != wanted
            else "transformer/config.json is not SkyReels-A2's: it takes no reference pictures",
            "Choose a SkyReels-A2 checkpoint.",
        )
    if component == "vae" and config.get("z_dim") != LATENT_CHANNELS:
        raise EngineUnavailable("vae/config.json is not Wan2.1's", "Choose a SkyReels-A2 checkpoint.")


def _in_percent(on_load: OnLoad | None, step: int, name: str) -> Callable[[float], None]:
    told = 0

    def on_share(share: float) -> None:
        nonlocal told
        if on_load is not None and int(100 * share) > told:
            told = int(100 * share)
            on_load(step, len(COMPONENTS), f"{name}, {told} %")

    return on_share


def _hollow(kind: Any, weights: ComponentFiles) -> Any:
    """Build the module without its weights, on the meta device. Raises EngineUnavailable where the files' tensors do
    not fit into it."""
    from accelerate import init_empty_weights

    of_diffusers = hasattr(kind, "load_config")
    with init_empty_weights():
        config = kind.load_config(weights.folder) if of_diffusers else kind.config_class.from_dict(weights.config)
        hollow = kind.from_config(config) if of_diffusers else kind(config)
    if not of_diffusers:
        hollow.tie_weights()  # without data they were made one by one, not tied
    check_shapes(weights, {name: tuple(tensor.shape) for name, tensor in hollow.state_dict().items()})
    return hollow


def _load(kind: Any, weights: ComponentFiles, dtype: torch.dtype) -> Any:
    of_diffusers = hasattr(kind, "load_config")
    with quiet():
        how = {"torch_dtype" if of_diffusers else "dtype": dtype, "local_files_only": True, "use_safetensors": True}
        module, report = kind.from_pretrained(weights.folder, output_loading_info=True, **how)
    if report["missing_keys"]:
        raise missing_tensors(weights, sorted(report["missing_keys"]))
    return module.eval().requires_grad_(False)


def _align(module: Any) -> None:
    """Copy parameters that lie at unaligned addresses of a memory-mapped file: a processor's matrix product rounds
    differently there, and streamed blocks, which lie aligned, would not give the same numbers."""
    for parameter in module.parameters():
        if parameter.data_ptr() % _ALIGNMENT:
            parameter.data = parameter.data.clone()


@contextlib.contextmanager
def _naming(component: str) -> Iterator[None]:
    """Raise what the libraries raise about a checkpoint as an EngineUnavailable of one line with the component's name;
    memory that ran out passes through."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        if is_shortage(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise EngineUnavailable(
            f"the model's {component} cannot be loaded ({reason})", f"Download or copy the folder {component} again."
        ) from error
