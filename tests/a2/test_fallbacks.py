"""Where memory ran out: which way is safer, and what counts as memory that ran out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.a2.geometry import ClipSize
from engine.a2.options import A2Options
from engine.a2.phases import where
from engine.a2.plan.fallbacks import RUNGS, Way, next_way, tiling_of
from engine.memory.shortage import Need, Shortage, is_poisoned, is_shortage

GB = 2**30
STAGES = ("loading", "prompt", "references", "sampling", "decoding")


def way(on_card: bool = True, clip: ClipSize | None = None, **options: object) -> Way:
    return Way(A2Options(**options), clip or ClipSize(), on_card)


def descend(start: Way, stage: str) -> list[tuple[Way, str]]:
    rungs, now = [], start
    while (found := next_way(now, stage, RUNGS - len(rungs))) is not None:
        rungs.append(found)
        now = found[0]
    return rungs


def test_denoising_first_halves_the_work_at_hand_and_then_streams():
    rungs = descend(way(batched_guidance=True), "sampling")
    assert len(rungs) == RUNGS
    first, second, last = (rung.options for rung, _ in rungs)
    assert (first.batched_guidance, first.chunk, first.offload) == (False, 0, None)
    assert (second.chunk, second.offload) == (4096, None)
    assert (last.chunk, last.offload, last.resident_blocks) == (1024, "blocks", 0)
    assert rungs[2][1] == "the model's blocks brought one by one and 1024 tokens at a time"


def test_where_nobody_has_planned_it_only_what_there_is_room_for_waits_in_memory(monkeypatch):
    from types import SimpleNamespace

    torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
    from engine.a2 import moving
    from engine.a2.compute import Compute
    from engine.a2.plan.shapes import default_shapes

    monkeypatch.setattr(moving, "free_for_us", lambda: 12 * GB)
    last = descend(way(precision="int8"), "sampling")[-1][0].options
    checkpoint = SimpleNamespace(
        shapes=default_shapes(), compute=Compute(torch.device("cuda:0"), torch.bfloat16, "int8")
    )
    settings = moving.settings_of(last, checkpoint, ClipSize())
    assert (settings.offload, settings.streamed) == ("blocks", 40)
    assert 15 < settings.in_memory < 25  # of 0.38 GB each


def test_blocks_that_stay_are_given_up():
    rungs = descend(way(offload="blocks", resident_blocks=12), "sampling")
    assert rungs[-1][0].options.resident_blocks == 0


def test_decoding_takes_smaller_tiles_and_then_the_model_s_place():
    rungs = descend(way(), "decoding")
    assert [rung.options.tile for rung, _ in rungs] == [72, 44, 44]
    assert [rung.alone for rung, _ in rungs] == [False, False, True]
    assert all(tiling_of(rung.options, rung.clip, True).parked for rung, _ in rungs)
    streaming = descend(way(offload="blocks", resident_blocks=3), "decoding")
    assert streaming[0][0].alone  # which costs next to nothing
    assert streaming[-1][0].options.tile == 44


@pytest.mark.parametrize("stage", STAGES)
def test_no_way_repeats_changes_the_precision_or_goes_beyond_three_rungs(stage):
    for start in (way(batched_guidance=True, precision="bf16"), way(False), way(offload="blocks", resident_blocks=9)):
        seen, now = [start], start
        for rung, words in descend(start, stage):
            assert words
            assert rung not in seen
            assert rung.options.precision == now.options.precision
            seen.append(rung)
        assert len(seen) <= RUNGS + 1
        assert next_way(start, stage, 0) is None


@pytest.mark.parametrize("stage", STAGES)
def test_on_the_processor_nothing_is_moved_to_where_it_is_already(stage):
    assert all(rung.options.offload is None for rung, _ in descend(way(False, batched_guidance=True), stage))


def test_a_clip_that_is_small_already_is_not_cut_up():
    tiny = way(clip=ClipSize(64, 64, 9, passes=1), batched_guidance=True, offload="blocks")
    assert descend(tiny, "sampling") == []
    assert [rung.options.tile for rung, _ in descend(tiny, "decoding")] == [0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. Couldn't open shared file mapping, error code: <1455>"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_memory_that_ran_out_is_known_in_all_its_forms(error):
    assert is_shortage(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("Expected all tensors to be on the same device"),
        OSError(28, "No space left on device"),
        KeyboardInterrupt("out of memory"),
    ],
)
def test_other_faults_are_not_taken_for_it(error):
    assert not is_shortage(error)


@pytest.mark.parametrize(
    "said",
    ["CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
     "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
     "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", "GET was unable to find an engine to execute this computation"],
)  # fmt: skip
@pytest.mark.parametrize(("free", "short"), [(300 * 2**20, True), (4 * GB, False)])
def test_what_libraries_say_in_other_words_counts_where_the_card_is_full(monkeypatch, said, free, short):
    torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (free, 24 * GB))
    assert is_shortage(RuntimeError(said)) is short
    assert is_poisoned(RuntimeError(said)) is (not short and said.startswith("CUDA error"))


def test_an_error_that_spoils_the_process_is_known_also_behind_another():
    class AcceleratorError(RuntimeError):
        """As torch calls it."""

    spoilt, harmless = AcceleratorError("device-side assert triggered"), ValueError("no")
    wrapped = RuntimeError("the step failed")
    wrapped.__cause__ = spoilt
    assert is_poisoned(spoilt)
    assert is_poisoned(wrapped)
    assert not is_poisoned(harmless)
    assert not is_poisoned(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."))


def test_a_shortage_tells_where_and_the_numbers():
    need = Need(round(1.5 * GB), 7 * GB, 8 * GB, "the card's memory")
    told = Shortage("sampling", where("sampling", 12), need, 12)
    assert told.problem == (
        "memory ran out at step 12 (1.50 GB more were needed with 7.0 of 8.0 GB of the card's memory in use)"
    )
    assert str(replace(need, asked=None)) == "7.0 of 8.0 GB of the card's memory were in use"
    assert str(replace(need, asked=3 * 2**20)).startswith("3.0 MB more")
