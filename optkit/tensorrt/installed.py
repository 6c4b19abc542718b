"""The facts for building and running engines with one interpreter: the GPU of this machine, TensorRT, TensorRT-RTX and pycuda."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from optkit.tensorrt.process import TensorRtProcess


@dataclasses.dataclass(frozen=True)
class Installed:
    """The GPU and the installed packages of one interpreter; `no_gpu` is the reason why there is no GPU."""

    gpu: str | None
    target: str | None  # its compute capability, such as sm86
    no_gpu: str
    versions: dict[str, str | None]  # runtime -> its version; None where it is not installed
    pycuda: bool


@functools.cache
def find_installed(python: Path | None = None) -> Installed:
    """Return the facts of an interpreter; cached, because importing TensorRT takes a part of a second.

    Raises:
        RunnerError: the interpreter cannot be started, or TensorRT crashed it.
    """
    found = _facts(python, versions=True)
    gpu = found["gpu"] or {}
    return Installed(
        gpu=gpu.get("name"),
        target=gpu.get("sm"),
        no_gpu=found["no_gpu"],
        versions=found["versions"],
        pycuda=found["pycuda"],
    )


ENVIRONMENT = "OPTKIT_TENSORRT_PYTHON"
_named: set[Path] = set()  # interpreters that the user of this process has named


def name_interpreter(python: Path) -> None:
    """Remember an interpreter that the user has named, with an option or in a recipe: it may be started for engines too."""
    _named.add(python.absolute())


def is_named(python: Path) -> bool:
    """Whether the user has named an interpreter, in this process or in OPTKIT_TENSORRT_PYTHON (several are separated as in PATH).

    A passport may come from anywhere and name any program, so what only a passport names is not started.
    """
    from_environment = {Path(path).absolute() for path in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if path}
    return python.absolute() in _named | from_environment


_no_gpu: dict[Path | None, str] = {}  # the driver's answer, by interpreter


def why_no_gpu(python: Path | None = None) -> str:
    """Return the reason why no GPU can be used here; empty where one can. It queries only the driver and does not import TensorRT.

    Raises:
        RunnerError: the interpreter cannot be started.
    """
    if python not in _no_gpu:
        _no_gpu[python] = str(_facts(python, versions=False)["no_gpu"])
    return _no_gpu[python]


def remember_why_no_gpu(python: Path | None, why: str) -> None:
    """Store the driver's answer from a worker with another job, so that no further query is needed."""
    _no_gpu[python] = why


def forget() -> None:
    """Clear the caches."""
    find_installed.cache_clear()
    _no_gpu.clear()


def _facts(python: Path | None, *, versions: bool) -> dict[str, Any]:
    with TensorRtProcess({"task": "facts", "versions": versions}, python) as worker:
        return worker.answer()
