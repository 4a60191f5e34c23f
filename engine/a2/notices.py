"""What a person should know of a finished run: above all, everything that changes the picture."""

from __future__ import annotations

from engine.a2 import attention
from engine.a2.checkpoint import Checkpoint
from engine.a2.conditioning import too_long
from engine.a2.options import A2Options
from engine.a2.plan.fast import said_of
from engine.a2.sampling import Run
from engine.scene.scene import Scene


def notices_of(checkpoint: Checkpoint, asked: Scene, scene: Scene, options: A2Options, run: Run) -> tuple[str, ...]:
    """List what the person should know of a run of `scene`, where `asked` is the scene as it was asked for."""
    spec = checkpoint.spec
    of_streams = (notice for slabs in checkpoint.streams.values() for notice in slabs.notices)
    told = list(dict.fromkeys((*checkpoint.notices, *of_streams)))
    if said := said_of(options):
        told.append(said)
    if too_long(checkpoint, scene.prompt):
        told.append("The prompt is longer than the model reads (512 tokens): its end was left out.")
    for lora in options.loras:
        if lora.strength:
            told.append(f"LoRA {lora.path.name} at strength {lora.strength:g}: changes the picture.")
    told += [f"Of {left_out} was left out: it does not fit this model." for left_out in checkpoint.fused.left_out]
    if options.turbo:
        used, wanted = scene.sampling, asked.sampling
        told.append(
            f"Turbo: {used.steps} steps, guidance {used.guidance:g} and flow shift {used.flow_shift:g} instead of "
            f"{wanted.steps}, {wanted.guidance:g} and {wanted.flow_shift:g}. Changes the picture: expect less motion, "
            "and less difference between seeds. The negative prompt is not used."
        )
    elif options.solver(spec) != spec.solver:
        told.append(f"Scheduler {options.solver(spec)} instead of {spec.solver}: changes the picture.")
    if run.cache is not None and run.cache.reused:
        told.append(f"Step cache: {run.cache.reused} passes were reused. Changes the picture.")
    if effect := attention.effect(options.attention):
        told.append(effect)
    if options.w8a8:
        told.append(f"Multiplied in 8 bits (W8A8, {checkpoint.compute.precision}): changes the picture.")
    if options.vae_precision == "bf16":
        told.append("The VAE in bf16: changes pixels a little.")
    if options.encode_tiled:
        told.append("To save memory the cast was encoded in tiles: changes the picture a little.")
    return tuple(told)
