"""Help: the doctor says what to do for each red line, and diagnostics tell nothing private."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from app.help import doctor
from app.help.diagnostics import diagnostics, without_private
from app.help.doctor import Finding
from app.logs import ENGINE, NAME, keep_log, last_engine_errors, last_errors, stop_log
from engine.process.rotate import rotate

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def log(tmp_path):
    handler = keep_log(tmp_path / "logs")
    yield logging.getLogger("troupe.test")
    stop_log(handler)


def found(outputs, what):
    return next(each for each in doctor.examine(outputs) if each.what == what)


def test_a_sound_machine_is_called_sound(tmp_path, capsys):
    assert doctor.main(["--outputs", str(tmp_path)]) == 0
    assert "Troupe can work here." in capsys.readouterr().out


def test_every_bad_line_says_what_to_do(tmp_path, monkeypatch, capsys):
    (tmp_path / "requirements.txt").write_text("numpy>=99\nno-such-package-at-all>=1  # why\n\n# all\n")
    (tmp_path / "requirements-a2.txt").write_text("torch>=99\n")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    (tmp_path / "file").touch()
    assert doctor.main(["--outputs", str(tmp_path / "file" / "outputs")]) == 1
    said = capsys.readouterr().out
    lines = said.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("BAD"):
            assert lines[index + 1].startswith("      ")
    assert "numpy is " in said
    assert "no-such-package-at-all is missing" in said
    assert "Outputs folder: " in said


def test_little_room_is_noted_and_too_little_is_bad(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    for free, level in ((10**8, "bad"), (10**9, "note"), (10**11, "good")):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: usage(10**12, 0, free))
        assert found(tmp_path, "Outputs folder").level == level


def test_an_outputs_folder_that_cannot_be_written_is_bad(tmp_path, modes_count):
    tmp_path.chmod(0o500)
    assert found(tmp_path / "outputs", "Outputs folder").level == "bad"


def test_a_folder_below_one_that_may_not_be_entered_is_bad(tmp_path, modes_count):
    (tmp_path / "locked").mkdir(mode=0)
    findings = {each.what: each for each in doctor.examine(tmp_path / "locked" / "outputs")}
    assert (findings["Outputs folder"].level, "cannot be written" in findings["Outputs folder"].said) == ("bad", True)
    assert "the check failed" not in findings["Graphics card"].said


def test_a_taken_port_is_a_note(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(doctor, "FIRST", taken.getsockname()[1])
        assert found(tmp_path, "Port").level == "note"
    assert not [each for each in doctor.examine(tmp_path, is_open=True) if each.what == "Port"]


def test_libraries_are_told_of_once_and_only_those_of_this_system(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    lines = ["no-such-a>=1; python_version >= '3'", "no-such-a>=2; python_version < '3'", "pillow<1"]
    (tmp_path / "requirements-a2.txt").write_text("\n".join(lines))
    said = found(tmp_path, "Video model: libraries").said
    assert said.startswith("no-such-a is missing; pillow is ")
    assert said.endswith(", not <1")


def test_weights_that_are_not_there_are_a_note_and_damaged_ones_are_bad(tmp_path):
    tiny = REPO / "tests" / "fixtures" / "a2_tiny"
    doctor.OwnerSettings(tmp_path / "settings.json").put(model=str(tiny))
    assert found(tmp_path, "Video model: weights").level == "good"
    broken = tmp_path / "broken"
    (broken / "vae").mkdir(parents=True)
    doctor.OwnerSettings(tmp_path / "settings.json").put(model=str(broken))
    assert found(tmp_path, "Video model: weights").level == "bad"
    doctor.OwnerSettings(tmp_path / "settings.json").put(model=str(tmp_path / "none"))
    assert found(tmp_path, "Video model: weights").level == "note"


def test_a_check_that_itself_fails_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_encoder", lambda: 1 / 0)
    finding = found(tmp_path, "Video encoder")
    assert finding.level == "bad"
    assert "ZeroDivisionError" in finding.said


def test_the_doctor_is_a_command(tmp_path):
    command = [sys.executable, "-c", "import sys; from app.help.doctor import main; sys.exit(main(sys.argv[1:]))"]
    done = subprocess.run([*command, "--outputs", str(tmp_path)], cwd=REPO, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_log_keeps_errors_and_never_grows_without_end(tmp_path, log):
    for number in range(3000):
        log.info("line %d %s", number, "x" * 1000)
    try:
        raise ValueError("the last line of it")
    except ValueError:
        log.exception("a job failed")
    errors = last_errors(tmp_path / "logs")
    assert "a job failed" in errors[0]
    assert errors[1].strip() == "ValueError: the last line of it"
    files = list((tmp_path / "logs").iterdir())
    assert sum(file.stat().st_size for file in files) < 3_000_000
    assert {file.name.split(".log")[0] + ".log" for file in files} == {NAME}


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path, log, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
        log.error("lost")
    assert capsys.readouterr().err == "lost\n"  # to the console, and no traceback of the log's own


def test_warnings_are_told_on_the_console_too(tmp_path, log, capsys):
    log.info("nothing to see")
    log.warning("look here")
    assert capsys.readouterr().err == "look here\n"


def test_the_engine_s_log_turns_over_before_a_process_starts(tmp_path):
    path = tmp_path / ENGINE
    rotate(path)  # none yet
    for number in range(8):
        path.write_bytes(f"{number}\n".encode() + b"x" * 600_000)
        rotate(path)
    path.write_bytes(b"small")
    rotate(path)
    assert {each.name for each in tmp_path.iterdir()} == {ENGINE, *(f"{ENGINE}.{number}" for number in (1, 2, 3))}
    assert path.read_bytes() == b"small"
    assert (tmp_path / f"{ENGINE}.1").read_bytes().startswith(b"7")


def test_of_the_engine_s_log_only_errors_are_told(tmp_path):
    (tmp_path / ENGINE).write_text(
        "Loading weights: 100%\na library chats about a secret\nTraceback (most recent call last):\n"
        '  File "x.py", line 1, in f\ntorch.OutOfMemoryError: CUDA out of memory.\n'
        'Fatal Python error: Segmentation fault\n\nCurrent thread:\n  File "y.py", line 2 in happens\n'
    )
    assert last_engine_errors(tmp_path) == [
        "torch.OutOfMemoryError: CUDA out of memory.", "Fatal Python error: Segmentation fault",
        '  File "y.py", line 2 in happens',
    ]  # fmt: skip


def test_diagnostics_hold_the_last_failed_job_without_what_people_wrote(tmp_path):
    from app.jobs.log import JobLog

    folder = tmp_path / "clips" / "2026-01-01_000000_clip_x"
    folder.mkdir(parents=True)
    job = JobLog(folder)
    job.note("my secret lover: the edges are rough")
    try:
        raise OSError(f"cannot open {Path.home() / 'Private' / 'x.png'}")
    except OSError as error:
        job.end("failed", """there is no file 'secret.png' nor "Mia's secret.png\"""", error)
    job.close()
    text = diagnostics(tmp_path, {})
    assert "OSError: cannot open …/x.png" in text or "OSError: cannot open ~" in text
    assert """there is no file '…' nor "…\"""" in text
    assert "secret" not in text
    assert "Private" not in text


def test_diagnostics_tell_versions_and_errors_but_nothing_private(tmp_path, log):
    log.error("cast[0].image: there is no file 'my secret lover.png' in %s", Path.home() / "Private" / "x.png")
    text = diagnostics(tmp_path, {"device": "cpu"}, {"precision": "int8"})
    for part in ("Troupe ", "gradio 6", '"device": "cpu"', '"precision": "int8"', "cast[0].image"):
        assert part in text
    for part in ("secret", "Private", str(Path.home())):
        assert part not in text


def test_findings_are_shown_with_what_to_do_and_escaped():
    from app.help.page import findings_html

    shown = findings_html([Finding("Disk", "bad", "<full>", "Free <some>")], done=True)
    assert "&lt;full&gt;" in shown
    assert "Free &lt;some&gt;" in shown
    assert "needs you" in shown
    assert "Looking" in findings_html([], done=False)
    assert "can work" in findings_html([Finding("Disk", "note", "small")], done=True)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (r"the file C:\Users\Ada\clips\a.png is gone", "the file …/a.png is gone"),
        ("no file '/home/ada/a b.png'", "no file '…'"),
        ("Ada's file 'Mia's cup' is the system's own", "Ada's file '…' is the system's own"),
        ("/srv/people/ada/clip.mp4: full", "…/clip.mp4: full"),
        ("1/2 of 3.5 GB", "1/2 of 3.5 GB"),
        ("/mnt/Anna Müller Fotos/new ones/clip.mp4: full, not half", "…/clip.mp4: full, not half"),
        (r"D:\Anna Müller\clips\a.png is gone", "…/a.png is gone"),
        (r"\\server\Anna\clips\a.png is gone", "…/a.png is gone"),
        ("/mnt/Mia's house/out/clips/mia-kisses-tom/a.png is gone", "<outputs>…/a.png is gone"),
        ("/mnt/Mia's house/Private/a.png to /srv/Tom/a.png", "~…/a.png to …/a.png"),
    ],
)
def test_places_and_quoted_words_are_left_out(said, kept):
    known = {Path("/mnt/Mia's house/out"): "<outputs>", Path("/mnt/Mia's house"): "~", Path("/"): "nothing"}
    assert without_private(said, known) == kept
