"""What a recipe asks of an artifact before it may win and be packaged."""

from optkit.artifact import Passport
from optkit.findings import Accuracy
from optkit.recipe.keys import Gates
from optkit.tensors import batch_dim


def gate_failures(passport: Passport, reference: Accuracy | None, gates: Gates) -> tuple[str, ...]:
    """Return what an artifact does not hold: parity, batch independence, accuracy against that of the reference."""
    failures = []
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
        elif not reference.value - passport.accuracy.value <= gates.max_accuracy_drop:
            drop = reference.value - passport.accuracy.value
            failures.append(
                f"accuracy: {passport.accuracy.value:.4f} is {drop:.4f} below the source's {reference.value:.4f}; "
                f"at most {gates.max_accuracy_drop:g} is allowed"
            )
    return tuple(failures)
