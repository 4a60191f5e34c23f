"""The model's geometry: frames and latents, tokens, references, tiles. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.a2.models import A2, ModelSpec
from engine.scene.scene import Scene, Video

TEXT_TOKENS = 512  # that the text encoder reads

LATENT_CHANNELS = 16
MASK_CHANNELS = 4  # one for each frame in a latent
CONDITION_CHANNELS = MASK_CHANNELS + LATENT_CHANNELS
FRAMES_A_LATENT = 4  # the VAE packs four frames into one latent; the first frame has one of its own
PIXELS_A_LATENT = 8
LATENTS_A_TOKEN = 2  # each way: the transformer's patch is 1 x 2 x 2 latents

ENCODED_IN_TILES_ABOVE = 1024 * 640  # pixels of a frame: smaller ones are encoded in one piece, as the authors do
_TILED_FROM = 128 * 80  # latent pixels of a frame: 1024 x 640 and below are decoded in one piece


def latent_frames(frames: int) -> int:
    """Return T, the latent frames of a clip of `frames` = 4 (T - 1) + 1."""
    return (frames - 1) // FRAMES_A_LATENT + 1


def latent_shape(video: Video) -> tuple[int, int, int, int, int]:
    """Return the shape of a video's latents, (1, 16, T, h, w)."""
    height, width = video.height // PIXELS_A_LATENT, video.width // PIXELS_A_LATENT
    return 1, LATENT_CHANNELS, latent_frames(video.frames), height, width


def first_frames(references: int) -> int:
    """Return how many of a clip's frames the references fill: the first picture one, each later one four."""
    return FRAMES_A_LATENT * references - (FRAMES_A_LATENT - 1)


def lengths_beside(frames: int) -> tuple[int, ...]:
    """Return (frames,) where the VAE can pack so many; else the next lengths below and above that it can."""
    low = frames - (frames - 1) % FRAMES_A_LATENT
    return (low,) if low == frames else (low, low + FRAMES_A_LATENT)


def frames_for(seconds: float, fps: int, trim_head: int) -> int:
    """Compute how many frames to generate so that at least `seconds` are left after the trim: the next 4k + 1."""
    wanted = max(1, math.ceil(seconds * fps - 1e-9)) + trim_head
    return lengths_beside(wanted)[-1]


# ---------------------------------------------------------------------------
# A clip, as far as memory and time depend on it


@dataclass(frozen=True)
class ClipSize:
    """What is to be made. `passes`: how often the transformer runs in a step. `references` is how many pictures the
    model sees, and `tail` how many latent frames of them stand behind the video's, `skips_text`: without reading the
    prompt. `step_cache`: with what it keeps; `adapters`: the bytes of LoRAs that change the model; `w8a8`: multiplied
    in 8 bits; `vae`: bytes of a number of the VAE's."""

    width: int = 832
    height: int = 480
    frames: int = 81
    steps: int = 50
    passes: int = 2
    references: int = 3
    tail: int = 0
    skips_text: bool = False
    step_cache: bool = False
    adapters: int = 0
    w8a8: bool = False
    vae: int = 4

    @property
    def latent(self) -> tuple[int, int, int]:
        """(T, h, w)"""
        return latent_frames(self.frames), self.height // PIXELS_A_LATENT, self.width // PIXELS_A_LATENT

    @property
    def tokens(self) -> int:
        """What the transformer sees: the video's, and those of the references behind it."""
        return (self.latent[0] + self.tail) * self.tokens_a_frame

    @property
    def tokens_a_frame(self) -> int:
        _, height, width = self.latent
        return (height // LATENTS_A_TOKEN) * (width // LATENTS_A_TOKEN)

    @property
    def unread(self) -> int:
        """How many of its tokens do not read the prompt: the last ones."""
        return self.tail * self.tokens_a_frame if self.skips_text else 0

    @property
    def encoded_frames(self) -> int:
        """How many frames the VAE encodes at once: the references as a clip, or each of them as a picture."""
        return 1 if self.tail else self.frames

    @property
    def guided(self) -> bool:
        return self.passes > 1


def size_of_latents(shape: Sequence[int]) -> ClipSize:
    """Return the size of the clip that latents of this shape, (1, 16, T, h, w), decode to."""
    frames = FRAMES_A_LATENT * (shape[2] - 1) + 1
    return ClipSize(PIXELS_A_LATENT * shape[4], PIXELS_A_LATENT * shape[3], frames)


def size_of(scene: Scene, spec: ModelSpec = A2) -> ClipSize:
    """Return the size of the clip that a scene asks for, made by a model of this family."""
    video, sampling = scene.video, scene.sampling
    references = references_of(scene, spec)
    return ClipSize(
        video.width, video.height, video.frames, sampling.steps, spec.passes(sampling), references,
        spec.tail(references), spec.skips_text,
    )  # fmt: skip


def references_of(scene: Scene, spec: ModelSpec) -> int:
    """Count the pictures that a model of this family is given: one of each of the cast, and further views as far as
    there is room."""
    return min(sum(len(element.pictures) for element in scene.cast), spec.references)


# ---------------------------------------------------------------------------
# Tiles


@dataclass(frozen=True)
class Tiling:
    """Tiles of at most `tile` by `tile` latent pixels, which overlap by at least `overlap` and are blended in the
    overlap's middle. `parked`: what a tile's convolutions saw last waits in the host's memory while other tiles are
    worked on. Otherwise it stays on the card for every tile, and takes more there than for a frame in one piece."""

    tile: int = 72
    overlap: int = 24
    parked: bool = False


def tiling_for(height: int, width: int) -> Tiling | None:
    """Choose tiles for large frames, None for others (sizes in latent pixels): where tiles overlap they cost time."""
    return Tiling() if height * width > _TILED_FROM else None


def spans(length: int, tiling: Tiling | None) -> list[slice]:
    """Compute spans of one size that cover `length` latent pixels and overlap by at least `overlap`."""
    if tiling is None or length <= tiling.tile:
        return [slice(0, length)]
    count = math.ceil((length - tiling.overlap) / (tiling.tile - tiling.overlap))
    size = math.ceil((length + (count - 1) * tiling.overlap) / count)
    starts = [round(i * (length - size) / (count - 1)) for i in range(count)]
    return [slice(start, start + size) for start in starts]
