"""The benchmark: several artifacts at several batch sizes, measured in blocks that alternate in random order."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optkit.artifact import Artifact
from optkit.bench.concurrency import concurrent_load
from optkit.bench.gpu import watching
from optkit.bench.settings import BenchSettings, bench_points
from optkit.bench.statistics import intervals
from optkit.bench.summary import Turn, is_precise, knees, measurement, speed_up
from optkit.bench.timing import Block, time_block
from optkit.data import Samples
from optkit.errors import OptkitError, RunnerError, first_line
from optkit.findings import CallParts, ConcurrentLoad, Knee, Measurement, NotRun, SpeedUp, Stopped
from optkit.progress import track
from optkit.runners import CallPlan, Device, Runner, open_runner
from optkit.runners.base import shapes_text
from optkit.tensors import Feed, batch_dim


@dataclass(frozen=True)
class Measured:
    """All that a benchmark found."""

    order: tuple[tuple[str, ...], ...]  # the artifacts in the order of their turns, one row for each block
    measurements: tuple[Measurement, ...]
    speed_ups: tuple[SpeedUp, ...]
    concurrency: tuple[ConcurrentLoad, ...]
    knees: tuple[Knee, ...]
    not_run: tuple[NotRun, ...]
    interrupted: bool
    left_out: int = 0  # blocks in which a model had to wait for the processors, where there were enough others


def measure(
    artifacts: Mapping[str, Artifact], samples: Samples, settings: BenchSettings, reference: str | None = None
) -> Measured:
    """Measure every artifact at every batch size, each against the reference in the same blocks.

    In a block every artifact takes one turn, in an order drawn anew for each block: a fresh session, first calls that are dropped, then
    calls that are counted, at one batch size after the other. Blocks go on until every interval is as narrow as was asked, and end at
    the time limit or the largest number of blocks in any case. A block in which an artifact was starved of processors is set aside and
    another one measured; where most are so, or the limits leave too few others, all are taken, and the records say in how many it was so. Artifacts are never interleaved call by call: each would then find the
    other's weights in the cache. Copies between host and device are not included. A model in Python is built once a process (building may
    mean training): its sessions share their weights, which lie where they lie in every block.

    With Ctrl-C the blocks that were whole are returned; before the first one it passes on.

    Args:
        artifacts: name -> artifact; all of one contract.
        samples: where the values come from.
        settings: batch sizes, threads, device and when to stop.
        reference: the name of the artifact that the others are compared with; None takes the first.

    Raises:
        FeedError: a batch size lies outside the declared range.
        RunnerError: no artifact can be run on the device. One among others that can is told in `not_run`.
    """
    reference = reference or next(iter(artifacts))
    points = bench_points(artifacts[reference], settings.batches)
    series = _Series(artifacts, reference, points, [samples.at(sizes) for sizes in points], settings)
    concurrency: list[ConcurrentLoad] = []
    stopped = series.run()
    if stopped is not Stopped.INTERRUPTED:
        try:
            for name in series.names if settings.concurrency else ():
                try:
                    concurrency += _concurrency(name, artifacts[name], series, settings)
                except OptkitError as e:
                    series.not_run[f"{name}, several callers"] = str(e)
        except KeyboardInterrupt:
            stopped = Stopped.INTERRUPTED
    return series.measured(stopped, concurrency)


class _Series:
    """The blocks of one benchmark, as far as they have come."""

    def __init__(
        self,
        artifacts: Mapping[str, Artifact],
        reference: str,
        points: Sequence[dict[str, int]],
        feeds: Sequence[Feed],
        settings: BenchSettings,
    ) -> None:
        self.artifacts = artifacts
        self.reference = reference
        self.points = points
        self.feeds = feeds
        self.settings = settings
        self.rows: list[dict[str, Turn]] = []
        self.not_run: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The artifacts that run here."""
        return [name for name in self.artifacts if name not in self.not_run]

    def run(self) -> Stopped:
        """Add blocks until there are enough, and return why no more were added."""
        random = np.random.default_rng(self.settings.seed)
        started = time.monotonic()
        try:
            for _ in track(range(self.settings.max_blocks), "bench", self.settings.max_blocks):
                self._add_row([str(name) for name in random.permutation(self.names)])
                if self._is_enough() and self._is_precise():
                    return Stopped.PRECISE
                if time.monotonic() - started >= self.settings.time_limit_s:
                    return Stopped.TIME
        except KeyboardInterrupt:
            if not self.rows:
                raise
            return Stopped.INTERRUPTED
        return Stopped.BLOCKS

    def _add_row(self, order: Sequence[str]) -> None:
        row = {}
        for name in order:
            try:
                row[name] = _turn(self.artifacts[name], self.feeds, self.settings)
            except OptkitError as e:
                self.not_run[name] = str(e)
        if not row:
            raise RunnerError("\n".join(dict.fromkeys(self.not_run.values())))
        self.rows.append(row)

    def _fed(self) -> list[dict[str, Turn]]:
        """Return the blocks in which every artifact got the processors that it asked for."""
        return [row for row in self.rows if not any(block.starved for turn in row.values() for block in turn.blocks)]

    def _is_enough(self) -> bool:
        """Whether there are as many blocks as are asked for, starved ones only where most are: then no quiet moment is waited for."""
        fed, fewest = len(self._fed()), self.settings.min_blocks
        return fed >= fewest or (len(self.rows) >= 2 * fewest and 2 * fed < len(self.rows))

    @property
    def _used(self) -> list[dict[str, Turn]]:
        """The blocks that the numbers are made of: those without a starved artifact, or all where there are too few of them."""
        fed = self._fed()
        return fed if len(fed) >= self.settings.min_blocks else self.rows

    def _is_precise(self) -> bool:
        """Whether every comparison has an interval as narrow as was asked; one without a reference never gets narrower."""
        if self.reference in self.not_run:
            return True
        candidates = [name for name in self.names if name != self.reference]
        return all(
            is_precise(intervals(self._log_ratios(name, i)), self.settings)
            for name in candidates
            for i in range(len(self.points))
        )

    def _log_ratios(self, name: str, point: int) -> list[float]:
        return [
            math.log(row[self.reference].blocks[point].p50_ms / row[name].blocks[point].p50_ms) for row in self._used
        ]

    def measured(self, stopped: Stopped, concurrency: Sequence[ConcurrentLoad]) -> Measured:
        """Return the records of what was found."""
        used = self._used
        measurements = [
            measurement(name, self.artifacts[name], [row[name] for row in used], i, sizes, self.settings)
            for i, sizes in enumerate(self.points)
            for name in self.names
        ]
        return Measured(
            order=tuple(tuple(row) for row in used),
            measurements=tuple(measurements),
            speed_ups=tuple(speed_up(a, b, self.settings, stopped) for a, b in _pairs(measurements, self.reference)),
            concurrency=tuple(concurrency),
            knees=tuple(knees(measurements)),
            not_run=tuple(NotRun(artifact=name, reason=reason) for name, reason in self.not_run.items()),
            interrupted=stopped is Stopped.INTERRUPTED,
            left_out=len(self.rows) - len(used),
        )


def _pairs(measurements: Sequence[Measurement], reference: str) -> Iterator[tuple[Measurement, Measurement]]:
    """Yield each measurement of another artifact behind the reference's at the same batch size."""
    base = {m.batch: m for m in measurements if m.artifact == reference}
    yield from ((base[m.batch], m) for m in measurements if m.artifact != reference and m.batch in base)


def _turn(artifact: Artifact, feeds: Sequence[Feed], settings: BenchSettings) -> Turn:
    """Load an artifact anew and time it at each point."""
    began = time.perf_counter()
    with (
        open_runner(artifact, settings.device, settings.threads_used, cuda_graph=settings.cuda_graph) as runner,
        watching(settings.device) as watch,
    ):
        load_ms, first_call_ms = (time.perf_counter() - began) * 1000, 0.0
        blocks: list[Block] = []
        parts: list[CallParts] = []
        with runner.calling():
            for i, feed in enumerate(feeds):
                call = runner.bind(feed)
                with _telling(runner, feed):
                    before = time.perf_counter()
                    call()
                    if i == 0:
                        first_call_ms = (time.perf_counter() - before) * 1000
                    block = _own_block(runner, feed, settings) or time_block(call, settings)
                    blocks.append(watch.judged(block) if watch else block)
                    parts += runner.parts(feed)
        return Turn(runner.provider, load_ms, first_call_ms, tuple(blocks), tuple(parts))


def _own_block(runner: Runner, feed: Feed, settings: BenchSettings) -> Block | None:
    """Return the block that a runtime in another process timed itself, so that no message between processes is in a number."""
    plan = CallPlan(settings.drop_s, settings.drop_calls, settings.block_s, settings.block_calls)
    own = runner.own_times(feed, plan)
    if own is None:
        return None
    times = np.array(own.times_ms)
    return Block(times, own.dropped_calls, began_s=time.perf_counter() - float(times.sum()) / 1000)


def _concurrency(name: str, artifact: Artifact, series: _Series, settings: BenchSettings) -> Iterator[ConcurrentLoad]:
    """Load an artifact once more, and call it at each point with each number of callers."""
    streams = max(settings.concurrency) if settings.device is Device.CUDA else 1
    with open_runner(artifact, settings.device, settings.threads_used, streams, settings.cuda_graph) as runner:
        obstacle = runner.several_callers_obstacle()
        if obstacle and max(settings.concurrency) > 1:
            raise RunnerError(f"{runner.title}: {obstacle}")
        for sizes, feed in zip(series.points, series.feeds, strict=True):
            batch = sizes.get(batch_dim(artifact.inputs) or "", 1)
            for callers in settings.concurrency:
                with _telling(runner, feed):
                    yield concurrent_load(runner, feed, callers, settings, artifact=name, batch=batch)


@contextlib.contextmanager
def _telling(runner: Runner, feed: Feed) -> Iterator[None]:
    """Tell an error of the runtime, each of which raises types of its own, as one of the artifact."""
    try:
        yield
    except OptkitError:
        raise
    except Exception as e:
        raise RunnerError(f"{runner.title}: failed on {shapes_text(feed)}: {first_line(e)}") from e
