"""pip: what a Python has of a requirements file, the install with its progress, and why one failed, in a line.

Standard library only, and of Troupe only modules that keep to it: `launch.py` needs it before anything is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.disk.room import full_disk, is_full
from engine.errors import TroupeError

OFFLINE = re.compile(
    "NewConnectionError|ConnectTimeout|ConnectionError|name resolution|getaddrinfo|ProxyError|SSLError|"
    "Read timed out|ReadTimeout"
)

# What sends the packages elsewhere, or nowhere, or adds to them; pip then ends with 0 all the same. Where it fetches
# them from stays the person's to say.
_ELSEWHERE = {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT", "PIP_EDITABLE", "PIP_GROUP", "PIP_PYTHON",
              "PYTHONPATH", "PYTHONHOME"}  # fmt: skip # what lies on the last two counts as installed already
_NOT_SO = {"PIP_USER": "0", "PIP_DRY_RUN": "0", "PIP_NO_DEPS": "0"}  # set, since pip.conf may say otherwise


class InstallFailed(TroupeError):
    """pip could not do it; the message is one line that says why and what to do."""


@dataclass(frozen=True)
class Install:
    """What to install: with which Python, from which requirements files, with which of pip's options besides. `home` is
    the folder named where the disk is full, `needed` the bytes it takes; all that pip says is kept in `log`."""

    python: Path
    files: tuple[Path, ...]
    home: Path
    needed: int
    log: Path
    options: tuple[str, ...] = ("--progress-bar", "off")

    def command(self) -> list[str]:
        """Build the command that runs pip."""
        named = [word for file in self.files for word in ("-r", str(file))]
        return [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", *self.options, *named]


def install(
    wanted: Install, tell: Callable[[str], None], started: Callable[[subprocess.Popen[bytes]], None] | None = None
) -> None:
    """Run pip to its end; `tell` gets every line, `started` the process. Raises InstallFailed."""
    if _quietly(wanted.python, "pip", "--version"):  # the Python below .venv was exchanged for another
        _quietly(wanted.python, "ensurepip", "--upgrade")
    said = []
    with wanted.log.open("w", encoding="utf-8") as log:
        pip = subprocess.Popen(
            wanted.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**pip_environment(), "PYTHONUNBUFFERED": "1", "PIP_RESUME_RETRIES": "5"},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0) if started else 0,
        )  # fmt: skip
        try:
            if started:
                started(pip)
            for raw in pip.stdout or ():  # a pipe, as it was asked for
                line = raw.decode("utf-8", "replace").rstrip()
                tell(line)
                if not line.startswith("Progress "):
                    said.append(line)
                    log.write(line + "\n")
        except BaseException:
            pip.kill()
            raise
        finally:
            if pip.stdout:
                pip.stdout.close()
            pip.wait()
    if pip.returncode:
        raise InstallFailed(why_it_failed("\n".join(said), wanted))


def _quietly(python: Path, *module: str) -> int:
    """Run a module of that Python without its output; return its exit status."""
    return subprocess.call([str(python), "-m", *module], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def pip_environment() -> dict[str, str]:
    """Return this process's environment without what would keep pip from putting all that is asked for into the Python
    that runs it."""
    return {name: value for name, value in os.environ.items() if name.upper() not in _ELSEWHERE} | _NOT_SO


def why_it_failed(said: str, wanted: Install) -> str:
    """Explain in one line why pip failed, from its output."""
    if full := disk_line(said, wanted.home, wanted.needed):
        return full
    if OFFLINE.search(said):
        return "no network: the requirements cannot be fetched. Connect (or set HTTPS_PROXY) and start again"
    nowhere = re.search(r"No matching distribution found for (\S+)", said)
    if nowhere:
        return (
            f"installing failed: pip finds no {nowhere.group(1)} that fits. Check the network and pip's settings "
            f"(python -m pip config list), and start again. All of it is in {wanted.log}"
        )
    errors = [line[7:] for line in said.splitlines() if line.startswith("ERROR: ")]
    reason = (errors or ["pip gave no reason"])[-1].rstrip(".")
    return f"installing failed: {reason}. All of it is in {wanted.log}"


def disk_line(fault: OSError | str, home: Path, needed: int) -> str:
    """Explain a failure in one line where the disk is full or may not be written; empty where the reason is another
    one."""
    said = str(fault)
    if is_full(fault):
        return ". ".join(full_disk(home, " and start again", needed))
    if "Permission denied" in said or "Read-only file system" in said or "[WinError 5]" in said:
        return f"no permission to write into {home}. Move Troupe to a folder of your own"
    return ""


def satisfied(files: Sequence[Path]) -> bool:
    """Return whether this Python has, in a version that fits, everything that the files list."""
    try:
        return not any(missing(files))
    except (ImportError, OSError):
        return False  # whatever has our requirements has `packaging` or pip


def missing(files: Sequence[Path]) -> Iterable[str]:
    """Yield the names in the requirements files that this Python has not, or not in a version that fits. Raises as
    `lacking` does."""
    return (name for name, _, _ in lacking(files))


def lacking(files: Sequence[Path]) -> Iterable[tuple[str, str, str]]:
    """Yield what the requirements files name for this system and this Python has not, or not in a version that fits:
    the name, the version that is here (empty: none) and those that are wanted. Raises OSError, and ImportError where
    there is neither `packaging` nor pip."""
    import importlib.metadata

    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]  # the same
    for line in "\n".join(file.read_text(encoding="utf-8") for file in files).splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line:
            continue
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        found, fits = "", False
        try:
            found = importlib.metadata.version(wanted.name)
            fits = wanted.specifier.contains(found, prereleases=True)
        except (importlib.metadata.PackageNotFoundError, KeyError, TypeError, ValueError):
            pass  # not there, or without a version: pip is just unpacking it
        if not fits:
            yield wanted.name, found or "", str(wanted.specifier)
