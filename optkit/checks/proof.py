"""All checks of one artifact: parity with its reference, batch independence, accuracy."""

import dataclasses
from collections.abc import Callable

from pydantic import Field

from optkit import user_code
from optkit.artifact import Artifact, Format, Passport, Precision, environment, read_passport
from optkit.artifact.calibration import shifts
from optkit.artifact.findings import BatchIndependence, Parity, Tolerance
from optkit.checks.accuracy import evaluate
from optkit.checks.batching import check_batch_independence
from optkit.checks.parity import check_parity
from optkit.data import Samples
from optkit.hashing import hash_of
from optkit.record import Record
from optkit.runners import Device, Runner, open_runner, why_not_runnable


class Requirements(Record):
    """The requirements on an artifact: tolerances by precision, and the evaluation function."""

    tolerances: dict[Precision, Tolerance] = Field(default_factory=dict)
    evaluation: str | None = None
    device: Device = Device.CPU


@dataclasses.dataclass(frozen=True)
class _Found:
    """The results of running one artifact; its independence is checked only after parity."""

    parity: Parity
    independence: BatchIndependence | None


@dataclasses.dataclass(frozen=True)
class Prover:
    """Checks artifacts against one reference; a result with the same inputs is reused."""

    reference: Artifact
    samples: Samples
    requirements: Requirements
    open_runner: Callable[..., Runner] = open_runner  # a test gives its own
    _found: dict[str, _Found] = dataclasses.field(default_factory=dict)

    def parity(self, artifact: Artifact) -> Parity:
        """Return the parity of an artifact with the reference, checked once for each content.

        Raises:
            RunnerError: the reference or the artifact cannot be loaded on the device.
            FeedError: the real data does not fit the inputs.
        """
        if artifact.sha256 not in self._found:
            tolerance = self.requirements.tolerances.get(artifact.precision)
            with (
                self.open_runner(artifact, self._device(artifact)) as candidate,
                self.open_runner(self.reference, self.requirements.device) as reference,
            ):
                # An engine has parity when each of its profiles has.
                found = [check_parity(reference, candidate, self.samples, dims, tolerance) for dims in artifact.ranges]
                outputs = tuple(output for one in found for output in one.outputs)
                parity = found[0].model_copy(update={"outputs": outputs})
                # Here, because the artifact is loaded: its independence is needed next.
                independence = self._independence(candidate) if parity.passed else None
            self._found[artifact.sha256] = _Found(parity, independence)
        return self._found[artifact.sha256].parity

    def prove(self, passport: Passport) -> tuple[Passport, bool]:
        """Return the passport with the results for its artifact, and whether it had them already.

        The reference itself needs no parity.

        Raises:
            RunnerError: the reference or the artifact cannot be loaded on the device.
            FeedError: the real data does not fit the inputs.
            ModelError: the evaluation function fails.
        """
        key = self.key()
        if passport.proof_key == key and not user_code.changed(passport.proof_reads, self.targets):
            return passport, True
        artifact = passport.artifact
        if why_not := why_not_runnable(artifact):
            # Batch independence is a property of the graph, so the result for the reference holds for its engine.
            known = read_passport(self.reference.path, hashed=False)  # opening the reference has hashed it
            taken = {"proof_key": key, "unproven": why_not, "batch_independence": known and known.batch_independence}
            return passport.model_copy(update=taken), False
        parity = self.parity(artifact) if artifact.sha256 != self.reference.sha256 else None
        independence = self._found[artifact.sha256].independence if parity else None
        accuracy = None
        comparable = parity is None or parity.cosine is not None  # else there are no finite outputs
        if comparable and (independence is None or self.requirements.evaluation):
            with self.open_runner(artifact, self._device(artifact)) as candidate:
                independence = independence or self._independence(candidate)
                accuracy = (
                    evaluate(self.requirements.evaluation, candidate.infer) if self.requirements.evaluation else None
                )
        calibration = artifact.calibration
        unlike = shifts(calibration.diagnosis.moments, accuracy.inputs) if calibration and accuracy else ()
        found = {
            "proof_key": key,
            "proof_reads": user_code.reads(self.targets),
            "unproven": None,
            "parity": parity,
            "batch_independence": independence,
            "accuracy": accuracy,
            "shifts": unlike,
        }
        return passport.model_copy(update=found), False

    def _device(self, artifact: Artifact) -> Device:
        """An engine runs on a GPU, and a package on the device that it is compiled for, whatever the device of the others."""
        if artifact.compiled:
            return Device(artifact.compiled.device)
        return Device.CUDA if artifact.format is Format.TENSORRT else self.requirements.device

    def _independence(self, candidate: Runner) -> BatchIndependence:
        tolerance = self.requirements.tolerances.get(candidate.artifact.precision)
        return check_batch_independence(candidate, self.samples, candidate.artifact.dims, tolerance)

    @property
    def targets(self) -> tuple[str | None, str | None]:
        """The user's functions that the results depend on, where they are code."""
        return self.requirements.evaluation, self.samples.real.target if self.samples.real else None

    def key(self) -> str:
        """Return the hash of the requirements, and of all else that the results depend on besides the artifact."""
        wanted = self.requirements
        return hash_of(
            {
                "reference": self.reference.identity,
                "tolerances": {str(p): t.model_dump() for p, t in wanted.tolerances.items()},
                "evaluation": user_code.code_sha256(wanted.evaluation) if wanted.evaluation else None,
                "data": self.samples.real.sha256() if self.samples.real else None,
                "device": wanted.device,
                "versions": environment.versions(*environment.RUNTIMES),
                "hardware": environment.hardware(gpu=wanted.device is Device.CUDA),
            }
        )
