"""Which engines there are. An entry is the only line that a new one needs outside its own package.

They are named, not imported: whoever reads a scene asks its engine what lengths it can make, and an engine knows
scenes. So a module is loaded when somebody asks for its engine.
"""

from __future__ import annotations

import importlib

from engine.scene.engine import Engine

ENGINES = {  # by name: the module that has its `ENGINE`
    "draft": "engine.draft.engine",
    "a2": "engine.a2.engine",
}


def find_engine(name: str) -> Engine:
    """Load the engine of that name. Raises KeyError."""
    engine: Engine = importlib.import_module(ENGINES[name]).ENGINE
    return engine


def known_engine(name: str) -> Engine | None:
    """Load the engine of that name; None for one that this version does not have, such as of an older clip."""
    return find_engine(name) if name in ENGINES else None


def promotion_of(name: str) -> Engine | None:
    """Return the engine with which a draft's scene is made for good: the first that makes no drafts. None where there
    is none, or the engine of that name makes no drafts itself."""
    engine = known_engine(name)
    better = (each for each in all_engines() if not each.is_draft)
    return next(better, None) if engine is not None and engine.is_draft else None


def all_engines() -> tuple[Engine, ...]:
    """Load all engines, in the order in which they are offered."""
    return tuple(find_engine(name) for name in ENGINES)
