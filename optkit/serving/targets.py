"""Packaging of one artifact with its golden samples and its client."""

from collections.abc import Sequence
from pathlib import Path

from optkit.artifact import Artifact, Passport
from optkit.data import Samples
from optkit.runners import why_not_runnable
from optkit.serving import (
    ArtifactServing,
    Packaged,
    TritonServing,
    make_golden,
    package_torchserve,
    package_triton,
)
from optkit.serving.golden import golden_sizes
from optkit.serving.packaged import shared_batch
from optkit.serving.torchserve.golden import archive_golden


def package(
    passport: Passport,
    folder: Path,
    serving: ArtifactServing,
    *,
    name: str,
    samples: Samples,
    force: bool,
    others: Sequence[Artifact] = (),
) -> Packaged:
    """Write the artifact of a passport to a model repository or model store; the passport says whether it may be batched.

    Raises:
        OptkitError: the artifact cannot be packaged with these settings, or the package cannot be written. Nothing was changed.
    """
    done = _packaged(passport, folder, serving, name=name, samples=samples, force=force, others=others)
    note = not_run_note(passport, serving)
    return done.model_copy(update={"notes": (*done.notes, note)}) if note else done


def not_run_note(passport: Passport, serving: ArtifactServing) -> str | None:
    """Return a note if the server may send a batch of a size that was never run; None otherwise."""
    artifact = passport.artifact
    batch, _ = shared_batch(artifact)
    if not serving.batches or batch is None:
        return None
    if isinstance(serving, TritonServing):
        largest = serving.max_batch_size or artifact.dims[batch].max
    else:
        largest = serving.batch_size
    ran = [one.sizes.get(batch, 0) for one in passport.parity.outputs] if passport.parity else []
    if largest == 1 or max(ran, default=0) >= largest:
        return None
    return f"a batch of {largest}, which the server may send, was never run: compare the model at this size, or lower the size"


def _packaged(
    passport: Passport,
    folder: Path,
    serving: ArtifactServing,
    *,
    name: str,
    samples: Samples,
    force: bool,
    others: Sequence[Artifact],
) -> Packaged:
    artifact, independence = passport.artifact, passport.batch_independence
    if isinstance(serving, TritonServing):
        sample = samples.at({dim: r.opt for dim, r in artifact.dims.items()}) if serving.warmup else None
        return package_triton(
            artifact,
            folder,
            serving,
            name=name,
            independence=independence,
            sample=sample,
            golden=None if why_not_runnable(artifact) else make_golden(artifact, samples),
            force=force,
            others=others,
        )
    tried = samples.at(golden_sizes(artifact.inputs, artifact.dims)) if serving.client else None
    return package_torchserve(
        artifact,
        folder,
        serving,
        name=name,
        independence=independence,
        golden=None
        if serving.handler or why_not_runnable(artifact)
        else archive_golden(artifact, samples, serving.image),
        sample=tried,
        force=force,
    )
