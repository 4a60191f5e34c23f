"""Loading a checkpoint's components: which, how far, how long; and what is wrong with a file that cannot be."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.a2.adapters import Adapters, adapters_of, check_loras, refit
from engine.a2.checkpoint import BLOCKS, Checkpoint
from engine.a2.compute import Compute, quiet
from engine.a2.files import COMPONENTS, read_checkpoint
from engine.a2.geometry import CONDITION_CHANNELS, LATENT_CHANNELS
from engine.a2.plan.shapes import shapes_from
from engine.errors import EngineUnavailable, StopCheck, Stopped
from engine.memory.cache import cache_folder
from engine.memory.loading import Quantisation, load_plain, load_quantised
from engine.memory.shortage import is_shortage
from engine.memory.weights import ComponentFiles, check_shapes, missing_tensors
from engine.scene.engine import Lora

if TYPE_CHECKING:
    import torch

_ALIGNMENT = 64  # bytes; PyTorch's own allocator on a processor
_MOSTLY = 0.05  # of a component's bytes: so few may be in memory where the others are views of a file

OnLoad = Callable[[int, int, str], None]  # step, of, the component's name


def open_checkpoint(
    folder: Path, compute: Compute, loras: Sequence[Lora] = (), cache: Path | None = None
) -> Checkpoint:
    """Open a diffusers folder and load what is small: no component yet. `cache` is where quantised weights are kept,
    None for the usual folder.

    Raises EngineUnavailable, which names the file that is missing, cut off or of another model.
    """
    weights = read_checkpoint(folder)
    check_loras(loras, weights["transformer"])  # a wrong file should be told of before the minutes of loading
    for name in COMPONENTS:
        _check_config(name, weights[name].config)
    kinds, small = _kinds(), {}
    for name in ("tokenizer", "image_processor"):
        with _naming(name), quiet():
            small[name] = kinds[name].from_pretrained(folder / name, local_files_only=True)
    shapes = shapes_from({name: part.config for name, part in weights.items()})
    return Checkpoint(folder, compute, **small, shapes=shapes, files=weights, cache=cache)


def load_checkpoint(
    folder: Path,
    compute: Compute,
    on_load: OnLoad | None = None,
    stop: StopCheck | None = None,
    loras: Sequence[Lora] = (),
    cache: Path | None = None,
) -> Checkpoint:
    """Open a diffusers folder and load all of it to where it is computed. `on_load` is called before each component,
    now and then while one is quantised, and once at the end. `loras` change the transformer.

    Raises Stopped, or EngineUnavailable, which names the file that is missing, cut off or of another model.
    """
    checkpoint = open_checkpoint(folder, compute, loras, cache)
    for name in COMPONENTS:
        load_component(checkpoint, name, compute.device, on_load, stop)
        align(checkpoint, name)
    use_loras(checkpoint, adapters_of(loras))
    if on_load is not None:
        on_load(len(COMPONENTS), len(COMPONENTS), "")
    return checkpoint


def load_component(
    checkpoint: Checkpoint, name: str, device: torch.device, on_load: OnLoad | None = None,
    stop: StopCheck | None = None,
) -> None:  # fmt: skip
    """Load a component to a device. On the host, weights that are stored as they are computed with stay in the mapped
    file. Raises what `load_checkpoint` raises."""
    import torch

    if stop is not None and stop():
        raise Stopped
    step, compute = COMPONENTS.index(name), checkpoint.compute
    if on_load is not None:
        on_load(step, len(COMPONENTS), name)
    weights, kind = checkpoint.files[name], _kinds()[name]
    with _naming(name):
        hollow = _hollow(kind, weights)
        if name not in BLOCKS:
            dtype = checkpoint.vae_dtype if name == "vae" and checkpoint.vae_dtype is not None else torch.float32
            setattr(checkpoint, name, _load(kind, weights, dtype).to(device))
            return
        if compute.quantised:
            folder = checkpoint.cache or cache_folder()
            how = Quantisation(
                compute.quantised, BLOCKS[name], compute.dtype, device, folder, checkpoint.trusted
            )  # fmt: skip
            loaded = load_quantised(hollow, weights, how, _in_percent(on_load, step, name), stop)
        else:
            loaded = load_plain(hollow, weights, compute.dtype, device if not _is_lent() else torch.device("cpu"), stop)
            hollow.to(device)
    setattr(checkpoint, name, hollow.eval().requires_grad_(False))
    checkpoint.notices = tuple(dict.fromkeys((*checkpoint.notices, *loaded.notices)))
    if device.type == "cpu" and loaded.in_memory < _MOSTLY * weights.bytes:
        checkpoint.mapped.add(name)


def _is_lent() -> bool:
    """Return whether the card is a Space's, which is not there yet while the model is loaded: such a Space moves whole
    modules to it when it comes, and not their tensors one by one."""
    return "spaces" in sys.modules


def align(checkpoint: Checkpoint, name: str) -> None:
    """Copy weights that lie at unaligned addresses of a mapped file, where the processor computes with them: its matrix
    product rounds differently there, and streamed blocks, which lie aligned, would not give the same numbers."""
    for parameter in getattr(checkpoint, name).parameters():
        plain = not hasattr(parameter, "_scale")  # quantised ones are computed with as aligned copies
        if plain and parameter.device.type == "cpu" and parameter.data_ptr() % _ALIGNMENT:
            parameter.data = parameter.data.clone()
    if not checkpoint.compute.quantised:
        checkpoint.mapped.discard(name)


def use_loras(checkpoint: Checkpoint, adapters: Adapters, beside: bool = False) -> None:
    """Let exactly these LoRAs change the transformer, which must not stream now, in place of others. `beside`: they
    compute beside the weights, which stay as they are. Raises EngineUnavailable, which names the file."""
    if checkpoint.fused.is_as(adapters, bool(checkpoint.compute.quantised or beside)):
        return
    how = checkpoint.compute.quantised or beside
    checkpoint.fused = refit(checkpoint.transformer, checkpoint.files["transformer"], checkpoint.fused, adapters, how)


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
