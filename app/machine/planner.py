"""What this machine can do: its hardware, read in the background, and a plan for every clip from the engine's
planner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.door.render import Progress, RenderRequest, Result
from engine.scene.engine import Engine, EngineOptions, EnginePlanner, RunPlan
from engine.scene.engines import find_engine
from engine.scene.scene import Scene

if TYPE_CHECKING:
    from engine.memory.hardware import Hardware

_FRESH = 30.0  # seconds that a reading of the hardware is used: other programs use its memory, too
_AGAIN = 2.0  # seconds that a plan is cached for the same request
_PATIENCE = 12.0  # seconds that a page waits for the first answer
RenderCall = Callable[..., Result]


class Planner:
    """Plans clips for this machine. `folder` is where clips go; its disk is part of the hardware. `holds` returns the
    bytes that our own engine holds of card and memory, which the next clip can have; None where clips are not made on
    this machine, and then nothing is planned."""

    def __init__(self, folder: Path, holds: Callable[[], tuple[int, int] | None] = lambda: (0, 0)) -> None:
        self._folder, self._holds = folder, holds
        self._hardware: Hardware | None = None
        self._own = (0, 0)  # what our own engine held of card and memory then
        self._asked, self._lock = float("-inf"), threading.Lock()
        self._known = threading.Event()
        self._planners: dict[str, EnginePlanner | None] = {}
        self._last: tuple[float, object, RunPlan | None] = (float("-inf"), None, None)

    def look(self) -> None:
        """Read the hardware again in the background, unless that was done within the last 30 seconds."""
        with self._lock:
            if time.monotonic() - self._asked < _FRESH:
                return
            self._asked = time.monotonic()
        threading.Thread(target=self._ask, name="troupe-hardware", daemon=True).start()

    def hardware(self, patience: float = _PATIENCE) -> Hardware | None:
        """Return this machine's hardware, waiting up to `patience` seconds for the first reading; None where it takes
        longer."""
        self.look()
        self._known.wait(patience)
        return self._hardware

    def facts(self) -> dict[str, Any]:
        """Return the hardware as plain data, for a report."""
        from engine.memory.hardware import hardware_to_dict

        hardware = self.hardware()
        return hardware_to_dict(hardware) if hardware is not None else {}

    def plan(self, engine: Engine, scene: Scene, options: EngineOptions) -> RunPlan | None:
        """Return how this machine would make a clip; None while the hardware is not known, or where the engine has no
        planner."""
        from engine.memory.hardware import counting_as_free

        planner = self._planner_of(engine)
        hardware = self.hardware() if planner is not None else None
        if planner is None or hardware is None:
            return None
        hardware = counting_as_free(hardware, self._own)
        asked = (engine.name, hardware, scene, options)
        at, known, plan = self._last
        if known != asked or time.monotonic() - at > _AGAIN:  # one click asks for it several times
            plan = planner.plan(hardware, scene, options)
            self._last = time.monotonic(), asked, plan
        return plan

    def plans(self, engine: Engine) -> bool:
        """Return whether the engine has a planner."""
        return self._planner_of(engine) is not None

    def learning(self, render: RenderCall) -> RenderCall:
        """Wrap the engine's render call to measure how long its stages take; later plans use these times."""

        def run(request: RenderRequest, on_progress: Callable[[Progress], None], stop: Callable[[], bool]) -> Result:
            began: dict[str, tuple[float, int]] = {}

            def tell(progress: Progress) -> None:
                began.setdefault(progress.stage, (progress.elapsed, progress.step))
                on_progress(progress)

            result = render(request, on_progress=tell, stop=stop)
            engine = find_engine(result.engine)
            planner, hardware = self._planner_of(engine), self._hardware
            if planner is not None and hardware is not None:
                planner.learn(hardware, request.scene, request.options or engine.options(), began)
                self._last = (float("-inf"), None, None)
            return result

        return run

    def _ask(self) -> None:
        from engine.memory.hardware import ask_hardware

        before = self._holds() or (0, 0)
        hardware = ask_hardware(self._folder)
        after = self._holds() or (0, 0)  # it may have loaded or let go meanwhile: the less is sure
        self._own = min(before[0], after[0]), min(before[1], after[1])
        self._hardware = hardware
        self._known.set()

    def _planner_of(self, engine: Engine) -> EnginePlanner | None:
        """Return the engine's planner: one instance each, since it caches what it has read."""
        with self._lock:
            if engine.name not in self._planners:
                self._planners[engine.name] = engine.planner() if self._holds() is not None else None
            return self._planners[engine.name]
