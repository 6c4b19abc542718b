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
from optkit.runners import Runner, open_runner
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


def measure(
    artifacts: Mapping[str, Artifact], samples: Samples, settings: BenchSettings, reference: str | None = None
) -> Measured:
    """Measure every artifact at every batch size, each against the reference in the same blocks.

    In a block every artifact takes one turn, in an order drawn anew for each block: a fresh session, first calls that are dropped, then
    calls that are counted, at one batch size after the other. Blocks go on until every interval is as narrow as was asked, and end at
    the time limit or the largest number of blocks in any case. Artifacts are never interleaved call by call: each would then find the
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
                concurrency += _concurrency(name, artifacts[name], series, settings)
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
                if len(self.rows) >= self.settings.min_blocks and self._is_precise():
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
            math.log(row[self.reference].blocks[point].p50_ms / row[name].blocks[point].p50_ms) for row in self.rows
        ]

    def measured(self, stopped: Stopped, concurrency: Sequence[ConcurrentLoad]) -> Measured:
        """Return the records of what was found."""
        measurements = [
            measurement(name, self.artifacts[name], [row[name] for row in self.rows], i, sizes, self.settings)
            for i, sizes in enumerate(self.points)
            for name in self.names
        ]
        return Measured(
            order=tuple(tuple(row) for row in self.rows),
            measurements=tuple(measurements),
            speed_ups=tuple(speed_up(a, b, self.settings, stopped) for a, b in _pairs(measurements, self.reference)),
            concurrency=tuple(concurrency),
            knees=tuple(knees(measurements)),
            not_run=tuple(NotRun(artifact=name, reason=reason) for name, reason in self.not_run.items()),
            interrupted=stopped is Stopped.INTERRUPTED,
        )


def _pairs(measurements: Sequence[Measurement], reference: str) -> Iterator[tuple[Measurement, Measurement]]:
    """Yield each measurement of another artifact behind the reference's at the same batch size."""
    base = {m.batch: m for m in measurements if m.artifact == reference}
    yield from ((base[m.batch], m) for m in measurements if m.artifact != reference and m.batch in base)


def _turn(artifact: Artifact, feeds: Sequence[Feed], settings: BenchSettings) -> Turn:
    """Load an artifact anew and time it at each point."""
    began = time.perf_counter()
    with open_runner(artifact, settings.device, settings.threads_used) as runner, watching(settings.device) as watch:
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
                    block = time_block(call, settings)
                    blocks.append(watch.judged(block) if watch else block)
                    parts += runner.parts(feed)
        return Turn(runner.provider, load_ms, first_call_ms, tuple(blocks), tuple(parts))


def _concurrency(name: str, artifact: Artifact, series: _Series, settings: BenchSettings) -> Iterator[ConcurrentLoad]:
    """Load an artifact once more, and call it at each point with each number of callers."""
    with open_runner(artifact, settings.device, settings.threads_used) as runner:
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
