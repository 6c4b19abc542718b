"""The comparison of measurements from two days.

The state of the machine differs between two runs: its clock, its other load, its memory layout. All blocks of one run share this
state, so an interval from the spread of the blocks alone is far too narrow. Two remedies:

- An anchor: an unchanged file that both runs measured. A slow machine slows the anchor too, so the ratio to the anchor is compared.
- Without an anchor, the spread between runs is added to the spread within them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optkit.benchmark.statistics import intervals

# Standard deviations of the log ratio between two runs of the same file, in addition to the spread of the blocks. The first is the
# largest value seen here: sequential runs of one model on a shared virtual machine. Eight runs within minutes of each other, under a
# steady load, differ by far less (0.008; with an anchor the difference is within the spread of the blocks: benchmarks/stored_runs.py).
# But a baseline is days old and was measured under another load, which an anchor does not remove completely.
BETWEEN_RUNS = 0.166
BETWEEN_RUNS_ANCHORED = 0.03
_Z = 1.96  # two-sided 95 % of a normal distribution


@dataclass(frozen=True)
class Change:
    """The ratio of the new time to the old one, with its 95 % interval."""

    ratio: float
    low: float
    high: float


def paired(old: Sequence[float], new: Sequence[float]) -> Change | None:
    """Return the ratio of the times of two files measured in one session; None with fewer than two blocks.

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
