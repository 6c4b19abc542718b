"""The self-test of the benchmark: it repeatedly compares a model with a copy of its own file."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from optkit.artifact import Artifact, Format
from optkit.artifact.findings import SpeedUp, Verdict
from optkit.artifact.tensors import batch_dim
from optkit.benchmark.compare import measure
from optkit.benchmark.settings import BenchSettings
from optkit.benchmark.statistics import CONFIDENCE
from optkit.data import Samples
from optkit.errors import FeedError
from optkit.progress import track
from optkit.record import Record
from optkit.system.temporary import temporary_folder


class SelfTest(Record):
    """The results of comparing a model with its copy: the true ratio is 1."""

    trials: tuple[SpeedUp, ...]
    coverage: float  # the share of 95 % intervals that contain 1
    coverage_low: float  # 95 % interval of that share (Clopper and Pearson)
    coverage_high: float
    free_coverage: float | None  # of the distribution-free intervals; None where there were too few blocks for them
    false_verdicts: float  # the share of verdicts `faster` or `slower`
    sd_log_ratio: float | None  # None for one trial

    @property
    def passed(self) -> bool:
        """Whether the coverage is consistent with 95 %: its interval reaches 0.95."""
        return self.coverage_high >= CONFIDENCE


def self_test(artifact: Artifact, samples: Samples, settings: BenchSettings, trials: int) -> SelfTest:
    """Compare an artifact with a copy of itself in complete comparisons, each with its own seed.

    Args:
        artifact: a model file.
        samples: the source of the values.
        settings: of the comparison to verify; only its first batch size is used, or opt where it has none.
        trials: the number of comparisons; twenty show a broken benchmark, a hundred distinguish 85 % from 95 %.

    Raises:
        FeedError: `trials` is less than 1, a batch size is outside the declared range, or the model is Python code.
        RunnerError: the artifact cannot be run on the device.
    """
    if trials < 1:
        raise FeedError(f"self-test: {trials} trials; expected at least 1")
    if artifact.format is Format.PYTORCH:
        raise FeedError(f"self-test: {artifact.path.name} is Python code, built once a process; expected a model file")
    one = settings.model_copy(update={"batches": settings.batches[:1] or _opt(artifact), "concurrency": ()})
    with temporary_folder(name="self-test") as folder:
        both = {"model": artifact, "copy": _copy(artifact, folder)}
        found: list[SpeedUp] = []
        for trial in track(range(trials), "self-test", trials):
            seeded = one.model_copy(update={"seed": settings.seed + trial})
            found += measure(both, samples, seeded).speed_ups
    return summarize(found)


def summarize(trials: Sequence[SpeedUp]) -> SelfTest:
    """Return the share of correct comparisons of equal models; one without an interval does not contain 1."""
    from scipy.stats import binomtest

    held = [s.low is not None and s.high is not None and s.low <= 1 <= s.high for s in trials]
    free = [s.free_low <= 1 <= s.free_high for s in trials if s.free_low is not None and s.free_high is not None]
    share = binomtest(sum(held), len(held)).proportion_ci(CONFIDENCE)
    return SelfTest(
        trials=tuple(trials),
        coverage=float(np.mean(held)),
        coverage_low=float(share.low),
        coverage_high=float(share.high),
        free_coverage=float(np.mean(free)) if free else None,
        false_verdicts=float(np.mean([s.verdict in (Verdict.FASTER, Verdict.SLOWER) for s in trials])),
        sd_log_ratio=float(np.std([math.log(s.ratio) for s in trials], ddof=1)) if len(trials) > 1 else None,
    )


def _opt(artifact: Artifact) -> tuple[int, ...]:
    dim = batch_dim(artifact.inputs)
    return (artifact.dims[dim].opt,) if dim in artifact.dims else ()


def _copy(artifact: Artifact, folder: Path) -> Artifact:
    for file in artifact.all_files:
        target = folder / file.relative_to(artifact.path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return artifact.model_copy(update={"path": folder / artifact.path.name})
