"""Serve the page: folders, limits, and the settings that keep a shared link safe."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware

from app import address
from app.create.desks import Desks
from app.guard.access import SAFETY, Access, Terms, decide, owner_address, spoken
from app.guard.connections import MOST, Connections, speak_seldom
from app.guard.disk_space import UploadRoom, sweep
from app.guard.expiry import close_tunnels, end_in_time
from app.guard.guard import Guard
from app.guard.limits import MAX_UPLOAD, Limits
from app.guard.middleware import GuardMiddleware
from app.guard.process import keep_few_arenas, quiet_libtiff, raise_handles
from app.guard.sessions import ANALYTICS, CAPACITY, Sessions
from app.jobs.queue import JobQueue
from app.logs import ENGINE, keep_log, stop_log
from app.machine.planner import Planner
from engine import VERSION
from engine.errors import TroupeError
from engine.process.client import EngineProcess, EngineRunner
from engine.surroundings import settle

if TYPE_CHECKING:
    from gradio import Blocks


log = logging.getLogger("troupe.server")

ROOT = Path(__file__).resolve().parent.parent
QUEUE = 1_000  # events; guests have far fewer (app/guard/limits.py), the rest is the owner's
_FOLDERS = {"TROUPE_CACHE", "U2NET_HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "TMPDIR"}
# Removed. The server's name is passed as an argument: with the variable set, Gradio checks its port over IPv4 only.
_OF_GRADIO = ("GRADIO_SERVER_NAME", "GRADIO_DEBUG", "GRADIO_HOT_RELOAD", "GRADIO_MCP_SERVER", "GRADIO_VIBE_MODE",
              "GRADIO_WATCH_DIRS")  # fmt: skip


def serve(host: str | None, port: int | None, share: bool, browser: bool, outputs: Path, terms: Terms) -> None:
    """Serve the page until Ctrl-C, SIGTERM or SIGHUP. `host` and `port` may be None: then the environment decides (a
    Space)."""
    _end_like_ctrl_c()
    keep_few_arenas()
    house = open_house(outputs)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # while it is still starting
            with _no_garbage():
                blocks = launch(
                    outputs, house, terms, server_name=host, server_port=port, share=share, inbrowser=browser
                )
            threading.Thread(target=_warm_up, args=(house,), name="troupe-warm-up", daemon=True).start()
            blocks.block_thread()  # until Ctrl-C, for which Gradio prints a line
        _say_farewell(outputs)
    finally:
        house.close()


def _say_farewell(outputs: Path) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"Stopped. Your clips are in {outputs}", flush=True)


def _end_like_ctrl_c() -> None:
    """Handle SIGTERM (a service manager) and SIGHUP (a closed terminal) like Ctrl-C: the running job is interrupted and
    saved, and the last line says where the clips are."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows: no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Disable the garbage collector while the page is built, then gc.freeze(): everything built here lives until
    exit."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


@dataclass(frozen=True)
class House:
    """The services behind the page: the job queue, the engine, the planner for this machine, and the log handler."""

    jobs: JobQueue
    engine: EngineRunner
    planner: Planner
    log: logging.Handler
    umask: int  # the process's own, restored on close

    def close(self) -> None:
        """Interrupt the running job, save everything, end the engine and release the outputs folder."""
        self.jobs.close()
        self.engine.close()
        self.jobs.close()  # a job that did not stop by itself has ended with its engine
        stop_log(self.log)
        os.umask(self.umask)


def open_house(outputs: Path) -> House:
    """Lock an outputs folder for this process and start the services over it. Raises TroupeError where another copy of
    Troupe has it."""
    outputs = _without_links(outputs)
    umask = os.umask(0o077)  # other accounts of this machine cannot read the files
    try:
        return _open_house(outputs, umask)
    except BaseException:
        os.umask(umask)
        raise


def _open_house(outputs: Path, umask: int) -> House:
    _prepare_folders(outputs)
    handler = keep_log(outputs / "logs")
    try:
        engine = _engine_of(outputs)
        planner = Planner(outputs, engine.holds)
        jobs = JobQueue(outputs, planner.learning(engine.render))
    except BaseException:
        stop_log(handler)
        raise
    sweep(outputs / "uploads")
    if jobs.notice:
        log.warning(jobs.notice)
    return House(jobs, engine, planner, handler, umask)


def _engine_of(outputs: Path) -> EngineRunner:
    """Return the engine: a process of its own, or in this process on a ZeroGPU Space, which lends its GPU to functions
    only."""
    if os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"):
        from engine.process.inline import InlineEngine

        return InlineEngine()
    return EngineProcess(log=outputs / "logs" / ENGINE)


def launch(outputs: Path, house: House, terms: Terms = Terms(), **more: Any) -> Blocks:  # noqa: B008 - it is frozen
    """Build the page over an outputs folder, serve it from a thread, and return the Blocks. The engine starts once the
    page answers; the caller closes `house`. Tests start here too. Raises TroupeError for terms that contradict each
    other."""
    outputs, access = _without_links(outputs), decide(terms, more, os.environ)
    host = address.wanted(more.pop("server_name", None), os.environ)
    _prepare_environment(outputs)
    with address.reached_directly(host, internet=bool(more.get("share"))):  # Gradio sends requests to itself
        return _launch(outputs, house, access, host, **more)


def _launch(outputs: Path, house: House, access: Access, host: str, **more: Any) -> Blocks:
    """Build the page and serve it; the environment is prepared already."""
    # imported here, after the environment is set: Gradio reads it when it is imported
    from app.clips.exports import Exports
    from app.clips.gallery import Gallery
    from app.clips.housekeeping import Housekeeping, told
    from app.clips.media import media_route, state_route
    from app.create.engines import Engines
    from app.create.library import Library
    from app.create.studio import Studio
    from app.create.tray import Tray
    from app.machine.settings import OwnerSettings
    from app.models.getting import Getting
    from app.page import Rooms, build_page
    from app.ui.theme import troupe_theme

    handles = raise_handles()
    speak_seldom()
    quiet_libtiff()
    guard = Guard(access, outputs, replace(Limits(), open_in_all=min(Limits().open_in_all, handles // 2)))
    library = Library(ROOT / "presets", outputs / "presets", ROOT / "assets" / "samples", guard.is_owner)
    for problem in library.problems:
        print(f"Preset skipped: {problem}", file=sys.stderr)
    tray = Tray(ROOT / "assets" / "samples")
    house.jobs.asker = guard.asker
    choices = OwnerSettings(outputs / "settings.json")
    engines = Engines(choices, outputs / "loras", house.planner, guard.is_owner)
    desks = Desks(outputs / "desks", guard.mine, guard.new_desk, engines.made_for)
    studio = Studio(desks, house.jobs, library, tray, guard, engines)
    exports = Exports(outputs / "exports")
    keeping = Housekeeping(house.jobs, desks, choices, exports, outputs)
    if done := keeping.at_start():
        print(told(done, done=True))
    gallery, getting = Gallery(studio, exports), Getting(choices, lambda: house.planner.hardware(0.0))
    rooms = Rooms(studio, gallery, keeping, getting, house.planner, house.engine.release, outputs)
    blocks = build_page(rooms)
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = str(ANALYTICS)  # read by the next line
    blocks.queue(api_open=False, default_concurrency_limit=8, max_size=QUEUE)
    browser = more.pop("inbrowser", False)  # opened below, at the owner's address
    settings: dict[str, Any] = {
        "prevent_thread_lock": True, "show_error": False, "enable_monitoring": False, "run_history": False,
        "quiet": True, "max_file_size": MAX_UPLOAD, "footer_links": ["api"], "theme": troupe_theme(),
        "css_paths": [ROOT / "assets" / "style.css"], "favicon_path": ROOT / "assets" / "icon.png", "pwa": False,
        "app_kwargs": {
            "middleware": [
                Middleware(GuardMiddleware, guard=guard), Middleware(UploadRoom, uploads=outputs / "uploads"),
                Middleware(Sessions),
            ],
            "routes": [
                state_route(house.jobs, guard.may_see_job),
                media_route(house.jobs, outputs / "exports", guard.may_see_job),
            ],
        },
        "server_name": address.in_url(host), "state_session_capacity": CAPACITY,
        "ssr_mode": False, "num_workers": 0,  # both would serve files past the guard
        "_frontend": False,  # or Gradio requests the page itself and fails after three seconds, with a traceback
    }  # fmt: skip
    with _room_for_a_link(outputs, bool(more.get("share"))):
        _, _, public = blocks.launch(**(settings | more))
    url = address.for_a_browser(host, blocks.server_port)
    Connections(min(MOST, handles // 4)).watch(blocks.server)
    if not public:
        guard.link_failed()
    log.info("Troupe %s is open%s", VERSION, " to others" if access.shared else "")
    house.jobs.lock.tell(url)
    house.jobs.start()
    house.engine.start()
    _say_hello(access, url, public)
    if public:
        end_in_time(guard, lambda: close_tunnels(blocks.server_port))
    if browser:
        webbrowser.open(owner_address(access, url))
    return blocks


def _say_hello(access: Access, url: str, public: str | None) -> None:
    if "SPACE_HOST" in os.environ:
        url = f"https://{os.environ['SPACE_HOST']}/"
    lines = [f"Troupe is open at {url}" + (f" and at {public}" if public else ""), *spoken(access, url, public)]
    if access.shared and _has_model():
        lines.append(SAFETY)
    print("\n".join(lines), flush=True)


def _has_model() -> bool:
    """Return whether an engine with a model is available here, as far as can be told without starting it."""
    from engine.scene.engines import all_engines

    for engine in all_engines():
        with contextlib.suppress(TroupeError):
            if not engine.is_draft:
                engine.available(engine.options())
                return True
    return False


def _without_links(outputs: Path) -> Path:
    try:
        return Path(outputs).resolve()
    except (OSError, RuntimeError):  # the latter is Python 3.11's
        raise TroupeError(f"{outputs} is a link that leads to itself", "Name another one: --outputs FOLDER.") from None


def _prepare_folders(outputs: Path) -> None:
    try:
        for folder in (outputs / "uploads", outputs / "clips", outputs / "desks"):
            if folder.is_symlink() and not folder.exists():
                problem = f"{folder} is a link to {os.readlink(folder)}, which is not there"
                raise TroupeError(problem, "Connect its disk, or remove the link.")
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=outputs):
            pass
    except OSError as error:
        problem = f"The folder {outputs} cannot be written ({error.strerror})"
        raise TroupeError(problem, "Name another one: --outputs FOLDER.") from None


def _prepare_environment(outputs: Path) -> None:
    """Turn telemetry off, send uploads to the outputs folder, and make a folder with public files the working
    directory."""
    for name in _FOLDERS & os.environ.keys():  # relative to where Troupe was started
        os.environ[name] = os.path.abspath(os.path.expanduser(os.environ[name]))
    for name in _OF_GRADIO:
        os.environ.pop(name, None)
    settle()
    os.environ["GRADIO_TEMP_DIR"] = str((outputs / "uploads").resolve())  # resolved: the guard knows no other path
    os.chdir(ROOT / "assets" / "web")  # Gradio serves the files of the working folder: these are public


@contextlib.contextmanager
def _room_for_a_link(outputs: Path, share: bool) -> Iterator[None]:
    """Run the block in a writable working directory: Gradio writes a public link's certificate there, and the project's
    folder may be read-only. Raises TroupeError where the folder cannot be made."""
    if not share:
        yield
        return
    folder = outputs / "share"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise TroupeError(f"{folder} cannot be made ({error.strerror})", "Move away what is there.") from None
    with contextlib.chdir(folder):
        yield


def _warm_up(house: House) -> None:
    """Prefetch what the first upload and the first clip need and detect the hardware, in the background."""
    time.sleep(1.5)  # the browser's first requests come first
    from engine import cutout

    try:
        cutout.prepare("fast", say=lambda line: print(line, flush=True))
        cutout.warm_up("fast")
    except Exception:  # the first upload will say what is wrong
        log.debug("warm-up failed", exc_info=True)
    house.planner.look()
