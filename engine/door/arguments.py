"""What may be said after `launch.py render`, and what of it goes together."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args

from engine import VERSION
from engine.a2.options import DEFAULT_MODEL, A2Options, Attention, Lora
from engine.errors import EngineUnavailable, TroupeError

BAD_ARGUMENTS = 2  # the exit status


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, checked one by one. Ends the program with one line and `BAD_ARGUMENTS` where one is wrong."""
    parser = Parser(prog="launch.py render", description="Make a video from a scene file, without a browser.")
    parser.add_argument("--version", action="version", version=f"Troupe {VERSION}")
    parser.add_argument("scene", help="the scene file (JSON); its image paths are relative to it")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.mp4", help="the video to write")
    parser.add_argument("--engine", choices=("draft", "a2"), help="instead of the one that the scene names")
    parser.add_argument("--seed", type=int, help="instead of the one that the scene names")
    parser.add_argument(
        "--quality", choices=("fast", "standard", "best"), default="fast", help="of the cut-outs (default: fast)"
    )
    parser.add_argument(
        "--no-metadata",
        action="store_true",
        help="leave scene and prompt out of the file (it still says how it was made)",
    )
    model = parser.add_argument_group("for the a2 engine")
    model.add_argument("--model", metavar="DIR", help="the checkpoint's folder, or a hub id that is on this machine")
    model.add_argument("--device", help="cpu, cuda, cuda:1, … (default: cuda where it is)")
    model.add_argument("--precision", choices=("fp32", "bf16", "int8", "fp8"), help="default: bf16, on the CPU fp32")
    model.add_argument(
        "--offload",
        choices=("none", "blocks"),
        help="blocks: each of the model's is brought when it computes (default: none)",
    )
    model.add_argument("--resident-blocks", type=int, metavar="N", help="how many stay all the same (default: none)")
    model.add_argument("--save-latents", metavar="FILE.safetensors", help="keep the final denoised latents as well")
    model.add_argument(
        "--state", metavar="FILE.safetensors", help="keep the run after every step; one that was cut off goes on there"
    )
    speed = parser.add_argument_group("for the a2 engine, for another picture or less time; each changes the picture")
    speed.add_argument(
        "--lora",
        action="append",
        type=_lora,
        metavar="FILE[:STRENGTH]",
        help="a LoRA for Wan2.1 14B image-to-video (.safetensors; strength 1 unless said); may be given several times",
    )
    speed.add_argument(
        "--turbo", action="store_true", default=None, help="4 to 8 steps, no guidance; needs a step-distilled --lora"
    )
    speed.add_argument(
        "--step-cache", action="store_true", default=None, help="reuse most of the steps that change little"
    )
    speed.add_argument("--attention", choices=get_args(Attention), help="default: native; others must be installed")
    speed.add_argument("--scheduler", choices=("unipc", "euler"), help="default: unipc, with --turbo euler")
    return parser.parse_args(argv)


def _lora(text: str) -> Lora:
    """`FILE`, or `FILE:STRENGTH`; the colon of a Windows drive is part of the file."""
    file, colon, strength = text.rpartition(":")
    if not colon or (len(file) == 1 and file.isalpha()):
        return Lora(Path(text))
    try:
        return Lora(Path(file), float(strength))
    except ValueError:
        if not file.lower().endswith(".safetensors"):  # a name with a colon in it
            return Lora(Path(text))
        raise argparse.ArgumentTypeError(f"{strength!r} in {text!r} is not a strength, such as 0.8") from None


class Parser(argparse.ArgumentParser):
    """One line for what is wrong, and where more is said."""

    def error(self, message: str) -> NoReturn:
        said = " ".join(message.split())
        self.exit(BAD_ARGUMENTS, f"troupe: {said}. See: python {self.prog} --help\n")


# What holds for the draft anyway may be said; what it would have to ignore is refused.
_TRUE_OF_THE_DRAFT = {
    "model": (),
    "device": ("cpu",),
    "precision": ("fp32",),
    "offload": ("none",),
    "resident_blocks": (),
    "save_latents": (),
    "state": (),
    "lora": (),
    "turbo": (),
    "step_cache": (),
    "attention": (),
    "scheduler": (),
}


def a2_options(arguments: argparse.Namespace, engine: str) -> A2Options:
    """How to run the a2 engine. Raises TroupeError where flags do not go together, or not with the draft."""
    if engine == "draft":
        _check_draft_flags(arguments)
        return A2Options()
    blocks = arguments.resident_blocks
    if blocks is not None and (blocks < 0 or arguments.offload != "blocks"):
        raise EngineUnavailable(
            f"--resident-blocks {blocks}: a number from 0 on, of blocks that stay while the others stream",
            "Use it with --offload blocks, or leave it out.",
        )
    return A2Options(
        model=arguments.model or DEFAULT_MODEL,
        device=arguments.device or "",
        precision=arguments.precision,
        offload=arguments.offload or "none",
        resident_blocks=blocks,
        save_latents=Path(arguments.save_latents) if arguments.save_latents else None,
        state=Path(arguments.state) if arguments.state else None,
        scheduler=arguments.scheduler,
        loras=tuple(arguments.lora or ()),
        turbo=bool(arguments.turbo),
        step_cache=bool(arguments.step_cache),
        attention=arguments.attention or "native",
    )


def _check_draft_flags(arguments: argparse.Namespace) -> None:
    if arguments.save_latents is not None:
        raise TroupeError("--save-latents: a draft has no latents to save", "Leave it out, or use --engine a2.")
    for name, true in _TRUE_OF_THE_DRAFT.items():
        value = getattr(arguments, name)
        if value is not None and value not in true:
            flag = "--" + name.replace("_", "-")
            shown = "" if value is True or name == "lora" else f" {shlex.quote(str(value))}"
            raise TroupeError(
                f"{flag}{shown}: the draft runs on the CPU, without a model",
                "Leave it out, or use --engine a2.",
            )


def check_written(arguments: argparse.Namespace) -> None:
    """Refuse to write one file twice, or over one that is read."""
    used = {os.path.realpath(arguments.scene): "the scene"}
    used |= {os.path.realpath(lora.path): "--lora" for lora in arguments.lora or ()}
    written = {"-o": arguments.output, "--save-latents": arguments.save_latents, "--state": arguments.state}
    for flag, name in written.items():
        if not name:
            continue
        if other := used.get(os.path.realpath(name)):
            raise TroupeError(f"{flag} {shlex.quote(name)} is {other}, too", "Name another file.")
        used[os.path.realpath(name)] = flag
