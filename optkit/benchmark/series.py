"""Blocks that alternate in random order until there are enough. The caller defines the candidates and their turns."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from optkit.artifact.findings import Stopped
from optkit.benchmark.settings import BenchSettings
from optkit.benchmark.statistics import intervals
from optkit.benchmark.summary import Turn, is_precise
from optkit.errors import OptkitError, RunnerError
from optkit.progress import track
from optkit.system.supervisor import keep_results


class Series:
    """The blocks of one comparison so far.

    In a block every candidate takes one turn; the order is random in each block. A turn is a fresh session with a block of calls at each
    point. A turn that raises an OptkitError removes its candidate with all its turns.
    """

    def __init__(
        self,
        candidates: Mapping[str, Callable[[], Turn]],
        reference: str,
        settings: BenchSettings,
        *,
        may_drop: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store the candidates.

        Args:
            candidates: name -> a function that takes one turn.
            reference: the name of the candidate that the others are compared with.
            settings: the stopping rules.
            may_drop: whether the others continue where one candidate cannot run; else its error is raised.
            clock: the time in s, for the time limit.
        """
        self.candidates = candidates
        self.reference = reference
        self.settings = settings
        self.rows: list[dict[str, Turn]] = []
        self.not_run: dict[str, str] = {}
        self._dropped = OptkitError if may_drop else ()
        self._clock = clock

    @property
    def names(self) -> list[str]:
        """The candidates that run here."""
        return [name for name in self.candidates if name not in self.not_run]

    def run(self) -> Stopped:
        """Add blocks until there are enough; return the reason for the end.

        Raises:
            RunnerError: no candidate runs.
            KeyboardInterrupt: Ctrl-C before the first complete block; later it ends the series.
        """
        random = np.random.default_rng(self.settings.seed)
        started = self._clock()
        try:
            for _ in track(range(self.settings.max_blocks), "bench"):  # the number of blocks is not known before
                self._add_row([str(name) for name in random.permutation(self.names)])
                if self._is_enough() and self._is_precise():
                    return Stopped.PRECISE
                if self._clock() - started >= self.settings.time_limit_s:
                    return Stopped.TIME
        except KeyboardInterrupt:
            if not self.rows:
                raise
            keep_results()
            return Stopped.INTERRUPTED
        return Stopped.BLOCKS

    def _add_row(self, order: Sequence[str]) -> None:
        row = {}
        for name in order:
            try:
                row[name] = self.candidates[name]()
            except self._dropped as e:
                self.not_run[name] = str(e)
        if not row:
            raise RunnerError("\n".join(dict.fromkeys(self.not_run.values())))
        self.rows.append(row)

    def _quiet(self) -> list[dict[str, Turn]]:
        """Return the blocks without CPU contention."""
        return [
            row for row in self.rows if not any(block.cpu_contended for turn in row.values() for block in turn.blocks)
        ]

    def _is_enough(self) -> bool:
        """Whether there are enough blocks without CPU contention, or enough blocks of any kind where most are CPU-contended."""
        quiet, fewest = len(self._quiet()), self.settings.min_blocks
        return quiet >= fewest or (len(self.rows) >= 2 * fewest and 2 * quiet < len(self.rows))

    @property
    def used(self) -> list[dict[str, Turn]]:
        """The blocks that count: those without CPU contention, or all blocks where these are too few or a minority.

        The artifacts are compared within a block, under the same load. So many contended blocks give more information than a few quiet
        ones.
        """
        quiet = self._quiet()
        return quiet if len(quiet) >= self.settings.min_blocks and 2 * len(quiet) >= len(self.rows) else self.rows

    def _is_precise(self) -> bool:
        """Whether every comparison has a narrow enough interval; True where the reference does not run."""
        if self.reference in self.not_run:
            return True
        others = [name for name in self.names if name != self.reference]
        return all(is_precise(intervals(logs), self.settings) for name in others for logs in self._log_ratios(name))

    def _log_ratios(self, name: str) -> Iterator[list[float]]:
        """Yield for each point the log of the candidate's speed-up in each block."""
        for point in range(len(self.rows[0][self.reference].blocks)):
            yield [
                math.log(row[self.reference].blocks[point].p50_ms / row[name].blocks[point].p50_ms) for row in self.used
            ]
