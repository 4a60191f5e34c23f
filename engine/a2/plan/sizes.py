"""What components take under given settings, and what is computed with them needs beside; from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.a2.geometry import ClipSize
from engine.a2.phases import PlannedPhase
from engine.a2.plan import footprint
from engine.a2.plan.course import Component
from engine.a2.plan.settings import RunSettings, block_bytes, blocks_bytes, outside_bytes, weight_bytes
from engine.a2.plan.shapes import Shapes
from engine.memory.card import CHUNK, CHUNKS, CONTEXT, SLOTS
from engine.memory.ledger import NOTHING, Held
from engine.words import GIB

SLACK = 1.08  # of activations: what the allocator cannot use between them. An allowance, not a measurement
LOADING = 600_000_000  # bytes: a tensor on its way, in float32 and quantised
RING = CHUNKS * CHUNK  # bytes: the pinned buffers through which blocks come that the card cannot read by itself
PROCESS = 450_000_000  # bytes: Python with torch, diffusers and transformers, measured
CARD_PROCESS = GIB  # what a card's libraries add to it; an allowance


@dataclass(frozen=True)
class ComponentSizes:
    """The sizes of a checkpoint's components for one clip; see course.Sizes. Where there is no card, all is on the
    host. What a mapped file holds takes no memory of its own where it is only copied from; where it is computed with,
    it counts."""

    shapes: Shapes
    clip: ClipSize
    settings: RunSettings
    _known: dict[object, Held] = field(default_factory=dict, repr=False)  # what was computed already

    @property
    def components(self) -> tuple[Component, ...]:
        return self.shapes.spec.components

    @property
    def resident_block(self) -> int:
        settings = self.settings
        if settings.offload != "blocks" or not settings.resident:
            return 0
        return self._block()

    @property
    def reloads(self) -> bool:
        return self.settings.device == "cpu"

    def process(self) -> Held:
        """Return what the process itself takes, and what it keeps of a clip from the encoders on."""
        kept = footprint.conditioning_bytes(self.shapes.text, self.shapes.image, self.clip)
        if self.settings.device == "cpu":
            return Held(0, PROCESS + kept)
        return Held(CONTEXT, PROCESS + CARD_PROCESS + kept)

    # -- what components hold --------------------------------------------------------------

    def whole(self, name: Component) -> int:
        """Compute the bytes of a component's weights; the image encoder is float32 throughout."""
        settings, shapes = self.settings, self.shapes
        if name == "text_encoder":
            return weight_bytes(shapes.text.weights, settings.precision, settings.of_text)
        if name == "transformer":
            own = weight_bytes(shapes.transformer.weights, settings.precision, settings.number)
            return own + footprint.rope_bytes(shapes.transformer) + self.clip.adapters
        if name == "vae":
            return weight_bytes(shapes.vae.weights, "fp32", self.clip.vae)
        return weight_bytes(shapes.weights_of(name), "fp32", 4)

    def present(self, name: Component) -> Held:
        if name not in self._known:
            self._known[name] = self._present(name)
        return self._known[name]

    def _present(self, name: Component) -> Held:
        if self.settings.offload == "blocks" and name == "transformer":
            return self._transformer()
        if self.settings.offload == "blocks" and name == "text_encoder":
            return self._text()
        return self._where(self.whole(name))

    def aside(self, name: Component) -> Held:
        """Return what a component holds that waits for its turn."""
        if self.settings.offload == "blocks" and name == "transformer":
            held = self._transformer()
            return Held(0, held.host + (0 if self.on_disk else held.card))
        return Held(0, self.whole(name))

    @property
    def on_disk(self) -> bool:
        """Whether the transformer's weights are in a mapped file as they are computed with: quantised ones are, and
        floats where they are stored so."""
        stored = {"BF16": "bf16", "F32": "fp32"}.get(self.shapes.numbers)
        return self.settings.quantised or self.settings.precision == stored

    def loading(self, name: Component) -> Held:
        if name in ("image_encoder", "vae"):
            return Held(0, self.whole(name) if self.settings.device != "cpu" else 0)
        return Held(0, LOADING)

    def _transformer(self) -> Held:
        settings, weights, block = self.settings, self.shapes.transformer.weights, self._block()
        outside = outside_bytes(weights, settings.number) + footprint.rope_bytes(self.shapes.transformer)
        slots = min(SLOTS, weights.blocks - settings.resident)
        waiting = settings.in_memory * block
        ring = RING if (settings.host == "pageable" or settings.from_disk) and settings.device != "cpu" else 0
        return self._where(outside + (settings.resident + slots) * block, waiting + ring)

    def _block(self) -> int:
        """Compute the bytes of one of the transformer's blocks, with its share of the LoRAs."""
        weights = self.shapes.transformer.weights
        return block_bytes(weights, self.settings) + -(-self.clip.adapters // weights.blocks)

    def _text(self) -> Held:
        """Return what the text encoder takes whose blocks stream from the file where they are quantised, else from
        memory; its table of words stays on the host."""
        settings, weights, number = self.settings, self.shapes.text.weights, self.settings.of_text
        outside = outside_bytes(weights, number) - weights.table * number
        memory = 0 if settings.quantised else blocks_bytes(weights, settings.precision, number)
        table = 0 if settings.quantised else weights.table * number
        ring = RING if settings.device != "cpu" else 0
        return self._where(outside + SLOTS * block_bytes(weights, settings, number), memory + table + ring)

    # -- what is computed --------------------------------------------------------------------

    def active(self, phase: PlannedPhase, name: Component) -> Held:
        if (phase, name) not in self._known:
            computed, host = self._computed(phase, name)
            self._known[phase, name] = self._where(round(SLACK * computed), host)
        return self._known[phase, name]

    def _computed(self, phase: PlannedPhase, name: Component) -> tuple[int, int]:
        """Compute the bytes where it computes, and those on the host besides."""
        clip, text = self.clip, self.shapes.text
        if phase == "prompt":
            number = self.settings.of_text
            return footprint.text_bytes(text, number) + self._widened(text.dim * text.ff, number), 0
        if phase == "sampling":
            return self._sampling()
        if phase == "decoding":
            return self._decoding()
        if name == "image_encoder":
            assert self.shapes.image is not None
            return footprint.image_bytes(self.shapes.image, clip.references), 0
        pictures = 3 * clip.encoded_frames * clip.width * clip.height * 4
        return footprint.encode_bytes(self.shapes.vae, clip, self.settings.encode_tiled, clip.vae), pictures

    def _sampling(self) -> tuple[int, int]:
        shape, clip, settings = self.shapes.transformer, self.clip, self.settings
        batch, context = clip.passes if settings.batched else 1, self.shapes.picture_tokens
        how = footprint.Forward(settings.number, batch, settings.chunk, context, settings.quantised, clip.w8a8)
        computed = footprint.denoise_bytes(shape, clip, how) + footprint.sampling_bytes(clip)
        computed += footprint.told_bytes(shape, clip, context, batch) * settings.number
        if clip.step_cache:
            computed += footprint.cache_bytes(shape, clip, settings.number)
        if settings.keep_context:
            computed += footprint.context_bytes(shape, clip, how)
        return computed, 0

    def _decoding(self) -> tuple[int, int]:
        clip, settings = self.clip, self.settings
        parked = footprint.parked_bytes(self.shapes.vae, clip, settings.tiling, clip.vae)
        pictures = 8 * 3 * clip.width * clip.height * 4  # a few latents' frames on their way
        return footprint.decode_bytes(self.shapes.vae, clip, settings.tiling, clip.vae), parked + pictures

    def _widened(self, largest: int, number: int = 0) -> int:
        """Compute what dequantising takes: a quantised weight is dequantised when it is used, in two copies of the
        largest."""
        return 2 * largest * (number or self.settings.number) if self.settings.quantised else 0

    def _where(self, computing: int, host: int = 0) -> Held:
        """Return bytes where they are computed with, and others that are on the host in any case."""
        return Held(0, computing + host) if self.settings.device == "cpu" else Held(computing, host)


class PaperCarrier:
    """Moves nothing: adds up what the acts would leave behind. It takes a clip with all the resident blocks that were
    asked for: whether they fit is the question."""

    def __init__(self, sizes: ComponentSizes) -> None:
        self._sizes = sizes
        self._now: dict[Component, Held] = {}

    def held(self, name: Component) -> Held:
        return self._now.get(name, NOTHING)

    def bring(self, name: Component, fewer: int) -> Held:
        return self._set(name, self._sizes.present(name))

    def aside(self, name: Component) -> Held:
        return self._set(name, self._sizes.aside(name))

    def lend(self, name: Component, card: int) -> Held:
        """Free whole resident blocks, where the file has them, too."""
        block, held = self._sizes.resident_block, self.held(name)
        if not block or not self._sizes.on_disk:
            return held
        lent = (self._sizes.present(name) - held).card // block
        count = min(self._sizes.settings.resident - lent, -(-card // block))
        return self._set(name, held - Held(count * block))

    def drop(self, name: Component) -> Held:
        return self._set(name, NOTHING)

    def _set(self, name: Component, held: Held) -> Held:
        self._now[name] = held
        return held
