"""Two running variants of a model against each other: their answers, and their latencies in blocks that alternate."""

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
    """One variant, and the times of its answers as this machine saw them; connecting and the first answer stand apart."""

    url: str
    connect_ms: float  # with what Triton is asked of the model
    first_call_ms: float
    latencies: Latencies


class AbRecord(Document):
    """Endpoint b compared with endpoint a."""

    schema_id: ClassVar[str] = "optkit/ab/2"

    a: VariantTimes
    b: VariantTimes
    machine: Machine  # that asked; the servers may be elsewhere
    settings: BenchSettings
    load_before: float | None
    values: str  # where those of the requests came from
    requests: int  # whose answers were compared; the first one was timed
    tolerance: Tolerance
    answers: tuple[OutputParity, ...]
    order: tuple[tuple[str, ...], ...]  # the variants in the order of their turns, one row for each block
    speed_up: SpeedUp
    max_regression: float | None
    failures: tuple[str, ...]  # the gates that are broken
    warnings: tuple[str, ...]
    interrupted: bool


class Gates(Record):
    """What makes the verdict negative; nothing without them."""

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
    """Compare two running models or versions: whether they answer the same, and which is faster, with intervals.

    Args:
        a: the reference: `http://` or `grpc://host:port/models/NAME[/versions/N]` on Triton, `http://host:port/predictions/NAME[/VERSION]` on
            TorchServe.
        b: what is compared with it.
        data: requests: `file.py:function`, .npz files or a golden sample for Triton, bodies as files for TorchServe; None: seeded random on Triton.
        max_regression: how much slower `b` may be, as 0.05 or "5%".
        same_answers: fail where the answers differ.
        atol: absolute tolerance; None takes that of FP32.
        rtol: relative tolerance; None takes that of FP32.
        token: the inference key of TorchServe.
        half_width: of the 95 % interval, relative, to measure to.
        time_limit_s: no new block begins after so many seconds.
        limit_s: how long an answer may take.
        seed: of the random order and of random values.
        progress: is called with what is done, how many turns are done, and of how many.

    Returns:
        the answers and latencies; `failures` are the gates that are not held.

    Raises:
        OptkitError: they cannot be compared, or a server does not answer.
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
    """Ask both the same, compare the answers, and measure the latencies of the first request.

    A turn is a connection of its own; a latency holds what the network and the server's queue took, and the encoding of the answer, but not
    that of the request. Ctrl-C keeps the blocks that are whole.

    Raises:
        RecipeError: they are on servers of different kinds, which take different requests.
        FeedError: the data does not fit.
        RunnerError: a server cannot be reached, refuses, answers something else, or does not answer within the limit.
    """
    if a.kind != b.kind:
        raise RecipeError(f"{a.url} is on {a.kind} and {b.url} on {b.kind}; expected two that take the same requests")
    load, both = load_average(), dict(zip(NAMES, (a, b), strict=True))
    with doing("answers"):
        requests, values = a.requests(data, settings.seed, limit_s)
        answers = [_ask(variant, requests, limit_s) for variant in (a, b)]
    turns = {name: functools.partial(_turn, v, requests[0], settings, limit_s) for name, v in both.items()}
    series = Series(turns, NAMES[0], settings, may_drop=False)
    stopped = series.run()
    times = [_times(variant, [row[name] for row in series.used]) for name, variant in both.items()]
    found = tuple(o for x, y in zip(*answers, strict=True) for o in compare_answers(x, y, tolerance))
    speed = compared(NAMES, _rows(requests[0]), (times[0].latencies, times[1].latencies), settings, stopped)
    failures, warnings = _held(b.url, speed, found, gates)
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


def compare_answers(a: Answer, b: Answer, tolerance: Tolerance) -> list[OutputParity]:
    """Compare two answers to one request: the numbers within tolerance, all else as it is."""
    found = compare_outputs(a.numbers, b.numbers, {}, tolerance)
    if a.rest != b.rest:
        failure = f"differs in more than numbers: {b.rest[:200]}; the reference has {a.rest[:200]}"
        found.append(OutputParity(output="answer", sizes={}, max_abs=None, max_rel=None, cosine=None, failure=failure))
    return found


def _ask(variant: Endpoint, requests: Sequence[Request], limit_s: float) -> list[Answer]:
    with variant.session(limit_s) as prepare:
        return [prepare(request)() for request in requests]


def _turn(variant: Endpoint, request: Request, settings: BenchSettings, limit_s: float) -> Turn:
    """Connect anew, ask once, and time what follows."""
    began = time.perf_counter()
    with variant.session(limit_s) as prepare:
        connected = time.perf_counter()
        ask = prepare(request)
        ask()
        first = time.perf_counter()
        block = time_block(ask, settings)
    return Turn(variant.kind, (connected - began) * 1000, (first - connected) * 1000, (block,))


def _times(variant: Endpoint, turns: Sequence[Turn]) -> VariantTimes:
    return VariantTimes(
        url=variant.url,
        connect_ms=float(np.median([turn.load_ms for turn in turns])),
        first_call_ms=float(np.median([turn.first_call_ms for turn in turns])),
        latencies=latencies([turn.blocks[0] for turn in turns]),
    )


def _rows(request: Request) -> int:
    """Return how many samples a request holds, where it is of arrays."""
    arrays = list(request.values()) if isinstance(request, dict) else []
    return max((len(array) for array in arrays if array.ndim), default=1)


def _held(
    url: str, s: SpeedUp, answers: Sequence[OutputParity], gates: Gates
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the gates that are broken, and those of which the noise does not let one say."""
    low, high = (1 / s.high - 1 if s.high else None), (1 / s.low - 1 if s.low else None)
    failure, warning = regression(f"latency of {url}", 1 / s.ratio - 1, low, high, gates.max_regression)
    failures = [failure] if failure else []
    different = difference(answers)
    if gates.same_answers and different:
        failures.append(f"answers of {url}: {different}")
    return tuple(failures), (warning,) if warning else ()


def difference(answers: Sequence[OutputParity]) -> str | None:
    """Return the first difference between answers, with the number of others; None where they are the same within tolerance."""
    found = [f"output {o.output!r}: {o.failure}" for o in answers if o.failure]
    return (found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")) if found else None
