"""Wan's transformer blocks, computed a few thousand tokens at a time wherever tokens do not attend to each other.

Only self-attention needs all tokens at once. Norms, projections, rotary embedding, cross-attention and the feed-forward
work on each token alone, and yet in one piece they take the most memory: the float32 residual and the feed-forward's
hidden layer. In pieces a block peaks at self-attention's q, k, v: little more than half. The work is the same: what all
pieces need (the context's keys and values, weights that are dequantised) is computed once, and held for as long as one
loop over the pieces goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from engine.a2.context import Contexts, CrossAttention, KeysValues, reading_keys_values

if TYPE_CHECKING:
    import torch

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]  # makes of a function one that computes the same


def as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function itself: the `Wrap` that does nothing."""
    return function


@contextlib.contextmanager
def chunked(
    transformer: Any, tokens: int, contexts: Contexts | None = None, wrap: Wrap = as_it_is, unread: int = 0
) -> Iterator[None]:
    """Let `transformer` (diffusers' WanTransformer3DModel) work on at most `tokens` tokens at a time until exit; 0
    leaves it as it is. The last `unread` tokens do not attend to the prompt: they are the references of a family that
    was trained so. An attention whose processor is not the library's own keeps it, and self-attention then computes in
    one piece. `contexts` keeps keys and values; `wrap` is what the functions of a piece go through (compiling)."""
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    if not tokens and not unread:
        yield
        return
    from engine.memory.streamed import replace_compute

    contexts, pieces = contexts or Contexts(keep=False), _Pieces(tokens, wrap, unread)
    processors, undo = [], []
    with reading_keys_values(block.attn2 for block in transformer.blocks):
        for index, block in enumerate(transformer.blocks):
            undo.append(replace_compute(block, _Block(block, index, contexts, pieces)))
            if tokens and type(block.attn1.processor) is WanAttnProcessor:
                processors.append((block.attn1, block.attn1.processor))
                block.attn1.processor = _SelfAttention(block.attn1.processor, pieces)
        try:
            yield
        finally:
            for attention, processor in processors:
                attention.processor = processor
            for restore in undo:
                restore()


class _Pieces:
    """What is computed for one piece: functions of a module and tensors, so that each, compiled, serves all blocks. The
    last `unread` tokens have pieces of their own."""

    def __init__(self, tokens: int, wrap: Wrap, unread: int) -> None:
        self._tokens, self._unread = tokens, unread
        self.modulate, self.project, self.follow = wrap(_modulate), wrap(_project), wrap(_follow)

    def of(self, x: torch.Tensor) -> Iterator[slice]:
        reading = x.shape[1] - self._unread
        yield from parts(reading, self._tokens or reading)
        for part in parts(self._unread, self._tokens or self._unread) if self._unread else ():
            yield slice(reading + part.start, reading + part.stop)

    def reads(self, part: slice, x: torch.Tensor) -> bool:
        """Return whether the tokens of a piece attend to the prompt."""
        return bool(part.start < x.shape[1] - self._unread)


class _Block:
    """WanTransformerBlock.forward in pieces. Nothing that came in is written to: step caches keep it."""

    def __init__(self, block: Any, index: int, contexts: Contexts, pieces: _Pieces) -> None:
        self.block, self._index, self._contexts, self._pieces = block, index, contexts, pieces

    def __call__(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor, rotary_emb: Any
    ) -> torch.Tensor:
        block, pieces, x = self.block, self._pieces, hidden_states
        shift, scale, gate, *of_ffn = (block.scale_shift_table + temb.float()).chunk(6, dim=1)
        normed = x.new_empty(x.shape)
        for part in pieces.of(x):
            normed[:, part] = pieces.modulate(block.norm1, x[:, part], scale, shift)
        attended = block.attn1(normed, None, None, rotary_emb)
        del normed
        out = x.new_empty(x.shape)
        for part in pieces.of(x):
            out[:, part] = x[:, part].float() + attended[:, part] * gate
        del attended
        self._follow(out, encoder_hidden_states, of_ffn)
        return out

    def _follow(self, x: torch.Tensor, context: torch.Tensor, modulation: list[torch.Tensor]) -> None:
        """Compute cross-attention and the feed-forward, in place."""
        from engine.memory.multiply import widened

        block = self.block
        told: torch.Tensor | KeysValues = context
        if isinstance(block.attn2.processor, CrossAttention):
            told = self._contexts.of(self._index, block.attn2, context)
        layers = block.attn2.to_q, block.attn2.to_out[0], *_linear_layers(block.ffn)
        with widened(*layers):
            for part in self._pieces.of(x):
                read = told if self._pieces.reads(part, x) else None
                x[:, part] = self._pieces.follow(block, x[:, part], read, *modulation)


class _SelfAttention:
    """WanAttnProcessor for self-attention: everything but the attention itself in pieces."""

    def __init__(self, original: Any, pieces: _Pieces) -> None:
        self.original, self._pieces = original, pieces

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: None, attention_mask: Any, rotary_emb: Any
    ) -> torch.Tensor:
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        from engine.memory.multiply import widened

        x = hidden_states
        query, key, value = self._projected(attn, x, rotary_emb)
        attended = dispatch_attention_fn(
            query, key, value, attn_mask=attention_mask, dropout_p=0.0, is_causal=False,
            backend=self.original._attention_backend, parallel_config=self.original._parallel_config,
        ).flatten(2, 3)  # fmt: skip
        del query, key, value
        out = x.new_empty(x.shape)
        with widened(attn.to_out[0]):
            for part in self._pieces.of(x):
                out[:, part] = attn.to_out[0](attended[:, part].type_as(x))
        return out

    def _projected(self, attn: Any, x: torch.Tensor, rotary_emb: Any) -> tuple[torch.Tensor, ...]:
        """Compute query, key and value, (B, tokens, heads, dim / heads) each."""
        from engine.memory.multiply import widened

        shape = (*x.shape[:2], attn.heads, -1)
        made = tuple(x.new_empty(x.shape).view(shape) for _ in range(3))
        with widened(attn.to_q, attn.to_k, attn.to_v):
            for part in self._pieces.of(x):
                piece = self._pieces.project(attn, x[:, part], *(angle[:, part] for angle in rotary_emb))
                for whole, its in zip(made, piece, strict=True):
                    whole[:, part] = its
                del piece, its  # the next piece needs their memory
        return made


def parts(length: int, size: int) -> Iterator[slice]:
    """Yield slices of nearly equal length, at most `size`, that cover `length`."""
    count = -(-length // size) if length else 0
    for i in range(count):
        yield slice(length * i // count, length * (i + 1) // count)


def _linear_layers(module: Any) -> list[Any]:
    import torch

    return [part for part in module.modules() if isinstance(part, torch.nn.Linear)]


# ---------------------------------------------------------------------------
# One piece


def _modulate(norm: Any, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    modulated: torch.Tensor = (norm(x.float()) * (1 + scale) + shift).type_as(x)
    return modulated


def _project(attn: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Compute self-attention's query, key and value of a piece, (B, tokens, heads, dim / heads) each."""
    heads = (attn.heads, -1)
    query = _rotate(attn.norm_q(attn.to_q(x)).unflatten(2, heads), cos, sin)
    key = _rotate(attn.norm_k(attn.to_k(x)).unflatten(2, heads), cos, sin)
    return query, key, attn.to_v(x).unflatten(2, heads)


def _follow(
    block: Any,
    x: torch.Tensor,
    told: torch.Tensor | KeysValues | None,
    shift: torch.Tensor,
    scale: torch.Tensor,
    gate: torch.Tensor,
) -> torch.Tensor:
    """Compute what follows self-attention for a piece: cross-attention, where it is told something, and the
    feed-forward."""
    if told is not None:
        normed = block.norm2(x.float()).type_as(x)
        x = x + block.attn2(normed, told, None, None)
    normed = _modulate(block.norm3, x, scale, shift)
    return x.float() + block.ffn(normed).float() * gate  # type: ignore[no-any-return]  # a library without types


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply the rotary position embedding to pairs: (real, imaginary) times cos + i sin."""
    import torch

    real, imaginary = torch.unflatten(x, -1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    out = torch.empty_like(x)
    out[..., 0::2] = real * cos - imaginary * sin
    out[..., 1::2] = real * sin + imaginary * cos
    return out
