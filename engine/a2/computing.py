"""How the transformer's blocks compute while a clip is sampled: in pieces, in eight bits, compiled, with what is kept.

All of it is put on the blocks' computation, under the streaming, and taken off at the end: hooks of step caches, of
LoRAs and of stops do not notice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.a2.chunking import Wrap, as_it_is, chunked
from engine.a2.compiling import Compiler
from engine.a2.context import Contexts, CrossAttention, reading_keys_values

if TYPE_CHECKING:
    import torch

    from engine.a2.options import A2Options

_OF_CONTEXT = ("attn2.to_k", "attn2.to_v", "attn2.add_k_proj", "attn2.add_v_proj")  # so few tokens gain nothing


@contextlib.contextmanager
def computing(transformer: Any, options: A2Options, unread: int = 0) -> Iterator[Compiler | None]:
    """Let the transformer compute as the options say until exit; what compiles is returned, with its notices (None:
    nothing is compiled). The last `unread` tokens do not attend to the prompt."""
    compiler = Compiler() if options.compiled else None
    contexts = Contexts(keep=bool(options.keep_context))
    with contextlib.ExitStack() as ours:
        note = transformer.register_forward_pre_hook(contexts.note, with_kwargs=True)
        ours.callback(note.remove)
        ours.enter_context(_multiplying(transformer.blocks, bool(options.w8a8)))
        if options.chunk or unread:
            ours.enter_context(chunked(transformer, options.chunk, contexts, compiler or as_it_is, unread))
        elif options.compiled or options.keep_context:
            ours.enter_context(_whole(transformer, contexts, compiler or as_it_is))
        yield compiler


@contextlib.contextmanager
def _multiplying(blocks: Any, w8a8: bool) -> Iterator[None]:
    """Let the blocks' quantised layers multiply in eight bits, or dequantise in one pass less than their library."""
    import torch

    from engine.memory.multiply import W8A8, Dequantising, multiplying

    layers = {name: each for name, each in blocks.named_modules() if isinstance(each, torch.nn.Linear)}
    kept = [each for name, each in layers.items() if not w8a8 or name.partition(".")[2] in _OF_CONTEXT]
    with multiplying(kept, Dequantising), multiplying(layers.values(), W8A8):
        yield


@contextlib.contextmanager
def _whole(transformer: Any, contexts: Contexts, wrap: Wrap) -> Iterator[None]:
    """Let the blocks compute with keys and values from `contexts`; `wrap` is what their function goes through."""
    from engine.memory.streamed import replace_compute

    functions: dict[type, Any] = {}
    undo = []
    with reading_keys_values(block.attn2 for block in transformer.blocks):
        for index, block in enumerate(transformer.blocks):
            plain = type(block).forward
            if plain not in functions:
                functions[plain] = wrap(plain)
            undo.append(replace_compute(block, _Knowing(block, index, contexts, functions[plain])))
        try:
            yield
        finally:
            for restore in undo:
                restore()


@dataclass(frozen=True)
class _Knowing:
    """A block's forward, as its library has it, with keys and values of the context from elsewhere."""

    block: Any
    index: int
    contexts: Contexts
    compute: Callable[..., Any]

    def __call__(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor, rotary_emb: Any
    ) -> Any:
        told: Any = encoder_hidden_states
        if isinstance(self.block.attn2.processor, CrossAttention):
            told = self.contexts.of(self.index, self.block.attn2, told)
        return self.compute(self.block, hidden_states, told, temb, rotary_emb)
