"""Comparing a measurement of today with one of another day.

Two runs of a benchmark carry what the machine was like in each: its clock, its neighbours, where memory lay. Blocks of one run share
it, so their spread says nothing of it, and an interval from the blocks alone is far too narrow. Two remedies:

- An anchor: a file that both runs measured, unchanged. What slowed the machine slowed it too, so the change is taken of the ratio to it.
- Without one, the spread between runs is added to the spread within them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optkit.benchmark.statistics import intervals

# Standard deviations of the log ratio between two runs of the same file, beyond what the blocks show. The first is that of sequential
# runs of a model against itself on a shared virtual machine, the worst that was seen here. Eight runs within minutes of one another,
# under a steady load, differ by far less (0.008, and with an anchor by nothing that can be told from the blocks' own spread:
# benchmarks/stored_runs.py); a baseline is days old and measured under another load, which no anchor takes out wholly.
BETWEEN_RUNS = 0.166
BETWEEN_RUNS_ANCHORED = 0.03
_Z = 1.96  # two-sided 95 % of a normal distribution


@dataclass(frozen=True)
class Change:
    """How many times a time has become as long, with its 95 % interval."""

    ratio: float
    low: float
    high: float


def paired(old: Sequence[float], new: Sequence[float]) -> Change | None:
    """Return the change of a time of two files that were measured together; None with fewer than two blocks.

    Args:
        old: the log of the time of each block.
        new: the same of the other file, in the same blocks.
    """
    found = intervals([b - a for a, b in zip(old, new, strict=True)]) if old else None
    return Change(found.ratio, found.low, found.high) if found and found.low and found.high else None


def change(old: Sequence[float], new: Sequence[float], between_runs: float) -> Change | None:
    """Return the change of a time between two runs; None where a run has fewer than two blocks.

    Welch's interval of the difference of two means, widened in quadrature by the spread between runs.

    Args:
        old: the log of the time of each block, or of its ratio to the anchor's time in the same block.
        new: the same of the later run.
        between_runs: standard deviation of the log ratio between two runs of the same file.
    """
    from scipy.special import stdtrit

    if min(len(old), len(new)) < 2:
        return None
    variances = [float(np.var(logs, ddof=1)) / len(logs) for logs in (old, new)]
    within = sum(variances)
    difference = float(np.mean(new) - np.mean(old))
    half = _Z * between_runs
    if within > 0:
        freedom = within**2 / sum(v**2 / (len(logs) - 1) for v, logs in zip(variances, (old, new), strict=True))
        half = math.hypot(half, float(stdtrit(freedom, 0.975)) * math.sqrt(within))
    return Change(math.exp(difference), math.exp(difference - half), math.exp(difference + half))
