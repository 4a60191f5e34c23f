"""Loading a checkpoint's components: which, how far, how long; and what is wrong with a file that cannot be."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.a2.adapters import Adapters, adapters_of, check_loras, refit
from engine.a2.checkpoint import BLOCKS, Checkpoint
from engine.a2.compute import Compute, quiet
from engine.a2.files import Place, locate, read_checkpoint
from engine.a2.geometry import LATENT_CHANNELS
from engine.a2.models import ModelSpec
from engine.a2.plan.shapes import shapes_from
from engine.a2.wan_names import renamed
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

_BLOCK = re.compile(r"blocks\.(\d+)\.")

OnLoad = Callable[[int, int, str], None]  # step, of, the component's name


def open_checkpoint(
    place: Place | Path, compute: Compute, loras: Sequence[Lora] = (), cache: Path | None = None
) -> Checkpoint:
    """Open a checkpoint and load what is small: no component yet. A folder is SkyReels-A2's. `cache` is where quantised
    weights are kept, None for the usual folder.

    Raises EngineUnavailable, which names the file that is missing, cut off or of another model.
    """
    place = place if isinstance(place, Place) else locate(str(place))
    spec, weights = place.spec, read_checkpoint(place)
    weights["transformer"] = renamed(weights["transformer"])
    shapes = shapes_from(
        {name: part.config for name, part in weights.items()}, None, spec, weights["transformer"].numbers
    )
    check_loras(loras, weights["transformer"])  # a wrong file should be told of before the minutes of loading
    for name in spec.components:
        _check_config(name, weights[name].config, spec)
    _check_fit(weights)
    small = {name: _small(place, name) for name in ("tokenizer", "image_processor")}
    return Checkpoint(
        place.root, compute, **small, shapes=shapes, spec=spec, files=weights, notices=place.notices, cache=cache
    )


def _small(place: Place, name: str) -> Any:
    """Load the tokenizer or the image processor; None where the family has none."""
    if name not in place.parts:
        return None
    kind, folder = _kinds()[name], place.parts[name]
    if (folder / "tokenizer.json").is_file():
        # As the file says. By the class that a configuration of transformers 4 names, transformers 5 would make it
        # anew from its vocabulary, without its normaliser: wide letters and ligatures would be unknown words.
        kind = importlib.import_module("transformers").PreTrainedTokenizerFast
    with _naming(name), quiet():
        return kind.from_pretrained(folder, local_files_only=True)


def load_checkpoint(
    place: Place | Path,
    compute: Compute,
    on_load: OnLoad | None = None,
    stop: StopCheck | None = None,
    loras: Sequence[Lora] = (),
    cache: Path | None = None,
) -> Checkpoint:
    """Open a checkpoint and load all of it to where it is computed. `on_load` is called before each component,
    now and then while one is quantised, and once at the end. `loras` change the transformer.

    Raises Stopped, or EngineUnavailable, which names the file that is missing, cut off or of another model.
    """
    checkpoint = open_checkpoint(place, compute, loras, cache)
    components = checkpoint.spec.components
    for name in components:
        load_component(checkpoint, name, compute.device, on_load, stop)
        align(checkpoint, name)
    use_loras(checkpoint, adapters_of(loras))
    if on_load is not None:
        on_load(len(components), len(components), "")
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
    components, compute = checkpoint.spec.components, checkpoint.compute
    told = on_load and partial(on_load, components.index(name), len(components))
    if told is not None:
        told(name)
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
                compute.quantised, BLOCKS[name], compute.dtype_of(name), device, folder, checkpoint.trusted
            )  # fmt: skip
            loaded = load_quantised(hollow, weights, how, _in_percent(told, name), stop)
        else:
            there = torch.device("cpu") if _is_lent() else device
            loaded = load_plain(hollow, weights, compute.dtype_of(name), there, stop)
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


def _check_config(component: str, config: dict[str, Any], spec: ModelSpec) -> None:
    """Refuse a model of another kind before its gigabytes are read. Raises EngineUnavailable."""
    channels, pictures = config.get("in_channels"), config.get("image_dim") is not None
    remedy = f"Choose a {spec.title} checkpoint."
    if component == "transformer" and channels != spec.channels:
        raise EngineUnavailable(
            f"the transformer is not {spec.title}'s: it takes {channels} channels, not {spec.channels}", remedy
        )
    if component == "transformer" and pictures != spec.in_channels:
        what = "no reference pictures" if spec.in_channels else "pictures through an image encoder"
        raise EngineUnavailable(f"the transformer is not {spec.title}'s: it takes {what}", remedy)
    if component == "vae" and config.get("z_dim") != LATENT_CHANNELS:
        raise EngineUnavailable("vae/config.json is not Wan2.1's", remedy)


def _check_fit(weights: dict[str, ComponentFiles]) -> None:
    """Raise EngineUnavailable where the transformer has more blocks than its configuration says, which would be left
    out without a word, and where the text encoder is none for it."""
    transformer = weights["transformer"]
    last = max((int(found[1]) for name in transformer.tensors if (found := _BLOCK.match(name))), default=-1)
    layers = transformer.config["num_layers"]
    if last >= layers:
        raise EngineUnavailable(
            f"{transformer.called}/config.json of the model says num_layers is {layers}, and the weights have block "
            f"{last + 1}",
            "Take this file and the weights from the same checkpoint.",
        )
    wanted, given = transformer.config.get("text_dim"), weights["text_encoder"].config.get("d_model")
    if wanted != given:
        raise EngineUnavailable(
            f"the text encoder in {weights['text_encoder'].folder} makes {given} numbers of a word, the transformer "
            f"reads {wanted}",
            "Take both from the same model.",
        )


def _in_percent(on_load: Callable[[str], None] | None, name: str) -> Callable[[float], None]:
    told = 0

    def on_share(share: float) -> None:
        nonlocal told
        if on_load is not None and int(100 * share) > told:
            told = int(100 * share)
            on_load(f"{name}, {told} %")

    return on_share


def _hollow(kind: Any, weights: ComponentFiles) -> Any:
    """Build the module without its weights, on the meta device. Raises EngineUnavailable where the files' tensors do
    not fit into it."""
    from accelerate import init_empty_weights

    of_diffusers = hasattr(kind, "load_config")
    with init_empty_weights():
        config = dict(weights.config) if of_diffusers else kind.config_class.from_dict(weights.config)
        with quiet():  # a class of the authors' own in the configuration is diffusers' by another name
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
