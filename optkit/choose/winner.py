"""The winner among the artifacts that passed every gate, and the reason why each other one lost."""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from optkit.artifact.findings import Measurement, SpeedUp
from optkit.benchmark.statistics import Intervals, intervals
from optkit.record import Record

# Two artifacts tie where the interval of their ratio contains 1; accuracy and size then decide. Above this ratio they do not tie,
# because the interval of a noisy measurement contains 1 for any ratio.
TIE_WITHIN = 1.05


class By(StrEnum):
    """The criterion of the choice."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    SIZE = "size"


class Choice(Record):
    """The `choose` key of a recipe: the meaning of `artifact: fastest`. Budgets are gates: an artifact over its budget cannot win."""

    by: By = By.LATENCY
    batch: int | None = None  # of the latency; None uses the geometric mean over all measured batch sizes

    def faults(self, measured: Sequence[int]) -> Iterator[str]:
        """Yield a batch size that is not among those that are measured."""
        if self.batch is not None and self.batch not in measured:
            yield f"batch: {self.batch} is not measured; bench.batches are {', '.join(map(str, measured))}"


class Lost(Record):
    """An artifact that lost, and the reason."""

    artifact: str
    reason: str


class Winner(Record):
    """The artifact that won, the reason, and the artifacts that lost."""

    artifact: str
    reason: str
    lost: tuple[Lost, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """An artifact that can win, or the reason why it cannot."""

    name: str
    size_bytes: int = 0
    accuracy: float | None = None
    refused: str | None = None


def choose_winner(
    candidates: Sequence[Candidate],
    measurements: Sequence[Measurement],
    speed_ups: Sequence[SpeedUp],
    choice: Choice,
) -> Winner | None:
    """Return the best of the candidates that passed every gate; None where no such candidate was measured.

    By latency or throughput, an artifact ties with the best where the 95 % interval of their ratio contains 1 and the ratio is at most
    1.05. Among tied artifacts the most accurate wins, then the smallest. By size, the smallest wins, then the most accurate.

    Args:
        candidates: all artifacts; those with `refused` cannot win.
        measurements: of all artifacts, from the same blocks.
        speed_ups: over one reference, for the text of the reason.
        choice: the criterion.
    """
    times = {c.name: _log_times(measurements, c.name, choice) for c in candidates}
    able = [c for c in candidates if not c.refused and times[c.name]]
    if not able:
        return None
    ratios: Mapping[str, Intervals] = {}
    if choice.by is By.SIZE:
        best = min(able, key=lambda c: (c.size_bytes, -_known(c.accuracy)))
    else:
        quickest = min(able, key=lambda c: intervals(times[c.name]).ratio)
        ratios = {c.name: _ratio(times[c.name], times[quickest.name]) for c in able}
        tied = [c for c in able if c is quickest or _is_tie(ratios[c.name])]
        best = min(tied, key=lambda c: (-_known(c.accuracy), c.size_bytes, ratios[c.name].ratio))
        ratios = {c.name: _ratio(times[c.name], times[best.name]) for c in able}
    lost = [Lost(artifact=c.name, reason=_why_not(c, best, choice, ratios)) for c in candidates if c is not best]
    reason = _why(best, able, measurements, speed_ups, choice)
    if choice.by is not By.SIZE and _busy({c.name for c in able}, measurements, speed_ups):
        reason += "; measured while the machine was busy: another artifact may win on a quiet machine"
    return Winner(artifact=best.name, reason=reason, lost=tuple(lost))


def _busy(names: Set[str], measurements: Sequence[Measurement], speed_ups: Sequence[SpeedUp]) -> bool:
    """Whether other processes used the processors during the measurements of these artifacts."""
    return any(m.busy for m in measurements if m.artifact in names) or any(
        s.busy for s in speed_ups if s.candidate in names
    )


def _log_times(measurements: Sequence[Measurement], name: str, choice: Choice) -> list[float]:
    """Return for each block the log of the time of a call, or for throughput of a sample at the batch with the shortest time."""
    mine = [m for m in measurements if m.artifact == name]
    if choice.by is By.THROUGHPUT:
        mine = sorted(mine, key=lambda m: m.p50_ms / m.batch)[:1]
        return [math.log(ms / m.batch) for m in mine for ms in m.blocks_p50_ms]
    if choice.batch is not None:
        mine = [m for m in mine if m.batch == choice.batch]
    blocks = zip(*(m.blocks_p50_ms for m in mine), strict=True)
    return [sum(map(math.log, block)) / len(block) for block in blocks]


def _ratio(log_times: Sequence[float], best: Sequence[float]) -> Intervals:
    """Return the time as a multiple of the time of the best one."""
    return intervals([mine - other for mine, other in zip(log_times, best, strict=True)])


def _is_tie(found: Intervals) -> bool:
    holds_1 = found.low is None or found.high is None or found.low <= 1 <= found.high
    return holds_1 and found.ratio <= TIE_WITHIN


def _known(accuracy: float | None) -> float:
    return -math.inf if accuracy is None else accuracy


def _why(
    best: Candidate,
    able: Sequence[Candidate],
    measurements: Sequence[Measurement],
    speed_ups: Sequence[SpeedUp],
    choice: Choice,
) -> str:
    of = f"of {len(able)} that passed every gate"
    if choice.by is By.SIZE:
        return f"the smallest {of}: {best.size_bytes:,} bytes"
    if choice.by is By.THROUGHPUT:
        most = max((m for m in measurements if m.artifact == best.name), key=lambda m: m.batch / m.p50_ms)
        return f"the largest throughput {of}: {most.batch * 1000 / most.p50_ms:,.0f} samples/s at batch {most.batch} by its median"
    ups = [s for s in speed_ups if s.candidate == best.name and choice.batch in (None, s.batch)]
    if not ups:
        return f"the fastest {of}"
    ratio = math.exp(sum(math.log(s.ratio) for s in ups) / len(ups))
    mean = "geometric mean over batch" if len(ups) > 1 else "at batch"
    return f"the fastest {of}: {ratio:.2f}x {ups[0].reference} ({mean} {', '.join(str(s.batch) for s in ups)})"


def _why_not(candidate: Candidate, best: Candidate, choice: Choice, ratios: Mapping[str, Intervals]) -> str:
    if candidate.refused:
        return candidate.refused
    if choice.by is By.SIZE:
        if candidate.size_bytes > best.size_bytes:
            return f"larger: {candidate.size_bytes:,} bytes against {best.size_bytes:,}"
        return _by_accuracy(candidate, best) or "equal size and accuracy, and later in the recipe"
    if candidate.name not in ratios:
        return "not measured"
    found = ratios[candidate.name]
    interval = (
        "" if found.low is None or found.high is None else f" (95 % interval {found.low:.3f} to {found.high:.3f})"
    )
    times = f"{found.ratio:.3f}x the time{interval}"
    if not _is_tie(found) and found.ratio > 1:
        return f"slower: {times}"
    same = f"no measured difference in speed, {times}"
    if reason := _by_accuracy(candidate, best):
        return f"{same}; {reason}"
    if candidate.size_bytes > best.size_bytes:
        return f"{same}; equal accuracy, but larger: {candidate.size_bytes:,} bytes against {best.size_bytes:,}"
    return f"{same}; equal accuracy and size"


def _by_accuracy(candidate: Candidate, best: Candidate) -> str | None:
    if _known(candidate.accuracy) >= _known(best.accuracy):
        return None
    mine = "not known" if candidate.accuracy is None else f"{candidate.accuracy:.4f}"
    return f"less accurate: {mine} against {best.accuracy:.4f}"
