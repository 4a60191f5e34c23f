"""A checkpoint that is loaded: its components, where they compute, and what the person should know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.a2.adapters import Fused
from engine.a2.compute import Compute
from engine.a2.models import A2, ModelSpec
from engine.a2.plan.shapes import Shapes
from engine.memory.weights import ComponentFiles

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
    """A checkpoint's components, as far as they are loaded (None: not now), and what the person should know of it.
    `spec` is its family, `files` those of each component, as they were when it was opened: other files are another
    checkpoint.

    `texts` keeps encoded prompts, newest last: (512, dim) float32 on the CPU each; `pictures` the same for what the
    image encoder made of a cast, `encoded` for what the VAE made of it. `vae_dtype` is the type in which the VAE is to
    compute (None: float32). `fused` is what LoRAs have done to the transformer. `mapped` names the components whose
    weights are views of files, `streams` those whose blocks stream. `cache` is where quantised weights are kept, None
    for the usual folder; `trusted` which of them were checked.
    """

    folder: Path
    compute: Compute
    tokenizer: Any
    image_processor: Any
    shapes: Shapes
    spec: ModelSpec = A2
    files: dict[str, ComponentFiles] = field(default_factory=dict)
    text_encoder: Any = None
    image_encoder: Any = None
    vae: Any = None
    transformer: Any = None
    notices: tuple[str, ...] = ()
    texts: dict[str, torch.Tensor] = field(default_factory=dict)
    pictures: dict[str, torch.Tensor] = field(default_factory=dict)
    encoded: dict[str, tuple[torch.Tensor, ...]] = field(default_factory=dict)
    vae_dtype: torch.dtype | None = None
    fused: Fused = field(default_factory=Fused)
    mapped: set[str] = field(default_factory=set)
    streams: dict[str, Slabs] = field(default_factory=dict)
    cache: Path | None = None
    trusted: set[tuple[Path, int, int]] = field(default_factory=set)

    def drop(self, name: str) -> None:
        """Free a component, wherever it is."""
        if (slabs := self.streams.pop(name, None)) is not None:
            slabs.close(restore=False)
        setattr(self, name, None)
        self.mapped.discard(name)
        if name == "transformer":
            self.fused = Fused()

    def close(self) -> None:
        """Free the transformer and the encoders. The VAE, the tokenizer and the image processor stay."""
        for name in ("transformer", "text_encoder", "image_encoder"):
            self.drop(name)
