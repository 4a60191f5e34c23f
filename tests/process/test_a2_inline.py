"""The engine on a ZeroGPU Space: in a forked process that only takes and gives back what can be pickled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")

from engine.a2.options import A2Options
from engine.door.render import RenderRequest
from engine.process.inline import gpu_seconds
from engine.scene.scene_file import load_scene
from tests.tiny import GOLDEN, TINY, a_scene

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Spaces fork, and Windows cannot")

# What the package of the Spaces does to a generator function: the duration is asked with the same arguments, then both
# arguments and results go through pickle to and from a forked process; a close is heard there at the next value; an
# exception comes back as another one.
SPACES = """
import inspect, multiprocessing, os, pickle
ctx = multiprocessing.get_context("fork")
calls = []

class Error(Exception):
    def __init__(self, title, message):
        super().__init__(message)
        self.title, self.message = title, message

def GPU(duration):
    def decorate(task):
        assert inspect.isgeneratorfunction(task)
        def lent(*args):
            calls.append(duration(*args))
            if os.environ.get("NO_QUOTA"):
                raise Error("ZeroGPU quota exceeded", "You have exceeded your quota. Try again in 1:00.")
            there, here = ctx.SimpleQueue(), ctx.SimpleQueue()
            stop = ctx.Event()
            process = ctx.Process(target=work, args=(task, here, there, stop), daemon=True)
            process.start()
            here.put(pickle.dumps(args))
            try:
                while True:
                    kind, value = there.get()
                    if kind == "end":
                        return
                    if kind == "error":
                        raise Error("ZeroGPU worker error", value)
                    try:
                        yield value
                    except GeneratorExit:
                        stop.set()
                        while there.get()[0] == "ok":
                            pass
                        raise
            finally:
                process.join()
        return lent
    return decorate

def work(task, here, there, stop):
    try:
        values = task(*pickle.loads(here.get()))
        for value in values:
            if stop.is_set():
                values.close()
                break
            there.put(("ok", value))
        there.put(("end", None))
    except Exception as error:
        there.put(("error", type(error).__name__))
"""

SCRIPT = """
import json, os, sys, spaces
from dataclasses import replace
from pathlib import Path
from engine.process.inline import InlineEngine
from engine.a2.options import A2Options
from engine.a2.options import A2Options
from engine.door.render import RenderRequest
from engine.scene.scene_file import load_scene
scene, out, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
options = A2Options(model=model, device="cpu", precision="fp32")
whole = RenderRequest(load_scene(scene), scene.parent, out, poster=False, options=options)
long = replace(whole, scene=load_scene(scene.with_name("long.json")))  # not done before the word has come
engine = InlineEngine(options)
def what_becomes_of(request, stop_at=None):
    told, said, kind = [], "", ""
    spaces.calls.clear()
    out.unlink(missing_ok=True)
    try:
        engine.render(request, told.append, lambda: any(p.stage == stop_at for p in told))
    except Exception as error:
        said, kind = str(error), type(error).__name__
    left = sorted(os.listdir(out.parent)) if out.parent.is_dir() else []
    stages = list(dict.fromkeys(p.stage for p in told))
    return {"kind": kind, "said": said, "stages": stages, "calls": len(spaces.calls), "left": left}
end = {
    "clip": what_becomes_of(whole),
    "stop": what_becomes_of(long, "sampling"),
    "error": what_becomes_of(replace(whole, options=replace(options, device="teapot"))),
    "draft": what_becomes_of(replace(whole, engine="draft")),
}
os.environ["NO_QUOTA"] = "1"
end["no quota"] = what_becomes_of(whole)
print(json.dumps(end))
"""


@pytest.fixture(scope="module")
def on_a_space(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What became of five jobs there, one after another."""
    folder = tmp_path_factory.mktemp("space")
    (folder / "site").mkdir()
    (folder / "site" / "spaces.py").write_text(SPACES, encoding="utf-8")
    scene = json.loads((GOLDEN / "two_references.json").read_text(encoding="utf-8"))
    scene["sampling"], scene["video"] = {"steps": 2}, {"width": 64, "height": 64, "frames": 13, "trim_head": 4}
    for element in scene["cast"]:
        element["image"] = str(GOLDEN / element["image"])
    (folder / "scene.json").write_text(json.dumps(scene), encoding="utf-8")
    (folder / "long.json").write_text(json.dumps({**scene, "sampling": {"steps": 200}}), encoding="utf-8")
    # One thread: a fork does not bring along the threads that OpenMP has started before it.
    path = os.pathsep.join((str(folder / "site"), str(repo)))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, folder / "scene.json", folder / "clips" / "out.mp4", TINY]
    done = subprocess.run(
        list(map(str, command)), cwd=repo, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_clip_is_made_in_the_lent_process_without_loading_the_model_there(on_a_space):
    end = on_a_space["clip"]
    assert (end["said"], end["calls"], end["left"]) == ("", 1, ["out.mp4"])
    assert end["stages"] == ["cast", "conditioning", "sampling", "decoding"]


def test_stop_reaches_the_lent_process_and_leaves_nothing(on_a_space):
    assert (on_a_space["stop"]["kind"], on_a_space["stop"]["left"]) == ("Stopped", [])


def test_an_error_keeps_its_words(on_a_space):
    assert on_a_space["error"]["kind"] == "EngineUnavailable"
    assert "teapot" in on_a_space["error"]["said"]


def test_a_draft_takes_no_gpu_time(on_a_space):
    end = on_a_space["draft"]
    assert (end["said"], end["calls"], end["left"]) == ("", 0, ["out.mp4"])


def test_a_quota_that_is_used_up_is_told_with_a_way_out(on_a_space):
    end = on_a_space["no quota"]
    assert end["kind"] == "EngineDied"
    assert end["said"].startswith("ZeroGPU quota exceeded: You have exceeded your quota. Try again in 1:00.")
    assert "draft" in end["said"]


def test_the_time_that_is_asked_for_grows_with_the_clip(tmp_path):
    def seconds(**fields: object) -> int:
        return gpu_seconds(RenderRequest(a_scene((("object", "cup"),), **fields), tmp_path, tmp_path / "a.mp4"))

    small = seconds(sampling={"steps": 5})
    assert 60 <= small < seconds(sampling={"steps": 50}, video={"width": 832, "height": 480, "frames": 81})
    whole = load_scene(GOLDEN / "two_references.json")
    assert isinstance(gpu_seconds(RenderRequest(whole, GOLDEN, tmp_path / "a.mp4")), int)


def test_the_time_that_is_asked_for_is_that_of_the_model(tmp_path):
    def seconds(family: str | None, model: str = "mine") -> int:
        scene = a_scene(
            (("object", "cup"),), {"width": 832, "height": 480, "frames": 81}, sampling={"steps": 20, "guidance": 5.0}
        )
        return gpu_seconds(
            RenderRequest(scene, tmp_path, tmp_path / "a.mp4", options=A2Options(model=model, family=family))
        )

    assert seconds("refalign") > seconds("a2"), "three passes a step, not two"
    small, large = (seconds(None, f"gudaochangsheng/RefAlign-{size}") for size in ("1.3B", "14B"))
    assert small < large / 3
