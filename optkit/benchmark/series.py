"""Blocks that alternate in random order until there are enough: what takes a turn in them is for the caller to say."""

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


class Series:
    """The blocks of one comparison, as far as they have come.

    In a block every candidate takes one turn, in an order drawn anew for each block. A turn is a fresh session with a block of calls at
    each point; one that raises an OptkitError drops its candidate, and nothing of it is kept.
    """

    def __init__(
        self,
        candidates: Mapping[str, Callable[[], Turn]],
        reference: str,
        settings: BenchSettings,
        *,
        may_drop: bool = True,
    ) -> None:
        """Remember who takes turns.

        Args:
            candidates: name -> what takes one turn.
            reference: the name of the one that the others are compared with.
            settings: when to stop.
            may_drop: whether the others go on where one cannot run; else its error passes on.
        """
        self.candidates = candidates
        self.reference = reference
        self.settings = settings
        self.rows: list[dict[str, Turn]] = []
        self.not_run: dict[str, str] = {}
        self._dropped = OptkitError if may_drop else ()

    @property
    def names(self) -> list[str]:
        """The candidates that run here."""
        return [name for name in self.candidates if name not in self.not_run]

    def run(self) -> Stopped:
        """Add blocks until there are enough, and return why no more were added.

        Raises:
            RunnerError: no candidate runs.
            KeyboardInterrupt: it came before the first block was whole; later ones end the series.
        """
        random = np.random.default_rng(self.settings.seed)
        started = time.monotonic()
        try:
            for _ in track(range(self.settings.max_blocks), "bench"):  # how many it takes is not known before
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
                row[name] = self.candidates[name]()
            except self._dropped as e:
                self.not_run[name] = str(e)
        if not row:
            raise RunnerError("\n".join(dict.fromkeys(self.not_run.values())))
        self.rows.append(row)

    def _fed(self) -> list[dict[str, Turn]]:
        """Return the blocks in which every candidate got the processors that it asked for."""
        return [row for row in self.rows if not any(block.starved for turn in row.values() for block in turn.blocks)]

    def _is_enough(self) -> bool:
        """Whether there are as many blocks as are asked for, starved ones only where most are: then no quiet moment is waited for."""
        fed, fewest = len(self._fed()), self.settings.min_blocks
        return fed >= fewest or (len(self.rows) >= 2 * fewest and 2 * fed < len(self.rows))

    @property
    def used(self) -> list[dict[str, Turn]]:
        """The blocks that the numbers are made of: those without a starved candidate, or all where these are few or the lesser part.

        Blocks are compared in pairs, which share what the machine does: many starved ones say more than a few that happened not to be.
        """
        fed = self._fed()
        return fed if len(fed) >= self.settings.min_blocks and 2 * len(fed) >= len(self.rows) else self.rows

    def _is_precise(self) -> bool:
        """Whether every comparison has an interval as narrow as was asked; one without a reference never gets narrower."""
        if self.reference in self.not_run:
            return True
        others = [name for name in self.names if name != self.reference]
        return all(is_precise(intervals(logs), self.settings) for name in others for logs in self._log_ratios(name))

    def _log_ratios(self, name: str) -> Iterator[list[float]]:
        """Yield for each point the log of how many times faster a candidate was, block by block."""
        for point in range(len(self.rows[0][self.reference].blocks)):
            yield [
                math.log(row[self.reference].blocks[point].p50_ms / row[name].blocks[point].p50_ms) for row in self.used
            ]
