"""The parent's side of a job of AOTInductor: its process, a time limit, and its death as an error."""

import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optkit.errors import RunnerError, StageError
from optkit.system.child import ChildProcess, death
from optkit.untrusted.paths import is_file

logger = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("worker.py")
# Of a process that only loads: what torch must not reach for.
_COMPILERS = ("CC", "CXX", "CUDA_HOME", "CUDA_PATH", "TRITON_PTXAS_PATH")


def run_job(
    job: Mapping[str, Any], folder: Path, doing: str, *, time_limit_s: float | None = None, alone: bool = False
) -> dict[str, Any]:
    """Do a job in a process of its own, and return its answer. It and its children are ended however this ends.

    Args:
        job: in the form that `worker.py` reads, without `result` and `parent`.
        folder: for the files of the job.
        doing: what it does, for messages, as `compiling`.
        time_limit_s: after which it is ended; None sets no limit.
        alone: no compiler on the PATH, and an empty cache, as on the machine that a package goes to.

    Raises:
        StageError: the job failed, was not done in time, or its process died.
    """
    result = folder / f"{job['task']}.json"
    job_file = folder / f"{job['task']}.job.json"
    job_file.write_text(json.dumps({**job, "result": str(result), "parent": os.getpid()}), encoding="utf-8")
    command: list[str | Path] = [sys.executable, "-P", WORKER, job_file]
    try:
        child = ChildProcess(command, environment=_alone(folder) if alone else None)
    except RunnerError as e:
        raise StageError(f"{doing}: {e}") from e
    try:
        code = child.wait(time_limit_s)
        if code is None:
            raise StageError(
                f"{doing}: was not done in {time_limit_s:g} s, the time limit; nothing was written. Give a larger --time-limit-s"
            )
        log, last = child.log, child.last_lines()
    finally:
        child.stop()
    for line in log.splitlines():
        logger.debug("AOTInductor %s", line)
    if not is_file(result):
        raise StageError(f"{doing}: {_described(code)}{f' Its last line of output: {last}' if last else ''}")
    answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if "fault" in answer:
        raise StageError(f"{doing}: {answer['fault']}")
    found: dict[str, Any] = answer["result"]
    return found


def _alone(folder: Path) -> dict[str, str]:
    nothing, cache = folder / "no-programs", folder / "empty-cache"
    nothing.mkdir()
    cache.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in _COMPILERS}
    return kept | {"PATH": str(nothing), "TORCHINDUCTOR_CACHE_DIR": str(cache), "TRITON_CACHE_DIR": str(cache)}


def _described(code: int) -> str:
    if code >= 0:
        return f"its process {death(code)} and no answer; nothing was written."
    advice = {
        "SIGKILL": "Usually the system killed it because memory ran out: free memory, or compile a smaller model.",
        "SIGILL": "The code uses instructions that this processor does not have.",
    }.get(signal.Signals(-code).name, "Run it again with -vv to see what torch logged.")
    return f"its process {death(code)}; nothing was written. {advice}"
