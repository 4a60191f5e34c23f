"""Prompt and canvases to tensors: everything that the transformer is told, and the noise that it starts from."""

from __future__ import annotations

import contextlib
import hashlib
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.a2.checkpoint import Checkpoint
from engine.a2.geometry import ENCODED_IN_TILES_ABOVE, FRAMES_A_LATENT, MASK_CHANNELS, TEXT_TOKENS, latent_shape
from engine.a2.models import ModelSpec
from engine.a2.phases import PlannedPhase
from engine.a2.plan.course import Component
from engine.a2.plan.footprint import KEPT, KEPT_REFERENCES
from engine.a2.preview import fit_colours
from engine.a2.references import Canvas
from engine.a2.stopping import stopping
from engine.errors import StopCheck, Stopped
from engine.scene.scene import Scene, Video

if TYPE_CHECKING:
    import torch
    from PIL import Image

Turn = Callable[[PlannedPhase, Component], contextlib.AbstractContextManager[None]]


def _stays(_phase: PlannedPhase, _name: Component) -> contextlib.AbstractContextManager[None]:
    """Bring nothing: all components are where they compute."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Conditioning:
    """What one run starts from; float32 on the CPU. T = (frames - 1) / 4 + 1 latent frames of h = H/8 by w = W/8.

    noise            (1, 16, T, h, w)
    condition        (1, 20, T, h, w), SkyReels-A2's: 4 of mask (one where references are), 16 of normalised latents
    image_embeds     (1, references x tokens, dim), the same's: penultimate hidden states of the image encoder
    references       (1, 16, R, h, w), the others': normalised latents that stand behind the video's
    prompt_embeds    (1, 512, dim), zero after the prompt's last token
    negative_embeds  the same, or None where there is no guidance
    colours          (17, 3): latent channels and a one -> RGB in [-1, 1], for previews
    generator        the state of the random numbers after all of this
    """

    noise: torch.Tensor
    condition: torch.Tensor | None
    image_embeds: torch.Tensor | None
    prompt_embeds: torch.Tensor
    negative_embeds: torch.Tensor | None
    colours: torch.Tensor
    generator: torch.Tensor
    references: torch.Tensor | None = None


def condition(
    checkpoint: Checkpoint,
    scene: Scene,
    canvases: Sequence[Canvas],
    on_step: Callable[[int, int, str], None] | None = None,
    stop: StopCheck | None = None,
    tiled: bool = False,
    turn: Turn = _stays,
) -> Conditioning:
    """Encode the canvases and the prompt. `on_step` gets (step, of, what) before each part. `tiled`: the VAE
    encodes in tiles whatever the frame's size. `turn` brings a component for what is computed with it; none is brought
    for a prompt or a cast that was encoded before. Raises Stopped between the layers."""
    import torch

    def begin(step: int, what: str) -> None:
        if stop is not None and stop():
            raise Stopped
        if on_step is not None:
            on_step(step, 3, what)

    guided = scene.sampling.guidance > 1
    with torch.no_grad():
        # One generator for both: the noise is its first draw, the posterior's sample the second.
        generator = torch.Generator("cpu").manual_seed(scene.sampling.seed)
        noise = torch.randn(latent_shape(scene.video), generator=generator, dtype=torch.float32)
        begin(0, "prompt")
        prompts = [scene.prompt, scene.negative_prompt] if guided else [scene.prompt]
        texts = [checkpoint.texts.get(clean(prompt)) for prompt in prompts]
        if any(text is None for text in texts):
            with turn("prompt", "text_encoder"), _stopping(checkpoint, "text_encoder", stop):
                texts = [encode_text(checkpoint, prompt) for prompt in prompts]
        begin(1, "references")
        image_embeds = _semantic(checkpoint, canvases, turn, stop) if checkpoint.spec.in_channels else None
        begin(2, "references")
        pictures = [canvas.spatial for canvas in canvases]
        posterior = _posterior(checkpoint, pictures, scene.video, tiled, turn, stop)
        spatial = references = None
        if checkpoint.spec.in_channels:
            spatial = sample_spatial(posterior, len(canvases), generator)
            seen = spatial[0, MASK_CHANNELS:]
        else:
            references = sample_references(posterior, checkpoint.spec, generator)
            seen = references[0]
        colours = fit_colours(seen[:, : len(canvases)], pictures)
    prompt, negative = [*texts, None][:2]
    assert prompt is not None
    return Conditioning(noise, spatial, image_embeds, prompt, negative, colours, generator.get_state(), references)


def _semantic(checkpoint: Checkpoint, canvases: Sequence[Canvas], turn: Turn, stop: StopCheck | None) -> torch.Tensor:
    """Return what the image encoder makes of a cast, from the cache where it was encoded before."""
    cast = _digest(canvases)
    if cast not in checkpoint.pictures:
        with turn("references", "image_encoder"), _stopping(checkpoint, "image_encoder", stop):
            remember(checkpoint.pictures, cast, encode_semantic(checkpoint, [each.semantic for each in canvases]))
    return checkpoint.pictures[cast]


def _stopping(
    checkpoint: Checkpoint, name: Component, stop: StopCheck | None
) -> contextlib.AbstractContextManager[None]:
    """Let a component be stopped between its layers; the VAE between the pieces that it encodes: four frames each."""
    component = getattr(checkpoint, name)
    if name == "vae":
        layers = [component.encoder]
    elif name == "text_encoder":
        layers = list(component.encoder.block)
    else:
        layers = list((getattr(component, "vision_model", None) or component).encoder.layers)
    return stopping(layers, stop, checkpoint.compute.device)


def remember(kept: dict[str, Any], key: str, value: Any, most: int = KEPT) -> None:
    """Keep what was encoded, newest last; the oldest goes."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > most:
        del kept[next(iter(kept))]


def _digest(canvases: Sequence[Canvas]) -> str:
    digest = hashlib.sha256()
    for canvas in canvases:
        digest.update(canvas.semantic.tobytes())
    return digest.hexdigest()


def _posterior(
    checkpoint: Checkpoint, pictures: Sequence[Image.Image], video: Video, tiled: bool, turn: Turn,
    stop: StopCheck | None,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Return what `encode_spatial` or `encode_references` returns, from what was encoded before where it was. No seed
    is in it."""
    how = video.width, video.height, video.frames, tiled, checkpoint.vae_dtype
    digest = hashlib.sha256(str(how).encode())
    for picture in pictures:
        digest.update(picture.tobytes())
    if (key := digest.hexdigest()) not in checkpoint.encoded:
        with turn("references", "vae"), _stopping(checkpoint, "vae", stop):
            if checkpoint.spec.in_channels:
                posterior = encode_spatial(checkpoint, pictures, video, tiled)
            else:
                posterior = encode_references(checkpoint, pictures, tiled)
            remember(checkpoint.encoded, key, posterior, KEPT_REFERENCES)
    return checkpoint.encoded[key]


# ---------------------------------------------------------------------------
# Text


def encode_text(checkpoint: Checkpoint, prompt: str) -> torch.Tensor:
    """Encode a prompt to UMT5's last hidden states, (1, 512, dim) float32; zero where the prompt has ended. Cached by
    prompt."""
    import torch

    text = clean(prompt)
    if text in checkpoint.texts:
        checkpoint.texts[text] = checkpoint.texts.pop(text)  # the newest last
        return checkpoint.texts[text]
    tokens = checkpoint.tokenizer(
        [text],
        padding="max_length",
        max_length=TEXT_TOKENS,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    device, mask = checkpoint.compute.device, tokens.attention_mask
    encoder, table = checkpoint.text_encoder, checkpoint.text_encoder.get_input_embeddings()
    words = table(tokens.input_ids.to(table.weight.device)).to(device)  # the table may be on the host
    read = encoder(inputs_embeds=words, attention_mask=mask.to(device)).last_hidden_state
    states: torch.Tensor = read.float().cpu() * mask.to(torch.float32)[..., None]
    remember(checkpoint.texts, text, states)
    return states


def clean(prompt: str) -> str:
    """Normalise the prompt to what the text encoder was trained to read: broken encodings mended, HTML entities
    resolved, one space between words."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


def too_long(checkpoint: Checkpoint, prompt: str) -> bool:
    """Return whether the end of the prompt is beyond what the text encoder reads."""
    return len(checkpoint.tokenizer(clean(prompt)).input_ids) > TEXT_TOKENS


# ---------------------------------------------------------------------------
# References


def encode_semantic(checkpoint: Checkpoint, pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Encode all pictures to CLIP's penultimate hidden states, joined along the token axis: (1, n x tokens, dim)."""
    pixels = checkpoint.image_processor(images=list(pictures), return_tensors="pt").pixel_values
    pixels = pixels.to(checkpoint.compute.device, checkpoint.image_encoder.dtype)
    states: torch.Tensor = checkpoint.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]
    return states.float().cpu().flatten(0, 1)[None]


def encode_spatial(
    checkpoint: Checkpoint, pictures: Sequence[Image.Image], video: Video, tiled: bool = False
) -> tuple[torch.Tensor, ...]:
    """Encode the pictures as the first frames of a video that is zero after them, to the VAE's posterior: mean and
    deviation, (1, 16, T, h, w) each, and the statistics that normalise it; float32 on the CPU.

    They are put one after another in pixel space, before the VAE: the first fills the frame that has a latent of its
    own, every later one the four frames of the next latent.
    """
    import torch

    clip = torch.zeros(1, 3, video.frames, video.height, video.width)
    for index, picture in enumerate(pictures):
        first = FRAMES_A_LATENT * (index - 1) + 1 if index else 0
        clip[0, :, first : FRAMES_A_LATENT * index + 1] = to_pixels(picture)[:, None]
    return *_encoded(checkpoint, clip, tiled), *latent_statistics(checkpoint.vae)


def sample_spatial(posterior: tuple[torch.Tensor, ...], count: int, generator: torch.Generator) -> torch.Tensor:
    """Sample what `encode_spatial` returned for `count` pictures to the condition, (1, 20, T, h, w); not its mode is
    taken. The pictures need not be encoded again for another seed."""
    import torch

    centre, deviation, mean, std = posterior
    latents = _drawn(centre, deviation, generator)
    mask = torch.zeros(1, MASK_CHANNELS, *latents.shape[2:])
    mask[:, :, :count] = 1
    return torch.cat([mask, (latents - mean) / std], dim=1)


def encode_references(
    checkpoint: Checkpoint, pictures: Sequence[Image.Image], tiled: bool = False
) -> tuple[torch.Tensor, ...]:
    """Encode each picture as a frame of its own, to the VAE's posterior: mean and deviation, (1, 16, n, h, w) each, and
    the statistics that normalise it; float32 on the CPU."""
    import torch

    found = [_encoded(checkpoint, to_pixels(picture)[None, :, None], tiled) for picture in pictures]
    means, deviations = zip(*found, strict=True)
    return torch.cat(means, dim=2), torch.cat(deviations, dim=2), *latent_statistics(checkpoint.vae)


def sample_references(posterior: tuple[torch.Tensor, ...], spec: ModelSpec, generator: torch.Generator) -> torch.Tensor:
    """Sample what `encode_references` returned, picture by picture, or take its mode, as the family does: (1, 16, R, h,
    w), normalised; frames of zeros fill up to as many as the model was trained with."""
    import torch

    centre, deviation, mean, std = posterior
    found = []
    for index in range(centre.shape[2]):
        latents = centre[:, :, index : index + 1]
        if spec.sampled:
            latents = _drawn(latents, deviation[:, :, index : index + 1], generator)
        found.append((latents - mean) / std)
    found += [torch.zeros_like(found[0])] * (spec.tail(len(found)) - len(found))
    return torch.cat(found, dim=2)


def _encoded(checkpoint: Checkpoint, clip: torch.Tensor, tiled: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode a clip, (1, 3, F, H, W) in [-1, 1], to the posterior's mean and deviation, (1, 16, T, h, w) float32 on the
    CPU; in tiles where it is `tiled`, or its frames are large."""
    vae = checkpoint.vae
    was_tiling, vae.use_tiling = vae.use_tiling, tiled or clip[0, 0, 0].numel() > ENCODED_IN_TILES_ABOVE
    try:
        posterior = vae.encode(clip.to(checkpoint.compute.device, vae.dtype)).latent_dist
    finally:
        vae.use_tiling = was_tiling
    mean = posterior.mean.float().cpu().clone()  # it is a view, and would keep the deviation's logarithm, too
    return mean, posterior.std.float().cpu()


def _drawn(mean: torch.Tensor, deviation: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a sample of the posterior."""
    import torch

    return mean + deviation * torch.randn(mean.shape, generator=generator, dtype=torch.float32)


def to_pixels(picture: Image.Image) -> torch.Tensor:
    """Convert a picture to (3, H, W) in [-1, 1]."""
    import numpy as np
    import torch

    return 2 * (torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255) - 1


def latent_statistics(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the VAE's mean and standard deviation, (1, 16, 1, 1, 1) each: latents are normalised with them."""
    import torch

    mean, deviation = (
        torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, deviation
