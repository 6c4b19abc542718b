"""What a recipe asks of an artifact before it may win and be packaged."""

from collections.abc import Iterator

from optkit.artifact import Passport
from optkit.engine import EngineFacts
from optkit.findings import Accuracy
from optkit.recipe.keys import Gates
from optkit.tensors import batch_dim


def gate_failures(passport: Passport, reference: Accuracy | None, gates: Gates) -> tuple[str, ...]:
    """Return what an artifact does not hold: parity, batch independence, accuracy against that of the reference."""
    failures = [*_precision_failures(passport.artifact.engine)]
    if passport.unproven:
        return tuple(failures)
    if passport.parity and not passport.parity.passed:
        failures.append(f"parity: {passport.parity.failure}")
    independence = passport.batch_independence
    declared = batch_dim(passport.artifact.inputs) is not None
    if gates.batch_independence and declared and independence and independence.dim and not independence.passed:
        failures.append(f"batch independence: {independence.failure}")
    if gates.max_accuracy_drop is not None and reference:
        if passport.accuracy is None:
            failures += [] if failures else ["accuracy: not measured"]
        elif not reference.value - passport.accuracy.value <= gates.max_accuracy_drop:
            drop = reference.value - passport.accuracy.value
            failures.append(
                f"accuracy: {passport.accuracy.value:.4f} is {drop:.4f} below the source's {reference.value:.4f}; "
                f"at most {gates.max_accuracy_drop:g} is allowed"
            )
    return tuple(failures)


def _precision_failures(engine: EngineFacts | None) -> Iterator[str]:
    """Yield what the inspector's count of layers does not hold."""
    if engine is None:
        return
    found = {share.precision: share.layers for share in engine.layers}
    for kind, wanted in engine.required.items():
        if not found.get(kind, 0.0) >= wanted:
            yield f"precision: {found.get(kind, 0.0):.0%} of the layers compute in {kind}; at least {wanted:.0%} is asked for"
