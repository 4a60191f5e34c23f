"""How fast this machine is: a few seconds of the model's own kinds of work, measured once and remembered; and corrected
by what its jobs then really took. Only when a person asks for it, or after a job; never on import.

    python -m engine.a2.plan.calibration DEVICE PRECISION     measures and remembers it, with SkyReels-A2's shapes
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import surroundings
from engine.a2.attention import attend, usable
from engine.a2.compute import Compute
from engine.a2.options import Attention, Precision
from engine.a2.plan.shapes import Shapes
from engine.a2.plan.speed import Speed
from engine.disk.atomic import whole

if TYPE_CHECKING:
    import torch

_REPEATS = 3
_TRUST = 0.5  # the weight of a new job's measurement against all earlier ones
_WILDEST = 20.0  # a correction beyond it is an accident: a laptop that slept, a clock that was set
_EARLIER = {"text": "prompt", "denoise": "sampling", "decode": "decoding"}  # phases as earlier versions called them
_COPY = 256 * 2**20  # bytes
_GROUPED, _OPTIONAL = ("corrections", "attentions"), ("copy", "pageable", "w8a8", "convolution_bf16")
_EXACT = 0.01  # of attention: the error against float32 that bf16 itself has is some 0.003, that of 8 bits 0.03
_SEEN = 2048  # tokens of that comparison

_Run = Callable[[], object]
_Task = Callable[[], tuple[_Run, float]]  # makes its tensors; returns the work, and how much it is


@dataclass(frozen=True)
class Machine:
    """What speeds belong to: a card or processor, the library and the precision."""

    device: str
    torch: str
    precision: Precision

    @property
    def key(self) -> str:
        return f"{self.device} | torch {self.torch} | {self.precision}"


def speeds_file() -> Path:
    """Return the file in which speeds are remembered."""
    return surroundings.cache_folder() / "speeds.json"


def recall(machine: Machine, file: Path) -> Speed | None:
    """Read what was measured on this machine; None where nothing was, or the file is damaged."""
    entry: Any = _read(file).get(machine.key)
    try:
        grouped = [*entry["corrections"].values(), *entry.get("attentions", {}).values()]
        numbers = [value for name, value in entry.items() if name not in (*_GROUPED, *_OPTIONAL)]
        entry["corrections"] = {_EARLIER.get(phase, phase): factor for phase, factor in entry["corrections"].items()}
        if not all(map(_is_rate, [*numbers, *grouped, *filter(None, map(entry.get, _OPTIONAL))])):
            return None
        return Speed(**entry)
    except (AttributeError, KeyError, TypeError):
        return None


def remember(machine: Machine, speed: Speed, file: Path) -> None:
    """Write a machine's speed for the next start. A file that cannot be written costs only the next calibration."""
    entries = {**_read(file), machine.key: asdict(speed)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as part:
            part.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    except OSError:
        return


def learn(machine: Machine, stage: str, predicted: float, measured: float, file: Path) -> None:
    """Correct a stage's prediction by a job's measured seconds; both are of the stage's whole work, without loading.
    `predicted` is what the plan said, with the corrections of then."""
    speed = recall(machine, file)
    if speed is None or not (_is_rate(predicted) and _is_rate(measured)):
        return
    before = speed.corrections.get(stage, 1.0)
    wanted = before * measured / predicted
    # The mean is a geometric one, of logarithms: twice as long and half as long cancel out.
    blended = math.exp((1 - _TRUST) * math.log(before) + _TRUST * math.log(wanted))
    kept = min(max(blended, 1 / _WILDEST), _WILDEST)
    remember(machine, Speed(**{**asdict(speed), "corrections": {**speed.corrections, stage: kept}}), file)


def calibrate(
    shapes: Shapes, device: str, precision: Precision, on_step: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Speed | None:  # fmt: skip
    """Measure the rates of this machine, in a few seconds and a few hundred MB. Returns None when stopped. Raises
    RuntimeError where a card has not even that memory."""
    import torch

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    place = torch.device(device)
    rates: dict[str, float] = {}
    tasks, kinds = _tasks(shapes, place, dtype), exact_kinds(shapes, Compute(place, dtype))
    tasks |= {kind: partial(_attention, shapes, place, dtype, kind) for kind in kinds}
    with torch.no_grad():
        for step, (name, task) in enumerate(tasks.items()):
            if stop is not None and stop():
                return None
            if on_step is not None:
                on_step(step, len(tasks))
            try:
                rates[name] = _rate(task, place)
            except RuntimeError:
                if name not in kinds[1:]:
                    raise
    return Speed(
        matmul=rates["matmul"], attention=rates["native"], single=rates["single"], convolution=rates["convolution"],
        widen=rates["widen"], copy=rates.get("copy"), pageable=rates.get("pageable"),
        attentions={kind: rates[kind] for kind in kinds if kind in rates}, w8a8=rates.get("w8a8"),
        convolution_bf16=rates.get("convolution_bf16"),
    )  # fmt: skip


def exact_kinds(shapes: Shapes, compute: Compute) -> tuple[Attention, ...]:
    """Return the kinds of attention that run here and differ from float32 by no more than bf16 does; native first."""
    import torch

    heads, size = shapes.transformer.heads, shapes.transformer.dim // shapes.transformer.heads
    generator = torch.Generator().manual_seed(0)
    found: list[Attention] = []
    with torch.no_grad():
        asked = [torch.randn(1, _SEEN, min(heads, 4), size, generator=generator).to(compute.dtype) for _ in range(3)]
        wanted = attend("native", *(each.float() for each in asked))
        for kind in usable(compute):
            try:
                seen = attend(kind, *(each.to(compute.device) for each in asked)).float().cpu()
            except (RuntimeError, ImportError, ValueError, TypeError, AssertionError):  # kernels say no in many ways
                continue
            if kind == "native" or float((seen - wanted).norm() / wanted.norm()) <= _EXACT:
                found.append(kind)
    return tuple(found)


def machine_of(device: str, precision: Precision) -> Machine:
    """Return the machine under which its speeds are kept. Imports torch."""
    import platform

    import torch

    kind, processor = torch.device(device), f"{platform.machine()}, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name(kind) if kind.type == "cuda" else processor
    return Machine(name, torch.__version__, precision)


def _tasks(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> dict[str, _Task]:
    """Return the tasks by the rate's name. Each makes its tensors, and returns the work and how much it is (operations,
    numbers or bytes); less of it on a processor."""
    import torch

    from engine.memory.multiply import can_w8a8

    card = device.type == "cuda"
    tokens = 8192 if card else 256
    dim, ffn = shapes.transformer.dim, shapes.transformer.ffn

    def matmul(kind: torch.dtype) -> tuple[_Run, float]:
        x, w = torch.ones(tokens, dim, dtype=kind, device=device), torch.ones(ffn, dim, dtype=kind, device=device)
        return lambda: x @ w.t(), 2 * tokens * dim * ffn

    def convolution(kind: torch.dtype) -> tuple[_Run, float]:
        channels, side = shapes.vae.channels[0], 256 if card else 64
        x = torch.ones(1, channels, 6, side, side, dtype=kind, device=device)
        w = torch.ones(channels, channels, 3, 3, 3, dtype=kind, device=device)
        return lambda: torch.nn.functional.conv3d(x, w), 2 * 27 * channels**2 * 4 * (side - 2) ** 2

    def widen() -> tuple[_Run, float]:
        w = torch.ones(ffn, dim, dtype=torch.int8, device=device)
        scale = torch.ones(ffn, 1, dtype=dtype, device=device)
        return lambda: scale * w, ffn * dim

    def copy(pinned: bool) -> tuple[_Run, float]:
        source = torch.ones(_COPY, dtype=torch.uint8, pin_memory=pinned)
        target = torch.empty(_COPY, dtype=torch.uint8, device=device)
        return lambda: target.copy_(source, non_blocking=True), _COPY

    tasks: dict[str, _Task] = {
        "matmul": lambda: matmul(dtype), "single": lambda: matmul(torch.float32),
        "convolution": lambda: convolution(torch.float32), "widen": widen,
    }  # fmt: skip
    if card:
        tasks |= {"copy": lambda: copy(True), "pageable": lambda: copy(False)}
    if card and dtype == torch.bfloat16:
        tasks["convolution_bf16"] = lambda: convolution(dtype)
        if can_w8a8(torch.cuda.get_device_capability(device), "int8"):
            tasks["w8a8"] = partial(_eight_bits, shapes, device, dtype)
    return tasks


def _eight_bits(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> tuple[_Run, float]:
    import torch

    from engine.memory.multiply import W8A8
    from engine.memory.quantize import as_weight

    tokens, dim, ffn = 8192, shapes.transformer.dim, shapes.transformer.ffn
    layer = W8A8(dim, ffn, bias=False, device="meta")
    data = torch.ones(ffn, dim, dtype=torch.int8, device=device)
    layer.weight = as_weight(data, torch.ones(ffn, 1, dtype=dtype, device=device), "int8")
    x = torch.ones(tokens, dim, dtype=dtype, device=device)
    return lambda: layer(x), 2 * tokens * dim * ffn


def _attention(shapes: Shapes, device: torch.device, dtype: torch.dtype, kind: Attention) -> tuple[_Run, float]:
    import torch

    seen = 8192 if device.type == "cuda" else 1024
    dim, heads = shapes.transformer.dim, shapes.transformer.heads
    q = torch.ones(1, seen, heads, dim // heads, dtype=dtype, device=device)
    return lambda: attend(kind, q, q, q), 4 * seen * seen * dim


def _rate(task: _Task, device: torch.device) -> float:
    """Measure a task's amount of work per second: the median of a few runs, the first of which does not count."""
    import torch

    work, amount = task()
    taken = []
    for _ in range(_REPEATS + 1):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - begun)
    return amount / max(statistics.median(taken[1:]), 1e-9)


def _read(file: Path) -> dict[str, Any]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _main(device: str, precision: Precision) -> None:
    from engine.a2.plan.shapes import default_shapes

    speed = calibrate(default_shapes(), device, precision)
    if speed is not None:
        remember(machine_of(device, precision), speed, speeds_file())


if __name__ == "__main__":
    import sys

    _main(sys.argv[1], sys.argv[2])  # type: ignore[arg-type]  # of PRECISION's words, as the docstring asks
