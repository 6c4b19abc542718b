"""The parent's side of a job of AOTInductor: its process, a time limit, and its death as an error."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optkit.errors import StageError

logger = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("worker.py")
# Of a process that only loads: what torch must not reach for.
_COMPILERS = ("CC", "CXX", "CUDA_HOME", "CUDA_PATH", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TRITON_PTXAS_PATH")


def run_job(
    job: Mapping[str, Any], folder: Path, doing: str, *, time_limit_s: float | None = None, alone: bool = False
) -> dict[str, Any]:
    """Do a job in a process of its own, and return its answer. It and its children are ended however this ends.

    Args:
        job: in the form that `worker.py` reads, without `result`.
        folder: for the files of the job.
        doing: what it does, for messages, as `compiling`.
        time_limit_s: after which it is ended; None sets no limit.
        alone: no compiler on the PATH, and an empty cache, as on the machine that a package goes to.

    Raises:
        StageError: the job failed, was not done in time, or its process died.
    """
    result, log = folder / f"{job['task']}.json", folder / f"{job['task']}.log"
    job_file = folder / f"{job['task']}.job.json"
    job_file.write_text(json.dumps({**job, "result": str(result)}), encoding="utf-8")
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", WORKER, job_file],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=_alone(folder) if alone else None,
                start_new_session=True,  # only the parent receives Ctrl-C; it then ends the group
            )
    except OSError as e:
        raise StageError(f"{doing}: its process cannot be started ({e.strerror or e})") from e
    try:
        code = process.wait(time_limit_s)
    except subprocess.TimeoutExpired:
        raise StageError(
            f"{doing}: was not done in {time_limit_s:g} s, the time limit; nothing was written. Give a larger --time-limit-s"
        ) from None
    finally:
        _end(process)
    printed = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    for line in printed:
        logger.debug("AOTInductor %s", line)
    if not result.is_file():
        raise StageError(f"{doing}: {_death(code)}{f' Its last line of output: {printed[-1]}' if printed else ''}")
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


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and its group: the compiler, and torch's own workers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all of them are gone
        os.killpg(process.pid, signal.SIGKILL)
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def _death(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code} and no answer; nothing was written."
    name = signal.Signals(-code).name
    advice = {
        "SIGKILL": "Usually the system killed it because memory ran out: free memory, or compile a smaller model.",
        "SIGILL": "The code uses instructions that this processor does not have.",
    }.get(name, "Run it again with -vv to see what torch logged.")
    return f"its process was killed by {name}; nothing was written. {advice}"
