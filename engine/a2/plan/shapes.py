"""The model's shapes and weights, from its configurations alone: known before it is loaded, or even downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.a2.files import Place, locate, read_checkpoint
from engine.a2.models import A2, SKYREELS_A2, ModelSpec, Part, ReleasedModel, known_release
from engine.errors import EngineUnavailable
from engine.words import shown

# What all of Wan2.1 share, as their config.json say; the image encoder is SkyReels-A2's alone.
SHARED_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "text_encoder": {
        "d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "d_kv": 64, "vocab_size": 256384,
        "relative_attention_num_buckets": 32,
    },
    "image_encoder": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
        "image_size": 224, "patch_size": 14, "hidden_act": "gelu",
    },
    "vae": {
        "base_dim": 96, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "z_dim": 16,
        "temperal_downsample": [False, True, True],
    },
}  # fmt: skip


# Sizes that a model has in any case
_SIZES: Mapping[str, tuple[str, ...]] = {
    "transformer": (
        "num_attention_heads", "attention_head_dim", "num_layers", "ffn_dim", "text_dim", "freq_dim", "in_channels",
        "out_channels",
    ),
    "text_encoder": ("d_model", "d_ff", "num_layers", "num_heads", "d_kv", "vocab_size"),
    "image_encoder": ("hidden_size", "intermediate_size", "num_hidden_layers", "image_size", "patch_size"),
    "vae": ("base_dim", "num_res_blocks", "z_dim"),
}  # fmt: skip
DEFAULT_CONFIGS: Mapping[str, Mapping[str, Any]] = {"transformer": SKYREELS_A2.transformer, **SHARED_CONFIGS}


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters. `linear`: those of the blocks' linear layers, which int8 and fp8 halve; `rows`: these
    layers' outputs, each of which has a scale then; `small`: the rest of the blocks; all three of `blocks` blocks
    together. `outside`: parameters before and after the blocks; `table`: those of them in the token embedding, which
    costs memory but no matmul. `single` of the small ones and `single_outside` of those outside are float32 whatever
    the rest is."""

    linear: int
    rows: int
    small: int
    outside: int
    blocks: int = 1
    table: int = 0
    single: int = 0
    single_outside: int = 0

    @property
    def count(self) -> int:
        return self.linear + self.small + self.outside


@dataclass(frozen=True)
class Transformer:
    layers: int
    dim: int
    heads: int
    ffn: int
    text_dim: int
    image_dim: int  # 0: it reads no pictures beside the text
    channels: int  # in
    weights: ParameterCount


@dataclass(frozen=True)
class TextEncoder:
    layers: int
    dim: int
    ff: int
    heads: int
    weights: ParameterCount


@dataclass(frozen=True)
class ImageEncoder:
    layers: int
    dim: int
    mlp: int
    tokens: int
    gates: bool  # quick GELU: a third copy of the hidden layer
    weights: ParameterCount


@dataclass(frozen=True)
class Vae:
    """`channels` from the finest level to the coarsest; `halves_time[i]`: whether level i packs two frames into one."""

    channels: tuple[int, ...]
    residuals: int
    halves_time: tuple[bool, ...]
    latent: int
    weights: ParameterCount


@dataclass(frozen=True)
class Shapes:
    """A whole checkpoint of the family `spec`; it has no image encoder where that needs none. `numbers` is how its
    transformer is stored, in safetensors' word. `file_bytes` is what its weights take on the disk; None where it is not
    installed."""

    transformer: Transformer
    text: TextEncoder
    image: ImageEncoder | None
    vae: Vae
    file_bytes: int | None = None
    spec: ModelSpec = A2
    numbers: str = "BF16"

    @property
    def picture_tokens(self) -> int:
        """Tokens that the image encoder makes of one picture."""
        return self.image.tokens if self.image is not None else 0

    def weights_of(self, name: Part) -> ParameterCount:
        """Return the parameters of a component; none of one that the family does not have."""
        part = {"text_encoder": self.text, "image_encoder": self.image, "vae": self.vae}.get(name, self.transformer)
        return part.weights if part is not None else ParameterCount(0, 0, 0, 0)


def default_shapes(model: str = SKYREELS_A2.model) -> Shapes:
    """Return the shapes of the release that a name or place says it is, for a machine that does not have it yet;
    SkyReels-A2's where it does not say."""
    return shapes_of(known_release(model) or SKYREELS_A2)


def shapes_of(release: ReleasedModel) -> Shapes:
    """Compute the shapes of a release from what is known of it."""
    return shapes_from({"transformer": release.transformer, **SHARED_CONFIGS}, spec=release.spec)


def read_shapes(place: Place | Path) -> Shapes:
    """Read an installed checkpoint's shapes from its configurations and the files' headers; a folder is SkyReels-A2's.
    Raises EngineUnavailable where it is not whole."""
    place = place if isinstance(place, Place) else locate(str(place))
    found = read_checkpoint(place)
    size = sum(part.bytes for part in found.values())
    configs = {name: part.config for name, part in found.items()}
    return shapes_from(configs, size, place.spec, found["transformer"].numbers)


def shapes_from(
    configs: Mapping[str, Mapping[str, Any]], file_bytes: int | None = None, spec: ModelSpec = A2, numbers: str = "BF16"
) -> Shapes:
    """Compute the shapes from the components' configurations. Raises EngineUnavailable where one of them lacks a size,
    or says what cannot be one."""
    _check_sizes(configs)
    image = _image(configs["image_encoder"]) if spec.in_channels else None
    return Shapes(
        _transformer(configs["transformer"]), _text(configs["text_encoder"]), image, _vae(configs["vae"]), file_bytes,
        spec, numbers,
    )  # fmt: skip


def _check_sizes(configs: Mapping[str, Mapping[str, Any]]) -> None:
    for component, config in configs.items():
        for name in _SIZES.get(component, ()):
            value = config.get(name)
            if type(value) is not int or value < 1:
                said = f"{name} is {shown(value)}" if name in config else f"there is no {name}"
                raise EngineUnavailable(
                    f"{component}/config.json of the model is damaged: {said}, and it should be a whole number above 0",
                    "Take this file and the weights from the same checkpoint.",
                )


def _transformer(config: Mapping[str, Any]) -> Transformer:
    heads, layers, ffn = config["num_attention_heads"], config["num_layers"], config["ffn_dim"]
    dim = heads * config["attention_head_dim"]
    added, text, image = config.get("added_kv_proj_dim") or 0, config["text_dim"], config.get("image_dim") or 0
    further = 2 if added else 0  # the pictures' k, v
    linear = 8 * dim * dim + further * added * dim + 2 * dim * ffn  # q, k, v, out twice; up and down
    rows = (9 + further) * dim + ffn  # 4 + 4 + 2 + 1 outputs of dim
    small = rows + (4 + further // 2) * dim + 2 * dim + 6 * dim  # biases; RMS norms; one layer norm; the modulation
    patch = 4  # 1 x 2 x 2 latent pixels a token
    time = config["freq_dim"] * dim + dim * dim + 6 * dim * dim + 8 * dim
    embed = text * dim + dim * dim + 2 * dim
    embed += image * image + image * dim + 3 * image + 3 * dim if image else 0
    ends = config["in_channels"] * patch * dim + dim + dim * config["out_channels"] * patch
    outside = time + embed + ends + config["out_channels"] * patch + 2 * dim
    single = 6 * dim + 2 * dim  # the modulation and the layer norm
    first = config["freq_dim"] * dim + dim * dim + 2 * dim  # the time's embedding
    first += 2 * image + 2 * dim if image else 0  # two norms
    weights = ParameterCount(
        layers * linear, layers * rows, layers * small, outside, layers,
        single=layers * single, single_outside=first + 2 * dim,
    )  # fmt: skip
    return Transformer(layers, dim, heads, ffn, text, image, config["in_channels"], weights)


def _text(config: Mapping[str, Any]) -> TextEncoder:
    dim, ff, layers, heads = config["d_model"], config["d_ff"], config["num_layers"], config["num_heads"]
    inner = heads * config["d_kv"]
    buckets = config.get("relative_attention_num_buckets", 32)
    linear, rows = 4 * dim * inner + 3 * dim * ff, 3 * inner + 2 * dim + 2 * ff
    table = config["vocab_size"] * dim
    weights = ParameterCount(
        layers * linear, layers * rows, layers * (2 * dim + buckets * heads), table + dim, layers, table
    )
    return TextEncoder(layers, dim, ff, heads, weights)


def _image(config: Mapping[str, Any]) -> ImageEncoder:
    dim, mlp, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    patch = config["patch_size"]
    tokens = (config["image_size"] // patch) ** 2 + 1
    linear, rows = 4 * dim * dim + 2 * dim * mlp, 5 * dim + mlp
    outside = 3 * patch * patch * dim + dim + tokens * dim + 4 * dim
    weights = ParameterCount(layers * linear, layers * rows, layers * (rows + 4 * dim), outside, layers)
    gates = config.get("hidden_act", "quick_gelu") == "quick_gelu"
    return ImageEncoder(layers, dim, mlp, tokens, gates, weights)


def _vae(config: Mapping[str, Any]) -> Vae:
    channels = tuple(config["base_dim"] * factor for factor in config["dim_mult"])
    vae = Vae(
        channels, config["num_res_blocks"], (*config["temperal_downsample"], False), config["z_dim"],
        ParameterCount(0, 0, 0, 0),
    )  # fmt: skip
    return Vae(vae.channels, vae.residuals, vae.halves_time, vae.latent, ParameterCount(0, 0, 0, _vae_weights(vae)))


def _vae_weights(vae: Vae) -> int:
    def conv(inputs: int, outputs: int, size: int) -> int:
        return inputs * outputs * size + outputs

    def residual(inputs: int, outputs: int) -> int:
        shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
        return inputs + conv(inputs, outputs, 27) + outputs + conv(outputs, outputs, 27) + shortcut

    first, last, z = vae.channels[0], vae.channels[-1], vae.latent
    middle = 2 * residual(last, last) + last + conv(last, 3 * last, 1) + conv(last, last, 1)
    total = conv(3, first, 27) + last + conv(last, 2 * z, 27) + conv(2 * z, 2 * z, 1) + middle  # encoder
    total += conv(z, z, 1) + conv(z, last, 27) + middle + first + conv(first, 3, 27)  # decoder
    for level, outputs in enumerate(vae.channels):
        inputs = vae.channels[max(level - 1, 0)]
        total += residual(inputs, outputs) + (vae.residuals - 1) * residual(outputs, outputs)
        if level + 1 < len(vae.channels):
            total += conv(outputs, outputs, 9) + (conv(outputs, outputs, 3) if vae.halves_time[level] else 0)
    for level, inputs, outputs in decoder_levels(vae):
        total += residual(inputs, outputs) + vae.residuals * residual(outputs, outputs)
        if level > 0:
            total += conv(outputs, outputs // 2, 9)
            total += conv(outputs, 2 * outputs, 3) if vae.halves_time[level - 1] else 0
    return total


def decoder_levels(vae: Vae) -> list[tuple[int, int, int]]:
    """List (level, channels in, channels out) of the decoder's blocks in the order of work; level 0 is full size."""
    levels, coming = [], vae.channels[-1]
    for level in reversed(range(len(vae.channels))):
        levels.append((level, coming, vae.channels[level]))
        coming = vae.channels[level] // 2
    return levels
