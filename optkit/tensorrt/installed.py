"""What one interpreter has to build and run engines: the GPU of this machine, TensorRT, TensorRT-RTX and pycuda."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from optkit.tensorrt.process import TensorRtProcess


@dataclasses.dataclass(frozen=True)
class Installed:
    """What would build or run an engine under one interpreter; `no_gpu` says why there is no GPU."""

    gpu: str | None
    target: str | None  # its compute capability, such as sm86
    no_gpu: str
    versions: dict[str, str | None]  # runtime -> its version; None where it is not installed
    pycuda: bool


@functools.cache
def find_installed(python: Path | None = None) -> Installed:
    """Ask an interpreter what it has; once a process, since importing TensorRT takes a part of a second.

    Raises:
        RunnerError: it cannot be started, or TensorRT crashed it.
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


_no_gpu: dict[Path | None, str] = {}  # what the driver said, by interpreter


def why_no_gpu(python: Path | None = None) -> str:
    """Return why no GPU can be used here, empty where one can. Only the driver is asked, without the cost of TensorRT.

    Raises:
        RunnerError: the interpreter cannot be started.
    """
    if python not in _no_gpu:
        _no_gpu[python] = str(_facts(python, versions=False)["no_gpu"])
    return _no_gpu[python]


def remember_why_no_gpu(python: Path | None, why: str) -> None:
    """Keep what a worker said of the GPU while it did something else, so that it is not asked again."""
    _no_gpu[python] = why


def forget() -> None:
    """Ask this machine anew at the next question."""
    find_installed.cache_clear()
    _no_gpu.clear()


def _facts(python: Path | None, *, versions: bool) -> dict[str, Any]:
    with TensorRtProcess({"task": "facts", "versions": versions}, python) as worker:
        return worker.answer()
