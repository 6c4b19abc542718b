"""The gates that need the run's measurements: the budget, and the regression against an earlier run."""

import logging
from collections.abc import Mapping
from pathlib import Path

from optkit.artifact import Artifact
from optkit.artifact.gates import Gates
from optkit.benchmark import this_machine
from optkit.benchmark.bench_record import BenchRecord, ModelContract
from optkit.benchmark.changes import Comparison, Limits
from optkit.data import Samples
from optkit.pipeline.baseline import Snapshot, check_comparable, of_steps, read_snapshot
from optkit.pipeline.gates import over_budget
from optkit.pipeline.plan import Plan
from optkit.pipeline.records import StepResult
from optkit.pipeline.remeasure import compare_with

logger = logging.getLogger(__name__)


def read_baseline(plan: Plan, source: Artifact) -> Snapshot | None:
    """Return the earlier run that `gates.baseline` names.

    Raises:
        ArtifactError: it cannot be read, or has another model or machine.
    """
    if plan.recipe.gates.baseline is None:
        return None
    found = read_snapshot(Path(plan.recipe.gates.baseline))
    check_comparable(found, plan.recipe.name, ModelContract.of(source), this_machine(), across_machines=False)
    return found


def check_regression(
    plan: Plan,
    results: Mapping[str, StepResult],
    bench: BenchRecord,
    baseline: Snapshot,
    samples: Samples,
) -> tuple[dict[str, StepResult], Comparison]:
    """Compare the run with its baseline; an artifact fails if it became slower or larger than the gates allow."""
    now = of_steps(results, bench, plan.out_dir / "run.json", recipe=plan.recipe.name)
    artifacts = {name: result.artifact for name, result in results.items() if result.artifact}
    limits = Limits(max_regression=plan.recipe.gates.max_regression)
    found = compare_with(baseline, now, artifacts, samples, plan.recipe.bench, limits)
    failed = {name: [change.failure for change in found.of(name) if change.failure] for name in results}
    for warning in found.warnings:
        logger.warning("%s", warning)
    return {
        name: result.model_copy(update={"failures": (*result.failures, *failed[name])})
        for name, result in results.items()
    }, found


def check_budget(
    results: Mapping[str, StepResult], bench: BenchRecord | None, gates: Gates
) -> tuple[dict[str, StepResult], tuple[str, ...]]:
    """Mark the artifacts over the budget; if no correct artifact is within it, return a failure for each."""
    checked = {
        name: result.model_copy(update={"over_budget": over_budget(name, result.size_bytes or 0, bench, gates)})
        if result.made
        else result
        for name, result in results.items()
    }
    correct = [result for result in checked.values() if result.made and not result.failures and not result.unproven]
    if any(not result.over_budget for result in correct):
        return checked, ()
    return checked, tuple(f"{result.name}: {text}" for result in correct for text in result.over_budget)
