"""What the machine has: every value with its reason, containers' limits, no torch needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.memory import hardware
from engine.memory.hardware import (
    Hardware,
    ask_hardware,
    hardware_from_dict,
    hardware_to_dict,
    has_kernels,
    read_hardware,
    share_of_each,
)
from engine.memory.host import container_limits, physical_memory, pinned_limit

GB = 2**30
ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")
    return folder


def group_v2(folder: Path, limit: object, used: int, cache: int = 0) -> None:
    write(folder, memory__max=limit, memory__current=used, memory__stat=f"anon 1\ninactive_file {cache}")


@pytest.fixture
def no_torch(monkeypatch):
    found = hardware.importlib.util.find_spec
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))


def answer(monkeypatch, line: str | None) -> None:
    def run(command, *_, **__):
        if line is None:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, line, "")

    monkeypatch.setattr(hardware, "_run", run)


def test_every_value_has_a_reason(tmp_path):
    seen = read_hardware(tmp_path)
    for name in Hardware.__dataclass_fields__:
        assert getattr(seen, name).why, name
    assert seen.device.value in ("cuda", "mps", "xpu", "cpu")
    assert seen.ram_total.value > 0
    assert 0 <= seen.ram_free.value <= seen.ram_total.value


def test_it_survives_the_way_to_the_page_and_back(tmp_path):
    seen = read_hardware(tmp_path)
    assert hardware_from_dict(json.loads(json.dumps(hardware_to_dict(seen)))) == seen


def test_without_torch_the_driver_tells_the_card(monkeypatch, no_torch):
    answer(monkeypatch, "NVIDIA GeForce RTX 3060, 12288, 11500\n")
    seen = read_hardware()
    assert (seen.device.value, seen.name.value) == ("cuda", "NVIDIA GeForce RTX 3060")
    assert (seen.vram_total.value, seen.vram_free.value) == (12 * GB, 11500 * 2**20)
    assert seen.bf16.value is None
    assert "torch is not installed" in seen.bf16.why
    assert seen.torch.value is None


@pytest.mark.parametrize("line", [None, "", "No devices were found\n", "a, b, c\n"])
def test_without_torch_and_driver_no_card_is_known_and_it_says_why(monkeypatch, no_torch, line):
    answer(monkeypatch, line)
    seen = read_hardware()
    assert seen.device.value == "cpu"
    assert seen.vram_total.value is None
    assert "torch is not installed" in seen.vram_total.why


class FakeTorch:
    """A torch that was built for a version of CUDA, and what it sees of a card."""

    def __init__(self, cuda: str | None, architectures: list[str] | None = None, card: tuple[int, int] | None = None):
        self.__version__ = "2.13.0"
        self.version = SimpleNamespace(cuda=cuda, hip=None)
        self.__spec__ = object()  # it counts as installed
        major, minor = card or (0, 0)
        properties = SimpleNamespace(
            name="NVIDIA GeForce GTX 1080 Ti", major=major, minor=minor, total_memory=11 * GB
        )  # fmt: skip
        self.cuda = SimpleNamespace(
            is_available=lambda: card is not None, get_device_properties=lambda _: properties, device_count=lambda: 1,
            get_arch_list=lambda: architectures or [], mem_get_info=lambda _: (10 * GB, 11 * GB),
        )  # fmt: skip
        self.backends = SimpleNamespace()


def driver(monkeypatch, version: str, card: str = "NVIDIA GeForce RTX 3060, 12288, 11500\n") -> None:
    def run(command, *_, **__):
        line = version + "\n" if "driver_version" in command[1] else card
        return subprocess.CompletedProcess(command, 0, line, "")

    monkeypatch.setattr(hardware, "_run", run)


@pytest.mark.parametrize(
    ("cuda", "version", "says"),
    [("13.0", "570.86.10", r"driver 570\.86\.10 is too old for this torch \(CUDA 13\.0\)\. Update the driver to 580"),
     ("12.8", "470.1", "Update the driver to 525"), ("13.0", "580.1", "restart the computer"),
     (None, "580.1", "this torch is one for the processor only")],
)  # fmt: skip
def test_a_card_that_torch_does_not_see_says_what_to_do(monkeypatch, cuda, version, says):
    monkeypatch.setitem(sys.modules, "torch", FakeTorch(cuda))
    driver(monkeypatch, version)
    seen = read_hardware()
    assert seen.device.value == "cpu"
    assert re.search(says, seen.device.why), seen.device.why


_WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # of torch 2.13 for CUDA 13


@pytest.mark.parametrize(
    ("architectures", "card", "has"),
    [(_WHEEL, (6, 1), False), (_WHEEL, (7, 0), False), (_WHEEL, (7, 5), True), (_WHEEL, (8, 9), True),
     (_WHEEL, (12, 0), True), (_WHEEL, (12, 1), True), (["sm_80", "compute_80"], (9, 0), True),
     (["sm_80"], (9, 0), False), (["sm_90a"], (9, 0), True), ([], (6, 1), True)],
)  # fmt: skip
def test_whether_a_torch_has_kernels_for_a_card(architectures, card, has):
    assert has_kernels(architectures, card) is has


def test_a_card_that_torch_has_no_kernels_for_is_none_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", FakeTorch("13.0", _WHEEL, (6, 1)))
    driver(monkeypatch, "580.1")
    seen = read_hardware()
    assert (seen.device.value, seen.name.value) == ("cpu", "NVIDIA GeForce GTX 1080 Ti")
    assert "compute capability 6.1" in seen.device.why
    monkeypatch.setitem(sys.modules, "torch", FakeTorch("13.0", _WHEEL, (8, 6)))
    assert read_hardware().device.value == "cuda"


def test_several_cards_are_counted_and_share_the_memory():
    properties = SimpleNamespace(major=9, minor=0, name="H200", total_memory=140 * GB)
    cuda = SimpleNamespace(
        device_count=lambda: 4, get_device_properties=lambda _: properties, get_arch_list=lambda: ["sm_90"],
        mem_get_info=lambda _: (139 * GB, 140 * GB),
    )  # fmt: skip
    card = hardware._cuda(SimpleNamespace(cuda=cuda, version=SimpleNamespace(hip=None)), 0)
    facts = {**hardware_to_dict(read_hardware()), **{name: vars(fact) for name, fact in card.items()}}
    facts["ram_free"] = {"value": 64 * GB, "why": "a test"}
    found = hardware_from_dict(facts)
    assert found.has_several
    each = share_of_each(found, 4)
    assert (each.ram_free.value, each.vram_free.value) == (16 * GB, 139 * GB)
    assert "each of 4" in each.ram_free.why
    assert share_of_each(found, 1) == found


def test_asking_does_not_import_torch():
    code = "import sys; from engine.memory.hardware import ask_hardware; import engine.a2.plan.plan; "
    code += "print(ask_hardware().ram_total.value, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    total, imported = done.stdout.split()
    assert int(total) > 0
    assert imported == "False"


@pytest.mark.parametrize("trouble", ["hangs", "crashes", "babbles"])
def test_a_driver_in_trouble_costs_only_what_it_knew(monkeypatch, trouble):
    def run(command, patience, cwd=None):
        if command[0] == "nvidia-smi":
            raise FileNotFoundError
        if trouble == "hangs":
            raise subprocess.TimeoutExpired(command, patience)
        return subprocess.CompletedProcess(command, 139, "" if trouble == "crashes" else "Segmentation fault", "")

    monkeypatch.setattr(hardware, "_run", run)
    seen = ask_hardware()
    assert seen.device.value == "cpu"
    assert "driver" in seen.vram_total.why
    assert seen.ram_total.value > 0


def test_a_containers_limit_counts_not_the_hosts_memory(tmp_path):
    group_v2(tmp_path / "fs", 2 * GB, GB, cache=GB // 2)
    member = write(tmp_path, member="0::/") / "member"
    total, free = physical_memory(tmp_path / "fs", member)
    assert total == (2 * GB, "the container's limit")
    assert free[0] <= 2 * GB - GB // 2  # the file cache is given back when memory is asked for


def test_all_groups_above_bind_and_no_limit_is_none(tmp_path):
    fs = tmp_path / "fs"
    group_v2(fs / "user" / "app", "max", 1)
    group_v2(fs / "user", 3 * GB, GB)
    group_v2(fs, 8 * GB, GB)
    member = write(tmp_path, member="0::/user/app") / "member"
    assert sorted(container_limits(fs, member)) == [(3 * GB, GB), (8 * GB, GB)]


def test_a_path_of_the_host_that_the_container_does_not_see(tmp_path):
    group_v2(tmp_path / "fs", 4 * GB, GB)
    member = write(tmp_path, member="0::/docker/0123abcd") / "member"
    assert list(container_limits(tmp_path / "fs", member)) == [(4 * GB, GB)]


def test_the_first_version_of_control_groups(tmp_path):
    folder = tmp_path / "fs" / "memory"
    stat = f"total_inactive_file {GB}"
    write(folder, memory__limit_in_bytes=5 * GB, memory__usage_in_bytes=2 * GB, memory__stat=stat)
    write(folder / "job", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=GB)
    member = write(tmp_path, member="7:cpu,cpuacct:/job\n4:memory:/job\nnonsense") / "member"
    assert list(container_limits(tmp_path / "fs", member)) == [(5 * GB, GB)]


def test_no_groups_no_limits(tmp_path):
    assert list(container_limits(tmp_path, tmp_path / "none")) == []


def test_windows_pins_a_part(monkeypatch):
    monkeypatch.setattr("engine.memory.host.sys.platform", "win32")
    assert pinned_limit(20 * GB)[0] == 8 * GB
    assert "not known" in pinned_limit(None)[1]
