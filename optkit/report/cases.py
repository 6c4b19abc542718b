"""The test cases of a run or a comparison, for JUnit files and GitHub annotations."""

from dataclasses import dataclass
from enum import StrEnum

from optkit.benchmark.changes import Comparison, MetricChange
from optkit.pipeline.records import RunRecord, StepResult


class Outcome(StrEnum):
    """The result of a case."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"  # not run, or too noisy to say


@dataclass(frozen=True)
class Case:
    """One check of one artifact."""

    artifact: str
    check: str
    outcome: Outcome
    message: str = ""
    seconds: float | None = None


def cases_of_run(record: RunRecord) -> list[Case]:
    """Return a case for each artifact, for each of its gates, and for each failure of the whole run."""
    found = [case for step in (record.source, *record.steps) for case in _of_step(step)]
    found += [
        Case(m.artifact, "benchmark", Outcome.SKIPPED, m.reason) for m in (record.bench.not_run if record.bench else ())
    ]
    if record.comparison:
        found += cases_of_comparison(record.comparison)
    listed = {f"{case.artifact}: {case.message}" for case in found}
    return found + [Case(record.recipe, "run", Outcome.FAILED, text) for text in record.failures if text not in listed]


def cases_of_comparison(comparison: Comparison) -> list[Case]:
    """Return one case for each metric of each artifact."""
    return [Case(change.artifact, _name(change), *_outcome(change)) for change in comparison.changes]


def _of_step(step: StepResult) -> list[Case]:
    if step.status == "skipped":
        return [Case(step.name, "make", Outcome.SKIPPED, step.reason or "")]
    if step.status == "failed":
        outcome = Outcome.SKIPPED if step.optional else Outcome.FAILED
        return [Case(step.name, "make", outcome, step.reason or "")]
    found = [Case(step.name, "make", Outcome.PASSED, seconds=step.seconds)]
    checks = {"parity": step.parity, "batch independence": step.batch_independence, "accuracy": step.accuracy}
    if step.unproven:
        found.append(Case(step.name, "parity", Outcome.SKIPPED, step.unproven))
        checks = {}  # its passport has the batch independence of the ONNX model, which was not tested on the engine
    outcome = Outcome.SKIPPED if step.optional else Outcome.FAILED
    failed = {text.partition(":")[0]: text for text in step.failures}
    found += [Case(step.name, name, Outcome.PASSED) for name, done in checks.items() if done and name not in failed]
    found += [Case(step.name, name, outcome, text) for name, text in failed.items() if not name.startswith(_COMPARED)]
    return found + [Case(step.name, "budget", Outcome.SKIPPED, text) for text in step.over_budget]


_COMPARED = ("latency", "throughput", "size", "was measured before")  # the comparison has a case for it


def _name(change: MetricChange) -> str:
    return f"{change.metric} against the baseline" + (f", batch {change.batch}" if change.batch is not None else "")


def _outcome(change: MetricChange) -> tuple[Outcome, str]:
    if change.failure:
        return Outcome.FAILED, change.failure
    return (Outcome.SKIPPED, change.warning) if change.warning else (Outcome.PASSED, "")
