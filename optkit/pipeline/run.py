"""Run a recipe: the tree of steps, their proofs, the benchmark, the winner and the packages."""

import logging
import shutil
import time
from collections.abc import Mapping

from optkit._version import __version__
from optkit.artifact import Passport, hash_of
from optkit.bench import measure, speed_ups, this_machine
from optkit.choose import fastest
from optkit.data import Feeds, Samples
from optkit.errors import ArtifactError, OptkitError
from optkit.pipeline.packages import PACKAGES_FILE, package_all
from optkit.pipeline.plan import SOURCE, Plan, PlannedStep
from optkit.pipeline.prove import Prover, Requirements, gate_failures
from optkit.pipeline.records import BenchRecord, RunRecord, StepResult
from optkit.pipeline.steps import source_step, stage_step
from optkit.progress import doing
from optkit.recipe import Recipe
from optkit.serving import Packaged

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
BENCH_FILE = "bench.json"


def run(plan: Plan, *, fresh: bool = False, finish: bool = True) -> RunRecord:
    """Carry out a plan and write `run.json` in its folder.

    Args:
        plan: made by `make_plan`.
        fresh: make everything anew, also what could be reused.
        finish: go on to the benchmark and the packages when the steps are done.

    Raises:
        ModelError: the model itself cannot be built or run. A step that fails is recorded, and the others go on.
        OutputError: the folder cannot be written.
    """
    started = time.perf_counter()
    if fresh:
        _forget(plan)
    results, passports = _steps(plan)
    source = results.pop(SOURCE)
    bench, bench_reused = _bench(plan, passports) if finish else (None, False)
    passed = [name for name, result in results.items() if result.passed]
    winner = fastest(bench.measurements, bench.speed_ups, passed) if bench else None
    packaged: tuple[Packaged, ...] = ()
    refusals: tuple[str, ...] = ()
    if finish:
        packaged, refusals = package_all(plan, results, passports, winner, _samples(plan.recipe))
    record = RunRecord(
        recipe=plan.recipe.name,
        optkit=__version__,
        machine=this_machine(),
        source=source,
        steps=tuple(results.values()),
        bench=bench,
        bench_reused=bench_reused,
        winner=winner,
        packaged=packaged,
        failures=(*_failures([source, *results.values()]), *refusals),
        seconds=time.perf_counter() - started,
    )
    record.write(plan.out_dir / RUN_FILE)
    return record


def _steps(plan: Plan) -> tuple[dict[str, StepResult], dict[str, Passport]]:
    """Make or reuse, and prove, the source and every step; a failure ends only the branch behind it."""
    with doing(f"build {plan.recipe.model.source.rpartition('/')[2]}"):
        source, reused = source_step(plan.recipe, plan.out_dir / SOURCE)
    asked = Requirements(
        tolerances=plan.recipe.tolerances,
        evaluation=plan.recipe.data.evaluation,
        device=plan.recipe.bench.device,
    )
    prover = Prover(source.artifact, _samples(plan.recipe), asked)
    source = _proven(prover, source)
    passports = {SOURCE: source}
    results = {
        SOURCE: StepResult.of(
            source,
            name=SOURCE,
            stage=SOURCE,
            parent=None,
            file=f"{SOURCE}/{source.artifact.path.name}",
            reused=reused,
            failures=gate_failures(source, None, plan.recipe.gates),
        )
    }
    _tell(results[SOURCE])
    for step in plan.steps:
        passport, results[step.name] = _step(plan, step, passports, prover)
        if passport:
            passports[step.name] = passport
        _tell(results[step.name])
    return results, passports


def _step(
    plan: Plan, step: PlannedStep, passports: Mapping[str, Passport], prover: Prover
) -> tuple[Passport | None, StepResult]:
    stage = step.stage
    reason = step.skip
    if reason is None and step.parent not in passports:
        reason = f"{step.parent!r}, which it takes, was not made"
    if reason is not None:
        return None, StepResult(
            name=step.name,
            stage=stage.stage,
            parent=step.parent,
            status="skipped",
            optional=stage.optional,
            reason=reason,
        )
    try:
        with doing(step.name):
            passport, reused = stage_step(stage, passports[step.parent].artifact, plan.out_dir / step.name)
        passport = _proven(prover, passport)
    except OptkitError as e:
        logger.debug("%s failed", step.name, exc_info=True)
        return None, StepResult(
            name=step.name,
            stage=stage.stage,
            parent=step.parent,
            status="failed",
            optional=stage.optional,
            reason=str(e),
        )
    result = StepResult.of(
        passport,
        name=step.name,
        stage=stage.stage,
        parent=step.parent,
        file=f"{step.name}/{passport.artifact.path.name}",
        reused=reused,
        optional=stage.optional,
        failures=gate_failures(passport, passports[SOURCE].accuracy, plan.recipe.gates),
    )
    return passport, result


def _proven(prover: Prover, passport: Passport) -> Passport:
    passport, known = prover.prove(passport)
    if not known:
        passport.save()
    return passport


def _bench(plan: Plan, passports: Mapping[str, Passport]) -> tuple[BenchRecord, bool]:
    """Measure all that can be run; what was measured of the same artifacts in the same way on this machine is kept."""
    runnable = {
        name: passport.artifact
        for name, passport in passports.items()
        if passport.parity is None or passport.parity.cosine is not None
    }
    machine, settings, samples = this_machine(), plan.recipe.bench, _samples(plan.recipe)
    key = hash_of(
        {
            "artifacts": {name: artifact.identity for name, artifact in runnable.items()},
            "settings": settings.model_dump(mode="json"),
            "machine": machine.model_dump(mode="json"),
            "data": samples.real.sha256() if samples.real else None,
        }
    )
    path = plan.out_dir / BENCH_FILE
    try:
        kept = BenchRecord.read(path) if path.is_file() else None
    except ArtifactError as e:
        logger.debug("not reused: %s", e)
        kept = None
    if kept and kept.key == key:
        return kept, True
    measurements = measure(runnable, samples, settings)
    record = BenchRecord(
        key=key,
        machine=machine,
        measurements=tuple(measurements),
        speed_ups=tuple(speed_ups(measurements, SOURCE)),
    )
    for name, passport in passports.items():
        mine = tuple(m.model_copy(update={"times_ms": ()}) for m in measurements if m.artifact == name)
        passport.model_copy(update={"measurements": mine}).save()
    record.write(path)
    return record, False


def _samples(recipe: Recipe) -> Samples:
    real = Feeds(recipe.data.calibration, recipe.inputs) if recipe.data.calibration else None
    return Samples(recipe.inputs, recipe.dims, real)


def _failures(results: list[StepResult]) -> list[str]:
    """Return what keeps the run from having passed; an optional step may fail."""
    found = []
    for result in results:
        if result.optional:
            continue
        if result.status == "failed":
            found.append(f"{result.name}: {result.reason}")
        found += [f"{result.name}: {failure}" for failure in result.failures]
    return found


def _tell(result: StepResult) -> None:
    match result.status:
        case "built":
            text = f"built in {result.seconds or 0:.1f} s"
        case "reused":
            text = "reused, nothing that went into it has changed"
        case _:
            text = f"{result.status}: {result.reason}"
    logger.info("%s: %s", result.name, text)
    for failure in result.failures:
        logger.warning("%s: %s", result.name, failure)
    for note in result.notes if result.status == "built" else ():
        logger.info("  %s", note)


def _forget(plan: Plan) -> None:
    """Remove what this recipe has made in its folder, and nothing else."""
    for name in (SOURCE, *(step.name for step in plan.steps)):
        shutil.rmtree(plan.out_dir / name, ignore_errors=True)
    for name in (RUN_FILE, BENCH_FILE, PACKAGES_FILE):
        (plan.out_dir / name).unlink(missing_ok=True)
