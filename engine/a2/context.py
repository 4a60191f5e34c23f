"""What a pass is told (the text, the pictures), as keys and values of a block's cross-attention.

They depend on the block and on the context alone: not on latents, step or piece. So they are computed once a block
where it works in pieces, and, where there is memory for them, once a run.

Not diffusers' TextKVCache (0.42), which knows other models' attention.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.a2.geometry import TEXT_TOKENS

if TYPE_CHECKING:
    import torch

PASSES = 2  # of the guidance, whose contexts are kept over a run


class KeysValues(NamedTuple):
    """Keys and values of one block, (B, tokens, heads, dim / heads) each; None where there are no pictures."""

    key: torch.Tensor
    value: torch.Tensor
    picture_key: torch.Tensor | None
    picture_value: torch.Tensor | None


class Contexts:
    """The keys and values of all blocks. With `keep` those of the first PASSES contexts that the transformer is given
    stay until this goes; others are computed each time."""

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._seen: list[tuple[Any, ...]] = []  # held, so that no other tensor gets one's place in memory
        self._kept: dict[tuple[int, int], KeysValues] = {}
        self._now: int | None = None  # which of those seen the transformer works with

    def note(self, _transformer: Any, _positional: Any, named: dict[str, Any]) -> None:
        """Hear what a forward of the transformer is given: a forward pre-hook, with its named arguments."""
        self._now = None
        told = named.get("encoder_hidden_states"), named.get("encoder_hidden_states_image")
        if not self._keep or told[0] is None:
            return
        places = [tuple(map(_place, each)) for each in self._seen]
        place = tuple(map(_place, told))
        if place in places:
            self._now = places.index(place)
        elif len(self._seen) < PASSES:
            self._now = len(self._seen)
            self._seen.append(told)

    def of(self, index: int, attention: Any, context: torch.Tensor) -> KeysValues:
        """Return the keys and values of block `index`, whose cross-attention reads `context` (B, tokens, dim)."""
        key = None if self._now is None else (index, self._now)
        if key is not None and key in self._kept:
            return self._kept[key]
        told = keys_values_of(attention, context)
        if key is not None:
            self._kept[key] = told
        return told


def keys_values_of(attention: Any, context: torch.Tensor) -> KeysValues:
    """Compute a cross-attention's keys and values as diffusers' own code does: in `context` the pictures come first,
    and then 512 tokens of text."""
    heads, length = (attention.heads, -1), context.shape[1] - TEXT_TOKENS
    pictures = attention.add_k_proj is not None
    text = context[:, length:] if pictures else context
    key = attention.norm_k(attention.to_k(text)).unflatten(2, heads)
    value = attention.to_v(text).unflatten(2, heads)
    if not pictures:
        return KeysValues(key, value, None, None)
    shown = context[:, :length]
    picture_key = attention.norm_added_k(attention.add_k_proj(shown)).unflatten(2, heads)
    return KeysValues(key, value, picture_key, attention.add_v_proj(shown).unflatten(2, heads))


class CrossAttention:
    """WanAttnProcessor for cross-attention that is given a KeysValues for its context; anything else goes to the
    `original`."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self._attention_backend, self._parallel_config = original._attention_backend, original._parallel_config

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: Any, attention_mask: Any, rotary_emb: Any
    ) -> torch.Tensor:
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        told = encoder_hidden_states
        if not isinstance(told, KeysValues):
            return self.original(attn, hidden_states, told, attention_mask, rotary_emb)  # type: ignore[no-any-return]  # a library without types
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))

        def attend(key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            seen = dispatch_attention_fn(
                query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, backend=self._attention_backend,
                parallel_config=None,
            )  # fmt: skip
            return seen.flatten(2, 3).type_as(query)  # type: ignore[no-any-return]  # a library without types

        if told.picture_key is not None and told.picture_value is not None:
            pictures = attend(told.picture_key, told.picture_value)
            seen = attend(told.key, told.value) + pictures
        else:
            seen = attend(told.key, told.value)
        return attn.to_out[1](attn.to_out[0](seen))  # type: ignore[no-any-return]  # a library without types


@contextlib.contextmanager
def reading_keys_values(attentions: Iterable[Any]) -> Iterator[None]:
    """Let cross-attentions that are the library's own read a KeysValues until exit."""
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    changed = [(each, each.processor) for each in attentions if type(each.processor) is WanAttnProcessor]
    try:
        for attention, processor in changed:
            attention.processor = CrossAttention(processor)
        yield
    finally:
        for attention, processor in changed:
            attention.processor = processor


def _place(tensor: Any) -> tuple[Any, ...] | None:
    """Return what tells where in memory a tensor's numbers are: equal for two views of the same."""
    if tensor is None:
        return None
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
