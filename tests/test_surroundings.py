"""What the machine around it may be like: libraries that would phone home, proxies, IPv6, no home folder, Python's safe
path, a working folder that is gone."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app import address
from engine import surroundings
from engine.children import command_of, environment
from engine.errors import TroupeError
from tests.sealed import KILLED, can_seal
from tests.served import ROOT, Served, hero, served

_LAUNCH = str(ROOT / "launch.py")
# onnxruntime reports nine seconds after it was imported
_RENDER_AND_WAIT = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from launch import main
status = main(sys.argv[1:])
assert "onnxruntime" in sys.modules
time.sleep(12)
sys.exit(status)
"""
_SERVED_LONG = 15.0  # seconds


@pytest.fixture
def photo_scene(tmp_path: Path) -> Path:
    """A scene whose picture has to be cut out; its file."""
    yy, xx = np.mgrid[:240, :180]
    body = ((xx - 90) / 45) ** 2 + ((yy - 130) / 90) ** 2 < 1
    pixels = np.where(body[..., None], (200, 60, 60), (120, 160, 200)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mia.png")
    data = {"cast": [{"role": "character", "name": "Mia", "image": "mia.png"}], "prompt": "Mia waves.",
            "video": {"width": 128, "height": 96, "frames": 5}}  # fmt: skip
    (tmp_path / "scene.json").write_text(json.dumps(data))
    return tmp_path / "scene.json"


@pytest.fixture
def drawn_scene(photo_scene: Path) -> Path:
    """The same with a picture that is its own cut-out; its file."""
    hero(photo_scene.parent / "mia.png")
    return photo_scene


def fresh_home(tmp_path: Path, weights: Path | None = None) -> dict[str, str]:
    """An environment with an empty home folder, and the weights of the cut-outs where they are."""
    (tmp_path / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_", "ORT_"))}
    cache = {"TROUPE_CACHE": str(weights.parent.parent)} if weights else {}
    return {**kept, "HOME": str(tmp_path / "home"), **cache}


def run(*command: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=600, **options)


# ---------------------------------------------------------------------------
# Nothing phones home

sealable = pytest.mark.skipif(bool(can_seal()), reason=can_seal() or "-")


@sealable
@pytest.mark.parametrize(
    ("seal", "kind", "status"),
    [("all", "AF_INET, socket.SOCK_STREAM", KILLED), ("all", "AF_INET6, socket.SOCK_DGRAM", KILLED),
     ("names", "AF_INET, socket.SOCK_DGRAM", KILLED), ("names", "AF_INET, socket.SOCK_STREAM", 0),
     ("all", "AF_UNIX, socket.SOCK_STREAM", 0)],
)  # fmt: skip
def test_the_seal_catches_what_it_should(repo, seal, kind, status):
    code = f"import socket; socket.socket(socket.{kind})"
    assert run(sys.executable, str(repo / "tests" / "sealed.py"), seal, sys.executable, "-c", code).returncode == status


@sealable
def test_a_render_opens_no_socket_and_the_page_and_its_engine_look_up_no_name(
    tmp_path, photo_scene, fast_weights, repo
):
    """Both at once: each of them takes as long as the reports would."""
    environment, began = fresh_home(tmp_path, fast_weights), time.monotonic()
    sealed = [sys.executable, str(repo / "tests" / "sealed.py"), "all", sys.executable, "-c", _RENDER_AND_WAIT]
    out = tmp_path / "out.mp4"
    with (
        subprocess.Popen(
            [*sealed, "render", str(photo_scene), "-o", str(out)],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as rendering,
        served(tmp_path / "outputs", through=[str(repo / "tests" / "sealed.py"), "names"], **environment) as found,
    ):
        assert httpx.get(found.url, trust_env=False).status_code == 200
        while time.monotonic() - began < _SERVED_LONG and found.process.poll() is None:  # the cut-out is warmed up
            time.sleep(0.5)
        assert found.process.poll() is None, found.said
        _, said = rendering.communicate(timeout=600)
        assert rendering.returncode == 0, said
    assert out.stat().st_size > 1000
    assert not list((tmp_path / "home").rglob("*onnxruntime*"))  # its notes of what it has to tell


def test_a_person_s_own_choice_about_reports_stays(monkeypatch):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    surroundings.silence()
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "True"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")


# ---------------------------------------------------------------------------
# Proxies and certificates are for the internet, not for this machine

_NOWHERE = "http://127.0.0.1:9"
_PROXIES = {"http_proxy": _NOWHERE, "HTTPS_PROXY": _NOWHERE, "ALL_PROXY": "socks5://127.0.0.1:9",
            "SSL_CERT_FILE": "/no/such/file", "NO_PROXY": "", "no_proxy": ""}  # fmt: skip


def test_the_page_opens_behind_any_proxy(tmp_path):
    with served(tmp_path / "outputs", **_PROXIES) as found:
        assert httpx.get(found.url, trust_env=False).status_code == 200


@pytest.fixture
def answering() -> str:
    """The address of a server on this machine that says yes to everything."""

    class Yes(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Yes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("internet", [False, True])
def test_requests_to_oneself_go_straight_and_the_environment_is_as_before(monkeypatch, answering, internet):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, _NOWHERE)
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("ALL_PROXY", raising=False)
    monkeypatch.delenv("all_proxy", raising=False)
    before = dict(os.environ)
    with address.reached_directly("127.0.0.1", internet=internet):
        assert httpx.get(answering).status_code == 204
        assert internet == (os.environ.get("http_proxy") == _NOWHERE)
    assert dict(os.environ) == before


@pytest.mark.parametrize(("name", "value"), [("SSL_CERT_FILE", "/no/such/file"), ("ALL_PROXY", "socks5://127.0.0.1:9")])
def test_what_keeps_a_public_link_from_being_made_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(TroupeError, match=name), address.reached_directly("127.0.0.1", internet=True):
        pass


# ---------------------------------------------------------------------------
# IPv6


def own_address(found: Served) -> str:
    """The owner's address of a shared Troupe, which the console says after the guests'."""
    deadline = time.monotonic() + 120
    while not (lines := [line for line in found.said if line.startswith("Your own page")]):
        assert time.monotonic() < deadline, found.said
        time.sleep(0.02)
    return lines[0].split()[-1]


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("host", "shown"), [("::1", "http://[::1]:"), ("[::1]", "http://[::1]:"), ("::", "http://[::1]:")]
)
def test_the_page_opens_at_an_ipv6_address_however_it_is_written(tmp_path, host, shown):
    with served(tmp_path / "outputs", "--host", host) as found:
        assert found.url.startswith(shown)
        own = found.url if host != "::" else own_address(found)
        with httpx.Client(trust_env=False, follow_redirects=True) as browser:
            assert browser.get(own).status_code == 200


@pytest.mark.parametrize(
    ("host", "bare", "in_url", "page"),
    [("::1", "::1", "[::1]", "http://[::1]:7860/"), ("[::1]", "::1", "[::1]", "http://[::1]:7860/"),
     ("::", "::", "[::]", "http://[::1]:7860/"), ("0.0.0.0", "0.0.0.0", "0.0.0.0", "http://localhost:7860/"),
     ("my-computer", "my-computer", "my-computer", "http://my-computer:7860/")],
)  # fmt: skip
def test_one_host_in_all_its_spellings(host, bare, in_url, page):
    assert (address.bare(host), address.in_url(host), address.for_a_browser(host, 7860)) == (bare, in_url, page)


# ---------------------------------------------------------------------------
# Python's safe path, no home folder, a folder that is gone


def test_our_own_modules_are_found_from_anywhere_and_never_shadowed(tmp_path, monkeypatch):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("raise SystemExit('the wrong engine')")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    done = run(*command_of("engine.cutout", "--help"), cwd=tmp_path, env=environment())
    assert done.returncode == 0, done.stderr
    assert "engine.cutout" in done.stdout


@pytest.mark.parametrize("options", [["-P"], ["-I"], []])
def test_a_render_works_with_python_s_safe_path(tmp_path, drawn_scene, options):
    safe = {} if options else {"PYTHONSAFEPATH": "1"}
    out = tmp_path / "out.mp4"
    command = [sys.executable, *options, _LAUNCH, "render", str(drawn_scene), "-o", str(out)]
    done = run(*command, env={**os.environ, **safe}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert out.exists()


@pytest.fixture
def nobody(tmp_path: Path) -> dict[str, str]:
    """An environment in which no home folder is known, as for a user that is only a number."""
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "sitecustomize.py").write_text(
        "import pwd\ndef unknown(_): raise KeyError\npwd.getpwuid = pwd.getpwnam = unknown\n"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    left_out = ("HOME", "XDG_", "HF_", "TROUPE_", "USER", "LOGNAME", "U2NET_HOME")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, "PYTHONPATH": str(tmp_path / "nobody"), "TMPDIR": str(temporary)}


@pytest.mark.skipif(os.name == "nt", reason="Windows knows every user's home folder")
@pytest.mark.parametrize("command", ["render", "doctor", "models"])
def test_a_user_without_a_home_folder_can_use_every_command(tmp_path, nobody, photo_scene, command):
    arguments = {"render": ["render", str(photo_scene), "-o", str(tmp_path / "out.mp4")], "models": ["models", "list"]}
    known = run(sys.executable, "-c", "import os; print(os.path.expanduser('~'))", env=nobody)
    assert known.stdout.strip() == "~", "the test itself"
    done = run(sys.executable, _LAUNCH, *arguments.get(command, [command]), env=nobody, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert "fault in Troupe" not in done.stderr
    assert "report" not in done.stdout
    assert done.returncode == 0, done.stderr + done.stdout
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("~")]


@pytest.mark.skipif(os.name == "nt", reason="Windows knows every user's home folder")
def test_the_page_opens_for_a_user_without_a_home_folder(tmp_path, nobody):
    gone = {name: None for name in os.environ if name not in nobody}
    with served(tmp_path / "outputs", **{**nobody, **gone}) as found:
        assert httpx.get(found.url, trust_env=False).status_code == 200


def test_without_a_home_folder_the_cache_is_a_private_temporary_one(tmp_path, monkeypatch):
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: unknown())
    monkeypatch.setattr(surroundings.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("TROUPE_CACHE", raising=False)
    assert surroundings.home() is None
    assert surroundings.cache_folder().parent == tmp_path
    assert os.name == "nt" or surroundings.cache_folder().stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder that somebody is in")
@pytest.mark.parametrize("arguments", [["render", "SCENE", "-o", "out.mp4"], ["serve", "--outputs", "clips"]])
def test_a_working_folder_that_is_gone_is_said(tmp_path, drawn_scene, arguments):
    (tmp_path / "gone").mkdir()
    inside = f"os.rmdir({str(tmp_path / 'gone')!r}); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [str(drawn_scene) if word == "SCENE" else word for word in arguments]
    done = run(sys.executable, "-c", f"import os, sys; {inside}", _LAUNCH, *command, cwd=tmp_path / "gone")
    assert done.returncode == 1
    assert "the folder that you are in is gone" in done.stderr
    assert "Traceback" not in done.stderr
