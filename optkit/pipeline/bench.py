"""The benchmark of a run. It is reused while the artifacts, the settings and the machine are the same."""

import logging
from collections.abc import Mapping

from optkit import deps, user_code
from optkit.artifact import Artifact, Format, Passport, environment
from optkit.artifact.findings import NotRun
from optkit.benchmark import BenchSettings, Machine, load_average, measure, this_machine
from optkit.benchmark.bench_record import BenchRecord, MeasuredFile, ModelContract
from optkit.data import Samples
from optkit.errors import ArtifactError
from optkit.hashing import hash_of
from optkit.pipeline.plan import SOURCE, Plan
from optkit.pipeline.records import StepResult
from optkit.runners import Device
from optkit.untrusted.paths import is_file

logger = logging.getLogger(__name__)

BENCH_FILE = "bench.json"
WRONG = "its outputs cannot be compared with those of the source (parity), so its latency is not measured"


def bench_step(plan: Plan, results: Mapping[str, StepResult], samples: Samples) -> tuple[BenchRecord, bool]:
    """Measure every artifact that can run here, or reuse the last benchmark if its key is the same; return whether it was reused."""
    passports = {name: result.passport for name, result in results.items() if result.passport}
    runnable = {
        name: passport.artifact
        for name, passport in passports.items()
        if (passport.parity is None or passport.parity.cosine is not None) and not _cannot_run(passport, plan)
    }
    machine, settings = this_machine(), plan.recipe.bench
    key = hash_of(
        {
            "artifacts": {name: artifact.identity for name, artifact in runnable.items()},
            "settings": settings.model_dump(mode="json"),
            "machine": machine.model_dump(mode="json"),
            "data": samples.real.sha256() if samples.real else None,
            "versions": environment.versions(*environment.RUNTIMES),
            "hardware": environment.hardware(gpu=settings.device is Device.CUDA),
        }
    )
    path = plan.out_dir / BENCH_FILE
    try:
        kept = BenchRecord.read(path) if is_file(path) else None
    except ArtifactError as e:
        logger.warning("not reused: %s", e)
        kept = None
    targets = (samples.real.target if samples.real else None,)
    if kept and kept.key == key and not user_code.changed(kept.reads, targets):
        return kept, True
    record = bench_record(runnable, samples, settings, machine, reference=SOURCE)
    wrong = [
        NotRun(artifact=name, reason=_cannot_run(passport, plan) or WRONG)
        for name, passport in passports.items()
        if name not in runnable
    ]
    record = record.model_copy(
        update={
            "key": None if record.interrupted else key,
            "reads": user_code.reads(targets),
            "not_run": (*record.not_run, *wrong),
        }
    )
    for name, passport in passports.items():
        mine = tuple(m.model_copy(update={"times_ms": ()}) for m in record.measurements if m.artifact == name)
        passport.model_copy(update={"measurements": mine}).save()
    record.write(path)
    if record.interrupted:
        logger.warning("interrupted: %d complete blocks are stored in %s", len(record.order), path)
        raise KeyboardInterrupt
    return record, False


def bench_record(
    artifacts: Mapping[str, Artifact], samples: Samples, settings: BenchSettings, machine: Machine, reference: str
) -> BenchRecord:
    """Measure artifacts against one of them, and return the measurements with the machine that they were made on.

    Raises:
        FeedError: a batch size is outside the declared range.
        RunnerError: no artifact can run on the device.
    """
    load = load_average()
    found = measure(artifacts, samples, settings, reference)
    return BenchRecord(
        machine=machine,
        settings=settings,
        versions=deps.built_with(),
        contract=ModelContract.of(artifacts[reference]),
        files=tuple(MeasuredFile.of(name, artifact) for name, artifact in artifacts.items()),
        load_before=load,
        order=found.order,
        measurements=found.measurements,
        speed_ups=found.speed_ups,
        concurrency=found.concurrency,
        knees=found.knees,
        not_run=found.not_run,
        interrupted=found.interrupted,
        left_out=found.left_out,
    )


def _cannot_run(passport: Passport, plan: Plan) -> str | None:
    """Return why an engine is not measured, or None: it cannot run here, or the benchmark runs on another device."""
    if passport.unproven:
        return passport.unproven
    if passport.artifact.format is Format.TENSORRT and plan.recipe.bench.device is not Device.CUDA:
        return "an engine needs a GPU, and bench.device is cpu"
    compiled = passport.artifact.compiled
    if compiled and compiled.device != plan.recipe.bench.device:
        return f"the package is compiled for {compiled.device}, and bench.device is {plan.recipe.bench.device}"
    return None
