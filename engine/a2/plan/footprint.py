"""How many bytes a stage's tensors take at their peak, besides the weights; from shapes alone.

Each formula counts what is alive when the stage needs most, in the order in which the libraries' code computes
(diffusers' Wan transformer and VAE, transformers' UMT5 and CLIP). Attention is taken to be fused: no matrix of tokens
by tokens. tests/bench/plan.py compares them with what is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engine.a2.geometry import TEXT_TOKENS, ClipSize, Tiling, spans
from engine.a2.plan.shapes import ImageEncoder, TextEncoder, Transformer, Vae, decoder_levels
from engine.memory.card import ROWS

KEPT = 16  # encoded prompts, and casts
KEPT_REFERENCES = 4  # what the VAE made of a cast's pictures: some 17 MB at 832 x 480 x 81
ENCODE_TILE = 256  # pixels; of the library's own tiles
_FLOAT = 4


# ---------------------------------------------------------------------------
# Denoising


@dataclass(frozen=True)
class Forward:
    """How one forward of the transformer is computed: `each` bytes a number (2 or 4); all passes of the guidance at
    once where `batch` is their number; `chunk` tokens at a time where tokens do not attend to each other
    (engine.a2.chunking), 0: all; `context` tokens of a reference picture; with `quantised` weights, which are
    dequantised to multiply, or multiplied in 8 bits (`w8a8`; engine.memory.multiply)."""

    each: int
    batch: int = 1
    chunk: int = 0
    context: int = 257
    quantised: bool = False
    w8a8: bool = False


def denoise_bytes(shape: Transformer, clip: ClipSize, how: Forward) -> int:
    """Compute the peak of one forward."""
    each, batch, chunk = how.each, how.batch, how.chunk
    tokens, dim = clip.tokens, shape.dim
    told = TEXT_TOKENS + clip.references * how.context
    ffn = _of_ffn(shape, each)
    residual = (5 * each + (12 if each < _FLOAT else 8)) * dim  # in float32: the sum, its parts and the gate's product
    rotation = (6 * each + 6) * dim  # half of the numbers at a time, three times, in float32
    if (chunk and chunk < tokens) or clip.unread:
        piece = _largest_piece(clip, chunk)
        projecting = 5 * each * tokens * dim + piece * (5 * each + 6) * dim  # the block's input, its norm, q, k, v
        attending = 6 * each * tokens * dim  # and what comes out
        following = 2 * each * tokens * dim + piece * max(ffn, residual) + 2 * told * each * dim
        beside = multiplying_bytes(shape, replace(how, chunk=chunk or tokens))
        rotating = 0 if chunk else tokens * rotation
        stream = max(batch * max(projecting, rotating) + beside[0], batch * attending, batch * following + beside[1])
    else:
        stream = batch * tokens * max(ffn, residual, rotation) + max(multiplying_bytes(shape, how))
    stream += batch * (2 * told - TEXT_TOKENS) * dim * each  # text and pictures, embedded, and the two put together
    rope = tokens * 2 * (dim // shape.heads) * _FLOAT
    noise = tokens * 4 * shape.channels * each
    return stream + batch * noise + rope


def multiplying_bytes(shape: Transformer, how: Forward) -> tuple[int, int]:
    """Compute what quantised weights take beside, while self-attention's projections are computed and while what
    follows it is. Dequantised, a weight takes as much as in floats: in pieces those of one loop over the pieces at
    once, else one by one. In 8 bits a few rows of activations and products are in float32 and int32."""
    dim, ffn = shape.dim, shape.ffn
    if not how.quantised:
        return 0, 0
    if how.w8a8:
        return ROWS * 9 * dim, ROWS * (max(dim + 2 * _FLOAT * ffn, ffn + 2 * _FLOAT * dim, (1 + _FLOAT) * ffn))
    if not how.chunk:
        return dim * dim * how.each, dim * ffn * how.each
    return 3 * dim * dim * how.each, (2 * dim * dim + 2 * dim * ffn) * how.each


def context_bytes(shape: Transformer, clip: ClipSize, how: Forward) -> int:
    """Compute what the keys and values of the context take that are kept over a run: of each block and prompt, of text
    and pictures; all passes at once are one of so many times the size."""
    told = TEXT_TOKENS + clip.references * how.context
    contexts = how.batch if how.batch > 1 else min(clip.passes, 2)
    return contexts * shape.layers * 2 * told * shape.dim * how.each


def _largest_piece(clip: ClipSize, chunk: int) -> int:
    """Compute the tokens of the largest piece: of those that read the prompt, and of the others."""
    groups = (clip.tokens - clip.unread, clip.unread)
    return max(math.ceil(group / math.ceil(group / (chunk or group))) for group in groups if group)


def told_bytes(shape: Transformer, clip: ClipSize, context: int, batch: int) -> int:
    """Count the numbers that the transformer is told in a run, as the encoders made them: two prompts, once more as one
    batch, and the pictures."""
    prompts = min(clip.passes, 2) + (batch if batch > 1 else 0)
    return prompts * TEXT_TOKENS * shape.text_dim + clip.references * context * shape.image_dim


def _of_ffn(shape: Transformer, each: int) -> int:
    """Compute the bytes a token at the feed-forward's widest: its hidden layer before and after GELU."""
    return 4 * each * shape.dim + 2 * each * shape.ffn


def cache_bytes(shape: Transformer, clip: ClipSize, each: int) -> int:
    """Compute what the step cache keeps between two steps: of each pass three hidden states, the first block's output,
    what it added and what the others did (diffusers' first-block cache)."""
    return clip.passes * 3 * clip.tokens * shape.dim * each


def rope_bytes(shape: Transformer) -> int:
    """Compute the table of rotary embeddings: cosines and sines of 1024 positions, float32."""
    return 2 * 1024 * (shape.dim // shape.heads) * _FLOAT


def sampling_bytes(clip: ClipSize) -> int:
    """Compute what a run keeps from step to step: latents, the scheduler's history, a velocity for each pass, the
    condition, or the references and what they are cut from; float32."""
    frames, height, width = clip.latent
    each = 6 + (2 if clip.tail else 1) * clip.passes
    return height * width * _FLOAT * (frames * (16 * each + 20) + 2 * 16 * clip.tail)


# ---------------------------------------------------------------------------
# Encoders


def text_bytes(shape: TextEncoder, each: int) -> int:
    """Compute the peak for one prompt of 512 tokens: the attention's bias, its scores and their softmax (where it is
    fused, one of the three less), and seven hidden states."""
    return 3 * shape.heads * TEXT_TOKENS**2 * each + 7 * TEXT_TOKENS * shape.dim * each


def conditioning_bytes(text: TextEncoder, image: ImageEncoder | None, clip: ClipSize) -> int:
    """Compute what a run keeps on the host from the encoders on: noise and condition, and what prompts and casts
    became, these for the next clips, too; float32."""
    frames, height, width = clip.latent
    latents = 2 * height * width * (frames * (16 + 20) + 16 * clip.tail)
    encoded = KEPT_REFERENCES * 2 * 16 * (clip.references if clip.tail else frames) * height * width  # mean, deviation
    pictures = clip.references * image.tokens * image.dim if image is not None else 0
    return _FLOAT * (latents + encoded + KEPT * (TEXT_TOKENS * text.dim + pictures))


def image_bytes(shape: ImageEncoder, references: int) -> int:
    """Compute the peak for all pictures at once, float32; every layer's output is kept, since the last but one is
    wanted."""
    hidden = (3 if shape.gates else 2) * shape.mlp
    tokens = references * shape.tokens
    return tokens * _FLOAT * ((shape.layers + 2) * shape.dim + hidden)


def encode_bytes(vae: Vae, clip: ClipSize, tiled: bool = False, each: int = _FLOAT) -> int:
    """Compute the peak of the VAE's encoder: on the references' clip four frames at a time, or on one picture."""
    height, width, packed = clip.height, clip.width, min(4, clip.encoded_frames)
    tiles = 0
    if tiled:  # what has come of the tiles, which overlap, with what is blended and put together of it
        tiles = 6 * 2 * vae.latent * (1 if clip.tail else clip.latent[0]) * math.prod(clip.latent[1:])
        height, width = min(height, ENCODE_TILE), min(width, ENCODE_TILE)
    cached, widest = 2 * 3 * height * width, 0
    for level, channels in enumerate(vae.channels):
        pixels = math.ceil(height / 2**level) * math.ceil(width / 2**level)
        frames, before = min(packed, _frames_at(vae, level)), vae.channels[max(level - 1, 0)]
        widest = max(widest, _convolving(channels, pixels, frames, inputs=2))
        cached += 2 * pixels * (before + (2 * vae.residuals - 1) * channels)
        if level + 1 < len(vae.channels) and vae.halves_time[level]:
            cached += pixels // 4 * channels
    pixels = math.ceil(height / 8) * math.ceil(width / 8)
    cached += 2 * pixels * vae.channels[-1] * 5
    pictures = 3 * clip.encoded_frames * clip.height * clip.width
    return each * (cached + widest + pictures + tiles)


def decode_bytes(vae: Vae, clip: ClipSize, tiling: Tiling | None = None, each: int = _FLOAT) -> int:
    """Compute the peak for one latent frame, the way engine.a2.decoding does it; the frames that every convolution saw
    last stay, for all tiles, unless the tiling parks them."""
    _, height, width = clip.latent
    rows, columns = spans(height, tiling), spans(width, tiling)
    tile = (rows[0].stop - rows[0].start) * (columns[0].stop - columns[0].start)
    count = len(rows) * len(columns)
    kept, widest = decoder_tile(vae, tile)
    front = height * width * (2 * 5 * vae.channels[-1] + 2 * vae.latent)
    whole = 64 * height * width * 4 * 3 * _FLOAT if count > 1 else 0  # tiles are blended in float32
    return each * (front + kept * (1 if tiling and tiling.parked else count) + widest) + whole


def parked_bytes(vae: Vae, clip: ClipSize, tiling: Tiling | None, each: int = _FLOAT) -> int:
    """Compute what the tiles that are not being worked on keep on the host; 0 where nothing is parked."""
    if tiling is None or not tiling.parked:
        return 0
    _, height, width = clip.latent
    rows, columns = spans(height, tiling), spans(width, tiling)
    tile = (rows[0].stop - rows[0].start) * (columns[0].stop - columns[0].start)
    return each * len(rows) * len(columns) * decoder_tile(vae, tile)[0]


def decoder_tile(vae: Vae, latent_pixels: int) -> tuple[int, int]:
    """Count, for the decoder's upsampling half on so many latent pixels, the numbers that stay from one latent frame to
    the next, and those alive besides them at the widest moment."""
    top = len(vae.channels) - 1
    kept = widest = 0
    for level, inputs, channels in decoder_levels(vae):
        pixels, frames = latent_pixels * 4 ** (top - level), _frames_at(vae, level)
        widest = max(widest, _convolving(channels, pixels, frames, inputs=3))
        kept += 2 * pixels * (inputs + (2 * vae.residuals + 1) * channels)
        if level == 0:
            kept += 2 * pixels * channels
            continue
        if vae.halves_time[level - 1]:
            kept += 2 * pixels * channels
            frames *= 2
        enlarged = 4 * pixels * frames
        widest = max(widest, 2 * channels * pixels * frames + channels * enlarged + channels // 2 * enlarged)
    return kept, widest


def _frames_at(vae: Vae, level: int) -> int:
    """Return how many of the four frames that one latent holds are left at a level."""
    return 4 >> sum(vae.halves_time[:level])


def _convolving(channels: int, pixels: int, frames: int, inputs: int) -> int:
    """Count the numbers alive in a causal 3 x 3 x 3 convolution: `inputs` tensors that others still hold (a block's
    input, the residual, the activation), the last two frames' copy, the padded input twice (convolutions lay it out
    anew) and the output."""
    return channels * pixels * (inputs * frames + 2 + 2 * (frames + 2) + frames)
