"""Compiled blocks: `torch.compile` of the function that a block is computed with, so that one graph serves all of them.

The function is compiled and not the block, which would make a graph of each: streamed blocks have a forward of their
own, and 40 graphs are more than PyTorch keeps. What stands around it (copies, step caches, stops) stays as it is.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.errors import EngineUnavailable

if TYPE_CHECKING:
    import torch

_LEAVE = "leave the compiling out."
_COMPILERS = ("cc", "gcc", "clang")  # that triton looks for


class Compiled:
    """A function that is compiled when it is called first. Where that fails, it computes as it is, and `failed` says
    why."""

    def __init__(self, plain: Callable[..., Any]) -> None:
        import torch

        self._plain, self._compiled = plain, torch.compile(plain, fullgraph=True)
        self.failed = ""

    def __call__(self, *args: Any) -> Any:
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        from engine.memory.shortage import is_shortage

        if self.failed:
            return self._plain(*args)
        try:
            try:
                return self._compiled(*args)
            except FailOnRecompileLimitHit:  # clips of many sizes and settings came before: forget their graphs
                import torch

                torch.compiler.reset()
                return self._compiled(*args)
        except TorchDynamoException as error:
            cause = getattr(error, "inner_exception", None) or error
            if is_shortage(cause):
                raise cause from error
            self.failed = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
            return self._plain(*args)


class Compiler:
    """Compiles functions, and remembers which could not be."""

    def __init__(self) -> None:
        self._made: list[Compiled] = []

    def __call__(self, plain: Callable[..., Any]) -> Compiled:
        self._made.append(Compiled(plain))
        return self._made[-1]

    @property
    def notices(self) -> tuple[str, ...]:
        """What the person should know: that it was compiled, or that it went on without."""
        why = next((each.failed for each in self._made if each.failed), "")
        if why:
            return (f"The model could not be compiled ({why}): it computed as it is.",)
        return ("The model was compiled: rounds differently, which changes the picture in small details.",)


def might_compile() -> bool:
    """Return whether what a card's compiling needs seems to be there. Imports nothing."""
    return importlib.util.find_spec("triton") is not None and _has_c_compiler()


def check_compiler(device: torch.device) -> None:
    """Raise EngineUnavailable where PyTorch finds nothing to compile with. Compiles nothing."""
    if device.type != "cuda":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except (InvalidCxxCompiler, RuntimeError, OSError) as error:
            raise EngineUnavailable(
                "--compiled needs a C++ compiler, and there is none here", f"Install one (such as g++), or {_LEAVE}"
            ) from error
        return
    from torch.utils._triton import has_triton

    if not has_triton():
        how = "python -m pip install triton-windows" if os.name == "nt" else "python -m pip install triton"
        raise EngineUnavailable(
            "--compiled needs triton, which is not installed here or does not know this card",
            f"Get it ({how}), or {_LEAVE}",
        )
    if not _has_c_compiler():
        raise EngineUnavailable(
            "--compiled needs a C compiler for triton, and there is none here", f"Install gcc or clang, or {_LEAVE}"
        )


def _has_c_compiler() -> bool:
    """Return whether triton finds a C compiler; on Windows it brings one."""
    return os.name == "nt" or bool(os.environ.get("CC")) or any(map(shutil.which, _COMPILERS))
