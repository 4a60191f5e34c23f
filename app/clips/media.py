"""The clips' own file route. Gradio would copy each file that it shows; here the browser gets the file itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from app.jobs.board import JobBoard
from app.jobs.snapshot import Snapshot
from engine.export import KINDS

MaySee = Callable[[Request, str], bool]
_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".webm": "video/webm", ".gif": "image/gif",
          ".zip": "application/zip", ".png": "image/png"}  # fmt: skip


def media_route(jobs: JobBoard, exports: Path, may_see: MaySee) -> Route:
    """`/clips/<job>/<what>`: poster, clip, download, or one of the kinds of export. The job's id is the key, and
    `may_see` has the last word; whoever may not see it is told what one is told of a job that is not there."""

    def send(request: Request) -> Response:
        job_id, what = request.path_params["job"], request.path_params["what"]
        snap = jobs.snapshot(job_id)
        path = _file(snap, what, exports) if snap is not None and may_see(request, snap.id) else None
        if path is None or not path.is_file():
            return Response("There is no such file.", 404, media_type="text/plain")
        saved = what not in ("clip", "poster")
        return FileResponse(
            path, media_type=_TYPES[path.suffix], filename=path.name if saved else None,
            headers={"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"},
        )  # fmt: skip

    return Route("/clips/{job}/{what}", send, methods=["GET", "HEAD"])


def export_file(exports: Path, snap: Snapshot, kind: str) -> Path:
    """Where an export of a clip lies; its name says what it is of."""
    stem = snap.clip.stem if snap.clip else snap.id
    return exports / snap.id / f"{stem}{KINDS[kind]}"


def _file(snap: Snapshot, what: str, exports: Path) -> Path | None:
    files: dict[str, Any] = {"clip": snap.clip, "download": snap.clip, "poster": snap.poster}
    return export_file(exports, snap, what) if what in KINDS else files.get(what)
