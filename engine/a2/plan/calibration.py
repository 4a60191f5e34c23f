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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import surroundings
from engine.a2.options import Precision
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
        numbers = [value for name, value in entry.items() if name not in ("corrections", "copy", "pageable")]
        corrections = entry["corrections"].values()
        entry["corrections"] = {_EARLIER.get(phase, phase): factor for phase, factor in entry["corrections"].items()}
        if not all(map(_is_rate, [*numbers, *corrections, *filter(None, (entry["copy"], entry["pageable"]))])):
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
    tasks = _tasks(shapes, place, dtype)
    with torch.no_grad():
        for step, (name, task) in enumerate(tasks.items()):
            if stop is not None and stop():
                return None
            if on_step is not None:
                on_step(step, len(tasks))
            rates[name] = _rate(task, place)
    return Speed(
        matmul=rates["matmul"], attention=rates["attention"], single=rates["single"], convolution=rates["convolution"],
        widen=rates["widen"], copy=rates.get("copy"), pageable=rates.get("pageable"),
    )  # fmt: skip


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

    card = device.type == "cuda"
    tokens, seen = (8192, 8192) if card else (256, 1024)
    dim, ffn, heads = shapes.transformer.dim, shapes.transformer.ffn, shapes.transformer.heads

    def matmul(kind: torch.dtype) -> tuple[_Run, float]:
        x, w = torch.ones(tokens, dim, dtype=kind, device=device), torch.ones(ffn, dim, dtype=kind, device=device)
        return lambda: x @ w.t(), 2 * tokens * dim * ffn

    def attention() -> tuple[_Run, float]:
        q = torch.ones(1, heads, seen, dim // heads, dtype=dtype, device=device)
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q), 4 * seen * seen * dim

    def convolution() -> tuple[_Run, float]:
        channels, side = shapes.vae.channels[0], 256 if card else 64
        x = torch.ones(1, channels, 6, side, side, device=device)
        w = torch.ones(channels, channels, 3, 3, 3, device=device)
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
        "matmul": lambda: matmul(dtype), "attention": attention, "single": lambda: matmul(torch.float32),
        "convolution": convolution, "widen": widen,
    }  # fmt: skip
    if card:
        tasks |= {"copy": lambda: copy(True), "pageable": lambda: copy(False)}
    return tasks


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
