"""The benchmark: several artifacts at several batch sizes, measured in blocks that alternate in random order."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optkit.artifact import Artifact
from optkit.artifact.findings import CallParts, ConcurrentLoad, Knee, Measurement, NotRun, SpeedUp, Stopped
from optkit.artifact.tensors import Feed, batch_dim
from optkit.benchmark.concurrency import concurrent_load
from optkit.benchmark.gpu import watching
from optkit.benchmark.series import Series
from optkit.benchmark.settings import BenchSettings, bench_points
from optkit.benchmark.summary import Turn, knees, measurement, speed_up
from optkit.benchmark.timing import Block, time_block
from optkit.data import Samples
from optkit.errors import OptkitError, RunnerError, first_line
from optkit.runners import CallPlan, Device, Runner, open_runner
from optkit.runners.base import shapes_text
from optkit.system.supervisor import keep_results


@dataclass(frozen=True)
class Measured:
    """All results of a benchmark."""

    order: tuple[tuple[str, ...], ...]  # the artifacts in the order of their turns, one row for each block
    measurements: tuple[Measurement, ...]
    speed_ups: tuple[SpeedUp, ...]
    concurrency: tuple[ConcurrentLoad, ...]
    knees: tuple[Knee, ...]
    not_run: tuple[NotRun, ...]
    interrupted: bool
    left_out: int = 0  # CPU-contended blocks, where there were enough others


@dataclass(frozen=True)
class Instruments:
    """The parts of a measurement that depend on the machine. A test gives its own."""

    open_runner: Callable[..., Runner] = open_runner
    time_block: Callable[[Callable[[], object], BenchSettings], Block] = time_block
    clock: Callable[[], float] = time.perf_counter  # s


def measure(
    artifacts: Mapping[str, Artifact],
    samples: Samples,
    settings: BenchSettings,
    reference: str | None = None,
    instruments: Instruments | None = None,
) -> Measured:
    """Measure every artifact at every batch size, each against the reference in the same blocks.

    In a block every artifact takes one turn; the order is random in each block. A turn is a fresh session: at each batch size, the first
    calls are dropped and the next calls are counted. Blocks are added until every interval is narrow enough, until the time limit, or
    until the largest number of blocks. A CPU-contended block is left out, and another one is measured. Where most blocks are
    CPU-contended, or the limits leave too few others, all blocks count, and the records have the number of contended ones. Calls of two
    artifacts never alternate, because each would then find the other's weights in the cache. Copies between host and device are not
    included. A Python model is built once a process, because building may mean training: its sessions share their weights, at the same
    addresses in every block.

    Ctrl-C ends the benchmark: the complete blocks are returned. Before the first complete block it raises KeyboardInterrupt.

    Args:
        artifacts: name -> artifact; all have the same contract.
        samples: the source of the values.
        settings: batch sizes, threads, device and when to stop.
        reference: the name of the artifact that the others are compared with; None means the first.
        instruments: runners, timing loop and clock; None means the real ones.

    Raises:
        FeedError: a batch size lies outside the declared range.
        RunnerError: no artifact can be run on the device. If others can, it is reported in `not_run`.
    """
    reference = reference or next(iter(artifacts))
    points = bench_points(artifacts[reference], settings.batches)
    feeds = [samples.at(sizes) for sizes in points]
    instruments = instruments or Instruments()
    turns = {
        name: functools.partial(_turn, artifact, feeds, settings, instruments) for name, artifact in artifacts.items()
    }
    series = Series(turns, reference, settings, clock=instruments.clock)
    concurrency: list[ConcurrentLoad] = []
    stopped = series.run()
    if stopped is not Stopped.INTERRUPTED:
        try:
            for name in series.names if settings.concurrency else ():
                try:
                    concurrency += _concurrency(name, artifacts[name], points, feeds, settings)
                except OptkitError as e:
                    series.not_run[f"{name}, several callers"] = str(e)
        except KeyboardInterrupt:
            keep_results()
            stopped = Stopped.INTERRUPTED
    return _measured(series, artifacts, points, stopped, concurrency)


def _measured(
    series: Series,
    artifacts: Mapping[str, Artifact],
    points: Sequence[dict[str, int]],
    stopped: Stopped,
    concurrency: Sequence[ConcurrentLoad],
) -> Measured:
    """Return the records of the results."""
    measurements = [
        measurement(name, artifacts[name], [row[name] for row in series.used], i, sizes, series.settings)
        for i, sizes in enumerate(points)
        for name in series.names
    ]
    pairs = _pairs(measurements, series.reference)
    return Measured(
        order=tuple(tuple(row) for row in series.used),
        measurements=tuple(measurements),
        speed_ups=tuple(speed_up(a, b, series.settings, stopped) for a, b in pairs),
        concurrency=tuple(concurrency),
        knees=tuple(knees(measurements)),
        not_run=tuple(NotRun(artifact=name, reason=reason) for name, reason in series.not_run.items()),
        interrupted=stopped is Stopped.INTERRUPTED,
        left_out=len(series.rows) - len(series.used),
    )


def _pairs(measurements: Sequence[Measurement], reference: str) -> Iterator[tuple[Measurement, Measurement]]:
    """Yield pairs: the reference's measurement, and another artifact's at the same batch size."""
    base = {m.batch: m for m in measurements if m.artifact == reference}
    yield from ((base[m.batch], m) for m in measurements if m.artifact != reference and m.batch in base)


def _turn(artifact: Artifact, feeds: Sequence[Feed], settings: BenchSettings, instruments: Instruments) -> Turn:
    """Load an artifact again and time it at each point."""
    clock = instruments.clock
    began = clock()
    with (
        instruments.open_runner(
            artifact, settings.device, settings.threads_used, cuda_graph=settings.cuda_graph
        ) as runner,
        watching(settings.device) as watch,
    ):
        load_ms, first_call_ms = (clock() - began) * 1000, 0.0
        blocks: list[Block] = []
        parts: list[CallParts] = []
        with runner.calling():
            for i, feed in enumerate(feeds):
                call = runner.bind(feed)
                with _translate_errors(runner, feed):
                    before = clock()
                    call()
                    if i == 0:
                        first_call_ms = (clock() - before) * 1000
                    block = _own_block(runner, feed, settings) or instruments.time_block(call, settings)
                    blocks.append(watch.without_throttled(block) if watch else block)
                    parts += runner.parts(feed)
        return Turn(runner.provider, load_ms, first_call_ms, tuple(blocks), tuple(parts), runner.placement())


def _own_block(runner: Runner, feed: Feed, settings: BenchSettings) -> Block | None:
    """Return the block that a runtime in another process timed itself, so that no time includes messages between processes."""
    plan = CallPlan(settings.drop_s, settings.drop_calls, settings.block_s, settings.block_calls)
    own = runner.own_times(feed, plan)
    if own is None:
        return None
    times = np.array(own.times_ms)
    return Block(times, own.dropped_calls, began_s=time.perf_counter() - float(times.sum()) / 1000)


def _concurrency(
    name: str,
    artifact: Artifact,
    points: Sequence[dict[str, int]],
    feeds: Sequence[Feed],
    settings: BenchSettings,
) -> Iterator[ConcurrentLoad]:
    """Load an artifact again, and call it at each point with each number of callers."""
    streams = max(settings.concurrency) if settings.device is Device.CUDA else 1
    with open_runner(artifact, settings.device, settings.threads_used, streams, settings.cuda_graph) as runner:
        why_not = runner.why_not_concurrent()
        if why_not and max(settings.concurrency) > 1:
            raise RunnerError(f"{runner.title}: {why_not}")
        for sizes, feed in zip(points, feeds, strict=True):
            batch = sizes.get(batch_dim(artifact.inputs) or "", 1)
            for callers in settings.concurrency:
                with _translate_errors(runner, feed):
                    yield concurrent_load(runner, feed, callers, settings, artifact=name, batch=batch)


@contextlib.contextmanager
def _translate_errors(runner: Runner, feed: Feed) -> Iterator[None]:
    """Translate an error of the runtime into a RunnerError that names the artifact."""
    try:
        yield
    except OptkitError:
        raise
    except Exception as e:
        raise RunnerError(f"{runner.title}: failed on {shapes_text(feed)}: {first_line(e)}") from e
