"""A transformer in one file with Wan's own names (`blocks.0.self_attn.q.weight`), as RefAlign, Phantom and others give
theirs: its configuration from its tensors' shapes, and its tensors under the names that diffusers uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import EngineUnavailable
from engine.memory.weights import ComponentFiles

_PREFIX = "model.diffusion_model."  # under which some programs keep them
_HEAD = 128  # numbers: of an attention head in every model that Wan has released
_PATCH = 4  # latent pixels of a token

Shapes = Mapping[str, tuple[int, ...]]


def is_wan(names: Mapping[str, object]) -> bool:
    """Return whether tensors have Wan's own names."""
    return any(name.removeprefix(_PREFIX) == "head.modulation" for name in names)


def config_of(shapes: Shapes, said: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """Compute diffusers' configuration from a transformer's tensors by Wan's names. `said` is the config.json that lies
    beside it, {} where there is none: how many heads there are does not show in the shapes. Raises EngineUnavailable
    where it is no transformer of Wan's."""
    bare = {name.removeprefix(_PREFIX): shape for name, shape in shapes.items()}
    try:
        dim, channels = bare["patch_embedding.weight"][:2]
        ffn = bare["blocks.0.ffn.0.weight"][0]
        text, freq = bare["text_embedding.0.weight"][1], bare["time_embedding.0.weight"][1]
        out = bare["head.head.weight"][0] // _PATCH
    except (KeyError, IndexError, ValueError):
        raise EngineUnavailable(
            f"{place.name} is no transformer of Wan's", "Choose the .safetensors file with the model's weights."
        ) from None
    layers = 1 + max(int(name.split(".")[1]) for name in bare if name.startswith("blocks."))
    pictures = bare.get("img_emb.proj.0.weight", (None,))[0]
    heads = said.get("num_heads")
    heads = heads if type(heads) is int and heads > 0 and dim % heads == 0 else max(2, dim // _HEAD)
    return {
        "num_attention_heads": heads, "attention_head_dim": dim // heads, "num_layers": layers, "ffn_dim": ffn,
        "text_dim": text, "freq_dim": freq, "in_channels": channels, "out_channels": out, "image_dim": pictures,
        "added_kv_proj_dim": dim if pictures else None, "cross_attn_norm": "blocks.0.norm3.weight" in bare,
        "qk_norm": "rms_norm_across_heads", "patch_size": [1, 2, 2], "eps": 1e-6,
    }  # fmt: skip


def renamed(weights: ComponentFiles) -> ComponentFiles:
    """Return the files with their tensors under diffusers' names, which its own converter knows; those that have them
    already as they are. Imports the library."""
    if not is_wan(weights.tensors):
        return weights
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    names: dict[str, str] = convert_wan_transformer_to_diffusers({name: name for name in weights.tensors})
    return replace(weights, tensors={new: weights.tensors[old] for new, old in names.items()}, names=names)
