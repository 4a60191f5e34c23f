"""Wan's transformer blocks, computed a few thousand tokens at a time wherever tokens do not attend to each other.

Only self-attention needs all tokens at once. Norms, projections, rotary embedding, cross-attention and the feed-forward
work on each token alone, and yet in one piece they take the most memory: the float32 residual and the feed-forward's
hidden layer. In pieces a block peaks at self-attention's q, k, v: little more than half. The work is the same, but for
the text's and pictures' keys and values, which every piece computes again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def chunked(transformer: Any, tokens: int, unread: int = 0) -> Iterator[None]:
    """Let `transformer` (diffusers' WanTransformer3DModel) work on at most `tokens` tokens at a time until exit; 0
    leaves it as it is. The last `unread` tokens do not attend to the prompt: they are the references of a family that
    was trained so. A self-attention whose processor is not the library's own keeps it, and computes in one piece.
    """
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    if not tokens and not unread:
        yield
        return
    from engine.memory.streamed import replace_compute

    processors, undo = [], []
    for block in transformer.blocks:
        undo.append(replace_compute(block, _Block(block, tokens, unread)))
        if tokens and type(block.attn1.processor) is WanAttnProcessor:
            processors.append((block.attn1, block.attn1.processor))
            block.attn1.processor = _SelfAttention(block.attn1.processor, tokens)
    try:
        yield
    finally:
        for attention, processor in processors:
            attention.processor = processor
        for restore in undo:
            restore()


class _Block:
    """WanTransformerBlock.forward in pieces. Nothing that came in is written to: step caches keep it."""

    def __init__(self, block: Any, tokens: int, unread: int) -> None:
        self.block, self.tokens, self.unread = block, tokens, unread

    def __call__(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor, rotary_emb: Any
    ) -> torch.Tensor:
        block, x = self.block, hidden_states
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (block.scale_shift_table + temb.float()).chunk(6, dim=1)
        normed = x.new_empty(x.shape)
        for part in self._parts(x):
            normed[:, part] = _modulate(block.norm1, x[:, part], scale, shift)
        attended = block.attn1(normed, None, None, rotary_emb)
        del normed
        out = x.new_empty(x.shape)
        for part in self._parts(x):
            out[:, part] = x[:, part].float() + attended[:, part] * gate
        del attended
        for part in self._parts(x):
            piece = out[:, part]
            if part.start < x.shape[1] - self.unread:
                normed = block.norm2(piece.float()).type_as(piece)
                piece = piece + block.attn2(normed, encoder_hidden_states, None, None)
            normed = _modulate(block.norm3, piece, ffn_scale, ffn_shift)
            out[:, part] = piece.float() + block.ffn(normed).float() * ffn_gate
        return out

    def _parts(self, x: torch.Tensor) -> Iterator[slice]:
        """Yield the pieces; none holds both tokens that read the prompt and such that do not."""
        reading = x.shape[1] - self.unread
        yield from parts(reading, self.tokens or reading)
        for part in parts(self.unread, self.tokens or self.unread) if self.unread else ():
            yield slice(reading + part.start, reading + part.stop)


class _SelfAttention:
    """WanAttnProcessor for self-attention: everything but the attention itself in pieces."""

    def __init__(self, original: Any, tokens: int) -> None:
        self.original, self.tokens = original, tokens

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: None, attention_mask: Any, rotary_emb: Any
    ) -> torch.Tensor:
        from diffusers.models.attention_dispatch import dispatch_attention_fn
        from diffusers.models.transformers.transformer_wan import _get_qkv_projections

        x, shape = hidden_states, (*hidden_states.shape[:2], attn.heads, -1)
        query, key, value = (x.new_empty(x.shape).view(shape) for _ in range(3))

        def project(part: slice) -> None:  # a function, so that nothing of a piece outlives it
            q, k, v = _get_qkv_projections(attn, x[:, part], None)
            angles = [angle[:, part] for angle in rotary_emb]
            query[:, part] = _rotate(attn.norm_q(q).unflatten(2, (attn.heads, -1)), *angles)
            key[:, part] = _rotate(attn.norm_k(k).unflatten(2, (attn.heads, -1)), *angles)
            value[:, part] = v.unflatten(2, (attn.heads, -1))

        for part in parts(x.shape[1], self.tokens):
            project(part)
        attended = dispatch_attention_fn(
            query, key, value, attn_mask=attention_mask, dropout_p=0.0, is_causal=False,
            backend=self.original._attention_backend, parallel_config=self.original._parallel_config,
        ).flatten(2, 3)  # fmt: skip
        query = key = value = x.new_empty(0)  # project still sees these names
        out = x.new_empty(x.shape)
        for part in parts(x.shape[1], self.tokens):
            out[:, part] = attn.to_out[0](attended[:, part].type_as(x))
        return out


def parts(length: int, size: int) -> Iterator[slice]:
    """Yield slices of nearly equal length, at most `size`, that cover `length`."""
    count = -(-length // size) if length else 0
    for i in range(count):
        yield slice(length * i // count, length * (i + 1) // count)


def _modulate(norm: Any, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    modulated: torch.Tensor = (norm(x.float()) * (1 + scale) + shift).type_as(x)
    return modulated


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply the rotary position embedding to pairs: (real, imaginary) times cos + i sin."""
    import torch

    real, imaginary = torch.unflatten(x, -1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    out = torch.empty_like(x)
    out[..., 0::2] = real * cos - imaginary * sin
    out[..., 1::2] = real * sin + imaginary * cos
    return out
