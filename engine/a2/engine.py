"""The video model as an engine: what page, command line and queue know of it. The work itself is in recipe.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.a2.geometry import frames_for, size_of
from engine.a2.models import known_release
from engine.a2.options import (
    A2Options,
    as_run,
    check_installed,
    check_scene,
    check_speed,
    check_video,
)
from engine.a2.phases import STAGES
from engine.errors import EngineUnavailable
from engine.scene.cast import Member
from engine.scene.engine import Engine, EnginePlanner, Footage, MadeFor, Reference, RunContext
from engine.scene.scene import Scene, Video

if TYPE_CHECKING:
    from engine.memory.model_cache import ModelCache

_TITLES = {"character": "Characters", "object": "Objects", "background": "Background"}

# For the estimate of GPU time to ask for. The rate is taken low for the cards that Spaces lend, and was not measured
# there: too short a time ends a clip unfinished, too long a time only asks for more of the person's quota.
_RATE = 100e12  # floating point operations a second
_BESIDES = 60.0  # seconds for the text encoder, the VAE and the film


class A2(Engine):
    name, title = "a2", "Video model"
    about = "the video model (SkyReels, RefAlign, Phantom) takes minutes on a graphics card"
    note = "Made by the video model."
    stages = STAGES
    options = A2Options
    sampling = ("steps", "guidance", "image_guidance", "flow_shift")
    trims_head = whole_photos = wants_gpu = True

    # -- what it can do ------------------------------------------------------------

    def available(self, options: A2Options) -> None:
        from engine.a2.files import locate, read_checkpoint

        check_installed()
        read_checkpoint(locate(options.model, options.family))

    def check_video(self, video: Video) -> None:
        check_video(video)

    def check_options(self, options: A2Options) -> None:
        check_speed(options)

    def check_flags(self, options: A2Options) -> None:
        if options.resident_blocks is not None and options.offload != "blocks":
            raise EngineUnavailable(
                f"--resident-blocks {options.resident_blocks}: a number of blocks that stay while the others stream",
                "Use it with --offload blocks, or leave it out.",
            )

    def check(self, scene: Scene, options: A2Options) -> None:
        from engine.a2.adapters import check_loras
        from engine.a2.attention import check_attention
        from engine.a2.compiling import check_compiler
        from engine.a2.compute import choose_compute
        from engine.a2.files import locate, read_checkpoint
        from engine.a2.parallel.show import check_cards
        from engine.a2.state import check_target
        from engine.a2.wan_names import renamed
        from engine.memory.multiply import check_w8a8

        check_scene(scene, options.spec)
        check_speed(options)
        check_cards(options)
        for path in filter(None, (options.save_latents, options.state)):
            check_target(path)
        compute = choose_compute(options)
        check_attention(options.attention, compute)
        if options.w8a8:
            check_w8a8(compute.device, compute.precision)
        if options.compiled:
            check_compiler(compute.device)
        if options.loras:
            transformer = read_checkpoint(locate(options.model, options.family))["transformer"]
            check_loras(options.loras, renamed(transformer))

    def frames_for(self, seconds: float, fps: int, trim_head: int) -> int:
        return frames_for(seconds, fps, trim_head)

    def made_for(self, options: A2Options) -> MadeFor:
        spec, release = options.spec, known_release(options.model)
        numbers = {name: getattr(spec, name) for name in self.sampling if getattr(spec, name) is not None}
        title, fps = (release.title, release.fps) if release is not None else (spec.title, 0)
        return MadeFor(spec.family, title, numbers, fps or spec.fps, spec.trim_head, spec.references)

    def completed(self, scene: Scene, options: A2Options) -> Scene:
        return options.spec.completed(scene, known_release(options.model))

    def as_run(self, scene: Scene, options: A2Options) -> Scene:
        return as_run(scene, options)

    def units(self, scene: Scene) -> float:
        return super().units(scene) * scene.sampling.steps

    def gpu_seconds(self, scene: Scene, options: A2Options) -> int:
        """Estimate the GPU time to ask for: what a diffusion transformer of this size computes (2 operations a weight
        and token, 4 width a pair of tokens and layer), over a rate that is taken low."""
        from engine.a2.plan.shapes import default_shapes

        model = default_shapes(options.model).transformer
        size = size_of(as_run(self.completed(scene, options), options), options.spec)
        forward = 2 * model.weights.count * size.tokens + 4 * model.dim * model.layers * size.tokens**2
        return round(_BESIDES + size.passes * size.steps * forward / _RATE)

    # -- what a person is told before ------------------------------------------------

    def remarks(self, scene: Scene, options: A2Options) -> Sequence[str]:
        video, spec = scene.video, options.spec
        kept = (video.frames - video.trim_head) / video.fps
        why = "show the references and are" if spec.in_channels else "are"
        said = [
            f"{video.frames} frames are made; the first {video.trim_head} {why} cut off: {kept:.1f} s are kept."
        ] if video.trim_head else []  # fmt: skip
        if video.frames > spec.trained_frames:
            said.append(f"The model was trained on {spec.trained_frames} frames; a longer clip may drift.")
        if scene.sampling.image_guidance is not None and not spec.has_image_guidance:
            said.append(f"{spec.title} has no guidance of the references: that number is not used.")
        if options.turbo:
            steps = as_run(scene, options).sampling.steps
            said.append(f"Turbo makes it in {steps} steps, without the negative prompt.")
        if options.fast:
            said.append("Fast changes the picture: the clip says with what it was made.")
        return said

    def references(self, scene: Scene, members: Sequence[Member], options: A2Options) -> Sequence[Reference]:
        from engine.a2.references import gather_references

        canvases = gather_references(scene, members, options.spec)
        return [Reference(canvas.spatial, _TITLES[canvas.role], canvas.names) for canvas in canvases]

    def planner(self) -> EnginePlanner:
        from engine.a2.plan.planner import A2Planner

        return A2Planner()

    def planned(self, scene: Scene, options: A2Options, folder: Path) -> A2Options:
        from engine.a2.here import planned_here

        return planned_here(scene, options, folder)

    # -- the work ----------------------------------------------------------------------

    def preload(self, options: A2Options, cache: ModelCache) -> None:
        from engine.a2 import recipe

        check_installed()
        cache.fetch(recipe.weights_of(options), lambda: recipe.preload(options))

    def shoot(self, scene: Scene, members: Sequence[Member], context: RunContext) -> Footage:
        from engine.a2 import recipe, rescue
        from engine.a2.parallel import show

        note = f"Made by the video model {self.made_for(context.options).title}."
        if (context.options.cards or 1) > 1:
            return replace(show.shoot(scene, members, context), note=note)
        callbacks = recipe.Callbacks(context.tell, stop=context.stop)
        shot = rescue.shoot(scene, members, context.options, callbacks, context.cache)
        return Footage(shot.frames, shot.count, "decoding", shot.notices, note)


ENGINE: Any = A2()
