"""What passed and what failed in a run or a comparison, one case each: the common ground of JUnit files and annotations."""

from dataclasses import dataclass
from enum import StrEnum

from optkit.benchmark.changes import Comparison, MetricChange
from optkit.pipeline.records import RunRecord, StepResult


class Outcome(StrEnum):
    """What became of a case."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"  # not run, or too noisy to say


@dataclass(frozen=True)
class Case:
    """One question about one artifact."""

    artifact: str
    question: str
    outcome: Outcome
    message: str = ""
    seconds: float | None = None


def cases_of_run(record: RunRecord) -> list[Case]:
    """Return whether each artifact was made, and each gate that it holds or not, and those of the run as a whole."""
    found = [case for step in (record.source, *record.steps) for case in _of_step(step)]
    found += [
        Case(m.artifact, "benchmark", Outcome.SKIPPED, m.reason) for m in (record.bench.not_run if record.bench else ())
    ]
    if record.comparison:
        found += cases_of_comparison(record.comparison)
    said = {f"{case.artifact}: {case.message}" for case in found}
    return found + [Case(record.recipe, "run", Outcome.FAILED, text) for text in record.failures if text not in said]


def cases_of_comparison(comparison: Comparison) -> list[Case]:
    """Return one case for each metric of each artifact."""
    return [Case(change.artifact, _question(change), *_outcome(change)) for change in comparison.changes]


def _of_step(step: StepResult) -> list[Case]:
    if step.status == "skipped":
        return [Case(step.name, "make", Outcome.SKIPPED, step.reason or "")]
    if step.status == "failed":
        outcome = Outcome.SKIPPED if step.optional else Outcome.FAILED
        return [Case(step.name, "make", outcome, step.reason or "")]
    found = [Case(step.name, "make", Outcome.PASSED, seconds=step.seconds)]
    asked = {"parity": step.parity, "batch independence": step.batch_independence, "accuracy": step.accuracy}
    if step.unproven:
        found.append(Case(step.name, "parity", Outcome.SKIPPED, step.unproven))
        asked = {}  # what its passport has of the model that it was built from is no answer of its own
    outcome = Outcome.SKIPPED if step.optional else Outcome.FAILED
    failed = {text.partition(":")[0]: text for text in step.failures}
    found += [
        Case(step.name, what, Outcome.PASSED) for what, asked_for in asked.items() if asked_for and what not in failed
    ]
    found += [Case(step.name, what, outcome, text) for what, text in failed.items() if not what.startswith(_COMPARED)]
    return found + [Case(step.name, "budget", Outcome.SKIPPED, text) for text in step.over_budget]


_COMPARED = ("latency", "throughput", "size", "was measured before")  # a case of the comparison says it already


def _question(change: MetricChange) -> str:
    return f"{change.metric} against the baseline" + (f", batch {change.batch}" if change.batch is not None else "")


def _outcome(change: MetricChange) -> tuple[Outcome, str]:
    if change.failure:
        return Outcome.FAILED, change.failure
    return (Outcome.SKIPPED, change.warning) if change.warning else (Outcome.PASSED, "")
