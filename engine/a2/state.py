"""Tensors on disk, whole or not at all: the final latents, and a run between two steps.

A run's file holds its latents, its scheduler's history and its conditioning as safetensors, and the rest (step,
scheduler, what it belongs to) as JSON in the file's metadata. One file, put in place in one step: whoever is killed
while writing leaves the state of the step before.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.a2.conditioning import Conditioning
from engine.a2.references import Canvas
from engine.a2.sampling import Run, make_scheduler
from engine.a2.step_cache import Kept
from engine.disk import atomic
from engine.errors import EngineUnavailable
from engine.memory.weights import read_note
from engine.scene.scene import Sampling, Scene

if TYPE_CHECKING:
    import torch

_VERSION = 2
_TENSOR = "__tensor__"  # in the JSON: the name of a tensor that stands here, and whether it stays on the host


def save_latents(path: Path, latents: torch.Tensor) -> None:
    """Write a file with one tensor, `latents`, (1, 16, T, h, w) float32, normalised. Raises EngineUnavailable."""
    save_whole(path, {"latents": latents.float()})


def save_whole(path: Path, tensors: dict[str, torch.Tensor], note: str = "") -> None:
    """Write a safetensors file under a temporary name, and put it in place when it is finished. Raises
    EngineUnavailable where it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with atomic.whole(path) as part:
            save_file(
                {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
                part,
                {"troupe": note} if note else None,
            )
            with part.open("rb+") as file:
                os.fsync(file.fileno())  # a name that survives a power cut should have its data
    except (OSError, SafetensorError) as error:  # the latter is how the library tells of a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise EngineUnavailable(
            f"{path} cannot be written ({reason})", "Free some space, or name another file."
        ) from None


def check_target(path: Path) -> None:
    """Refuse before the hours of work what would surely fail after them, and what would replace somebody's scene or
    picture. Makes the folder. Raises EngineUnavailable."""
    try:
        if path.is_dir():
            raise EngineUnavailable(f"{path} is a folder", "Name a file in it, such as latents.safetensors.")
        if path.is_file() and not _is_replaceable(path):
            raise EngineUnavailable(
                f"{path} is there already, and is no safetensors file", "Name another: this one would be lost."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineUnavailable(
            f"{path} cannot be used ({error.strerror})", "Name another file, in a folder that can be written."
        ) from None
    if not os.access(path.parent, os.W_OK):
        raise EngineUnavailable(f"nothing can be written into {path.parent}", "Name another folder.")


def _is_replaceable(path: Path) -> bool:
    """Return whether a file can be one of ours: an earlier run's, perhaps damaged, whatever its name; or an empty
    one."""
    size = path.stat().st_size
    if size == 0 or path.suffix.lower() == ".safetensors":
        return True
    with path.open("rb") as file:
        length, brace = int.from_bytes(file.read(8), "little"), file.read(1)
    return brace == b"{" and length < size


# ---------------------------------------------------------------------------
# A run


def fingerprint(scene: Scene, canvases: Sequence[Canvas], *others: object) -> str:
    """Compute the hash of everything that a run's latents depend on. A clip's frame rate and trim do not change
    them."""
    video = scene.video
    facts = [scene.prompt, scene.negative_prompt, video.width, video.height, video.frames]
    facts.append(scene.sampling.model_dump(exclude_none=True))
    digest = hashlib.sha256(json.dumps([*facts, *map(str, others)]).encode("utf-8", "replace"))
    for canvas in canvases:
        digest.update(canvas.semantic.tobytes() + canvas.spatial.tobytes())
    return digest.hexdigest()


def save_run(path: Path, run: Run, conditioning: Conditioning, how: tuple[str, str], belongs: str) -> None:
    """Write a run between two steps; `how` is the scheduler and the precision. Raises EngineUnavailable where the file
    cannot be written."""
    scheduler, precision = how
    tensors = {"latents": run.latents}
    history = _pack(_history(run.scheduler), tensors, "scheduler")
    for item in fields(Conditioning):
        if (value := getattr(conditioning, item.name)) is not None:
            tensors[f"conditioning.{item.name}"] = value
    facts = {"version": _VERSION, "step": run.step, "steps": run.steps, "scheduler": scheduler, "belongs": belongs}
    facts["precision"] = precision
    cache = _pack(vars(run.cache), tensors, "cache") if run.cache is not None else None
    save_whole(path, tensors, json.dumps({**facts, "history": history, "cache": cache}))


def kept_precision(path: Path) -> str | None:
    """Read how the model's weights were stored in the run that a file keeps; None where it keeps none, or an earlier
    version wrote it. Reads no tensors, and imports no library."""
    found = read_note(path).get("precision")
    return found if isinstance(found, str) else None


def load_run(
    path: Path, sampling: Sampling, scheduler: str, belongs: str, device: torch.device
) -> tuple[Run, Conditioning] | None:
    """Load a run as it was saved; None where there is none, or it is damaged or belongs to something else."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            facts = json.loads((file.metadata() or {}).get("troupe", "null"))
            if not isinstance(facts, dict) or (facts["version"], facts["belongs"]) != (_VERSION, belongs):
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kept: dict[str, Any] = {item.name: tensors.get(f"conditioning.{item.name}") for item in fields(Conditioning)}
        restored = make_scheduler(scheduler, sampling)
        vars(restored).update(_unpack(facts["history"], tensors, torch.device("cpu")))
        cache = Kept(**_unpack(facts["cache"], tensors, device)) if facts["cache"] is not None else None
        run = Run(tensors["latents"].to(device), facts["step"], facts["steps"], restored, cache)
        return run, Conditioning(**kept)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _history(scheduler: Any) -> dict[str, Any]:
    """Return what a scheduler keeps from step to step: the plain values and tensors among its attributes. Its
    configuration is not among them: it is made anew from the scene."""
    return {name: value for name, value in vars(scheduler).items() if name != "_internal_dict" and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    import torch

    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)


def _pack(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """Convert `value` to JSON; the tensors in it go to `tensors`, under names that begin with `name`."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {_TENSOR: name, "host": value.device.type == "cpu"}
    if isinstance(value, dict):
        return {key: _pack(item, tensors, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(item, tensors, f"{name}.{i}") for i, item in enumerate(value)]
    return value


def _unpack(value: Any, tensors: dict[str, torch.Tensor], device: torch.device) -> Any:
    if isinstance(value, dict) and _TENSOR in value:
        return tensors[value[_TENSOR]].to("cpu" if value["host"] else device)
    if isinstance(value, dict):
        return {key: _unpack(item, tensors, device) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, tensors, device) for item in value]
    return value
