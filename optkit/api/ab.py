"""`optkit ab`: compare the outputs and the latencies of two running models, measured in alternating blocks."""

import functools
import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from optkit.api.arguments import Progress, StrPath, as_share, as_tolerance, call, settings
from optkit.artifact import Precision
from optkit.artifact.findings import Latencies, OutputParity, SpeedUp, Stopped, Tolerance
from optkit.benchmark import BenchSettings, Machine, load_average, this_machine
from optkit.benchmark.series import Series
from optkit.benchmark.summary import Turn, compared, latencies
from optkit.benchmark.timing import time_block
from optkit.checks import TOLERANCES, compare_outputs
from optkit.errors import RecipeError
from optkit.pipeline.compare import regression
from optkit.progress import doing
from optkit.record import Document, Record
from optkit.serving.endpoints import Answer, Endpoint, Request, parse_endpoint

NAMES = ("a", "b")  # reference first


class VariantTimes(Record):
    """The latencies of one endpoint, measured on this machine; connecting and the first call are separate."""

    url: str
    connect_ms: float  # includes reading the model's metadata from Triton
    first_call_ms: float
    latencies: Latencies


class AbRecord(Document):
    """Endpoint b compared with endpoint a."""

    schema_id: ClassVar[str] = "optkit/ab/2"

    a: VariantTimes
    b: VariantTimes
    machine: Machine  # the client; the servers may run on other machines
    settings: BenchSettings
    load_before: float | None
    values: str  # the source of the request data
    requests: int  # number of requests compared; only the first one was timed
    tolerance: Tolerance
    answers: tuple[OutputParity, ...]
    order: tuple[tuple[str, ...], ...]  # the order of the endpoints in each block
    speed_up: SpeedUp
    max_regression: float | None
    failures: tuple[str, ...]  # gates that failed
    warnings: tuple[str, ...]
    interrupted: bool


class Gates(Record):
    """Gates that make the verdict negative."""

    max_regression: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    same_answers: bool = False


def ab(
    a: str,
    b: str,
    *,
    data: StrPath | None = None,
    max_regression: float | str | None = None,
    same_answers: bool = False,
    atol: float | None = None,
    rtol: float | None = None,
    token: str | None = None,
    half_width: float = 0.015,
    time_limit_s: float = 30.0,
    limit_s: float = 30.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> AbRecord:
    """Compare the outputs and latencies of two running models or versions, with confidence intervals.

    Args:
        a: reference: `http://` or `grpc://host:port/models/NAME[/versions/N]` on Triton, `http://host:port/predictions/NAME[/VERSION]` on
            TorchServe.
        b: candidate to compare with the reference, in the same form.
        data: requests: for Triton `file.py:function`, .npz files or a golden sample; for TorchServe files with request bodies. None uses seeded
            random values on Triton.
        max_regression: largest allowed regression of latency, relative, for example 0.05 or "5%"; None sets no limit.
        same_answers: fail if the outputs differ.
        atol: absolute tolerance for differences of outputs; None uses the default of FP32.
        rtol: relative tolerance for differences of outputs; None uses the default of FP32.
        token: inference key of TorchServe.
        half_width: target half-width of the 95 % confidence interval of a speed-up, relative; measurement stops when it is reached.
        time_limit_s: time in seconds after which no new block starts.
        limit_s: time limit for a response, in seconds.
        seed: seed of the random order of blocks and of random values.
        progress: callback `progress(description, done, total)` for long loops; `total` is None if it is unknown.

    Returns:
        the comparison of outputs and latencies; `failures` lists the gates that failed.

    Raises:
        OptkitError: the two cannot be compared, or a server does not respond.
    """
    measured = settings(BenchSettings, half_width=half_width, time_limit_s=time_limit_s, seed=seed)
    gates = settings(Gates, max_regression=as_share("--max-regression", max_regression), same_answers=same_answers)
    tolerance = as_tolerance(atol, rtol) or TOLERANCES[Precision.FP32]
    variants = parse_endpoint(a, token), parse_endpoint(b, token)
    with call(progress):
        return compare_variants(
            *variants,
            measured,
            data=str(data) if data is not None else None,
            tolerance=tolerance,
            gates=gates,
            limit_s=limit_s,
        )


def compare_variants(
    a: Endpoint,
    b: Endpoint,
    settings: BenchSettings,
    *,
    data: str | None,
    tolerance: Tolerance,
    gates: Gates,
    limit_s: float,
) -> AbRecord:
    """Send the same requests to both endpoints, compare the outputs, and measure the latency of the first request.

    Each block opens a new connection. A latency includes the network, the server's queue and the encoding of the response, but not the
    encoding of the request. After Ctrl-C the complete blocks are kept.

    Raises:
        RecipeError: the endpoints are on different kinds of servers, which take different requests.
        FeedError: the data does not match the inputs of the model.
        RunnerError: a server cannot be reached, rejects a request, sends an unexpected response, or exceeds the time limit.
    """
    if a.kind != b.kind:
        raise RecipeError(
            f"{a.url} is on {a.kind} and {b.url} on {b.kind}; expected two endpoints on the same kind of server"
        )
    load, both = load_average(), dict(zip(NAMES, (a, b), strict=True))
    with doing("compare outputs"):
        requests, values = a.requests(data, settings.seed, limit_s)
        responses = [_responses(variant, requests, limit_s) for variant in (a, b)]
    turns = {name: functools.partial(_turn, v, requests[0], settings, limit_s) for name, v in both.items()}
    series = Series(turns, NAMES[0], settings, may_drop=False)
    stopped = series.run()
    times = [_times(variant, [row[name] for row in series.used]) for name, variant in both.items()]
    found = tuple(o for x, y in zip(*responses, strict=True) for o in compare_responses(x, y, tolerance))
    speed = compared(NAMES, _rows(requests[0]), (times[0].latencies, times[1].latencies), settings, stopped)
    failures, warnings = _gate_results(b.url, speed, found, gates)
    return AbRecord(
        a=times[0],
        b=times[1],
        machine=this_machine(),
        settings=settings,
        load_before=load,
        values=values,
        requests=len(requests),
        tolerance=tolerance,
        answers=found,
        order=tuple(tuple(row) for row in series.used),
        speed_up=speed,
        max_regression=gates.max_regression,
        failures=failures,
        warnings=warnings,
        interrupted=stopped is Stopped.INTERRUPTED,
    )


def compare_responses(a: Answer, b: Answer, tolerance: Tolerance) -> list[OutputParity]:
    """Compare two responses to one request: numbers within the tolerance, all other content exactly."""
    found = compare_outputs(a.numbers, b.numbers, {}, tolerance)
    if a.rest != b.rest:
        failure = f"differs in more than numbers: {b.rest[:200]}; the reference has {a.rest[:200]}"
        found.append(
            OutputParity(output="response", sizes={}, max_abs=None, max_rel=None, cosine=None, failure=failure)
        )
    return found


def _responses(variant: Endpoint, requests: Sequence[Request], limit_s: float) -> list[Answer]:
    with variant.session(limit_s) as prepare:
        return [prepare(request)() for request in requests]


def _turn(variant: Endpoint, request: Request, settings: BenchSettings, limit_s: float) -> Turn:
    """Open a new connection, send one request, and measure the latency of the following requests."""
    started = time.perf_counter()
    with variant.session(limit_s) as prepare:
        connected = time.perf_counter()
        send = prepare(request)
        send()
        first = time.perf_counter()
        block = time_block(send, settings)
    return Turn(variant.kind, (connected - started) * 1000, (first - connected) * 1000, (block,))


def _times(variant: Endpoint, turns: Sequence[Turn]) -> VariantTimes:
    return VariantTimes(
        url=variant.url,
        connect_ms=float(np.median([turn.load_ms for turn in turns])),
        first_call_ms=float(np.median([turn.first_call_ms for turn in turns])),
        latencies=latencies([turn.blocks[0] for turn in turns]),
    )


def _rows(request: Request) -> int:
    """Return the number of samples in a request of arrays; 1 for another request."""
    arrays = list(request.values()) if isinstance(request, dict) else []
    return max((len(array) for array in arrays if array.ndim), default=1)


def _gate_results(
    url: str, speed_up: SpeedUp, outputs: Sequence[OutputParity], gates: Gates
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the gates that failed, and warnings for gates that noise left undecided."""
    low, high = (1 / speed_up.high - 1 if speed_up.high else None), (1 / speed_up.low - 1 if speed_up.low else None)
    failure, warning = regression(f"latency of {url}", 1 / speed_up.ratio - 1, low, high, gates.max_regression)
    failures = [failure] if failure else []
    different = difference(outputs)
    if gates.same_answers and different:
        failures.append(f"outputs of {url}: {different}")
    return tuple(failures), (warning,) if warning else ()


def difference(outputs: Sequence[OutputParity]) -> str | None:
    """Return the first difference between outputs and the number of further ones; None if all are equal within the tolerance."""
    found = [f"output {o.output!r}: {o.failure}" for o in outputs if o.failure]
    return (found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")) if found else None
