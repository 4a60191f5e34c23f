"""A checkpoint that is loaded: its components, where they compute, and what the person should know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.a2.adapters import Fused
from engine.a2.compute import Compute

if TYPE_CHECKING:
    import torch

    from engine.memory.slabs import Slabs

# How the names of what is in a block begin. The blocks' linear weights may be quantised: they are all but a hundredth
# of the transformer. What stands before and after them (patches, time, text and picture embeddings, the head) touches
# every number of the result, and is kept; so is all that is not linear: norms, modulation, the text encoder's word
# embeddings and position biases.
BLOCKS = {"transformer": "blocks.", "text_encoder": "encoder.block."}


@dataclass
class Checkpoint:
    """Everything that is loaded, and what the person should know of it. `texts` keeps encoded prompts, newest last:
    (512, dim) float32 on the CPU each. `fused` is what LoRAs have done to the transformer."""

    folder: Path
    compute: Compute
    tokenizer: Any
    text_encoder: Any
    image_processor: Any
    image_encoder: Any
    vae: Any
    transformer: Any
    notices: tuple[str, ...] = ()
    texts: dict[str, torch.Tensor] = field(default_factory=dict)
    fused: Fused = field(default_factory=Fused)
    streams: dict[str, Slabs] = field(default_factory=dict)  # by component

    def close(self) -> None:
        """Free the transformer and the encoders. The VAE, the tokenizer and the image processor stay."""
        for slabs in self.streams.values():
            slabs.close(restore=False)
        self.transformer = self.text_encoder = self.image_encoder = None
