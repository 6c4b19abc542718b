"""The benchmark of a run, kept as long as its artifacts, its settings and the machine are the same."""

import logging
from collections.abc import Mapping

from optkit.artifact import Passport, hash_of
from optkit.bench import load_average, measure, speed_ups, this_machine
from optkit.data import Samples
from optkit.errors import ArtifactError
from optkit.pipeline.plan import SOURCE, Plan
from optkit.pipeline.records import BenchRecord

logger = logging.getLogger(__name__)

BENCH_FILE = "bench.json"


def bench_step(plan: Plan, passports: Mapping[str, Passport], samples: Samples) -> tuple[BenchRecord, bool]:
    """Measure all that can be run; what was measured of the same artifacts in the same way on this machine is kept."""
    runnable = {
        name: passport.artifact
        for name, passport in passports.items()
        if passport.parity is None or passport.parity.cosine is not None
    }
    machine, settings = this_machine(), plan.recipe.bench
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
    load = load_average()
    measurements = measure(runnable, samples, settings)
    record = BenchRecord(
        key=key,
        machine=machine,
        settings=settings,
        load_before=load,
        measurements=tuple(measurements),
        speed_ups=tuple(speed_ups(measurements, SOURCE)),
    )
    for name, passport in passports.items():
        mine = tuple(m.model_copy(update={"times_ms": ()}) for m in measurements if m.artifact == name)
        passport.model_copy(update={"measurements": mine}).save()
    record.write(path)
    return record, False
