"""What this machine has, now: card, memory, disk. Nothing is assumed: a value that cannot be read says why.

    python -m engine.memory.hardware [FOLDER]     prints it as JSON

The page asks in a process of its own (`ask_hardware`), since a card is best known to torch, which the page does not
import. Where torch is missing, the driver's own nvidia-smi tells a card's name and memory.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.children import command_of, environment
from engine.disk.room import free_bytes
from engine.memory.host import physical_memory, pinned_limit

_PATIENCE = 60  # seconds; torch alone can take twenty on a cold disk
_PLAIN = ("--format=csv,noheader,nounits",)  # of nvidia-smi
# The oldest driver for a series of CUDA, from NVIDIA's release notes of the toolkit ("minor version compatibility")
_DRIVER_OF_CUDA = {11: 450, 12: 525, 13: 580}
_NO_TORCH = "torch is not installed"


@dataclass(frozen=True)
class Fact:
    """A value, or None, and in a few words where it is from or why it is not known."""

    value: int | str | bool | None
    why: str


@dataclass(frozen=True)
class Hardware:
    """What this machine has, memory in bytes. `device` is what the model would run on: "cuda", "mps", "xpu" or
    "cpu"; `cards` how many of it there are. What else is said of a card is said of one of them."""

    device: Fact
    name: Fact
    vram_total: Fact
    vram_free: Fact
    ram_total: Fact
    ram_free: Fact
    pinned_limit: Fact
    disk_free: Fact
    bf16: Fact
    fp8: Fact
    torch: Fact
    cards: Fact = Fact(None, "not known: counted are cards for CUDA")

    @property
    def has_several(self) -> bool:
        return isinstance(self.cards.value, int) and self.cards.value > 1

    @property
    def has_card(self) -> bool:
        return self.device.value not in (None, "cpu")


def read_hardware(folder: Path | None = None, index: int = 0) -> Hardware:
    """Read what this machine has now, with the card of that number. Imports torch where it is installed. `folder` is
    where weights and clips go: the free space is that of its disk."""
    card = _card_of_torch(index) if importlib.util.find_spec("torch") else _card_without_torch(_NO_TORCH)
    return _with_host(card, folder)


def ask_hardware(folder: Path | None = None) -> Hardware:
    """Read the same in a process of its own: nothing heavy is imported here, and no driver stays open. Where torch or
    the driver hangs or crashes there, nvidia-smi is asked instead."""
    command = command_of("engine.memory.hardware", *([str(folder)] if folder else []))
    try:
        done = _run(command, _PATIENCE, environment())
        return hardware_from_dict(json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        why = f"the graphics driver did not answer within {_PATIENCE} seconds"
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        why = "the graphics driver or torch failed when it was asked"
    return _with_host(_card_without_torch(why), folder)


def hardware_to_dict(hardware: Hardware) -> dict[str, Any]:
    return asdict(hardware)


def hardware_from_dict(data: dict[str, Any]) -> Hardware:
    """Build Hardware from what `hardware_to_dict` returned. Raises KeyError or TypeError for anything else."""
    return Hardware(**{name: Fact(**data[name]) for name in Hardware.__dataclass_fields__})


def counting_as_free(hardware: Hardware, own: tuple[int, int]) -> Hardware:
    """Return the hardware with what our own engine holds, bytes of card and memory, counted as free: the next clip has
    it."""
    card, host = own
    return replace(
        hardware,
        vram_free=_with_ours(hardware.vram_free, hardware.vram_total, card),
        ram_free=_with_ours(hardware.ram_free, hardware.ram_total, host),
    )


def share_of_each(hardware: Hardware, processes: int) -> Hardware:
    """Return the hardware as each of so many processes on it may use it, a card each: the computer's memory is theirs
    together. What they map from a file is in memory once, and counts as free in any case."""

    def part(fact: Fact) -> Fact:
        if processes < 2 or not isinstance(fact.value, int):
            return fact
        return Fact(fact.value // processes, f"{fact.why}; for each of {processes} processes")

    parts = {name: part(getattr(hardware, name)) for name in ("ram_total", "ram_free", "pinned_limit")}
    return replace(hardware, **parts)


def _with_ours(free: Fact, total: Fact, own: int) -> Fact:
    if not own or not isinstance(free.value, int) or not isinstance(total.value, int):
        return free
    return Fact(min(total.value, free.value + own), f"{free.why}; with what our own model holds")


def _with_host(card: dict[str, Fact], folder: Path | None) -> Hardware:
    total, free = physical_memory()
    return Hardware(
        **card,
        ram_total=Fact(*total), ram_free=Fact(*free), pinned_limit=Fact(*pinned_limit(total[0])),
        disk_free=Fact(*free_bytes(folder or Path())),
    )  # fmt: skip


# ---------------------------------------------------------------------------
# The card


def _card_of_torch(index: int) -> dict[str, Fact]:
    try:
        import torch

        version = Fact(torch.__version__, "installed")
        if torch.cuda.is_available():
            return {**_cuda(torch, index), "torch": version}
        for kind in ("xpu", "mps"):
            library = torch.xpu if kind == "xpu" and hasattr(torch, "xpu") else getattr(torch.backends, kind, None)
            if library is not None and library.is_available():
                return {**_other_card(torch, kind), "torch": version}
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        return _card_without_torch(f"torch cannot be used ({reason})")
    return {
        **_processor_only(_why_no_card(torch.version.cuda)),
        "bf16": Fact(True, "computed on the processor, slowly where it has no instructions for it"),
        "fp8": Fact(False, "the processor only stores it"),
        "torch": version,
    }


def _processor_only(why: str) -> dict[str, Fact]:
    """Return the facts for a machine where no card can be used, and why."""
    none = Fact(None, why)
    return {
        "device": Fact("cpu", why), "name": none, "vram_total": none, "vram_free": none, "bf16": none, "fp8": none
    }  # fmt: skip


def _why_no_card(cuda: str | None) -> str:
    """Say why torch, built for this version of CUDA (None: for none), sees no card, and what to do."""
    if (seen := _nvidia_smi()) is None:
        return "no card was found"
    why = f"no card was found, though the driver reports {seen[0]}"
    if cuda is None:
        return f"{why}: this torch is one for the processor only. Install one for CUDA (pytorch.org says how)"
    driver, needed = _driver(), _DRIVER_OF_CUDA.get(int(cuda.partition(".")[0]))
    if driver is not None and needed is not None and driver[0] < needed:
        version = ".".join(map(str, driver))
        return (
            f"{why}: its driver {version} is too old for this torch (CUDA {cuda}). Update the driver to {needed} or "
            "newer, or install a torch for an older CUDA (pytorch.org says how)"
        )
    return f"{why}: restart the computer, or install the driver again"


def has_kernels(architectures: Sequence[str], generation: tuple[int, int]) -> bool:
    """Return whether a torch with these architectures (`torch.cuda.get_arch_list()`) can compute on a card of a
    generation (its compute capability): kernels for it or an earlier one of the same series, or portable code (PTX)
    that is not newer."""
    named = re.findall(r"(sm|compute)_(\d+)", " ".join(architectures))
    known = [(kind, divmod(int(number), 10)) for kind, number in named]
    binary = any(kind == "sm" and each[0] == generation[0] and each <= generation for kind, each in known)
    return not known or binary or any(kind == "compute" and each <= generation for kind, each in known)


def too_old(torch: Any, name: str, generation: tuple[int, int]) -> str:
    """Return what to tell the person where this torch has no kernels for a card; empty where it has."""
    if torch.version.hip is not None or has_kernels(torch.cuda.get_arch_list(), generation):
        return ""
    return (
        f"{name} (compute capability {generation[0]}.{generation[1]}) is not among the cards that this torch is made "
        "for. Install one with kernels for it (for older cards: one for CUDA 12.6; pytorch.org says how)"
    )


def has_bf16(torch: Any, generation: tuple[int, int]) -> bool:
    """Return whether a card of this compute capability has bfloat16 in hardware, as attention kernels want it."""
    return torch.version.hip is not None or generation >= (8, 0)


def _cuda(torch: Any, index: int) -> dict[str, Fact]:
    count = torch.cuda.device_count()
    if index >= count:
        return _processor_only(f"there is no card of number {index}; torch sees {count}")
    properties = torch.cuda.get_device_properties(index)
    generation = (properties.major, properties.minor)
    if why := too_old(torch, properties.name, generation):
        return {**_processor_only(why), "name": Fact(properties.name, "torch")}
    seen = _nvidia_smi() if torch.version.hip is None and count == 1 else None
    if seen is not None:  # asked from outside: torch's own context takes some hundred MB of what it counts as free
        free = Fact(seen[2], "nvidia-smi")
    else:
        free = Fact(torch.cuda.mem_get_info(index)[0], "torch, which itself takes some hundred MB")
    level = f"compute capability {generation[0]}.{generation[1]}"
    return {
        "device": Fact("cuda", "torch sees a card"),
        "name": Fact(properties.name, "torch"),
        "vram_total": Fact(properties.total_memory, "torch"),
        "vram_free": free,
        "bf16": Fact(has_bf16(torch, generation), level),
        "fp8": Fact(generation >= (8, 9) and torch.version.hip is None, level),
        "cards": Fact(count, "torch"),
    }


def _other_card(torch: Any, kind: str) -> dict[str, Fact]:
    unknown = Fact(None, f"not known: nothing tells it for {kind}")
    card = {
        "device": Fact(kind, "torch sees a card"), "name": unknown, "vram_total": unknown, "vram_free": unknown,
        "bf16": Fact(None, f"not known for {kind}"), "fp8": Fact(None, f"not known for {kind}"),
    }  # fmt: skip
    if kind == "xpu":
        properties = torch.xpu.get_device_properties(0)
        card["name"] = Fact(properties.name, "torch")
        card["vram_total"] = Fact(properties.total_memory, "torch")
    else:
        card["name"] = Fact("Apple GPU", "torch")
        limit = Fact(torch.mps.recommended_max_memory(), "torch; shared with the processor")
        card["vram_total"] = card["vram_free"] = limit
    return card


def _card_without_torch(why: str) -> dict[str, Fact]:
    unknown = Fact(None, f"not known: {why}")
    seen = _nvidia_smi()
    if seen is None:
        card = {"device": Fact("cpu", f"none was found, and {why}"), "name": unknown}
        card |= {"vram_total": unknown, "vram_free": unknown}
    else:
        card = {"device": Fact("cuda", "nvidia-smi"), "name": Fact(seen[0], "nvidia-smi")}
        card |= {"vram_total": Fact(seen[1], "nvidia-smi"), "vram_free": Fact(seen[2], "nvidia-smi")}
    return {**card, "bf16": unknown, "fp8": unknown, "torch": Fact(None, why)}


def _driver() -> tuple[int, ...] | None:
    """Read the version of NVIDIA's driver, such as (570, 86); None where it is not known."""
    try:
        done = _run(["nvidia-smi", "--query-gpu=driver_version", *_PLAIN], 10)
        return tuple(int(part) for part in done.stdout.splitlines()[0].strip().split("."))
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None


def _nvidia_smi() -> tuple[str, int, int] | None:
    """Read name, total and free bytes of the first card; None where there is no such program or no answer."""
    try:
        done = _run(["nvidia-smi", "--query-gpu=name,memory.total,memory.free", *_PLAIN], 10)
        name, total, free = (part.strip() for part in done.stdout.splitlines()[0].rsplit(",", 2))
        return name, int(total) * 2**20, int(free) * 2**20
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None


def _run(command: list[str], patience: float, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # or a console flashes up on Windows
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=patience, creationflags=hidden,
        env=env, encoding="utf-8", errors="replace",
    )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(hardware_to_dict(read_hardware(Path(sys.argv[1]) if len(sys.argv) > 1 else None))))
