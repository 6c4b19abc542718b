"""Prove one artifact: parity with its reference, batch independence, accuracy; and hold it against the gates."""

import dataclasses

from pydantic import Field

from optkit import deps, user_code
from optkit.artifact import Artifact, Passport, Precision, hash_of
from optkit.check import check_batch_independence, check_parity, evaluate
from optkit.data import Samples
from optkit.findings import Accuracy, Tolerance
from optkit.recipe.keys import Gates
from optkit.record import Record
from optkit.runners import Device, open_runner
from optkit.tensors import batch_dim


class Requirements(Record):
    """What is asked of an artifact."""

    tolerances: dict[Precision, Tolerance] = Field(default_factory=dict)
    evaluation: str | None = None
    device: Device = Device.CPU


@dataclasses.dataclass(frozen=True)
class Prover:
    """Proves artifacts against one reference; what was found with the same questions is not asked again."""

    reference: Artifact
    samples: Samples
    asked: Requirements

    def prove(self, passport: Passport) -> tuple[Passport, bool]:
        """Return the passport with what was found about its artifact, and whether that was known already.

        The reference itself needs no parity.

        Raises:
            RunnerError: the reference or the artifact cannot be loaded on the device.
            FeedError: the real data does not fit the inputs.
            ModelError: the evaluation function fails.
        """
        key = self._key()
        if passport.proof_key == key:
            return passport, True
        artifact = passport.artifact
        tolerance = self.asked.tolerances.get(artifact.precision)
        parity = independence = accuracy = None
        with open_runner(artifact, self.asked.device) as candidate:
            if artifact.sha256 != self.reference.sha256:
                with open_runner(self.reference, self.asked.device) as right:
                    parity = check_parity(right, candidate, self.samples, artifact.dims, tolerance)
            if parity is None or parity.cosine is not None:  # else its answers cannot even be compared
                independence = check_batch_independence(candidate, self.samples, artifact.dims, tolerance)
                accuracy = evaluate(self.asked.evaluation, candidate) if self.asked.evaluation else None
        found = {"proof_key": key, "parity": parity, "batch_independence": independence, "accuracy": accuracy}
        return passport.model_copy(update=found), False

    def _key(self) -> str:
        asked = self.asked
        return hash_of(
            {
                "reference": self.reference.identity,
                "tolerances": {str(p): t.model_dump() for p, t in asked.tolerances.items()},
                "evaluation": user_code.code_sha256(asked.evaluation) if asked.evaluation else None,
                "data": self.samples.real.sha256() if self.samples.real else None,
                "device": asked.device,
                "versions": deps.built_with(),
            }
        )


def gate_failures(passport: Passport, reference: Accuracy | None, gates: Gates) -> tuple[str, ...]:
    """Return what an artifact does not hold: parity, batch independence, accuracy against that of the reference."""
    failures = []
    if passport.parity and not passport.parity.passed:
        failures.append(f"parity: {passport.parity.failure}")
    independence = passport.batch_independence
    declared = batch_dim(passport.artifact.inputs) is not None
    if gates.batch_independence and declared and independence and not independence.passed:
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
