"""Run a recipe: the steps, their checks, the benchmark, the winner and the packages."""

import contextlib
import logging
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from optkit import deps, user_code
from optkit._version import __version__
from optkit.artifact import Passport
from optkit.benchmark import bench_points, this_machine
from optkit.benchmark.bench_record import BenchRecord, ModelContract
from optkit.checks import Prover, Requirements
from optkit.choose.winner import Candidate, Choice, Winner, choose_winner
from optkit.data import Samples
from optkit.errors import ArtifactError, OptkitError, out_of_memory, raise_if_interrupted
from optkit.pipeline.bench import BENCH_FILE, bench_step
from optkit.pipeline.ensembles import package_ensembles
from optkit.pipeline.gates import gate_failures
from optkit.pipeline.measured_gates import check_budget, check_regression, read_baseline
from optkit.pipeline.packages import FOLDERS, PACKAGES_FILE, package_all
from optkit.pipeline.pins import LOCK_FILE, artifact_drifts, check_inputs, pin, read_lock
from optkit.pipeline.plan import SOURCE, Plan, PlannedStep
from optkit.pipeline.records import RunRecord, StepResult
from optkit.pipeline.steps import source_step, stage_step
from optkit.progress import doing
from optkit.serving import Packaged
from optkit.serving.staging import writing
from optkit.system.supervisor import step as running
from optkit.system.temporary import sweep, temporary_root
from optkit.untrusted.paths import is_file, is_folder

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"


def run(plan: Plan, *, fresh: bool = False, finish: bool = True, locked: bool = False) -> RunRecord:
    """Run a plan and write `run.json` in its folder.

    Args:
        plan: made by `make_plan`.
        fresh: make everything again and reuse nothing.
        finish: run the benchmark and write the packages after the steps.
        locked: compare the run with `run.lock`, which is not changed; otherwise the lock is written.

    Raises:
        ModelError: the source model cannot be built or run. A step that fails is recorded, and the others continue.
        OutputError: the folder cannot be written.
    """
    started = time.perf_counter()
    lock = read_lock(plan) if locked else None
    if lock:
        check_inputs(lock, plan)
    user_code.written_by_optkit.add(plan.out_dir)
    _clear(plan)
    if fresh:
        _remove_outputs(plan)
    with doing(f"build {Path(plan.recipe.model.source).name}"), running(SOURCE, needed=True):
        source, reused = source_step(plan.recipe, plan.out_dir / SOURCE)
    if finish:
        bench_points(
            source.artifact, plan.recipe.bench.batches
        )  # refuse a batch size that cannot be measured before any work
    samples = Samples.of(
        plan.recipe.data.calibration, source.artifact.inputs, source.artifact.dims, source.artifact.random
    )
    baseline = read_baseline(plan, source.artifact) if finish else None  # also refused before any work
    results = _steps(plan, source, reused, samples)
    bench, bench_reused, bench_error = None, False, None
    try:
        with running("bench"):
            bench, bench_reused = bench_step(plan, results, samples) if finish else (None, False)
    except OptkitError as e:
        raise_if_interrupted(e)
        bench_error = str(e)  # the artifacts exist anyway, so their record is written
    drifts = artifact_drifts(lock, results) if lock else ()
    if lock is None and finish and plan.origin:  # what is in memory is gone with its process, and cannot be pinned
        pin(plan, results).write(plan.out_dir / LOCK_FILE)
    comparison = None
    if bench and baseline:
        results, comparison = check_regression(plan, results, bench, baseline, samples)
    first = results.pop(SOURCE)
    results, budget = check_budget(results, bench, plan.recipe.gates)
    winner = _winner(results, bench, plan.recipe.choose)
    packaged: tuple[Packaged, ...] = ()
    refusals: tuple[str, ...] = ()
    if finish:
        packaged, refusals = package_all(plan, results, winner, samples)
        ensembles, refused = package_ensembles(plan, results, winner)
        packaged, refusals = (*packaged, *ensembles), (*refusals, *refused)
    record = RunRecord(
        recipe=plan.recipe.name,
        origin=plan.origin,
        created=datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00"),
        optkit=__version__,
        versions=deps.built_with(),
        contract=ModelContract.of(source.artifact),
        machine=this_machine(),
        source=first,
        steps=tuple(results.values()),
        bench=bench,
        bench_reused=bench_reused,
        comparison=comparison,
        winner=winner,
        packaged=packaged,
        failures=(
            *_failures([first, *results.values()]),
            *budget,
            *refusals,
            *drifts,
            *([f"bench: {bench_error}"] if bench_error else []),
        ),
        bench_error=bench_error,
        seconds=time.perf_counter() - started,
    )
    record.write(plan.out_dir / RUN_FILE)
    return record


def read_run(folder: Path) -> RunRecord:
    """Return the record of the run in a folder.

    Raises:
        ArtifactError: there is none, or it has another version.
    """
    if not is_file(folder / RUN_FILE):
        raise ArtifactError(
            f"{folder}: contains no {RUN_FILE}; expected the folder of a run. Give the -o of optkit run."
        )
    return RunRecord.read(folder / RUN_FILE)


def _winner(results: Mapping[str, StepResult], bench: BenchRecord | None, choice: Choice) -> Winner | None:
    """Choose the winner among the steps; a step that cannot win has its reason in the result."""
    if bench is None:
        return None
    not_run = {missing.artifact: f"not run: {missing.reason}" for missing in bench.not_run}
    candidates = [
        Candidate(
            name=name,
            size_bytes=result.size_bytes or 0,
            accuracy=result.accuracy.value if result.accuracy else None,
            refused=_refusal(result) or not_run.get(name),
        )
        for name, result in results.items()
    ]
    return choose_winner(candidates, bench.measurements, bench.speed_ups, choice)


def _refusal(result: StepResult) -> str | None:
    if not result.made:
        return f"{result.status}: {result.reason}"
    return None if result.passed else "; ".join((*result.failures, *result.over_budget))


def _steps(plan: Plan, source: Passport, reused: bool, samples: Samples) -> dict[str, StepResult]:
    """Check the source, then make or reuse and check every step; a failure skips only the steps that depend on it."""
    requirements = Requirements(
        tolerances=plan.recipe.tolerances,
        evaluation=plan.recipe.data.evaluation,
        device=plan.recipe.bench.device,
    )
    prover = Prover(source.artifact, samples, requirements)
    source = _proven(prover, source)
    failures = gate_failures(source, None, plan.recipe.gates)
    results = {SOURCE: StepResult.of(source, name=SOURCE, stage=SOURCE, parent=None, reused=reused, failures=failures)}
    _log(results[SOURCE])
    for step in plan.steps:
        results[step.name] = _step(plan, step, results, prover)
        _log(results[step.name])
    return results


def _step(plan: Plan, step: PlannedStep, results: Mapping[str, StepResult], prover: Prover) -> StepResult:
    parent = results[step.parent].artifact
    if step.skip is not None:
        return _not_made(step, "skipped", step.skip)
    if parent is None:
        return _not_made(step, "skipped", f"its input {step.parent!r} was not made")
    try:
        with doing(step.name), running(step.name):
            passport, reused = stage_step(step.stage, parent, plan.out_dir / step.name, prover)
            passport = _proven(prover, passport)
    except (OptkitError, MemoryError) as e:
        raise_if_interrupted(e)
        logger.debug("%s failed", step.name, exc_info=True)
        return _not_made(step, "failed", str(e) if isinstance(e, OptkitError) else out_of_memory(e))
    return StepResult.of(
        passport,
        name=step.name,
        stage=step.stage.stage,
        parent=step.parent,
        reused=reused,
        optional=step.stage.optional,
        failures=gate_failures(passport, results[SOURCE].accuracy, plan.recipe.gates),
    )


def _not_made(step: PlannedStep, status: Literal["skipped", "failed"], reason: str) -> StepResult:
    return StepResult(
        name=step.name,
        stage=step.stage.stage,
        parent=step.parent,
        status=status,
        optional=step.stage.optional,
        reason=reason,
    )


def _proven(prover: Prover, passport: Passport) -> Passport:
    passport, known = prover.prove(passport)
    if not known:
        passport.save()
    return passport


def _failures(results: list[StepResult]) -> list[str]:
    """Return why the run did not pass; an optional step may fail."""
    found = []
    for result in results:
        if result.optional:
            continue
        if result.status == "failed":
            found.append(f"{result.name}: {result.reason}")
        found += [f"{result.name}: {failure}" for failure in result.failures]
    return found


def _log(result: StepResult) -> None:
    match result.status:
        case "built":
            text = f"built in {result.seconds or 0:.1f} s"
        case "reused":
            text = "reused, its inputs and settings have not changed"
        case _:
            text = f"{result.status}: {result.reason}"
    logger.info("%s: %s", result.name, text)
    for failure in result.failures:
        logger.warning("%s: %s", result.name, failure)
    for note in result.notes if result.status == "built" else ():
        logger.info("  %s", note)


def _clear(plan: Plan) -> None:
    """Delete what a killed run left half-written, in its folder and in the system's folder for temporary files."""
    for name in sorted({*FOLDERS.values()}):
        if is_folder(plan.out_dir / name):
            with writing(plan.out_dir / name):
                sweep(plan.out_dir / f"{name}_clients", deep=True, exclusive=True)
    sweep(plan.out_dir, exclusive=True)
    for name in (SOURCE, *(step.name for step in plan.steps), *(ensemble.name for ensemble in plan.recipe.ensembles)):
        sweep(plan.out_dir / name, deep=True, exclusive=True)
    with contextlib.suppress(OSError):  # there is none
        sweep(temporary_root())


def _remove_outputs(plan: Plan) -> None:
    """Remove the files that this recipe made in its folder, and nothing else."""
    for name in (SOURCE, *(step.name for step in plan.steps)):
        shutil.rmtree(plan.out_dir / name, ignore_errors=True)
    for name in (RUN_FILE, BENCH_FILE, PACKAGES_FILE):
        (plan.out_dir / name).unlink(missing_ok=True)
