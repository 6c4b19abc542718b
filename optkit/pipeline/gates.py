"""The gates of one artifact: it must pass them before it can win or be packaged."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from optkit.artifact import Passport
from optkit.artifact.engine import EngineFacts
from optkit.artifact.findings import Accuracy, Measurement, SpeedUp
from optkit.artifact.gates import Gates
from optkit.artifact.limits import at_least, at_most, fell_at_most
from optkit.artifact.tensors import batch_dim

if TYPE_CHECKING:  # only a whole run has a benchmark; a single step does not import it
    from optkit.benchmark.bench_record import BenchRecord


def gate_failures(passport: Passport, reference: Accuracy | None, gates: Gates) -> tuple[str, ...]:
    """Return the gates that an artifact fails: parity, batch independence, accuracy against the reference."""
    failures = [*_precision_failures(passport.artifact.engine)]
    if passport.unproven:
        return tuple(failures)
    if passport.parity and not passport.parity.passed:
        failures.append(f"parity: {passport.parity.failure}")
    quantization = passport.artifact.quantization
    if quantization and quantization.failure:
        failures.append(quantization.failure)
    independence = passport.batch_independence
    declared = batch_dim(passport.artifact.inputs) is not None
    if gates.batch_independence and declared and independence and independence.dim and not independence.passed:
        failures.append(f"batch independence: {independence.failure}")
    if gates.max_accuracy_drop is not None and reference:
        if passport.accuracy is None:
            failures += [] if failures else ["accuracy: not measured"]
        elif not fell_at_most(reference.value, passport.accuracy.value, gates.max_accuracy_drop):
            drop = reference.value - passport.accuracy.value
            failures.append(
                f"accuracy: {passport.accuracy.value:.4f} is {drop:.4f} below the source's {reference.value:.4f}; "
                f"at most {gates.max_accuracy_drop:g} is allowed"
            )
    return tuple(failures)


def _precision_failures(engine: EngineFacts | None) -> Iterator[str]:
    """Yield the failed gates on precision, from the engine inspector's count of layers."""
    if engine is None:
        return
    found = {share.precision: share.layers for share in engine.layers}
    for kind, least in engine.required.items():
        if not at_least(found.get(kind, 0.0), least):
            yield f"precision: {found.get(kind, 0.0):.0%} of the layers compute in {kind}; at least {least:.0%} is required"


def over_budget(name: str, size_bytes: int, bench: "BenchRecord | None", gates: Gates) -> tuple[str, ...]:
    """Return why a correct artifact may not be chosen: it is too large, too slow, or was not measured.

    Args:
        name: the artifact.
        size_bytes: the size of all its files.
        bench: the benchmark of the run; without one, only the size is checked.
        gates: the budget.
    """
    found = []
    size_mb = size_bytes / 1e6
    if gates.max_size_mb is not None and not at_most(size_mb, gates.max_size_mb):
        found.append(f"size: {size_mb:.3g} MB; at most {gates.max_size_mb:g} MB is allowed")
    if bench is None or (gates.max_latency_ms, gates.min_samples_per_s, gates.min_speedup) == (None, None, None):
        return tuple(found)
    mine = [m for m in bench.measurements if m.artifact == name]
    if not mine:
        return (*found, "latency: not measured")
    found += [*_latency_failures(mine, gates), *_throughput_failures(mine, gates)]
    found += _speed_up_failures([s for s in bench.speed_ups if s.candidate == name], gates)
    return tuple(found)


def _latency_failures(measured: Sequence[Measurement], gates: Gates) -> list[str]:
    p50_ms = {m.batch: m.p50_ms for m in measured}
    return [
        f"latency at batch {batch}: "
        + (f"p50 {p50_ms[batch]:.3g} ms; at most {most:g} ms is allowed" if batch in p50_ms else "not measured")
        for batch, most in _by_batch(gates.max_latency_ms, measured).items()
        if batch not in p50_ms or not at_most(p50_ms[batch], most)
    ]


def _throughput_failures(measured: Sequence[Measurement], gates: Gates) -> list[str]:
    rates = {m.batch: m.samples_per_s for m in measured}
    return [
        f"throughput at batch {batch}: "
        + (f"{rates[batch]:,.1f} samples/s; at least {least:g} is required" if batch in rates else "not measured")
        for batch, least in _by_batch(gates.min_samples_per_s, measured).items()
        if batch not in rates or not at_least(rates[batch], least)
    ]


def _by_batch(limit: float | dict[int, float] | None, measured: Sequence[Measurement]) -> dict[int, float]:
    """Return the limit of each batch size: a single limit applies to every measured one."""
    return limit if isinstance(limit, dict) else {m.batch: limit for m in measured if limit is not None}


def _speed_up_failures(speed_ups: Sequence[SpeedUp], gates: Gates) -> list[str]:
    least = gates.min_speedup
    return [
        f"speed-up at batch {s.batch}: {s.ratio:.2f}x {s.reference}; at least {least:g}x is required"
        for s in speed_ups
        if least is not None and not at_least(s.ratio, least)
    ]
