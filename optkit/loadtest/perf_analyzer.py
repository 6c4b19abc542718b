"""One point of a sweep by NVIDIA's perf_analyzer. The measurements come from its profile export, which lists every request.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/perf_analyzer/docs/cli.html
"""

import base64
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optkit.artifact.tensors import Feed
from optkit.benchmark.machine import usable_cores
from optkit.errors import ArtifactError, MissingDependency, RecipeError, RunnerError
from optkit.loadtest.counters import LoadCounters, LoadLevel, point_of
from optkit.loadtest.job import Job, connector_to, run
from optkit.loadtest.load_record import LoadPoint
from optkit.loadtest.settings import Tool
from optkit.loadtest.triton_statistics import StatisticsSnapshot, TritonQueries
from optkit.system.child import ChildProcess, death
from optkit.system.temporary import temporary_folder
from optkit.untrusted.documents import read_json

ENVIRONMENT = "OPTKIT_PERF_ANALYZER"
_WINDOWS = 3  # perf_analyzer requires stable windows; all of them count here
_ANY_SPREAD = "100000"  # percent between the windows; noise shows in the percentiles and should not end the load
_MAX_ELEMENTS = 16_384  # in one request; the export repeats every element as text
_START_S = 20.0


def find() -> Path | None:
    """Return the program in OPTKIT_PERF_ANALYZER, otherwise perf_analyzer on the PATH, otherwise None.

    Raises:
        MissingDependency: OPTKIT_PERF_ANALYZER is set, and there is no such program.
    """
    named = os.environ.get(ENVIRONMENT)
    found = shutil.which(named or "perf_analyzer")
    if named and not found:
        raise MissingDependency(f"{ENVIRONMENT}={named}: no such program; expected the path of perf_analyzer")
    return Path(found) if found else None


def choose(job: Job) -> tuple[Path | None, str]:
    """Choose the load generator. Return perf_analyzer's path or, for optkit's own client, None; and the reason.

    Raises:
        MissingDependency: the settings require perf_analyzer, which is not installed.
        RecipeError: the settings require perf_analyzer, which cannot send these requests.
    """
    settings = job.settings
    if settings.tool is Tool.ASYNCIO:
        return None, "set by --tool"
    program, unable = find(), _unable(job)
    if settings.tool is Tool.PERF_ANALYZER:
        if program is None:
            raise MissingDependency(
                f"perf_analyzer is not on the PATH, and {ENVIRONMENT} is not set. Use --tool asyncio, or install perf_analyzer: the "
                f"wheel tritonclient==2.51.0 for manylinux1 contains it."
            )
        if unable:
            raise RecipeError(f"--tool perf-analyzer: {unable}. Use --tool asyncio.")
        return program, "set by --tool"
    if program is None:
        return None, "perf_analyzer is not installed"
    if settings.rate:
        return None, "perf_analyzer measures latency from the time of sending, not from the scheduled time"
    return (None, unable) if unable else (program, f"found at {program}")


def _unable(job: Job) -> str | None:
    """Return why perf_analyzer cannot send these requests, or None if it can."""
    if job.target.server != "triton" or job.values is None:
        return "perf_analyzer supports Triton only"
    elements = sum(array.size for array in job.values.feeds[0].values())
    if elements > _MAX_ELEMENTS:
        return f"perf_analyzer would export {elements} elements for each request, more than {_MAX_ELEMENTS}"
    return None


def drive(program: Path, job: Job, level: LoadLevel) -> LoadPoint:
    """Run one load. The server's statistics include the warm-up, because perf_analyzer does not report its end.

    Raises:
        RunnerError: perf_analyzer failed or exceeded the time limit; its processes were killed.
        KeyboardInterrupt: Ctrl-C; its processes were killed.
    """
    settings = job.settings
    with temporary_folder() as folder:
        (folder / "inputs.json").write_text(json.dumps(_inputs(job)), encoding="utf-8")
        before, cpu_before = run(_snapshot(job)), _children_s()
        _call(_command(program, job, level, folder), job, level)
        cpu_s = _children_s() - cpu_before
        counters = counters_of(_read(folder / "export.json"), settings.warmup_s)
        counters.cpu_s = cpu_s
        server = run(_snapshot(job)).since(before, includes_warmup=True)
    threads = min(level.concurrency or usable_cores(), usable_cores())
    return point_of(counters, level, batch=settings.batch, latency_from="sent", server=server, client_threads=threads)


def counters_of(export: Mapping[str, Any], warmup_s: float) -> LoadCounters:
    """Count the requests in a profile export by the rules of optkit's own client.

    Raises:
        RunnerError: it is not an export of requests.
    """
    try:
        requests = [
            (one["timestamp"] / 1e9, [end / 1e9 for end in one["response_timestamps"]])
            for one in export["experiments"][0]["requests"]
        ]
    except (KeyError, IndexError, TypeError) as e:
        raise RunnerError(
            f"perf_analyzer: its export cannot be read ({e!r}); expected the format of release 2.51"
        ) from e
    if not requests:
        raise RunnerError("perf_analyzer: no request got a response; expected at least one. Raise --duration-s.")
    began = min(sent for sent, _ in requests)
    counters = LoadCounters(began=began, counting_from=began + warmup_s)
    for sent, answers in requests:
        counted = sent >= counters.counting_from
        counters.send(counted)
        if answers:
            counters.answer(counted, sent, answers[-1])
        else:
            counters.fail(counted, "no response")
    counters.last_answer = max((answers[-1] for _, answers in requests if answers), default=began)
    counters.ended = counters.last_answer
    return counters


def _inputs(job: Job) -> dict[str, Any]:
    """Return the values in perf_analyzer's format. For a model with a batch dimension they are single samples; it builds the batches."""
    assert job.values is not None
    feeds = [sample for feed in job.values.feeds for sample in (_samples(feed) if job.server_batches else [feed])]
    return {"data": [{name: _tensor(array) for name, array in feed.items()} for feed in feeds]}


def _samples(feed: Feed) -> list[Feed]:
    rows = len(next(iter(feed.values())))
    return [{name: array[row] for name, array in feed.items()} for row in range(rows)]


def _tensor(array: np.ndarray) -> dict[str, Any]:
    return {"content": {"b64": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()}, "shape": array.shape}


def _command(program: Path, job: Job, level: LoadLevel, folder: Path) -> list[str]:
    settings, target = job.settings, job.target
    window_ms = round((settings.warmup_s + settings.duration_s) / _WINDOWS * 1000)
    command = [str(program), "-m", target.model, "-u", target.address, "-i", target.scheme]
    command += ["-b", str(settings.batch if job.server_batches else 1), "--input-data", str(folder / "inputs.json")]
    command += ["-p", str(max(window_ms, 1)), "-r", str(_WINDOWS), "-s", _ANY_SPREAD]
    command += ["--profile-export-file", str(folder / "export.json")]
    if target.version:
        command += ["-x", target.version]
    if level.concurrency:
        return [*command, "--concurrency-range", f"{level.concurrency}:{level.concurrency}:1"]
    rate = f"{level.rate_per_s:g}"
    return [*command, "--request-rate-range", f"{rate}:{rate}:1", "--request-distribution", str(settings.arrivals)]


def _call(command: list[str], job: Job, level: LoadLevel) -> None:
    settings = job.settings
    limit_s = 2 * (settings.warmup_s + settings.duration_s) + settings.limit_s + _START_S
    where = f"{job.target.where}: perf_analyzer at {level}"
    process = ChildProcess(command)
    try:
        code = process.wait(limit_s)
        lines = process.last_lines(3)
    finally:
        process.stop()
    if code is None:
        raise RunnerError(f"{where}: did not end within {limit_s:g} s and was stopped")
    if code:
        raise RunnerError(f"{where}: {death(code)}: {lines or 'no output'}")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = read_json(path)
    except ArtifactError as e:
        raise RunnerError(f"perf_analyzer: its export cannot be read ({e}); expected the format of release 2.51") from e
    return found if isinstance(found, dict) else {}


async def _snapshot(job: Job) -> StatisticsSnapshot:
    lines = connector_to(job.target)
    try:
        return await TritonQueries(job.target, lines, job.settings.limit_s).snapshot()
    finally:
        await lines.close()


def _children_s() -> float:
    """Return the CPU time of child processes that have ended."""
    import resource  # missing on Windows, like perf_analyzer

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
