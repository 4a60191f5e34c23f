"""The engine in its own process: the same clips, and whatever ends it ends one job only."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine import VERSION
from engine.door.render import Progress, RenderRequest, render
from engine.errors import EngineUnavailable, SceneError, Stopped, VideoError
from engine.process import messages
from engine.process.client import EngineClosed, EngineDied, EngineProcess, what_happened
from engine.process.messages import EngineFault
from engine.scene.scene_file import scene_to_json
from tests.waits import until

PATIENCE = 120.0  # seconds; only what is broken waits so long
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")

# A real worker in which something happens to a draft's third frame. Twice the same job: once it does, then it does not.
HAUNTED = """
import ctypes, os, sys, time
from pathlib import Path
from engine.draft import render as draft
from engine.process import worker
drawn, here = draft.frames, Path(sys.argv[1])
def happens(stop):
    {what}
def frames(scene, members, stop):
    for index, frame in enumerate(drawn(scene, members, stop)):
        if index == 2 and not here.exists():
            here.touch()
            happens(stop)
        yield frame
draft.frames, worker._BEAT, worker._GRACE = frames, 0.1, 0.5
sys.exit(worker.main([]))
"""
HANG = "time.sleep(600)"
FREEZE = "ctypes.PyDLL(None).sleep(600)"  # with the interpreter's lock in its hand, as a bad driver has it

# A process that speaks the channel, and then does something else than a worker.
FAKE = """
import sys, threading, time, os
from engine.process import messages
from engine.process.messages import *
from engine.door.render import Progress
def say(message):
    sys.stdout.buffer.write(messages.line_of(message)); sys.stdout.buffer.flush()
def hear():
    return messages.read(sys.stdin.buffer.readline(), messages.ToEngine)
{what}
"""


@pytest.fixture
def engines() -> Iterator[Callable[..., EngineProcess]]:
    """`engines(command, **more)`: processes that are gone after the test."""
    made: list[EngineProcess] = []

    def make(*args: object, **more: object) -> EngineProcess:
        made.append(EngineProcess(*args, **more))
        return made[-1]

    yield make
    for engine in made:
        engine.close(0.2)


@pytest.fixture
def request_for(tmp_path: Path, tiny_cast: Path, tiny_scene) -> Callable[..., RenderRequest]:
    """`request_for(**fields of the scene)`; its clip grows in a folder of its own."""
    (tmp_path / "clips").mkdir()

    def request(**fields: object) -> RenderRequest:
        return RenderRequest(tiny_scene(**fields), tiny_cast, tmp_path / "clips" / "out.mp4")

    return request


@pytest.fixture
def haunted(engines, tmp_path: Path) -> Callable[..., EngineProcess]:
    """`haunted(what, **more)`: a real engine that does `what`, a piece of Python, at a first job's third frame."""

    def make(what: str, **more: object) -> EngineProcess:
        script = HAUNTED.format(what=what)
        return engines([sys.executable, "-c", script, str(tmp_path / "happened")], **more)

    return make


@pytest.fixture
def fake(engines) -> Callable[..., EngineProcess]:
    def make(what: str, **more: object) -> EngineProcess:
        return engines([sys.executable, "-c", FAKE.format(what=what)], **more)

    return make


def members_of_group(number: int) -> list[str]:
    """The names of the living processes in a process group."""
    names = []
    for process in filter(str.isdecimal, os.listdir("/proc")):
        try:
            name, _, rest = Path("/proc", process, "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
        except OSError:  # it has just ended
            continue
        state, _, group = rest.split()[:3]
        if int(group) == number and state not in "ZX":
            names.append(name)
    return names


# ---------------------------------------------------------------------------
# The same clips


def test_a_clip_from_the_process_is_the_same_file_as_one_made_in_line(engines, request_for, tmp_path):
    told: list[Progress] = []
    engine = engines()
    engine.start()
    result = engine.render(request_for(), told.append)
    by_process = result.path.read_bytes()
    told_in_line: list[Progress] = []
    in_line = render(replace(request_for(), out=tmp_path / "inline.mp4"), told_in_line.append)
    assert by_process == in_line.path.read_bytes()
    assert replace(result, path=in_line.path, poster=in_line.poster, seconds=in_line.seconds) == in_line
    assert result.poster.is_file()
    assert [(p.stage, p.step, p.of) for p in told] == [(p.stage, p.step, p.of) for p in told_in_line]


def test_the_second_job_finds_the_same_process(engines, request_for):
    engine = engines()
    engine.render(request_for())
    first = engine._child.pid
    engine.render(request_for())
    assert engine._child.pid == first


def test_jobs_of_two_threads_wait_for_each_other(engines, request_for, tmp_path):
    engine, results = engines(), []
    threads = [
        threading.Thread(
            target=lambda out=tmp_path / f"{i}.mp4": results.append(engine.render(replace(request_for(), out=out)))
        )
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(result.path.name for result in results) == ["0.mp4", "1.mp4", "2.mp4"]


def test_the_server_renders_without_the_engine_s_libraries(repo, request_for):
    request = request_for()
    code = f"""
import sys
from pathlib import Path
from engine.process.client import EngineProcess
from engine.door.render import RenderRequest
from engine.scene.scene_file import scene_from_json
engine = EngineProcess()
try:
    scene = scene_from_json(sys.stdin.read())
    engine.render(RenderRequest(scene, Path({str(request.root)!r}), Path({str(request.out)!r})))
finally:
    engine.close()
heavy = ("numpy", "cv2", "torch", "engine.media.video", "engine.draft.render", "engine.cutout")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo, input=scene_to_json(request.scene), text=True,
        capture_output=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
    assert request.out.is_file()


def test_a_model_that_nobody_has_asked_for_in_a_while_is_let_go(engines, tmp_path):
    code = """
import sys
from pathlib import Path
from engine.process import worker
from engine.memory.model_cache import ModelCache
class Filled(ModelCache):
    def __init__(self):
        self._kept = "a", "model"
    def release(self):
        super().release()
        Path(sys.argv[1]).touch()
worker.ModelCache = Filled
sys.exit(worker.main(["--idle", "0.05"]))
"""
    engines([sys.executable, "-c", code, str(tmp_path / "gone")]).start()
    until((tmp_path / "gone").exists, "the model to be let go")


# ---------------------------------------------------------------------------
# Errors


def test_an_error_comes_back_as_the_door_raises_it(engines, request_for):
    bad = request_for(cast=[{"role": "object", "image": "gone.png"}])
    with pytest.raises(SceneError) as here:
        render(bad)
    engine = engines()
    with pytest.raises(SceneError) as there:
        engine.render(bad)
    assert (str(there.value), there.value.field) == (str(here.value), here.value.field)
    (bad.out).mkdir()
    with pytest.raises(VideoError, match="is a folder"):
        engine.render(request_for())


def test_a_fault_of_the_engine_is_told_with_its_traceback(haunted, request_for):
    engine = haunted("1 / 0")
    with pytest.raises(EngineFault, match="ZeroDivisionError") as error:
        engine.render(request_for())
    assert "in happens" in error.value.__notes__[0]
    first = engine._child.pid
    assert engine.render(request_for()).frames == 8
    assert engine._child.pid == first  # a Python exception costs no process


@pytest.mark.parametrize(
    ("refused", "then", "told"),
    [
        ("CUDA error: an illegal memory access was encountered", "refuse(None)", "illegal memory access"),
        ("a driver in trouble", "raise ValueError('the first fault')", "the first fault"),
    ],
)
def test_an_error_comes_whole_though_nothing_can_be_tidied_up_and_the_next_job_gets_another_process(
    haunted, request_for, refused, then, told
):
    """After an illegal access every call to the card fails with the same error, also those that let go of the model."""
    engine = haunted(
        "import engine.memory.model_cache\n"
        f"    def refuse(self): raise RuntimeError({refused!r})\n"
        "    engine.memory.model_cache.ModelCache.release = refuse\n"
        f"    {then}"
    )
    with pytest.raises(EngineFault, match=told):
        engine.render(request_for())
    assert engine.render(request_for()).frames == 8


def test_want_of_memory_is_a_person_s_matter(haunted, request_for):
    with pytest.raises(EngineUnavailable, match="smaller or shorter"):
        haunted("raise MemoryError").render(request_for())


def test_pictures_in_hand_do_not_travel(engines, request_for):
    with pytest.raises(ValueError, match="members"):
        engines().render(replace(request_for(), members=()))


# ---------------------------------------------------------------------------
# Deaths


@POSIX
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("os.kill(os.getpid(), 9)", "want of memory.*smaller or shorter"),
        ("ctypes.string_at(0)", r"crashed \(SIG(SEGV|BUS)\).*graphics driver"),
        ("os.abort()", r"crashed \(SIGABRT\)"),
        ("os._exit(7)", "exit status 7"),
    ],
)
def test_a_death_ends_the_job_says_why_and_the_next_one_works(haunted, request_for, tmp_path, what, says):
    log = tmp_path / "logs" / "engine.log"
    no_core = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
    engine = haunted(no_core + what, log=log)
    with pytest.raises(EngineDied, match=f"{says}.*engine.log"):
        engine.render(request_for())
    assert os.listdir(tmp_path / "clips") == []
    if "string_at" in what or "abort" in what:
        assert "in happens" in log.read_text()  # where it was
    assert engine.render(request_for()).frames == 8


@POSIX
def test_a_process_that_dies_between_two_jobs_is_not_noticed(engines, request_for):
    engine = engines()
    engine.render(request_for())
    os.kill(engine._child.pid, signal.SIGKILL)
    until(lambda: not engine._child.is_alive(), "its end")
    assert engine.render(request_for()).frames == 8


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (-9, "want of memory"),
        (-15, r"somebody ended the engine \(SIGTERM\)"),
        (-60, "signal 60"),
        (0xC0000005, r"crashed \(0xC0000005\)"),
        (0xC0000017, "want of memory"),
        (-1073741819, r"crashed \(0xC0000005\)"),
        (3, "exit status 3"),
    ],
)
def test_an_exit_status_is_put_in_words(status, says):
    if status == -15 and os.name == "nt":
        pytest.skip("no such signal")
    assert re.search(says, what_happened(status)[0])


def test_a_command_that_cannot_be_started_is_told_by_the_job(engines, request_for):
    engine = engines(["no-such-program-here"])
    engine.start()
    with pytest.raises(EngineDied, match="cannot be started"):
        engine.render(request_for())


def test_a_process_that_dies_at_its_start_is_told_by_the_job(engines, request_for):
    engine = engines([sys.executable, "-c", "raise SystemExit(5)"])
    with pytest.raises(EngineDied, match=r"exit status 5\) while it was starting"):
        engine.render(request_for())


@LINUX
def test_the_encoder_does_not_outlive_a_killed_process(haunted, request_for, tmp_path):
    engine = haunted(HANG)
    ended: list[Exception] = []

    def work() -> None:
        try:
            engine.render(request_for())
        except EngineDied as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until((tmp_path / "happened").exists, "the third frame")
    child = engine._child.pid
    until(lambda: len(members_of_group(child)) == 2, "the encoder")
    os.kill(child, signal.SIGKILL)
    thread.join(PATIENCE)
    assert len(ended) == 1
    until(lambda: members_of_group(child) == [], "the end of all")
    assert os.listdir(tmp_path / "clips") == []


@LINUX
def test_the_process_and_its_encoder_end_with_the_server(repo, request_for, tmp_path):
    request = request_for()
    script = HAUNTED.format(what=HANG)
    parent = f"""
import sys
from pathlib import Path
from engine.process.client import EngineProcess
from engine.door.render import RenderRequest
from engine.scene.scene_file import scene_from_json
scene = scene_from_json(sys.stdin.readline())
engine = EngineProcess([sys.executable, "-c", {script!r}, {str(tmp_path / "happened")!r}])
engine.start()
print(engine._child.pid, flush=True)
engine.render(RenderRequest(scene, Path({str(request.root)!r}), Path({str(request.out)!r})))
"""
    line = " ".join(scene_to_json(request.scene).split("\n")) + "\n"
    with subprocess.Popen(
        [sys.executable, "-c", parent], cwd=repo, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            server.stdin.write(line)
            server.stdin.flush()
            child = int(server.stdout.readline())
            until((tmp_path / "happened").exists, "the third frame")
            assert os.getsid(child) == child  # a Ctrl-C in the server's terminal does not reach it
            assert Path(f"/proc/{child}/oom_score_adj").read_text().strip() == "500"  # it goes before the server does
            server.kill()
            until(lambda: members_of_group(child) == [], "the end of all")
        finally:
            server.kill()


# ---------------------------------------------------------------------------
# Stop


def test_stop_ends_a_job_and_keeps_the_process(haunted, request_for, tmp_path):
    engine = haunted("while not stop(): time.sleep(0.01)", grace=PATIENCE)  # it cannot be done before it is stopped
    told: list[Progress] = []
    with pytest.raises(Stopped):
        engine.render(request_for(), told.append, (tmp_path / "happened").exists)
    assert told[-1].step < told[-1].of
    assert os.listdir(tmp_path / "clips") == []
    first = engine._child.pid
    assert engine.render(request_for()).frames == 8
    assert engine._child.pid == first


def test_a_job_that_does_not_stop_is_ended_by_force(haunted, request_for, tmp_path):
    engine = haunted(HANG, grace=0.3)
    with pytest.raises(Stopped):
        engine.render(request_for(), stop=(tmp_path / "happened").exists)
    assert os.listdir(tmp_path / "clips") == []
    assert engine.render(request_for()).frames == 8


def test_a_job_that_is_stopped_before_its_turn_never_starts(fake, request_for):
    engine = fake("raise SystemExit('it was started')")
    with pytest.raises(Stopped):
        engine.render(request_for(), stop=lambda: True)
    assert engine._child is None


def test_a_stop_is_heard_while_another_job_has_its_turn(haunted, request_for, tmp_path):
    engine = haunted(HANG, grace=0.1)
    done = threading.Event()

    def work() -> None:
        with contextlib.suppress(Stopped):
            engine.render(request_for(), stop=done.is_set)

    first = threading.Thread(target=work)
    first.start()
    until((tmp_path / "happened").exists, "the third frame")
    asked: list[int] = []
    with pytest.raises(Stopped):
        engine.render(request_for(), stop=lambda: asked.append(1) or len(asked) == 3)
    assert first.is_alive()
    done.set()
    first.join(PATIENCE)


def test_an_error_in_a_callback_ends_the_job_and_the_next_one_works(haunted, request_for, tmp_path):
    engine = haunted(HANG)

    def broken(progress: Progress) -> None:
        if progress.stage == "frames" and progress.step:
            raise KeyError("the page")

    with pytest.raises(KeyError, match="the page"):
        engine.render(request_for(), broken)
    assert os.listdir(tmp_path / "clips") == []
    (tmp_path / "happened").touch()
    assert engine.render(request_for()).frames == 8


@POSIX
def test_a_process_without_a_sign_of_life_is_ended(haunted, request_for, tmp_path):
    engine = haunted(FREEZE)

    def look() -> None:  # a slow start is no silence: only from the third frame on is it short
        if (tmp_path / "happened").exists():
            engine._silence = 3.0

    with pytest.raises(EngineDied, match=r"no sign of life for 0\.05 minutes"):
        engine.render(request_for(), stop=look)
    assert os.listdir(tmp_path / "clips") == []
    engine._silence = PATIENCE
    assert engine.render(request_for()).frames == 8


def test_a_busy_process_that_says_nothing_keeps_beating(haunted, request_for, tmp_path):
    engine = haunted("time.sleep(10)")

    def look() -> None:
        if (tmp_path / "happened").exists():
            engine._silence = 8.0  # much longer than a busy machine lets a beat wait

    assert engine.render(request_for(), stop=look).frames == 8


def test_closing_ends_the_job_with_an_error_of_its_own(haunted, request_for, tmp_path):
    engine, ended = haunted(HANG), []

    def work() -> None:
        try:
            engine.render(request_for())
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until((tmp_path / "happened").exists, "the third frame")
    engine.close(0.1)
    thread.join(PATIENCE)
    assert [type(error) for error in ended] == [EngineClosed]
    with pytest.raises(EngineClosed):
        engine.render(request_for())


# ---------------------------------------------------------------------------
# The channel


def test_what_a_library_prints_disturbs_nobody(haunted, request_for, tmp_path):
    log = tmp_path / "engine.log"
    noise = "print('to stdout'); os.write(1, b'from below'); sys.stderr.write('x' * 60_000); os.system('echo child')"
    assert haunted(noise, log=log).render(request_for()).frames == 8
    text = log.read_bytes()
    assert b"from below" in text
    assert b"child" in text
    assert len(text) > 60_000


@pytest.mark.parametrize(
    "says",
    [
        "say(Ready(os.getpid(), '3', troupe='0.0.0'))",
        "say(Ready(os.getpid(), '3', protocol=99))",
    ],
)
def test_a_process_of_another_version_is_never_used(fake, request_for, tmp_path, says):
    heard = tmp_path / "heard"
    engine = fake(f"{says}\nhear()\nif sys.stdin.buffer.readline(): open({str(heard)!r}, 'w').close()")
    with pytest.raises(EngineDied, match=f"another version.*{VERSION}"):
        engine.render(request_for())
    assert not heard.exists()


@pytest.mark.parametrize(
    "says",
    [
        "print('hello', flush=True)",
        'print(\'{"say": "Ready"}\', flush=True)',
        'print(\'{"say": "RenderOrder"}\', flush=True)',
        "print('[' * 100000, flush=True)",
        "sys.stdout.buffer.write(b'\\xff\\n'); sys.stdout.flush()",
    ],
)
def test_what_is_no_message_ends_the_process_and_says_so(fake, request_for, says):
    with pytest.raises(EngineDied, match="not understood"):
        fake(f"{says}\ntime.sleep(600)").render(request_for())


def test_what_a_dying_process_left_unsaid_is_not_held_against_it(fake, request_for):
    half = """sys.stdout.buffer.write(b'{"say":"Al'); sys.stdout.flush(); os._exit(3)"""
    with pytest.raises(EngineDied, match="exit status 3"):
        fake(half).render(request_for())


@pytest.mark.parametrize("optimised", [[], ["-OO"]], ids=["as usual", "without docstrings"])
def test_a_worker_ends_where_its_server_is_of_another_version(repo, optimised):
    lines = messages.line_of(messages.Hello(troupe="0.0.0")) + messages.line_of(messages.Release())
    done = subprocess.run(
        [sys.executable, *optimised, "-m", "engine.process.worker"],
        cwd=repo, input=lines, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert [messages.read(line, messages.FromEngine).troupe for line in done.stdout.splitlines()] == [VERSION]
    assert b"it is Troupe 0.0.0" in done.stderr
