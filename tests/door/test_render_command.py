"""`render` from a terminal: a whole file and 0, or one plain line and nothing else."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine import VERSION
from engine.door import command
from engine.door.render import render
from engine.media.video import probe, read_metadata, read_scene
from engine.scene.scene import Scene
from engine.scene.scene_file import scene_to_json


@pytest.fixture
def scene_file(tiny_cast: Path, tiny_scene) -> Path:
    path = tiny_cast / "scene.json"
    path.write_text(scene_to_json(tiny_scene()), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> None:
    """On the slowest machine no render here counts as a long one, of which a few lines more are told."""
    monkeypatch.setattr(command._ProgressLine, "_PATIENCE", 3600.0)


def change(scene_file: Path, **fields: object) -> None:
    data = json.loads(scene_file.read_text(encoding="utf-8"))
    scene_file.write_text(json.dumps({**data, **fields}), encoding="utf-8")


def run(capsys, *arguments: object) -> tuple[int, list[str]]:
    try:
        status = command.main([str(argument) for argument in arguments])
    except SystemExit as exit:
        status = exit.code
    return status, capsys.readouterr().err.splitlines()


SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def test_a_scene_file_becomes_a_whole_clip_and_nothing_else(scene_file, tmp_path, capsys):
    out = tmp_path / "new" / "out.mp4"
    status, lines = run(capsys, scene_file, "-o", out)
    assert status == 0
    assert probe(out).frames == 8
    assert os.listdir(out.parent) == ["out.mp4"]
    assert len(lines) == 1
    assert "8 frames" in lines[0]
    assert "draft" in lines[0]


def test_pictures_are_found_beside_the_scene_and_the_clip_beside_the_person(scene_file, tmp_path, capsys, monkeypatch):
    there = tmp_path / "elsewhere"
    there.mkdir()
    monkeypatch.chdir(there)
    status, _ = run(capsys, Path("..") / "cast" / "scene.json", "-o", "out.mp4")
    assert status == 0
    assert os.listdir(there) == ["out.mp4"]


def test_the_seed_can_be_changed(scene_file, tmp_path, capsys):
    assert run(capsys, scene_file, "-o", tmp_path / "out.mp4", "--seed", 7)[0] == 0
    assert read_scene(tmp_path / "out.mp4").sampling.seed == 7


def test_the_scene_can_be_left_out(scene_file, tmp_path, capsys):
    assert run(capsys, scene_file, "-o", tmp_path / "out.mp4", "--no-metadata")[0] == 0
    assert read_scene(tmp_path / "out.mp4") is None
    assert set(read_metadata(tmp_path / "out.mp4")) == {"description"}


def test_flags_that_are_true_of_the_draft_are_accepted(scene_file, tmp_path, capsys):
    flags = ["--engine", "draft", "--device", "cpu", "--precision", "fp32", "--offload", "none"]
    assert run(capsys, scene_file, "-o", tmp_path / "out.mp4", *flags)[0] == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--save-latents", "l.safetensors"], "--save-latents"),
        (["--model", "folder"], "--model"),
        (["--model", ""], "--model ''"),
        (["--device", "cuda"], "--device"),
        (["--precision", "fp8"], "--precision"),
        (["--offload", "blocks"], "--offload"),
        (["--resident-blocks", "0"], "--resident-blocks"),
        (["--engine", "a2"], "--engine draft"),
        (["--engine", "a2", "--save-latents", "l.safetensors"], "--engine draft"),
        (["--engine", "magic"], "magic"),
        (["--quality", "perfect"], "perfect"),
        (["--seed", "-1"], "--seed -1"),
        (["--seed", "many"], "many"),
        (["--wat"], "--wat"),
    ],
)
def test_a_flag_that_cannot_be_followed_is_one_line(scene_file, tmp_path, capsys, flags, says):
    status, lines = run(capsys, scene_file, "-o", tmp_path / "out.mp4", *flags)
    assert status in (1, 2)
    assert len(lines) == 1
    assert says in lines[0]
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda file: file.unlink(), "scene.json"),
        (lambda file: file.write_text("{"), "not JSON"),
        (lambda file: file.write_bytes(b"\xff\xfe\x00"), "not text"),
        (lambda file: change(file, video={"width": 100}), "video.width"),
        (lambda file: change(file, prompt=5), "prompt"),
        (lambda file: change(file, mood="blue"), "mood"),
        (lambda file: change(file, engine="a2", video={"frames": 9}), "--engine draft"),
        (lambda file: change(file, cast=[{"role": "object", "image": "no.png"}]), "cast[0].image"),
        (lambda file: change(file, cast=[{"role": "object", "image": "x" * 1000}]), "cast[0].image"),
        (lambda file: change(file, cast=[{"role": "object", "image": "a.png", "cutout": "x" * 999}]), "cast[0]."),
        (lambda file: (file.parent / "cup.png").write_bytes(b""), "cast[1].image"),
        (lambda file: (file.parent / "cup.png").write_text("<svg/>"), "cast[1].image"),
    ],
)
def test_a_scene_that_cannot_be_used_is_one_line(scene_file, tmp_path, capsys, spoil, says):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the old clip")
    spoil(scene_file)
    status, lines = run(capsys, scene_file, "-o", out)
    assert status == 1
    assert len(lines) == 1
    assert says in lines[0]
    assert out.read_bytes() == b"the old clip"
    assert sorted(os.listdir(tmp_path)) == ["cast", "out.mp4"]


@pytest.mark.parametrize("name", ["out.avi", "out", "out.mp4.txt", ""])
def test_another_kind_of_file_is_refused_before_the_work(scene_file, tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    status, lines = run(capsys, scene_file, "-o", name)
    assert status == 1
    assert len(lines) == 1
    assert ".mp4" in lines[0]
    assert os.listdir(tmp_path) == ["cast"]


def test_a_name_that_is_too_long_for_the_disk_is_one_line(scene_file, tmp_path, capsys):
    status, lines = run(capsys, scene_file, "-o", tmp_path / f"{'n' * 260}.mp4")
    assert (status, len(lines)) == (1, 1)
    assert "another name" in lines[0]
    assert len(lines[0]) < 200


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--version"])
    assert ended.value.code == 0
    assert VERSION in capsys.readouterr().out


def test_without_anybody_to_listen_the_clip_is_made_all_the_same(scene_file, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as Python has it where 2>&- closed it
    assert command.main([str(scene_file), "-o", str(tmp_path / "out.mp4")]) == 0
    assert probe(tmp_path / "out.mp4").frames == 8


def test_a_terminal_that_is_gone_does_not_make_it_fail(scene_file, tmp_path, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    assert command.main([str(scene_file), "-o", str(tmp_path / "out.mp4")]) == 0


def test_a_signal_that_a_library_swallows_still_ends_it(scene_file, tmp_path, capsys, monkeypatch):
    def deaf(request, tell, stop):
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        return render(request, tell, stop)

    monkeypatch.setattr(command, "render", deaf)
    status, lines = run(capsys, scene_file, "-o", tmp_path / "out.mp4")
    assert (status, len(lines)) == (143, 1)
    assert not (tmp_path / "out.mp4").exists()


def test_a_second_ctrl_c_does_not_interrupt_the_tidying_up(scene_file, tmp_path, capsys, monkeypatch):
    tidied = []
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: 1000.0))  # both within the same blink

    def impatient(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            tidied.append(True)

    monkeypatch.setattr(command, "render", impatient)
    status, lines = run(capsys, scene_file, "-o", tmp_path / "out.mp4")
    assert (status, len(lines), tidied) == (130, 1, [True])


def test_a_stopped_run_that_was_kept_says_where_and_how_to_go_on(scene_file, tmp_path, capsys, monkeypatch):
    state = tmp_path / "run.safetensors"

    def stopped(*_: object) -> None:
        state.touch()
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(command, "render", stopped)
    arguments = [scene_file, "-o", tmp_path / "out.mp4", "--engine", "a2", "--state", state]
    status, lines = run(capsys, *arguments)
    said = f"troupe: Stopped. {shlex.quote(str(state))} keeps the run: the same command goes on there."
    assert (status, lines) == (130, [said])
    monkeypatch.setattr(command, "render", lambda *_: signal.raise_signal(signal.SIGINT))
    assert run(capsys, *arguments) == (130, ["troupe: Stopped. Nothing was written."])  # by this one


def test_without_an_output_the_line_names_the_flag(scene_file, capsys):
    status, lines = run(capsys, scene_file)
    assert status == 2
    assert len(lines) == 1
    assert "-o" in lines[0]


def test_a_fault_of_ours_is_one_line_and_a_log(scene_file, tmp_path, capsys, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr(command, "render", broken)
    monkeypatch.setattr(command.tempfile, "tempdir", str(tmp_path))
    status, lines = run(capsys, scene_file, "-o", tmp_path / "out.mp4")
    assert status == 3
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    log = next(tmp_path.glob("troupe-*.log"))
    assert str(log) in lines[0]
    assert "deep inside" in log.read_text(encoding="utf-8")
    monkeypatch.setenv("TROUPE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(capsys, scene_file, "-o", tmp_path / "out.mp4")


def test_too_little_memory_is_one_line(scene_file, tmp_path, capsys, monkeypatch):
    def hungry(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(command, "render", hungry)
    status, lines = run(capsys, scene_file, "-o", tmp_path / "out.mp4")
    assert (status, len(lines)) == (1, 1)
    assert "smaller" in lines[0]


def test_a_terminal_sees_one_line_that_changes(scene_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(command._ProgressLine, "_INTERVAL", 0.0)
    command.main([str(scene_file), "-o", str(tmp_path / "out.mp4")])
    said = capsys.readouterr().err
    assert "\rframe 8 of 8" in said
    assert said.count("\n") == 1  # the last line, that it is done


def test_a_log_sees_a_few_plain_lines_of_a_long_render(scene_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command._ProgressLine, "_PATIENCE", 0.0)
    _, lines = run(capsys, scene_file, "-o", tmp_path / "out.mp4")
    assert [line.partition(",")[0] for line in lines[:-1]] == [f"frame {n} of 8" for n in (2, 4, 6, 8)]


# ---------------------------------------------------------------------------
# As its own process


def start(repo: Path, scene_file: Path, out: Path) -> subprocess.Popen:
    # a shell that starts its jobs in the background lets them ignore Ctrl-C: this one is to hear it
    hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code = f"{hear} import sys; from engine.door.command import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(scene_file), "-o", str(out)], cwd=repo, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_render_leaves_nothing_but_one_line(repo, scene_file, tiny_scene, tmp_path, number):
    long = tiny_scene(video={"width": 640, "height": 480, "frames": 961})
    scene_file.write_text(scene_to_json(Scene.model_validate(long)), encoding="utf-8")
    out = tmp_path / "out" / "out.mp4"
    process = start(repo, scene_file, out)
    try:
        deadline = time.monotonic() + 600
        while not (out.parent.is_dir() and os.listdir(out.parent)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None
        assert os.listdir(out.parent) != []  # it has begun to write
        process.send_signal(number)
        _, said = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == "troupe: Stopped. Nothing was written."
    assert [line for line in said.splitlines() if not line.startswith("frame ")] == said.splitlines()[-1:]
    assert os.listdir(out.parent) == []


def test_a_signal_that_python_cannot_raise_is_heard_all_the_same_and_without_noise(repo):
    code = (
        "import os, signal, weakref\n"
        "from engine.door import command\n"
        "class Thing: pass\n"
        "ending, thing = [], Thing()\n"
        "command._watch_signals(ending)\n"
        "lost = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))\n"
        "del thing\n"
        "print([int(number) for number in ending])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[15]", "")


def test_rendering_loads_neither_the_page_nor_a_model_library(repo, scene_file, tmp_path):
    code = (
        "import sys; from engine.door.command import main; status = main(sys.argv[1:]);"
        "print([name for name in ('gradio', 'torch', 'app') if name in sys.modules]); sys.exit(status)"
    )
    command_line = [sys.executable, "-c", code, str(scene_file), "-o", str(tmp_path / "out.mp4")]
    done = subprocess.run(command_line, cwd=repo, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
