"""The clips' own file routes. Gradio would copy each file that it serves; here the browser gets the file itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from app.clips.exports import export_file
from app.jobs.queue import JobQueue
from app.jobs.status import Snapshot
from engine.media.export import KINDS

_HELD, _LOOK = 25.0, 1.0  # seconds: how long a response is held back, and between two checks of the job
MaySee = Callable[[Request, str], bool]
_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".webm": "video/webm", ".gif": "image/gif",
          ".zip": "application/zip", ".png": "image/png"}  # fmt: skip


def media_route(jobs: JobQueue, exports: Path, may_see: MaySee) -> Route:
    """Return the route `/clips/<job>/<what>`: poster, clip, download, or one of the kinds of export. The job's id is
    the key, and `may_see` must allow it too; otherwise the answer is the 404 of a job that does not exist."""

    def send(request: Request) -> Response:
        job_id, what = request.path_params["job"], request.path_params["what"]
        snap = jobs.snapshot(job_id)
        path = _file(snap, what, exports) if snap is not None and may_see(request, snap.id) else None
        if path is None or not path.is_file():
            return _nothing()
        saved = what not in ("clip", "poster")
        return FileResponse(
            path, media_type=_TYPES[path.suffix], filename=path.name if saved else None,
            headers={"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"},
        )  # fmt: skip

    return Route("/clips/{job}/{what}", send, methods=["GET", "HEAD"])


def state_route(jobs: JobQueue, may_see: MaySee) -> Route:
    """Return the route `/clips/<job>/state?seen=<percent>`: a job's state as JSON, by long polling, for tabs in the
    background. The response is held back until the job has ended, has moved 5 % from `seen`, or 25 seconds have
    passed."""

    async def tell(request: Request) -> Response:
        job_id, seen, patience = request.path_params["job"], request.query_params.get("seen", ""), _HELD
        if not await run_in_threadpool(lambda: jobs.snapshot(job_id) is not None and may_see(request, job_id)):
            return _nothing()
        while (snap := await run_in_threadpool(jobs.snapshot, job_id)) is not None:
            percent, before = round(100 * snap.share), int(seen) if seen.isdecimal() and len(seen) < 4 else 0
            if not snap.active or abs(percent - before) >= 5 or patience <= 0:
                told = {"state": snap.state, "percent": percent}
                return JSONResponse(told, headers={"Cache-Control": "no-store"})
            if await request.is_disconnected():
                break
            await asyncio.sleep(_LOOK)
            patience -= _LOOK
        return _nothing()

    return Route("/clips/{job}/state", tell, methods=["GET"])


def _nothing() -> Response:
    return Response("There is no such file.", 404, media_type="text/plain")


def _file(snap: Snapshot, what: str, exports: Path) -> Path | None:
    files: dict[str, Any] = {"clip": snap.clip, "download": snap.clip, "poster": snap.poster}
    return export_file(exports, snap, what) if what in KINDS else files.get(what)
