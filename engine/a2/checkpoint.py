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

LATENT_CHANNELS = 16
CONDITION_CHANNELS = 20  # the mask's 4, then a picture's 16
FRAMES_A_LATENT = 4  # the VAE packs four frames into one latent; the first frame has one of its own
PIXELS_A_LATENT = 8


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
        """Let go of everything but the VAE and the tokenizer."""
        for slabs in self.streams.values():
            slabs.close(restore=False)
        self.transformer = self.text_encoder = self.image_encoder = None
