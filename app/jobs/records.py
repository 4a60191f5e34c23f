"""Convert a job's request to a row of the store and to files in its folder, and back.

The folder holds scene.json with its pictures, so that the command line can render it again, and job.json with what the
scene does not contain, so that the store can be rebuilt from the folders.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.jobs.store import JobRow, now
from engine.disk.atomic import whole
from engine.door.render import RenderRequest
from engine.errors import SceneError
from engine.scene.engines import find_engine, known_engine
from engine.scene.prompt import folded
from engine.scene.scene import Scene
from engine.scene.scene_file import load_scene, scene_from_json, scene_to_json
from engine.scene.settings import is_number
from engine.words import plain_name

SCENE, JOB_FILE, STATE, PREVIEW = "scene.json", "job.json", "run.safetensors", "preview.webp"
_PLACES = ("scene", "root", "out", "members", "options")  # known from the folder; cut-outs are made again
_GOES_ON = 2  # times


@dataclass(frozen=True)
class JobRecord:
    """The content of job.json: the options are `options_of`'s; `favourite`, `trashed` (when it was moved to the trash)
    and `metrics` (what was measured on its clip) are here too, and not in the store alone."""

    id: str
    owner: str
    options: dict[str, Any]
    created: str
    favourite: bool = False
    trashed: str = ""
    metrics: dict[str, float] = field(default_factory=dict)


def row_of(papers: JobRecord, folder: Path, scene: Scene) -> JobRow:
    """Return the row of a waiting job."""
    engine = papers.options.get("engine") or scene.engine
    names, known = " ".join(element.name for element in scene.cast), known_engine(engine)
    return JobRow(
        papers.id, papers.owner, folder.name, engine, scene_to_json(scene), json.dumps(papers.options),
        prompt=scene.prompt, words=folded(f"{scene.prompt} {names}"), seed=scene.sampling.seed,
        units=known.units(scene) if known else 0.0, created=papers.created,
        favourite=int(papers.favourite), trashed=papers.trashed, metrics=json.dumps(papers.metrics),
    )  # fmt: skip


def options_of(request: RenderRequest) -> dict[str, Any]:
    """Return a request's fields as JSON data, without its scene and its paths."""
    own = {each.name: getattr(request, each.name) for each in fields(request) if each.name not in _PLACES}
    cache = str(request.cache) if request.cache is not None else None
    kind = request.made_by.options
    how = TypeAdapter(kind).dump_python(request.options or kind(), mode="json")
    places = {each.name for each in fields(kind) if isinstance(getattr(request.options, each.name, None), Path)}
    return {**own, "cache": cache, "out": request.out.name, "options": _known(kind, how, tuple(places))}


def request_of(row: JobRow, folder: Path) -> RenderRequest:
    """Rebuild the request of a row, for the folder where it is now. A model's run saves its steps and its preview
    there. Raises SceneError for a scene that this version cannot use."""
    data, scene = json.loads(row.options), scene_from_json(row.scene)
    kind = find_engine(row.engine).options
    how = _known(kind, data.get("options") or data.get(row.engine) or {}, ())  # earlier versions: by the engine's name
    options = TypeAdapter(kind).validate_python(how).kept_in(folder / STATE, folder / PREVIEW)
    own = _known(RenderRequest, data, _PLACES)
    own["cache"] = Path(own["cache"]) if own.get("cache") else None
    out = folder / Path(str(data.get("out") or "clip.mp4")).name
    return RenderRequest(scene, folder, out, options=options, **own)


def write_down(folder: Path, papers: JobRecord, scene: Scene) -> None:
    """Write scene.json and job.json. The pictures are there already."""
    (folder / SCENE).write_text(scene_to_json(scene), encoding="utf-8")
    data = {"id": papers.id, "owner": papers.owner, "created": papers.created, "options": papers.options}
    _put(folder / JOB_FILE, data)


def amend(folder: Path, **values: object) -> None:
    """Change values in job.json, making it for a job of an earlier version, which had none. Raises OSError."""
    data = _data(folder)
    with whole(folder / JOB_FILE) as growing:
        _put(growing, {**data, **values})


def may_go_on(folder: Path) -> bool:
    """Return whether an interrupted job may continue by itself, and count it: twice at most, so that one that crashes
    the machine does not do so forever."""
    times = _data(folder).get("went_on", 0)
    if not isinstance(times, int) or times >= _GOES_ON:
        return False
    try:
        amend(folder, went_on=times + 1)
    except OSError:  # it could not be counted
        return False
    return True


def _put(file: Path, data: dict[str, Any]) -> None:
    file.write_text(json.dumps({"version": 1, **data}, indent=2) + "\n", encoding="utf-8")


def _data(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def read_back(folder: Path, job_id: str) -> JobRow | None:
    """Rebuild the row of a folder that the store does not know; None where there is no scene that can be used."""
    try:
        scene = load_scene(folder / SCENE)
    except SceneError:
        return None
    return row_of(_papers(folder, job_id), folder, scene)


def _papers(folder: Path, job_id: str) -> JobRecord:
    """Read job.json, with defaults for a job of an earlier version, which had none."""
    data = _data(folder)
    owner, created, options = data.get("owner"), data.get("created"), data.get("options")
    favourite, trashed = data.get("favourite") is True, data.get("trashed")
    trashed = trashed if isinstance(trashed, str) else ""
    metrics = _measured(data.get("metrics"))
    if isinstance(owner, str) and isinstance(created, str) and isinstance(options, dict):
        return JobRecord(job_id, owner, options, created, favourite, trashed, metrics)
    return JobRecord(job_id, "", {"confined": True}, now(), favourite, trashed, metrics)


def _measured(data: Any) -> dict[str, float]:
    """Return the metrics of a job.json that may have been edited: names that can be shown, and finite numbers."""
    kept = {}
    for name, value in data.items() if isinstance(data, dict) else ():
        if is_number(value) and abs(value) < 1e300:
            kept[plain_name(name)[:60]] = float(value)
    return kept


def _known(kind: type, data: dict[str, Any], but: tuple[str, ...]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)} - set(but)
    return {key: value for key, value in data.items() if key in names}  # another version may know more, or less
