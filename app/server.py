"""Serve the page: folders, limits, and the settings that keep a shared link safe."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from app.create.desks import Desks
from app.jobs.board import JobBoard
from engine.errors import TroupeError

ROOT = Path(__file__).resolve().parent.parent
MAX_UPLOAD = "40mb"


def serve(host: str | None, port: int | None, share: bool, browser: bool, outputs: Path) -> None:
    """Open the page and stay until Ctrl-C. `host` and `port` may be None: then the environment decides (a Space)."""
    blocks = launch(outputs, server_name=host, server_port=port, share=share, inbrowser=browser)
    threading.Thread(target=_warm_up, name="troupe-warm-up", daemon=True).start()
    try:
        blocks.block_thread()
    except KeyboardInterrupt:
        print("\nStopped. Your clips are in", outputs)


def launch(outputs: Path, **more: object):
    """Build the page over an outputs folder and serve it from a thread; returns the Blocks. Tests start here too."""
    outputs = Path(outputs).resolve()
    _prepare_environment(outputs)

    # imported here, after the environment is set: Gradio reads it when it is imported
    from app.create.library import Library
    from app.create.studio import Studio
    from app.create.tray import Tray
    from app.models.getting import Getting
    from app.page import build_page
    from app.theme import troupe_theme
    from engine import door

    shared = _is_shared(more)
    own = None if shared else outputs / "presets"
    library = Library(ROOT / "presets", own, ROOT / "assets" / "samples")
    for problem in library.problems:
        print(f"Preset skipped: {problem}", file=sys.stderr)
    tray = Tray(ROOT / "assets" / "samples")
    studio = Studio(
        Desks(outputs / "desks"), JobBoard(outputs / "clips", door.render), library, tray, outputs / "uploads"
    )
    blocks = build_page(studio, None if shared else Getting(outputs / "model.json"))
    blocks.queue(api_open=False, default_concurrency_limit=8, max_size=200)
    settings: dict[str, object] = {
        "prevent_thread_lock": True, "show_error": False, "enable_monitoring": False, "run_history": False,
        "quiet": True, "max_file_size": MAX_UPLOAD, "footer_links": ["api"], "theme": troupe_theme(),
        "css_paths": [ROOT / "assets" / "style.css"], "favicon_path": ROOT / "assets" / "icon.png", "pwa": False,
    }  # fmt: skip
    _, url, public = blocks.launch(**(settings | more))  # type: ignore[arg-type]
    print(f"Troupe is open at {url}" + (f" and at {public}" if public else ""), flush=True)
    return blocks


def _prepare_environment(outputs: Path) -> None:
    """Nothing phones home, uploads lie beside the outputs, and Gradio works in a folder with nothing private in it."""
    try:
        for folder in (outputs / "uploads", outputs / "clips", outputs / "desks"):
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=outputs):
            pass
    except OSError as error:
        problem = f"The folder {outputs} cannot be written ({error.strerror})"
        raise TroupeError(problem, "Name another one: --outputs FOLDER.") from None
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ["GRADIO_TEMP_DIR"] = str(outputs / "uploads")
    os.chdir(ROOT / "assets" / "web")  # Gradio offers the working folder's files to who can name them: these are public


def _is_shared(settings: dict[str, object]) -> bool:
    """Whether strangers may come: a public link, an address that others reach, or a Space."""
    local = settings.get("server_name") in (None, "127.0.0.1", "localhost", "::1")
    return bool(settings.get("share")) or not local or "SPACE_ID" in os.environ


def _warm_up() -> None:
    """Load what the first upload and the first clip need, while the person still looks at the page."""
    time.sleep(1.5)  # the browser's first requests come first
    from engine import cutout

    try:
        cutout.prepare("fast", say=lambda line: print(line, flush=True))
        cutout.warm_up("fast")
    except Exception:  # the first upload will say what is wrong
        logging.getLogger("troupe").debug("warm-up failed", exc_info=True)
